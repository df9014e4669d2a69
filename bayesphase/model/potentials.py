"""Potentials out of log space, and the transition matrices that eight runs take at a step."""

from typing import Any, NamedTuple

import numpy as np

from bayesphase.model.simd import LANES, inner

# Below this a probability sends its run to log space. A double loses mass under 1e-308 of its row;
# as long as what is divided by stays above 1e-100, what was lost is under 1e-100 of what is kept.
TINY = 1e-100


class Potentials(NamedTuple):
    """Potentials in log space and out of it, there divided by their largest, whose log is kept.

    `whole_columns` says whether a state that is ruled out at a row is so from wherever a run comes,
    as known states are: no probability is then 0 for having been too small.
    """

    log_transition: np.ndarray
    log_initial: np.ndarray
    transition: np.ndarray
    transition_top: np.ndarray
    initial: np.ndarray
    initial_top: float
    whole_columns: bool


@inner
def scaled(log_transition: Any, log_initial: Any) -> Any:
    """Take potentials out of log space."""
    n_gaps, n_states, _ = log_transition.shape
    transition, tops = np.empty_like(log_transition), np.empty(n_gaps)
    for g in range(n_gaps):
        top = -np.inf
        for i in range(n_states):
            for j in range(n_states):
                if log_transition[g, i, j] > top:
                    top = log_transition[g, i, j]
        tops[g] = top if np.isfinite(top) else 0.0
        for i in range(n_states):
            for j in range(n_states):
                transition[g, i, j] = np.exp(log_transition[g, i, j] - tops[g])
    initial, top = np.empty(n_states), -np.inf
    for j in range(n_states):
        if log_initial[j] > top:
            top = log_initial[j]
    top = top if np.isfinite(top) else 0.0
    for j in range(n_states):
        initial[j] = np.exp(log_initial[j] - top)
    whole = _in_whole_columns(log_transition, transition) and np.isfinite(log_initial).all()
    return Potentials(log_transition, log_initial, transition, tops, initial, top, whole)


@inner
def _in_whole_columns(log_transition: Any, transition: Any) -> bool:
    """Say whether zeros (gap, state, state) fill columns, rows of zeros apart; and are there.

    Numbers that are nearly 0, or became so out of log space, are not ruled out, and not welcome.
    """
    n_gaps, n_states, _ = transition.shape
    found = False
    for g in range(n_gaps):
        for j in range(n_states):
            closed, opened = False, False
            for i in range(n_states):
                if transition[g, i].max() > 0.0:
                    closed = closed or transition[g, i, j] == 0.0
                    opened = opened or transition[g, i, j] > 0.0
                    if transition[g, i, j] < TINY and log_transition[g, i, j] > -np.inf:
                        return False
                else:
                    found = True
            if closed and opened:
                return False
            found = found or closed
    return found


class Step(NamedTuple):
    """The transition matrices that eight runs take: those of their current gaps.

    `matrix` (state, state, lane), `top` (lane) the logarithm of what it was divided by, `gap`
    (lane) its number.
    """

    matrix: np.ndarray
    top: np.ndarray
    gap: np.ndarray


@inner
def new_step(n_states: int, potentials: Any) -> Any:
    """All lanes with the matrix of the first gap."""
    step = Step(np.empty((n_states, n_states, LANES)), np.empty(LANES), np.empty(LANES, np.int64))
    for lane in range(LANES):
        reset(step, lane, 0, potentials)
    return step


@inner
def reset(step: Any, lane: int, gap: int, potentials: Any) -> None:
    """Give a lane the matrix of a gap."""
    matrix, transition = step.matrix, potentials.transition
    n_states = matrix.shape[0]
    step.gap[lane] = gap
    step.top[lane] = potentials.transition_top[gap]
    for i in range(n_states):
        for j in range(n_states):
            matrix[i, j, lane] = transition[gap, i, j]


@inner
def take(step: Any, row: int, active: int, group: Any, potentials: Any, layout: Any) -> None:
    """Give every lane the matrix that leads into its row, of the `active` ones from `row` on."""
    for lane in range(active):
        gap = layout.gap_index[group.rows[row + lane]]
        if gap != step.gap[lane]:
            reset(step, lane, gap, potentials)
