"""The recursions for a single run in log space: slow, and exact whatever the potentials are.

The fast recursions work with probabilities, eight runs at a time, and hand a run over when what is
too small for a double could matter.
"""

from typing import Any

import numpy as np

from bayesphase.model.simd import inner

# terms of a sum, by their logarithm less that of the largest, which are lost in its rounding, and
# logarithms whose exponential is 0: exponentials are what takes time here
_NEGLIGIBLE, _NOTHING = -50.0, -746.0


@inner
def _log_sum_exp(x: Any) -> float:
    top = -np.inf
    for value in x:
        if value > top or np.isnan(value):
            top = value
    if np.isinf(top) or np.isnan(top):
        return top
    total = 0.0
    for value in x:
        if (
            value - top > _NEGLIGIBLE
        ):  # most are not, where transitions are ruled out or states clear
            total += np.exp(value - top)
    return top + np.log(total)


@inner
def filter_run(
    log_emission: Any, potentials: Any, gap_index: Any, filtered: Any, norms: Any
) -> float:
    """Log-likelihood of one run.

    `filtered` (row, state) becomes log p(z_t | y_1..t), and `norms` (row) log p(y_t | y_1..t-1), up
    to the first that is not finite.
    """
    log_transition = potentials.log_transition
    n_rows, n_states = log_emission.shape
    joint = np.empty(n_states)
    log_likelihood = 0.0
    for t in range(n_rows):
        for j in range(n_states):
            if t == 0:
                predicted = potentials.log_initial[j]
            else:
                for i in range(n_states):
                    move = log_transition[gap_index[t], i, j]
                    joint[i] = filtered[t - 1, i] + move
                predicted = _log_sum_exp(joint)
            filtered[t, j] = predicted + log_emission[t, j]
        norm = _log_sum_exp(filtered[t])
        norms[t] = norm
        log_likelihood += norm
        if not np.isfinite(norm):
            return log_likelihood
        for j in range(n_states):
            filtered[t, j] -= norm
    return log_likelihood


@inner
def smooth_run(
    log_emission: Any, potentials: Any, gap_index: Any, probs: Any, expected: Any
) -> float:
    """Log-likelihood of one run, and what is known of its states, all of it 0 if that is infinite.

    Writes the smoothed `probs` (row, state) and the `expected` transitions (gap, state, state).
    """
    log_transition = potentials.log_transition
    n_rows, n_states = probs.shape
    value = filter_run(log_emission, potentials, gap_index, probs, np.empty(n_rows))
    expected[:] = 0.0
    if not np.isfinite(value):
        probs[:] = 0.0
        return value
    for j in range(n_states):
        probs[n_rows - 1, j] = np.exp(probs[n_rows - 1, j])
    joint = np.empty(n_states)
    total = np.empty(n_states)
    for t in range(n_rows - 2, -1, -1):
        g = gap_index[t + 1]
        total[:] = 0.0
        for j in range(n_states):
            if probs[t + 1, j] > 0.0:
                for i in range(n_states):
                    joint[i] = probs[t, i] + log_transition[g, i, j]
                norm = _log_sum_exp(joint)
                for i in range(n_states):
                    if joint[i] - norm > _NOTHING:
                        pair = probs[t + 1, j] * np.exp(joint[i] - norm)
                        expected[g, i, j] += pair
                        total[i] += pair
        for i in range(n_states):
            probs[t, i] = total[i]
    return value


@inner
def leave_one_out_run(log_emission: Any, potentials: Any, gap_index: Any, out: Any) -> None:
    """Log density of every row of a run given all the others, as in `leave_one_out`."""
    log_transition = potentials.log_transition
    n_rows, n_states = log_emission.shape
    filtered = np.empty((n_rows, n_states))
    # `out` is written over later
    if not np.isfinite(filter_run(log_emission, potentials, gap_index, filtered, out)):
        out[:] = np.nan
        return
    message, sent = np.zeros(n_states), np.empty(n_states)
    joint, without, whole = np.empty(n_states), np.empty(n_states), np.empty(n_states)
    for t in range(n_rows - 1, -1, -1):
        for j in range(n_states):
            predicted = potentials.log_initial[j]
            if t > 0:
                for i in range(n_states):
                    move = log_transition[gap_index[t], i, j]
                    joint[i] = filtered[t - 1, i] + move
                predicted = _log_sum_exp(joint)
            without[j] = predicted + message[j]
            whole[j] = without[j] + log_emission[t, j]
        norm = _log_sum_exp(whole)
        out[t] = norm - _log_sum_exp(without)
        if t > 0:
            for i in range(n_states):
                for j in range(n_states):
                    move = log_transition[gap_index[t], i, j]
                    joint[j] = move + log_emission[t, j] + message[j] - norm
                sent[i] = _log_sum_exp(joint)
            message[:] = sent


@inner
def one_step_run(log_emission: Any, potentials: Any, gap_index: Any, out: Any) -> None:
    """Log density of every row of a run given those before, NaN after the first of density 0."""
    out[:] = np.nan
    filter_run(log_emission, potentials, gap_index, np.empty(log_emission.shape), out)
