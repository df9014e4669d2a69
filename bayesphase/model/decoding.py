"""Paths through the states: drawn from their posterior, or the most probable one.

Arguments and their dims as in `forward_backward`.
"""

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
from bayesphase.model.log_space import filter_run
from bayesphase.model.potentials import scaled
from bayesphase.model.simd import LANES, inner, kernel


@inner
def _best(score: Any) -> int:
    """Find the largest, the first of equals; NaN beats all."""
    best = 0
    for i in range(score.shape[0]):
        if score[i] > score[best] or np.isnan(score[i]):
            best = i
    return best


@inner
def _draw(weight: Any, uniform: float) -> int:
    """State drawn with probability in proportion to `weight`, never one without any."""
    total = 0.0
    for w in weight:
        total += w
    threshold = uniform * total
    total = 0.0
    for k in range(weight.shape[0]):
        total += weight[k]
        if total > threshold:
            return k
    return _best(weight)


@inner
def draw_run(
    log_emission: Any, potentials: Any, gap_index: Any, uniforms: Any, states: Any
) -> float:
    """Draw the `states` (row) of one run in log space; returns its log-likelihood."""
    log_transition = potentials.log_transition
    n_rows, n_states = log_emission.shape
    filtered, weight = np.empty((n_rows, n_states)), np.empty(n_states)
    value = filter_run(log_emission, potentials, gap_index, filtered, np.empty(n_rows))
    if not np.isfinite(value):
        states[:] = -1
        return value
    for t in range(n_rows - 1, -1, -1):
        top = -np.inf
        for k in range(n_states):
            if t < n_rows - 1:
                filtered[t, k] += log_transition[gap_index[t + 1], k, states[t + 1]]
            top = max(top, filtered[t, k])
        for k in range(n_states):
            weight[k] = np.exp(filtered[t, k] - top)
        states[t] = _draw(weight, uniforms[t])
    return value


@inner
def draw_group(
    index: int, n_rows: int, group: Any, potentials: Any, layout: Any, uniforms: Any, states: Any
) -> None:
    """Draw the `states` (row) of the runs of a filtered group."""
    rows, probs = group.rows, group.probs
    by_length, lengths = layout.by_length, layout.lengths
    transition, gap_index = potentials.transition, layout.gap_index
    n_states = probs.shape[0]
    weight = np.empty(n_states)
    row, later = n_rows, 0
    for t in range(lengths[by_length[LANES * index]] - 1, -1, -1):
        active = running(index, t, by_length, lengths)
        row -= active
        for lane in range(active):
            at = rows[row + lane]
            for k in range(n_states):
                weight[k] = probs[k, row + lane]
                if lane < later:
                    weight[k] *= transition[gap_index[at + 1], k, states[at + 1]]
            states[at] = _draw(weight, uniforms[at])
        later = active


@kernel
def sample_paths_kernel(
    log_emission: Any, log_transition: Any, log_initial: Any, layout: Any, uniforms: Any
) -> Any:
    """Draw the states of every run with `uniforms` (row); see `sample_paths`."""
    check(log_emission, log_transition, log_initial, layout)
    n_rows, n_states = log_emission.shape
    n_runs = layout.lengths.shape[0]
    states, log_likelihood = np.full(n_rows, -1, np.int8), np.empty(n_runs)
    potentials = scaled(log_transition, log_initial)
    group = new_group(n_states, most_rows(layout))
    for index in range((n_runs + LANES - 1) // LANES):
        n = gather(index, log_emission, layout, group)
        weigh(group, n)
        forward(index, group, potentials, layout, log_likelihood)
        draw_group(index, n, group, potentials, layout, uniforms, states)
    for run in range(n_runs):
        if not np.isfinite(log_likelihood[run]):
            rows = slice(layout.starts[run], layout.starts[run] + layout.lengths[run])
            log_likelihood[run] = draw_run(
                log_emission[rows], potentials, layout.gap_index[rows], uniforms[rows], states[rows]
            )
    return states, log_likelihood


def sample_paths(
    log_emission: np.ndarray,
    log_transition: np.ndarray,
    log_initial: np.ndarray,
    layout: Layout,
    *,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the states of every run from p(z_1..T | y, parameters), jointly.

    Forward filtering, backward sampling (Carter & Kohn 1994, doi:10.1093/biomet/81.3.541).
    Arguments as in `forward_backward`.

    Returns
    -------
    states : int8 ndarray (row)
        -1 in rows of no run, and in runs whose log-likelihood is not finite.
    log_likelihood : ndarray (run)
    """
    arrays = floats(log_emission, log_transition, log_initial)
    return sample_paths_kernel(*arrays, layout, rng.random(len(log_emission)))


@kernel
def _viterbi(log_emission: Any, log_transition: Any, log_initial: Any, layout: Any) -> Any:
    check(log_emission, log_transition, log_initial, layout)
    n_rows, n_states = log_emission.shape
    gap_index, starts, lengths = layout.gap_index, layout.starts, layout.lengths
    states = np.full(n_rows, -1, np.int8)
    back = np.empty((n_rows, n_states), np.int8)
    score, new, joint = np.empty(n_states), np.empty(n_states), np.empty(n_states)
    for r in range(lengths.shape[0]):
        first, stop = starts[r], starts[r] + lengths[r]
        for row in range(first, stop):
            for j in range(n_states):
                new[j] = log_initial[j]
                if row > first:
                    for i in range(n_states):
                        joint[i] = score[i] + log_transition[gap_index[row], i, j]
                    back[row, j] = _best(joint)
                    new[j] = joint[back[row, j]]
                new[j] += log_emission[row, j]
            top = new[_best(new)]
            for j in range(n_states):  # differences are all that matters, and they stay small
                score[j] = new[j] - top if np.isfinite(top) else new[j]
        state = _best(score)
        if np.isfinite(score[state]):
            for row in range(stop - 1, first - 1, -1):
                states[row] = state
                state = back[row, state]
    return states


def viterbi(
    log_emission: np.ndarray, log_transition: np.ndarray, log_initial: np.ndarray, layout: Layout
) -> np.ndarray:
    """Most probable joint states of every run (Viterbi 1967, doi:10.1109/TIT.1967.1054010).

    Arguments as in `forward_backward`.

    Returns
    -------
    int8 ndarray (row), -1 in rows of no run and in impossible runs
    """
    arrays = floats(log_emission, log_transition, log_initial)
    return _viterbi(*arrays, layout)
