"""Independent normal features in compiled code: emission, recursions and sums in one go.

Work is done one group of runs at a time, so that what passes from one step to the next stays in
the processor's cache. Features are scaled and in lane order (see `lanes`), one feature per row of
the array, with missing ones 0.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bayesphase.model.decoding import draw_group, draw_run
from bayesphase.model.forward_backward import (
    PAD,
    Group,
    backward,
    forward,
    most_rows,
    new_group,
    scaled,
    weigh,
)
from bayesphase.model.lanes import Layout, in_lane_order
from bayesphase.model.leave_one_out import leave_one_out_group
from bayesphase.model.log_space import leave_one_out_run, smooth_run
from bayesphase.model.rows import Rows
from bayesphase.model.simd import LANES, fill, inner, kernel, load, store, total
from bayesphase.model.transitions import Sticky

# rows that are summed over before the next feature: they stay in the innermost cache
_BLOCK = 128

# probabilities that all sums can do without: over a million rows they are under the rounding of 1
_NOTHING = 1e-23


class Data(NamedTuple):
    """Features and, unless all are there, which ones are, both (feature times row).

    Both are flat, one feature after the other, which takes less time to compile, with an empty one
    at the end where their number is odd: they are added up in pairs. `begins`
    (group + 1) is where groups begin, `place` (row) where a row is outside, and `layout` says which
    rows make a run.
    """

    values: np.ndarray
    observed: np.ndarray
    begins: np.ndarray
    place: np.ndarray
    layout: Layout


class Expectation(NamedTuple):
    """What the posterior of the states says about the parameters.

    `log_likelihood` (run); `first_states` (state) and `transitions` (gap, state, state): expected
    numbers; `counts`, `sums` and `squares` (state, feature): presence, value and squared value of
    the scaled features, summed over rows with the probability of each state.
    """

    log_likelihood: np.ndarray
    first_states: np.ndarray
    counts: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    transitions: np.ndarray


def arrange(rows: Rows) -> Data:
    """Scale features and bring them into lane order."""
    place, begins = in_lane_order(rows.layout)
    n_features = rows.values.shape[1]
    values = np.zeros((n_features + n_features % 2, len(place) + PAD))
    values[:n_features, : len(place)] = rows.scaled[place].T
    observed = np.zeros(0)
    if not rows.complete:
        observed = np.zeros(values.shape)
        observed[:n_features, : len(place)] = rows.observed[place].T
    place = np.append(place, np.zeros(PAD, np.int64))
    return Data(values.ravel(), observed.ravel(), begins, place, rows.layout)


def scaled_parameters(
    rows: Rows, transition: Sticky, parameters: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, ...]:
    """Return `mean` and `scale` of the scaled features, log-transitions and log-initials."""
    with np.errstate(divide="ignore"):  # a probability may have underflowed to 0
        potentials = transition.log_potentials(parameters, np)
    mean = (parameters["mean"] - rows.location) / rows.spread
    return mean, parameters["scale"] / rows.spread, *potentials


@kernel
def log_emission(data: Any, first: int, n_rows: int, mean: Any, scale: Any, out: Any) -> None:
    """Log density (state, row) of `n_rows` from row `first` on, and of a few after these."""
    values, presence, n_columns = data.values, data.observed, data.place.shape[0]
    n_states, n_features = mean.shape
    complete = presence.shape[0] == 0
    slope, offset = np.empty(mean.shape), np.empty(mean.shape)
    constant, at_all = np.empty(mean.shape), np.zeros(n_states)
    for k in range(n_states):
        for d in range(n_features):
            slope[k, d] = np.sqrt(0.5) / scale[k, d]
            offset[k, d] = mean[k, d] * slope[k, d]
            constant[k, d] = -np.log(scale[k, d]) - 0.5 * np.log(2.0 * np.pi)
            at_all[k] += constant[k, d]
    # two vectors of rows at a time: each parameter is read once for both
    for row in range(0, n_rows + LANES, 2 * LANES):
        for k in range(n_states):
            if complete:
                one = other = fill(at_all[k])
                for d in range(n_features):
                    at = d * n_columns + first + row
                    z_1 = load(values, (at,)) * slope[k, d] - offset[k, d]
                    z_2 = load(values, (at + LANES,)) * slope[k, d] - offset[k, d]
                    one, other = one - z_1 * z_1, other - z_2 * z_2
            else:
                one = other = fill(0.0)
                for d in range(n_features):
                    at = d * n_columns + first + row
                    z_1 = load(values, (at,)) * slope[k, d] - offset[k, d]
                    z_2 = load(values, (at + LANES,)) * slope[k, d] - offset[k, d]
                    one = one + (constant[k, d] - z_1 * z_1) * load(presence, (at,))
                    other = other + (constant[k, d] - z_2 * z_2) * load(presence, (at + LANES,))
            store(out, (k, row), one)
            store(out, (k, row + LANES), other)


@inner
def _add_up(data: Any, first: int, n_rows: int, probs: Any, sums: Any) -> None:
    """Add presence, value and squared value of the rows of a group to `sums` (3, ..., lane)."""
    values, presence, n_columns = data.values, data.observed, data.place.shape[0]
    n_states, n_features = sums.shape[1:3]
    complete = presence.shape[0] == 0
    for start in range(0, n_rows, _BLOCK):
        stop = min(start + _BLOCK, n_rows)
        for k in range(n_states):
            weight = fill(0.0)
            for row in range(start, stop, LANES):
                weight = weight + load(probs, (k, row))
            if total(weight) < _NOTHING:
                continue
            for d in range(0, n_features, 2):  # in pairs: fewer reads for each product
                one, other = d * n_columns + first, (d + 1) * n_columns + first
                # two rows at a time, each with sums of its own: one sum waits for its last addition
                value_1 = value_2 = square_1 = square_2 = fill(0.0)
                value_3 = value_4 = square_3 = square_4 = fill(0.0)
                for row in range(start, stop, 2 * LANES):
                    p, q = load(probs, (k, row)), load(probs, (k, row + LANES))
                    y_1, y_2 = load(values, (one + row,)), load(values, (other + row,))
                    y_3 = load(values, (one + row + LANES,))
                    y_4 = load(values, (other + row + LANES,))
                    value_1, value_2 = value_1 + p * y_1, value_2 + p * y_2
                    value_3, value_4 = value_3 + q * y_3, value_4 + q * y_4
                    square_1, square_2 = square_1 + (p * y_1) * y_1, square_2 + (p * y_2) * y_2
                    square_3, square_4 = square_3 + (q * y_3) * y_3, square_4 + (q * y_4) * y_4
                store(sums, (1, k, d, 0), load(sums, (1, k, d, 0)) + value_1 + value_3)
                store(sums, (1, k, d + 1, 0), load(sums, (1, k, d + 1, 0)) + value_2 + value_4)
                store(sums, (2, k, d, 0), load(sums, (2, k, d, 0)) + square_1 + square_3)
                store(sums, (2, k, d + 1, 0), load(sums, (2, k, d + 1, 0)) + square_2 + square_4)
            for d in range(n_features):
                count = load(sums, (0, k, d, 0))
                if complete:
                    count = count + weight
                else:
                    at = d * n_columns + first
                    for row in range(start, stop, LANES):
                        count = count + load(probs, (k, row)) * load(presence, (at + row,))
                store(sums, (0, k, d, 0), count)


@inner
def _take_run(
    run: int, data: Any, first: int, n_rows: int, mean: Any, scale: Any, group: Any
) -> Any:
    """One run out of its group: its log-emission (t, state), and where its rows are (t)."""
    rows, weight = group.rows, group.weight
    start, length = data.layout.starts[run], data.layout.lengths[run]
    by_row, place = np.empty((length, mean.shape[0])), np.empty(length, np.int64)
    log_emission(data, first, n_rows, mean, scale, weight)
    for row in range(n_rows):
        t = rows[row] - start
        if 0 <= t < length:
            place[t] = row
            for k in range(mean.shape[0]):
                by_row[t, k] = weight[k, row]
    return by_row, place


@inner
def _put(probs: Any, place: Any, group: Any) -> None:
    """Put probabilities (t, state) of one run where its rows are in the group."""
    target = group.probs
    for t in range(place.shape[0]):
        for k in range(probs.shape[1]):
            target[k, place[t]] = probs[t, k]


@inner
def _filter(
    index: int, data: Any, mean: Any, scale: Any, potentials: Any, room: Any, log_likelihood: Any
) -> Any:
    """Filter one group of runs in `room`, which becomes that group."""
    first, n_rows = data.begins[index], data.begins[index + 1] - data.begins[index]
    group = Group(data.place[first:], room.weight, room.top, room.norm, room.probs)
    log_emission(data, first, n_rows, mean, scale, group.weight)
    weigh(group, n_rows)
    forward(index, group, potentials, data.layout, log_likelihood)
    return group


@kernel
def expect(data: Any, mean: Any, scale: Any, log_transition: Any, log_initial: Any) -> Any:
    """Log-likelihood and expectations at the given parameters.

    Parameters
    ----------
    data : Data
    mean, scale : ndarray (state, feature)
        Of the scaled features.
    log_transition : ndarray (gap, state, state)
    log_initial : ndarray (state)

    Returns
    -------
    Expectation
    """
    n_states, n_features = mean.shape
    layout = data.layout
    n_runs, n_gaps = layout.lengths.shape[0], log_transition.shape[0]
    log_likelihood = np.empty(n_runs)
    expected = np.zeros((n_runs, n_gaps, n_states, n_states))
    sums = np.zeros((3, n_states, n_features + n_features % 2, LANES))
    first_states = np.empty(n_states)
    first_states[:] = 0.0
    potentials = scaled(log_transition, log_initial)
    room = new_group(n_states, most_rows(layout))
    for index in range(data.begins.shape[0] - 1):
        together = layout.by_length[LANES * index : LANES * (index + 1)]
        first, n_rows = data.begins[index], data.begins[index + 1] - data.begins[index]
        group = _filter(index, data, mean, scale, potentials, room, log_likelihood)
        backward(index, n_rows, group, potentials, layout, expected)
        for run in together:
            if not np.isfinite(log_likelihood[run]):
                by_row, place = _take_run(run, data, first, n_rows, mean, scale, group)
                gaps = layout.gap_index[layout.starts[run] : layout.starts[run] + place.size]
                probs = np.empty(by_row.shape)
                log_likelihood[run] = smooth_run(by_row, potentials, gaps, probs, expected[run])
                _put(probs, place, group)
        _add_up(data, first, n_rows, group.probs, sums)
        for k in range(n_states):
            for row in range(together.shape[0]):
                first_states[k] += group.probs[k, row]
    transitions = np.zeros(log_transition.shape)
    for run in range(n_runs):
        transitions += expected[run]
    added = np.empty((3, n_states, n_features))
    for i in range(3):
        for k in range(n_states):
            for d in range(n_features):
                added[i, k, d] = total(load(sums, (i, k, d, 0)))
    return Expectation(log_likelihood, first_states, added[0], added[1], added[2], transitions)


@kernel
def draw_paths(
    data: Any,
    mean: Any,
    scale: Any,
    log_transition: Any,
    log_initial: Any,
    uniforms: Any,
    states: Any,
    log_likelihood: Any,
) -> None:
    """Draw the states of all runs; arguments as in `expect` and `decoding.sample_paths`.

    Writes into `states` (row) and `log_likelihood` (run).
    """
    layout = data.layout
    potentials = scaled(log_transition, log_initial)
    room = new_group(mean.shape[0], most_rows(layout))
    for index in range(data.begins.shape[0] - 1):
        together = layout.by_length[LANES * index : LANES * (index + 1)]
        first, n_rows = data.begins[index], data.begins[index + 1] - data.begins[index]
        group = _filter(index, data, mean, scale, potentials, room, log_likelihood)
        draw_group(index, n_rows, group, potentials, layout, uniforms, states)
        for run in together:
            if not np.isfinite(log_likelihood[run]):
                by_row, place = _take_run(run, data, first, n_rows, mean, scale, group)
                rows = slice(layout.starts[run], layout.starts[run] + place.size)
                log_likelihood[run] = draw_run(
                    by_row, potentials, layout.gap_index[rows], uniforms[rows], states[rows]
                )


@kernel
def leave_one_out(
    data: Any, mean: Any, scale: Any, log_transition: Any, log_initial: Any, out: Any
) -> None:
    """Log densities (row) of each row given all others of its run; arguments as in `expect`."""
    layout = data.layout
    n_runs = layout.lengths.shape[0]
    log_likelihood = np.empty(n_runs)
    potentials = scaled(log_transition, log_initial)
    room = new_group(mean.shape[0], most_rows(layout))
    for index in range(data.begins.shape[0] - 1):
        together = layout.by_length[LANES * index : LANES * (index + 1)]
        first, n_rows = data.begins[index], data.begins[index + 1] - data.begins[index]
        group = _filter(index, data, mean, scale, potentials, room, log_likelihood)
        leave_one_out_group(index, n_rows, group, potentials, layout, out)
        for run in together:
            if not np.isfinite(log_likelihood[run]):
                by_row, place = _take_run(run, data, first, n_rows, mean, scale, group)
                rows = slice(layout.starts[run], layout.starts[run] + place.size)
                leave_one_out_run(by_row, potentials, layout.gap_index[rows], out[rows])


def sum_up(rows: Rows, state_probs: np.ndarray) -> Expectation:
    """Add up features with the probabilities of the states, `state_probs` (row, state).

    The log-likelihood is minus infinity, and no transition is known.
    """
    n_states, z = state_probs.shape[1], rows.scaled
    return Expectation(
        np.array([-np.inf]),
        state_probs[rows.layout.starts].sum(axis=0),
        state_probs.T @ rows.observed,
        state_probs.T @ z,
        state_probs.T @ z**2,
        np.zeros((1, n_states, n_states)),
    )
