"""Passes over features that runs shift, and what each run says about its shift.

Shifts (run, feature) are of the scaled features: of their values in a family of levels, and of the
values that changes depart from in the others.
"""

from typing import Any

import numpy as np
from numba.extending import overload

from bayesphase.model.by_piece import NOTHING, rows_of_group, weigh_block
from bayesphase.model.forward_backward import most_rows, new_group
from bayesphase.model.innovations import (
    Constants,
    Data,
    Lines,
    add_up,
    finish,
    new_sums,
)
from bayesphase.model.lanes import Layout
from bayesphase.model.passes import Expectation, smooth
from bayesphase.model.pieces import BEFORE, BLOCK, HERE, VALUE, collect
from bayesphase.model.potentials import scaled
from bayesphase.model.simd import LANES, OPTIONS, aligned, fill, inlined, inner, kernel, load, store


def run_of_columns(place: np.ndarray, layout: Layout) -> np.ndarray:
    """Run (column) of every column of `Data`, -1 past the last row."""
    n_rows = int(layout.lengths.sum())
    runs = np.full(len(place), -1)
    runs[:n_rows] = np.repeat(np.arange(len(layout.lengths)), layout.lengths)[place[:n_rows]]
    return runs


@kernel
def shifted(data: Any, shift: Any, run_of: Any) -> Any:
    """Take the shift of its run off every value that is there.

    Parameters
    ----------
    data : Data
    shift : ndarray (run, feature)
    run_of : ndarray (column)
        See `run_of_columns`.

    Returns
    -------
    Data
    """
    lagged, complete = data.previous.shape[0] > 0, data.observed.shape[0] == 0
    old = data.previous if lagged else data.values
    new, n_columns = aligned(old.shape[0]), data.place.shape[0]
    new[:] = old
    by = np.zeros(shift.shape[0] + 1)  # the last is that of no run
    for d in range(shift.shape[1]):
        by[:-1] = shift[:, d]
        at = d * n_columns
        for column in range(n_columns):
            more = by[run_of[column]]
            new[at + column] -= more if complete else more * data.observed[at + column]
    values, previous = (data.values, new) if lagged else (new, data.previous)
    return Data(values, data.observed, previous, data.begins, data.place, data.pieces, data.layout)


@kernel
def expect_by_run(data: Any, lines: Any, run_of: Any, log_transition: Any, log_initial: Any) -> Any:
    """Do what `passes.expect` does, and sum up by run what a shift of the run would change.

    Parameters
    ----------
    data : Data
        Shifted already.
    lines, log_transition, log_initial
        As in `expect`.
    run_of : ndarray (column)

    Returns
    -------
    expected : Expectation
    slope : ndarray (run, feature)
        Derivative of the log-likelihood in the shift.
    precision : ndarray (run, feature)
        That of a shift if the states were known, weighted as in `Sums`.
    """
    n_states, n_features = log_initial.shape[0], lines.scale.shape[-1]
    layout = data.layout
    n_runs, n_gaps = layout.lengths.shape[0], log_transition.shape[0]
    log_likelihood = np.empty(n_runs)
    expected = np.zeros((n_runs, n_gaps, n_states, n_states))
    sums = new_sums(lines.scale.size // (n_states * n_features), n_states, n_features)
    slope, precision = np.zeros((n_runs, n_features)), np.zeros((n_runs, n_features))
    first_states = np.zeros(n_states)
    potentials = scaled(log_transition, log_initial)
    room = new_group(n_states, most_rows(layout))
    for index in range(data.begins.shape[0] - 1):
        together = layout.by_length[LANES * index : LANES * (index + 1)]
        group = smooth(index, data, lines, potentials, room, log_likelihood, expected)
        add_up(data, index, lines, group.probs, sums)
        n_full = LANES * layout.lengths[together[-1]] if together.shape[0] == LANES else 0
        out = (slope, precision)
        _add_by_run(data, index, n_full, lines, group.probs, run_of, out)
        for k in range(n_states):
            for row in range(together.shape[0]):
                first_states[k] += group.probs[k, row]
    transitions = np.zeros(log_transition.shape)
    for run in range(n_runs):
        transitions += expected[run]
    whole = Expectation(log_likelihood, finish(sums, n_features), first_states, transitions)
    return whole, slope, precision


def _add_by_run(
    data: Any, index: int, n_full: int, lines: Any, probs: Any, run_of: Any, out: Any
) -> None:
    """Add what a group of runs has to slope and precision, which are `out`.

    In the first `n_full` rows eight runs go on, so that each has a lane of its own.
    """
    raise TypeError("for compiled code")


@overload(_add_by_run, jit_options=OPTIONS)
def _by_run(
    data: Any, index: Any, n_full: Any, lines: Any, probs: Any, run_of: Any, out: Any
) -> Any:
    def normal(
        data: Any, index: Any, n_full: Any, lines: Any, probs: Any, run_of: Any, out: Any
    ) -> None:
        mean, scale = lines.mean, lines.scale
        mean, scale = mean.reshape((1, *mean.shape)), scale.reshape((1, *scale.shape))
        straight = Lines(mean, mean, mean[:0], scale, 0.0, 0.0)
        _add_pieces(data, index, n_full, straight, probs, run_of, out)

    def general(
        data: Any, index: Any, n_full: Any, lines: Any, probs: Any, run_of: Any, out: Any
    ) -> None:
        _add_pieces(data, index, n_full, lines, probs, run_of, out)

    return normal if lines.instance_class is Constants else general


@inner
def _add_pieces(
    data: Any, index: int, n_full: int, lines: Any, probs: Any, run_of: Any, out: Any
) -> None:
    pieces, first, n_rows = data.pieces, data.begins[index], rows_of_group(data, index)
    n_states, n_vectors = probs.shape[0], BLOCK // LANES
    weights = np.empty(n_states)
    room, rows = aligned(4 * BLOCK).reshape((4, BLOCK)), np.empty(n_vectors, np.int64)
    parts, whole = aligned(2 * BLOCK).reshape((2, BLOCK)), np.empty((2, LANES))
    for block in range(pieces.of_group[index], pieces.of_group[index + 1]):
        start = (block - pieces.of_group[index]) * BLOCK
        weigh_block(probs, start, min(start + BLOCK, n_rows), weights)
        for piece in range(pieces.of_block[block], pieces.of_block[block + 1]):
            n, d = collect(data, first, piece, rows, room), pieces.feature[piece]
            parts[:] = 0.0
            for k in range(n_states):
                if weights[k] >= NOTHING:
                    _pull(data, lines, pieces.gap[piece], k, d, probs, rows[:n], room, parts)
            sum_1, sum_2 = fill(0.0), fill(0.0)
            for i in range(n):
                at, row = i * LANES, rows[i]
                if row < n_full:
                    sum_1 = sum_1 + load(parts, (0, at))
                    sum_2 = sum_2 + load(parts, (1, at))
                else:
                    for lane in range(min(LANES, n_rows - row)):
                        out[0][run_of[first + row + lane], d] += parts[0, at + lane]
                        out[1][run_of[first + row + lane], d] += parts[1, at + lane]
            if n_full > 0:
                store(whole, (0, 0), sum_1)
                store(whole, (1, 0), sum_2)
                for lane in range(LANES):
                    out[0][run_of[first + lane], d] += whole[0, lane]
                    out[1][run_of[first + lane], d] += whole[1, lane]


@inlined
def _pull(
    data: Any, lines: Any, gap: int, k: int, d: int, probs: Any, rows: Any, room: Any, parts: Any
) -> None:
    """Add to slope and precision (2, row) of a piece what they are in one state."""
    df, inverse = lines.df, 1.0 / lines.scale[gap, k, d]
    intercept, slope = lines.intercept[gap, k, d], lines.slope[gap, k, d]
    bend = lines.bend[gap, k, d] if lines.bend.shape[0] > 0 else 0.0
    for i in range(rows.shape[0]):
        at = i * LANES
        p = load(probs, (k, rows[i])) * load(room, (HERE, at)) * (inverse * inverse)
        away, tilt = load(room, (VALUE, at)) - intercept, fill(1.0)
        if data.previous.shape[0] > 0:
            x = load(room, (BEFORE, at))
            away = away - x * (x * bend + slope)
            tilt = fill(0.0) - (x * (2.0 * bend) + slope)
        if df > 0.0:
            z = away * inverse
            p = p * ((df + 1.0) / (z * z + df))
        store(parts, (0, at), load(parts, (0, at)) + p * tilt * away)
        store(parts, (1, at), load(parts, (1, at)) + p * tilt * tilt)
