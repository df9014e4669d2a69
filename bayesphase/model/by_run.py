"""Passes over features that runs shift, and what each run says about its shift.

Shifts (run, feature) are of the scaled features: of their values in a family of levels, and of the
values that changes depart from in the others.
"""

from typing import Any

import numpy as np
from numba.extending import overload

from bayesphase.model.forward_backward import most_rows, new_group
from bayesphase.model.innovations import _NOTHING, Constants, Data, add_up, finish, new_sums
from bayesphase.model.lanes import Layout
from bayesphase.model.passes import Expectation, smooth
from bayesphase.model.potentials import scaled
from bayesphase.model.simd import LANES, OPTIONS, aligned, fill, inner, kernel, load, store


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
    return Data(
        values, data.observed, previous, data.gap_class, data.begins, data.place, data.layout
    )


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
        first, n_rows = data.begins[index], data.begins[index + 1] - data.begins[index]
        group = smooth(index, data, lines, potentials, room, log_likelihood, expected)
        add_up(data, first, n_rows, lines, group.probs, sums)
        n_full = LANES * layout.lengths[together[-1]] if together.shape[0] == LANES else 0
        out = (slope, precision)
        _add_by_run(data, first, n_rows, n_full, lines, group.probs, run_of, out)
        for k in range(n_states):
            for row in range(together.shape[0]):
                first_states[k] += group.probs[k, row]
    transitions = np.zeros(log_transition.shape)
    for run in range(n_runs):
        transitions += expected[run]
    whole = Expectation(log_likelihood, finish(sums, n_features), first_states, transitions)
    return whole, slope, precision


def _add_by_run(
    data: Any, first: int, n_rows: int, n_full: int, lines: Any, probs: Any, run_of: Any, out: Any
) -> None:
    """Add what a group of runs has to slope and precision, which are `out`.

    In the first `n_full` rows eight runs go on, so that each has a lane of its own.
    """
    raise TypeError("for compiled code")


@overload(_add_by_run, jit_options=OPTIONS)
def _by_run(
    data: Any, first: Any, n_rows: Any, n_full: Any, lines: Any, probs: Any, run_of: Any, out: Any
) -> Any:
    def normal(
        data: Any,
        first: Any,
        n_rows: Any,
        n_full: Any,
        lines: Any,
        probs: Any,
        run_of: Any,
        out: Any,
    ) -> None:
        straight = (lines.mean, lines.mean, lines.mean, lines.scale, 0.0)
        _add_even(data, first, n_rows, n_full, straight, probs, run_of, out)

    def general(
        data: Any,
        first: Any,
        n_rows: Any,
        n_full: Any,
        lines: Any,
        probs: Any,
        run_of: Any,
        out: Any,
    ) -> None:
        if data.gap_class.shape[0] > 0:
            _add_uneven(data, first, n_rows, lines, probs, run_of, out)
        else:
            bend = lines.bend[0] if lines.bend.shape[0] > 0 else lines.slope[0] * 0.0
            line = (lines.intercept[0], lines.slope[0], bend, lines.scale[0], lines.df)
            _add_even(data, first, n_rows, n_full, line, probs, run_of, out)

    return normal if lines.instance_class is Constants else general


@inner
def _add_even(  # noqa: C901  # as in `innovations`
    data: Any, first: int, n_rows: int, n_full: int, line: Any, probs: Any, run_of: Any, out: Any
) -> None:
    """Add up where all gaps are the same, eight rows at a time."""
    intercept, slope, bend, scale, df = line
    lagged, complete = data.previous.shape[0] > 0, data.observed.shape[0] == 0
    n_states, n_features = scale.shape
    pull, weight = np.empty(LANES), np.empty(LANES)
    for d in range(n_features):
        sum_1, sum_2 = fill(0.0), fill(0.0)
        for row in range(0, n_rows, LANES):
            at = d * data.place.shape[0] + first + row
            y, x = load(data.values, (at,)), fill(0.0)
            if lagged:
                x = load(data.previous, (at,))
            part_1, part_2 = fill(0.0), fill(0.0)
            for k in range(n_states):
                inverse = 1.0 / scale[k, d]
                p = load(probs, (k, row)) * (inverse * inverse)
                away, tilt = y - intercept[k, d], fill(1.0)
                if lagged:
                    away = away - x * (x * bend[k, d] + slope[k, d])
                    tilt = fill(0.0) - (x * (2.0 * bend[k, d]) + slope[k, d])
                if df > 0.0:
                    z = away * inverse
                    p = p * ((df + 1.0) / (z * z + df))
                part_1 = part_1 + p * tilt * away
                part_2 = part_2 + p * tilt * tilt
            if not complete:
                presence = load(data.observed, (at,))
                part_1, part_2 = part_1 * presence, part_2 * presence
            if row < n_full:
                sum_1, sum_2 = sum_1 + part_1, sum_2 + part_2
            else:
                store(pull, (0,), part_1)
                store(weight, (0,), part_2)
                for lane in range(min(LANES, n_rows - row)):
                    out[0][run_of[first + row + lane], d] += pull[lane]
                    out[1][run_of[first + row + lane], d] += weight[lane]
        if n_full > 0:
            store(pull, (0,), sum_1)
            store(weight, (0,), sum_2)
            for lane in range(LANES):
                out[0][run_of[first + lane], d] += pull[lane]
                out[1][run_of[first + lane], d] += weight[lane]


@inner
def _add_uneven(
    data: Any, first: int, n_rows: int, lines: Any, probs: Any, run_of: Any, out: Any
) -> None:
    """Add up where gaps differ, one row at a time; there is always a previous value."""
    n_states, n_features = lines.scale.shape[1:]
    df, bent = lines.df, lines.bend.shape[0] > 0
    bend, complete = 0.0, data.observed.shape[0] == 0
    for k in range(n_states):
        for row in range(n_rows):
            if probs[k, row] < _NOTHING:
                continue
            for d in range(n_features):
                at = d * data.place.shape[0] + first + row
                if not complete and data.observed[at] == 0.0:
                    continue
                gap, x = data.gap_class[at], data.previous[at]
                if bent:
                    bend = lines.bend[gap, k, d]
                away = data.values[at] - lines.intercept[gap, k, d]
                away -= x * (lines.slope[gap, k, d] + bend * x)
                tilt = -(lines.slope[gap, k, d] + 2.0 * bend * x)
                inverse = 1.0 / lines.scale[gap, k, d]
                p = probs[k, row] * inverse * inverse
                if df > 0.0:
                    p *= (df + 1.0) / (df + (away * inverse) ** 2)
                out[0][run_of[first + row], d] += p * tilt * away
                out[1][run_of[first + row], d] += p * tilt * tilt
