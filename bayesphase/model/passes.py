"""Emission, recursions and sums in one go, for one group of runs at a time.

That way what passes from one step to the next stays in the processor's cache.
"""

from typing import Any, NamedTuple

import numpy as np

from bayesphase.model.by_piece import rows_of_group
from bayesphase.model.decoding import draw_group, draw_run
from bayesphase.model.forward_backward import (
    PAD,
    Group,
    backward,
    forward,
    most_rows,
    new_group,
    weigh,
)
from bayesphase.model.innovations import add_up, finish, log_emission, new_sums
from bayesphase.model.leave_one_out import leave_one_out_group
from bayesphase.model.log_space import leave_one_out_run, one_step_run, smooth_run
from bayesphase.model.one_step import one_step_group
from bayesphase.model.potentials import scaled
from bayesphase.model.simd import LANES, inlined, kernel


class Expectation(NamedTuple):
    """What the posterior of the states says about the parameters.

    `log_likelihood` (run); `sums` of the features, or what a `Tabled` says in their place;
    `first_states` (state) and `transitions` (gap, state, state): expected numbers.
    """

    log_likelihood: np.ndarray
    sums: Any
    first_states: np.ndarray
    transitions: np.ndarray


@inlined
def _take_run(run: int, index: int, data: Any, lines: Any, group: Any) -> Any:
    """One run out of its group: its log-emission (t, state), and where its rows are (t)."""
    rows, weight = group.rows, group.weight
    start, length = data.layout.starts[run], data.layout.lengths[run]
    by_row, place = np.empty((length, weight.shape[0])), np.empty(length, np.int64)
    log_emission(data, index, lines, weight)
    for row in range(rows_of_group(data, index)):
        t = rows[row] - start
        if 0 <= t < length:
            place[t] = row
            for k in range(weight.shape[0]):
                by_row[t, k] = weight[k, row]
    return by_row, place


@inlined
def _put(probs: Any, place: Any, group: Any) -> None:
    """Put probabilities (t, state) of one run where its rows are in the group."""
    target = group.probs
    for t in range(place.shape[0]):
        for k in range(probs.shape[1]):
            target[k, place[t]] = probs[t, k]


@inlined
def _filter(
    index: int, data: Any, lines: Any, potentials: Any, room: Any, log_likelihood: Any
) -> Any:
    """Filter one group of runs in `room`, which becomes that group."""
    n_rows = rows_of_group(data, index)
    group = Group(data.place[data.begins[index] :], room.weight, room.top, room.norm, room.probs)
    log_emission(data, index, lines, group.weight)
    weigh(group, n_rows)
    forward(index, group, potentials, data.layout, log_likelihood)
    return group


@inlined
def smooth(
    index: int,
    data: Any,
    lines: Any,
    potentials: Any,
    room: Any,
    log_likelihood: Any,
    expected: Any,
) -> Any:
    """Find the states' probabilities, which are returned as a `Group`, of a group of runs.

    Writes into `log_likelihood` (run) and adds to `expected` (run, gap, state, state).
    """
    layout = data.layout
    together = layout.by_length[LANES * index : LANES * (index + 1)]
    n_rows = rows_of_group(data, index)
    group = _filter(index, data, lines, potentials, room, log_likelihood)
    backward(index, n_rows, group, potentials, layout, expected)
    for run in together:
        if not np.isfinite(log_likelihood[run]):
            by_row, place = _take_run(run, index, data, lines, group)
            gaps = layout.gap_index[layout.starts[run] : layout.starts[run] + place.size]
            probs = np.empty(by_row.shape)
            log_likelihood[run] = smooth_run(by_row, potentials, gaps, probs, expected[run])
            _put(probs, place, group)
    return group


@kernel
def expect(data: Any, lines: Any, log_transition: Any, log_initial: Any) -> Any:
    """Log-likelihood and expectations at the given parameters.

    Parameters
    ----------
    data : Data
    lines : Constants or Lines
        Of the scaled features.
    log_transition : ndarray (gap, state, state)
    log_initial : ndarray (state)

    Returns
    -------
    Expectation
    """
    n_states, n_features = log_initial.shape[0], lines.scale.shape[-1]
    layout = data.layout
    n_runs, n_gaps = layout.lengths.shape[0], log_transition.shape[0]
    log_likelihood = np.empty(n_runs)
    expected = np.zeros((n_runs, n_gaps, n_states, n_states))
    sums = new_sums(lines.scale.size // (n_states * n_features), n_states, n_features)
    first_states = np.empty(n_states)
    first_states[:] = 0.0
    potentials = scaled(log_transition, log_initial)
    room = new_group(n_states, most_rows(layout))
    for index in range(data.begins.shape[0] - 1):
        together = layout.by_length[LANES * index : LANES * (index + 1)]
        group = smooth(index, data, lines, potentials, room, log_likelihood, expected)
        add_up(data, index, lines, group.probs, sums)
        for k in range(n_states):
            for row in range(together.shape[0]):
                first_states[k] += group.probs[k, row]
    transitions = np.zeros(log_transition.shape)
    for run in range(n_runs):
        transitions += expected[run]
    return Expectation(log_likelihood, finish(sums, n_features), first_states, transitions)


@kernel
def draw_paths(
    data: Any,
    lines: Any,
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
    room = new_group(log_initial.shape[0], most_rows(layout))
    for index in range(data.begins.shape[0] - 1):
        together = layout.by_length[LANES * index : LANES * (index + 1)]
        n_rows = rows_of_group(data, index)
        group = _filter(index, data, lines, potentials, room, log_likelihood)
        draw_group(index, n_rows, group, potentials, layout, uniforms, states)
        for run in together:
            if not np.isfinite(log_likelihood[run]):
                by_row, place = _take_run(run, index, data, lines, group)
                rows = slice(layout.starts[run], layout.starts[run] + place.size)
                log_likelihood[run] = draw_run(
                    by_row, potentials, layout.gap_index[rows], uniforms[rows], states[rows]
                )


@kernel
def leave_one_out(data: Any, lines: Any, log_transition: Any, log_initial: Any, out: Any) -> None:
    """Log densities (row) of each row given all others of its run; arguments as in `expect`."""
    layout = data.layout
    n_runs = layout.lengths.shape[0]
    log_likelihood = np.empty(n_runs)
    potentials = scaled(log_transition, log_initial)
    room = new_group(log_initial.shape[0], most_rows(layout))
    for index in range(data.begins.shape[0] - 1):
        together = layout.by_length[LANES * index : LANES * (index + 1)]
        n_rows = rows_of_group(data, index)
        group = _filter(index, data, lines, potentials, room, log_likelihood)
        leave_one_out_group(index, n_rows, group, potentials, layout, out, log_likelihood)
        for run in together:
            if not np.isfinite(log_likelihood[run]):
                by_row, place = _take_run(run, index, data, lines, group)
                rows = slice(layout.starts[run], layout.starts[run] + place.size)
                leave_one_out_run(by_row, potentials, layout.gap_index[rows], out[rows])


@kernel
def one_step(data: Any, lines: Any, log_transition: Any, log_initial: Any, out: Any) -> None:
    """Log densities (row) of each row given those of its run before; arguments as in `expect`."""
    layout = data.layout
    log_likelihood = np.empty(layout.lengths.shape[0])
    potentials = scaled(log_transition, log_initial)
    room = new_group(log_initial.shape[0], most_rows(layout))
    for index in range(data.begins.shape[0] - 1):
        together = layout.by_length[LANES * index : LANES * (index + 1)]
        group = _filter(index, data, lines, potentials, room, log_likelihood)
        one_step_group(index, group, potentials, layout, out)
        for run in together:
            if not np.isfinite(log_likelihood[run]):
                by_row, place = _take_run(run, index, data, lines, group)
                rows = slice(layout.starts[run], layout.starts[run] + place.size)
                one_step_run(by_row, potentials, layout.gap_index[rows], out[rows])


@kernel
def sum_up(data: Any, lines: Any, state_probs: Any) -> Any:
    """Sum up with given probabilities (row, state) of the states.

    The log-likelihood is minus infinity, and no transition is known. `lines` must be normal.
    """
    n_states, n_features = state_probs.shape[1], lines.scale.shape[-1]
    layout = data.layout
    sums = new_sums(lines.scale.size // (n_states * n_features), n_states, n_features)
    probs = np.zeros((n_states, most_rows(layout) + PAD))
    for index in range(data.begins.shape[0] - 1):
        first, n_rows = data.begins[index], rows_of_group(data, index)
        for k in range(n_states):
            for row in range(n_rows):
                probs[k, row] = state_probs[data.place[first + row], k]
            for row in range(n_rows, n_rows + PAD):
                probs[k, row] = 0.0
        add_up(data, index, lines, probs, sums)
    first_states = np.zeros(n_states)
    for start in layout.starts:
        first_states += state_probs[start]
    transitions = np.zeros((1, n_states, n_states))
    return Expectation(np.full(1, -np.inf), finish(sums, n_features), first_states, transitions)
