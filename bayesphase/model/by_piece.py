"""Densities and sums of features that vary about lines which differ by gap, piece by piece.

See `innovations` for what goes in and out, and `pieces` for what a piece is.
"""

from typing import Any

import numpy as np

from bayesphase.model.pieces import BEFORE, BLOCK, HERE, VALUE, WEIGHT, collect
from bayesphase.model.simd import (
    LANES,
    LN2,
    aligned,
    fill,
    inlined,
    inner,
    kernel,
    load,
    log,
    split,
    store,
    total,
)

# probabilities that all sums can do without: over a million rows they are under the rounding of 1
NOTHING = 1e-23


# places of the sums, as in `innovations.Sums`
COUNTS, WEIGHTS, VALUES, SQUARES, PREVIOUS, PREVIOUS_SQUARES, PRODUCTS = range(7)
CUBES, FOURTHS, SQUARE_PRODUCTS = range(7, 10)
N_SUMS = 10


@inlined
def rows_of_group(data: Any, index: int) -> int:
    """Count the rows of a group."""
    return data.begins[index + 1] - data.begins[index]


@inlined
def weigh_block(probs: Any, start: int, stop: int, weights: Any) -> None:
    """Add up the probabilities of the rows of a block into `weights` (state)."""
    for k in range(weights.shape[0]):
        weight = fill(0.0)
        for row in range(start, stop, LANES):
            weight = weight + load(probs, (k, row))
        weights[k] = total(weight)


@inner
def _coefficients(lines: Any) -> Any:
    """Return what `_deviation` takes, and the log of the constant factor (gap, state, feature, 5).

    Innovations are in units in which the density depends on 1 + z² (Student-t) or -z² (normal).
    """
    out, bent = np.empty((*lines.scale.shape, 5)), lines.bend.shape[0] > 0
    unit = np.sqrt(1.0 / lines.df if lines.df > 0.0 else 0.5)
    for gap in range(out.shape[0]):
        for k in range(out.shape[1]):
            for d in range(out.shape[2]):
                inverse = unit / lines.scale[gap, k, d]
                out[gap, k, d, 0] = inverse
                out[gap, k, d, 1] = lines.intercept[gap, k, d] * inverse
                out[gap, k, d, 2] = lines.slope[gap, k, d] * inverse
                out[gap, k, d, 3] = lines.bend[gap, k, d] * inverse if bent else 0.0
                out[gap, k, d, 4] = lines.log_norm - np.log(lines.scale[gap, k, d])
    return out


@inlined
def _deviation(room: Any, at: int, a: float, b: float, c: float, e: float) -> Any:
    """Innovations of eight rows of a piece, from the coefficients of their line."""
    x = load(room, (BEFORE, at))
    return load(room, (VALUE, at)) * a - b - x * (x * e + c)


@kernel
def log_by_piece(  # noqa: C901  # a call in the loop over pieces costs more than the rest of it
    data: Any, index: int, lines: Any, out: Any
) -> None:
    """Do what `innovations.log_emission` does."""
    pieces, first, n_rows = data.pieces, data.begins[index], rows_of_group(data, index)
    df, n_states = lines.df, out.shape[0]
    power = -0.5 * (df + 1.0)
    coefficients = _coefficients(lines)
    room, rows = aligned(4 * BLOCK).reshape((4, BLOCK)), np.empty(BLOCK // LANES, np.int64)
    factors = aligned(n_states * BLOCK).reshape((n_states, BLOCK))
    for k in range(n_states):
        for row in range(0, n_rows + 2 * LANES, LANES):
            store(out, (k, row), fill(0.0))
    for block in range(pieces.of_group[index], pieces.of_group[index + 1]):
        start = (block - pieces.of_group[index]) * BLOCK
        for k in range(n_states):
            for i in range(0, BLOCK, LANES):
                store(factors, (k, i), fill(1.0))
        for piece in range(pieces.of_block[block], pieces.of_block[block + 1]):
            n, d = collect(data, first, piece, rows, room), pieces.feature[piece]
            for k in range(n_states):
                line = coefficients[pieces.gap[piece], k, d]
                a, b, c, e, norm = line[0], line[1], line[2], line[3], line[4]
                for i in range(n):
                    row, here = rows[i], load(room, (HERE, i * LANES))
                    z = _deviation(room, i * LANES, a, b, c, e)
                    if df > 0.0:
                        # log(1 + z²) takes long: that of a product is taken, once for all
                        factor = load(factors, (k, row - start)) * (z * z * here + 1.0)
                        density = here * norm
                        if d % 2 > 0:  # before products grow out of range
                            exponent, factor = split(factor)
                            density = density + exponent * (power * LN2)
                        store(factors, (k, row - start), factor)
                    else:
                        density = here * (fill(norm) - z * z)
                    store(out, (k, row), load(out, (k, row)) + density)
        if df > 0.0:
            for k in range(n_states):
                for row in range(start, min(start + BLOCK, n_rows), LANES):
                    last = log(load(factors, (k, row - start))) * power
                    store(out, (k, row), load(out, (k, row)) + last)


@inlined
def add_to(sums: Any, at: Any, more: Any) -> None:
    """Add a vector to the sums at a place."""
    store(sums, at, load(sums, at) + more)


@inner
def add_by_piece(  # noqa: C901  # as above
    data: Any, index: int, lines: Any, probs: Any, sums: Any
) -> None:
    """Do what `innovations.add_up` does.

    Products with the previous values have loops of their own: in none are there more sums than
    registers.
    """
    pieces, first, n_rows = data.pieces, data.begins[index], rows_of_group(data, index)
    df, n_states = lines.df, probs.shape[0]
    lagged, bent = data.previous.shape[0] > 0, lines.bend.shape[0] > 0
    coefficients, weights = _coefficients(lines), np.empty(n_states)
    room, rows = aligned(4 * BLOCK).reshape((4, BLOCK)), np.empty(BLOCK // LANES, np.int64)
    for block in range(pieces.of_group[index], pieces.of_group[index + 1]):
        start = (block - pieces.of_group[index]) * BLOCK
        weigh_block(probs, start, min(start + BLOCK, n_rows), weights)
        for piece in range(pieces.of_block[block], pieces.of_block[block + 1]):
            n = collect(data, first, piece, rows, room)
            gap, d = pieces.gap[piece], pieces.feature[piece]
            for k in range(n_states):
                if weights[k] < NOTHING:
                    continue
                line, count = coefficients[gap, k, d], fill(0.0)
                a, b, c, e, more = line[0], line[1], line[2], line[3], (df + 1.0) / df
                for i in range(n):
                    p = load(probs, (k, rows[i])) * load(room, (HERE, i * LANES))
                    count = count + p
                    if df > 0.0:
                        z = _deviation(room, i * LANES, a, b, c, e)
                        p = p * more / (z * z + 1.0)
                    store(room, (WEIGHT, i * LANES), p)
                weight = value = square = fill(0.0)
                for i in range(0, n * LANES, LANES):
                    p, y = load(room, (WEIGHT, i)), load(room, (VALUE, i))
                    weight, value, square = weight + p, value + p * y, square + (p * y) * y
                add_to(sums, (gap, k, d, COUNTS, 0), count)
                add_to(sums, (gap, k, d, WEIGHTS, 0), weight)
                add_to(sums, (gap, k, d, VALUES, 0), value)
                add_to(sums, (gap, k, d, SQUARES, 0), square)
                if lagged:
                    before = before_square = product = fill(0.0)
                    for i in range(0, n * LANES, LANES):
                        x = load(room, (BEFORE, i))
                        p = load(room, (WEIGHT, i)) * x
                        before, before_square = before + p, before_square + p * x
                        product = product + p * load(room, (VALUE, i))
                    add_to(sums, (gap, k, d, PREVIOUS, 0), before)
                    add_to(sums, (gap, k, d, PREVIOUS_SQUARES, 0), before_square)
                    add_to(sums, (gap, k, d, PRODUCTS, 0), product)
                if bent:
                    cube = fourth = square_product = fill(0.0)
                    for i in range(0, n * LANES, LANES):
                        x = load(room, (BEFORE, i))
                        p = load(room, (WEIGHT, i)) * (x * x)
                        cube, fourth = cube + p * x, fourth + p * (x * x)
                        square_product = square_product + p * load(room, (VALUE, i))
                    add_to(sums, (gap, k, d, CUBES, 0), cube)
                    add_to(sums, (gap, k, d, FOURTHS, 0), fourth)
                    add_to(sums, (gap, k, d, SQUARE_PRODUCTS, 0), square_product)
