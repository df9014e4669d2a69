"""Potentials out of log space, and the transition matrices that eight runs take at a step."""

from typing import Any, NamedTuple

import numpy as np

from bayesphase.model.simd import LANES, inner

# The recursions in probability space lose what is too small for them: weights under 7e-218 of the
# row's largest, next to the rest of a row that must add up to TINY at least. Where each transition
# has that probability, every state is entered with it, too, and what was lost is nothing beside.
TINY = 1e-60
# Where some are closed, a state may be entered with any probability. Those of open ways are lifted
# to LIFTED at least, which is more than what was lost, and no probability of a way that is open
# becomes 0. What is added to a state at a step is less than ADDED, with a thousand states.
LIFTED, ADDED = 1e-150, 1e-147
# As shares of the likelihood up to a row: what is lifted may make up that much of it.
NEGLIGIBLE = 1e-16
# Products of two that are open are above this; it is far from where doubles lose digits.
OPEN = 1e-301


class Potentials(NamedTuple):
    """Potentials in log space and out of it, there divided by their largest, whose log is kept.

    `closed` says whether some are 0, or nearly so, and then those that are not are `LIFTED` at
    least.
    """

    log_transition: np.ndarray
    log_initial: np.ndarray
    transition: np.ndarray
    transition_top: np.ndarray
    initial: np.ndarray
    initial_top: float
    closed: bool


@inner
def _exp(logs: Any, out: Any) -> Any:
    """Write exp(logs - top), all (potential); returns the top, and whether some are closed."""
    top, closed = -np.inf, False
    for x in logs:
        if x > top:
            top = x
    top = top if np.isfinite(top) else 0.0
    for i in range(logs.shape[0]):
        out[i] = np.exp(logs[i] - top)
        closed = closed or out[i] < TINY
        if logs[i] > -np.inf:
            out[i] = max(out[i], LIFTED)
    return top, closed


@inner
def scaled(log_transition: Any, log_initial: Any) -> Any:
    """Take potentials out of log space."""
    n_gaps, n_states, _ = log_transition.shape
    transition, tops = np.empty_like(log_transition), np.empty(n_gaps)
    initial = np.empty(n_states)
    initial_top, closed = _exp(log_initial, initial)
    for g in range(n_gaps):
        tops[g], some = _exp(log_transition[g].ravel(), transition[g].reshape(n_states * n_states))
        closed = closed or some
    return Potentials(log_transition, log_initial, transition, tops, initial, initial_top, closed)


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
    width = n_states + n_states % 2
    step = Step(np.zeros((n_states, width, LANES)), np.empty(LANES), np.empty(LANES, np.int64))
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
