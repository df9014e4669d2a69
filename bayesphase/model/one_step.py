"""One-step predictions: how likely a checkpoint is, given those of its run that came before."""

from typing import Any

import numpy as np

from bayesphase.model.forward_backward import (
    check,
    floats,
    forward,
    gather,
    most_rows,
    new_group,
    weigh,
)
from bayesphase.model.lanes import Layout, running
from bayesphase.model.log_space import one_step_run
from bayesphase.model.potentials import scaled
from bayesphase.model.simd import LANES, inner, kernel


@inner
def one_step_group(index: int, group: Any, potentials: Any, layout: Any, out: Any) -> None:
    """Write the log densities of the rows of a filtered group to `out` (row)."""
    tops, norms, rows = group.top, group.norm, group.rows
    by_length, lengths = layout.by_length, layout.lengths
    row = 0
    for t in range(lengths[by_length[LANES * index]]):
        active = running(index, t, by_length, lengths)
        for lane in range(active):
            at = rows[row + lane]
            lost = potentials.initial_top
            if t > 0:
                lost = potentials.transition_top[layout.gap_index[at]]
            out[at] = tops[row + lane] + np.log(norms[row + lane]) + lost
        row += active


@kernel
def _one_step(log_emission: Any, log_transition: Any, log_initial: Any, layout: Any) -> Any:
    check(log_emission, log_transition, log_initial, layout)
    n_rows, n_states = log_emission.shape
    n_runs = layout.lengths.shape[0]
    out, log_likelihood = np.zeros(n_rows), np.empty(n_runs)
    potentials = scaled(log_transition, log_initial)
    group = new_group(n_states, most_rows(layout))
    for index in range((n_runs + LANES - 1) // LANES):
        n = gather(index, log_emission, layout, group)
        weigh(group, n)
        forward(index, group, potentials, layout, log_likelihood)
        one_step_group(index, group, potentials, layout, out)
    for run in range(n_runs):
        if not np.isfinite(log_likelihood[run]):
            rows = slice(layout.starts[run], layout.starts[run] + layout.lengths[run])
            one_step_run(log_emission[rows], potentials, layout.gap_index[rows], out[rows])
    return out


def one_step(
    log_emission: np.ndarray, log_transition: np.ndarray, log_initial: np.ndarray, layout: Layout
) -> np.ndarray:
    """Log density (row) of every row given those of its run before, nats.

    Arguments as in `forward_backward`.
    """
    return _one_step(*floats(log_emission, log_transition, log_initial), layout)
