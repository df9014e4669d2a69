"""Which searches for a starting point ended in the same mode, whatever they call the states."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from bayesphase.model import offsets
from bayesphase.model.decoding import viterbi
from bayesphase.model.initial import Start
from bayesphase.model.spec import Spec

# nats that a search may end below the top, and the share of checkpoints whose state is the same
_CLOSE = 0.1
_ALIKE = 0.95


def number_modes(starts: list[Start], spec: Spec) -> list[int]:
    """Give the ends of searches, the best first, the numbers (start) of the modes they are in.

    Two are in one mode if they are as probable and their most probable paths cut the runs alike.
    """
    known: list[tuple[float, np.ndarray]] = []
    numbers = []
    for start in starts:
        path = _path(start, spec)
        for number, (log_density, other) in enumerate(known):
            close = log_density - start.log_density < _CLOSE
            if close and _agreement(path, other, spec.n_states) >= _ALIKE:
                numbers.append(number)
                break
        else:
            numbers.append(len(known))
            known.append((start.log_density, path))
    return numbers


def _path(start: Start, spec: Spec) -> np.ndarray:
    """Most probable path (row)."""
    values = offsets.without(spec.rows, start.parameters).values
    log_emission = spec.emission.log_density(values, spec.rows, start.parameters, np)
    with np.errstate(divide="ignore"):  # a probability may have underflowed to 0
        log_transition, log_initial = spec.transition.log_potentials(start.parameters, np)
    return viterbi(log_emission, log_transition, log_initial, spec.rows.layout)


def _agreement(path: np.ndarray, other: np.ndarray, n_states: int) -> float:
    """Share of rows in the same state, with the names that make it the largest."""
    counts = np.zeros((n_states, n_states))
    np.add.at(counts, (path, other), 1.0)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(path))
