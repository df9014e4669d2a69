"""Densities of features in compiled code, and the sums that their gradients and EM are made of.

Given its state, a feature is normal or Student-t about a line, intercept + slope * previous value,
or a parabola, whose coefficients may differ by the gap since the last observation: that is every
family of `emissions`. Features are scaled and in lane order (see `lanes`), one feature per row of
the array, with missing ones 0.
"""

from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload
from scipy.special import gammaln

from bayesphase.model.by_piece import (
    COUNTS,
    N_SUMS,
    NOTHING,
    SQUARES,
    VALUES,
    WEIGHTS,
    add_by_piece,
    add_to,
    log_by_piece,
    rows_of_group,
    weigh_block,
)
from bayesphase.model.forward_backward import padded
from bayesphase.model.lanes import Layout, in_lane_order
from bayesphase.model.pieces import BLOCK, Pieces, cut
from bayesphase.model.series import Series
from bayesphase.model.simd import (
    LANES,
    OPTIONS,
    aligned,
    fill,
    inner,
    kernel,
    load,
    store,
    total,
)


class Data(NamedTuple):
    """What is modelled, and where it is; all (feature times row) but for what says not.

    They are flat, one feature after the other, which takes less time to compile, with an empty one
    at the end where their number is odd: they are added up in pairs. `observed` is empty if all
    are there, `previous` where no density depends on it. `begins` (group + 1) is where groups
    begin, `place` (row) where a row is outside; `pieces` say which values vary about the same line,
    and `layout` which rows make a run.
    """

    values: np.ndarray
    observed: np.ndarray
    previous: np.ndarray
    begins: np.ndarray
    place: np.ndarray
    pieces: Pieces
    layout: Layout


class Constants(NamedTuple):
    """Independent normal features: `mean` and `scale` (state, feature)."""

    mean: np.ndarray
    scale: np.ndarray


class Lines(NamedTuple):
    """The lines that features vary about, all (gap, state, feature), and the tails.

    A feature is intercept + slope * previous + bend * previous² + scale * e, with e standard
    normal, or Student-t with `df` degrees of freedom where that is not 0; `bend` is empty where
    lines are straight. `log_norm` is the logarithm of the constant factor of the density of e.
    """

    intercept: np.ndarray
    slope: np.ndarray
    bend: np.ndarray
    scale: np.ndarray
    df: float
    log_norm: float


class Sums(NamedTuple):
    """Sums over rows, weighted with the probability of each state; all (gap, state, feature).

    `counts` has this weight alone. The others weigh a row also by the precision of its e, 1 where
    it is normal and (df + 1) / (df + e²) where it is Student-t (Lange, Little & Taylor 1989,
    doi:10.1080/01621459.1989.10478852): `weights` sums 1, and the others the values, their squares,
    the previous values, their squares, and the products of both; where lines bend, also the third
    and fourth powers of the previous values, and the products of their squares with the values.
    """

    counts: np.ndarray
    weights: np.ndarray
    values: np.ndarray
    squares: np.ndarray
    previous: np.ndarray
    previous_squares: np.ndarray
    products: np.ndarray
    previous_cubes: np.ndarray
    previous_fourths: np.ndarray
    square_products: np.ndarray


def arrange(series: Series, layout: Layout) -> tuple[Data, np.ndarray]:
    """Scale a series and bring it into lane order; also returns the gaps (gap) of its classes."""
    place, begins = in_lane_order(layout)
    n_features, n_rows = series.values.shape[1], len(place)
    shape = n_features + n_features % 2, padded.py_func(n_rows)
    gaps, gap_class = _gap_classes(series)

    def in_order(array: np.ndarray) -> np.ndarray:
        out = aligned.py_func(shape[0] * shape[1]).view(array.dtype)
        out[:] = 0
        out.reshape(shape)[:n_features, :n_rows] = array[place].T
        return out

    centred = series.previous if series.previous.size else series.values
    centred = (centred - series.location) / series.spread * series.observed
    values, previous = centred, np.zeros(0)
    if series.previous.size:
        values, previous = series.values / series.spread * series.observed, in_order(centred)
    data = Data(
        in_order(values),
        np.zeros(0) if series.complete else in_order(series.observed.astype(np.float64)),
        previous,
        begins,
        np.append(place, np.zeros(shape[1] - n_rows, np.int64)),
        cut(begins, series.observed[place].T, gap_class[place].T),
        layout,
    )
    return data, gaps


def _gap_classes(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Return the different gaps (gap) of a series, and which one each value has."""
    if not series.gap.size or not series.observed.any():
        return np.ones(1), np.zeros(series.values.shape, np.int64)
    # gaps of unobserved values must not make a class of their own
    seen = np.where(series.observed, series.gap, series.gap[series.observed][0])
    gaps, gap_class = np.unique(seen, return_inverse=True)
    return gaps, gap_class.reshape(seen.shape).astype(np.int64)


def log_norm(df: float) -> float:
    """Logarithm of the constant factor of the standard normal (df 0) or Student-t density."""
    if df == 0:
        return float(-0.5 * np.log(2.0 * np.pi))
    return float(gammaln(0.5 * (df + 1.0)) - gammaln(0.5 * df) - 0.5 * np.log(df * np.pi))


# Which code is compiled depends on the type of `lines`: a fit of normal features about constants
# does not wait for the rest.


def log_emission(data: Any, index: int, lines: Any, out: Any) -> None:
    """Log density (state, row) of the rows of a group, and anything for a few after these."""
    (_log_normal if isinstance(lines, Constants) else log_by_piece)(data, index, lines, out)


@overload(log_emission, jit_options=OPTIONS)
def _log_emission(data: Any, index: Any, lines: Any, out: Any) -> Any:
    def normal(data: Any, index: Any, lines: Any, out: Any) -> Any:
        _log_normal(data, index, lines, out)

    def general(data: Any, index: Any, lines: Any, out: Any) -> Any:
        log_by_piece(data, index, lines, out)

    return normal if lines.instance_class is Constants else general


@kernel
def _log_normal(data: Any, index: int, lines: Any, out: Any) -> None:
    values, presence, n_columns = data.values, data.observed, data.place.shape[0]
    first, n_rows = data.begins[index], rows_of_group(data, index)
    mean, scale = lines.mean, lines.scale
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
def new_sums(n_gaps: int, n_states: int, n_features: int) -> Any:
    """Room for the sums (gap, state, feature, kind, lane), all 0."""
    return np.zeros((n_gaps, n_states, n_features + n_features % 2, N_SUMS, LANES))


def add_up(data: Any, index: int, lines: Any, probs: Any, sums: Any) -> None:
    """Add the rows of a group to `sums`, weighted with their `probs` (state, row)."""
    raise TypeError("for compiled code")


@overload(add_up, jit_options=OPTIONS)
def _add_up(data: Any, index: Any, lines: Any, probs: Any, sums: Any) -> Any:
    def normal(data: Any, index: Any, lines: Any, probs: Any, sums: Any) -> None:
        _add_up_normal(data, index, probs, sums)

    def general(data: Any, index: Any, lines: Any, probs: Any, sums: Any) -> None:
        add_by_piece(data, index, lines, probs, sums)

    return normal if lines.instance_class is Constants else general


@inner
def _add_up_normal(  # noqa: C901  # a call in the loop over states costs more than the rest of it
    data: Any, index: int, probs: Any, sums: Any
) -> None:
    """Do what `add_up` does.

    One vector of rows at a time: with more sums than these, or rows, AVX2 runs out of registers.
    """
    values, n_columns, complete = data.values, data.place.shape[0], data.observed.shape[0] == 0
    first, n_rows = data.begins[index], rows_of_group(data, index)
    n_states, n_features = sums.shape[1:3]
    weights, everywhere = np.empty(n_states), np.zeros(n_states)
    for start in range(0, n_rows, BLOCK):
        stop = min(start + BLOCK, n_rows)
        weigh_block(probs, start, stop, weights)
        for d in range(0, n_features, 2):  # in pairs: fewer reads for each product
            one, other = d * n_columns + first, (d + 1) * n_columns + first
            for k in range(n_states):  # within, while the features are in the innermost cache
                if weights[k] < NOTHING:
                    continue
                value_1 = value_2 = square_1 = square_2 = fill(0.0)
                for row in range(start, stop, LANES):
                    p = load(probs, (k, row))
                    y_1, y_2 = load(values, (one + row,)), load(values, (other + row,))
                    part_1, part_2 = p * y_1, p * y_2
                    value_1, value_2 = value_1 + part_1, value_2 + part_2
                    square_1, square_2 = square_1 + part_1 * y_1, square_2 + part_2 * y_2
                add_to(sums, (0, k, d, VALUES, 0), value_1)
                add_to(sums, (0, k, d + 1, VALUES, 0), value_2)
                add_to(sums, (0, k, d, SQUARES, 0), square_1)
                add_to(sums, (0, k, d + 1, SQUARES, 0), square_2)
        if complete:
            for k in range(n_states):
                everywhere[k] += weights[k]
        else:
            _count_observed(data, first, start, stop, probs, weights, sums)
    if complete:
        for k in range(n_states):
            for d in range(n_features):
                sums[0, k, d, COUNTS, 0] += everywhere[k]
                sums[0, k, d, WEIGHTS, 0] += everywhere[k]


@inner
def _count_observed(
    data: Any, first: int, start: int, stop: int, probs: Any, weights: Any, sums: Any
) -> None:
    """Add up the probabilities of the rows of a block in which a feature is there."""
    n_states, n_features = sums.shape[1:3]
    for k in range(n_states):
        if weights[k] < NOTHING:
            continue
        for d in range(n_features):
            count, at = fill(0.0), d * data.place.shape[0] + first
            for row in range(start, stop, LANES):
                count = count + load(probs, (k, row)) * load(data.observed, (at + row,))
            add_to(sums, (0, k, d, COUNTS, 0), count)
            add_to(sums, (0, k, d, WEIGHTS, 0), count)


@inner
def finish(sums: Any, n_features: int) -> Any:
    """Sum over lanes."""
    n_gaps, n_states = sums.shape[:2]
    out = np.empty((N_SUMS, n_gaps, n_states, n_features))
    for i in range(N_SUMS):
        for gap in range(n_gaps):
            for k in range(n_states):
                for d in range(n_features):
                    out[i, gap, k, d] = total(load(sums, (gap, k, d, i, 0)))
    return Sums(out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7], out[8], out[9])
