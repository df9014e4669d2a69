"""Rows sorted by which of their features are observed, and their correlated normal densities.

A row with holes has the marginal density of the features that are there. What is seen of a row is
mean + scale * (T e) with e standard normal and T triangular: rows of the Cholesky factor of all
correlations, made triangular by turning the axes (Gram-Schmidt), which keeps more digits than
decomposing a part of the correlation matrix, and makes the gradient a product of matrices.
"""

from typing import Any, NamedTuple

import numpy as np

from bayesphase.model.rows import Rows
from bayesphase.model.simd import LANES, aligned, fill, inner, kernel, load, store, total

# rows that are summed over before the next pair of features: they stay in the innermost cache
_BLOCK = 16 * LANES

# two vectors at a time, each with a sum of its own: one sum waits for its last addition
_STRIDE = 2 * LANES

# probabilities that all sums can do without
_NOTHING = 1e-23


class Patterns(NamedTuple):
    """Rows in columns, those that lack the same features together; rows of nothing are left out.

    `values` (feature, column) are scaled. The columns of a pattern go from `begins` (pattern) to
    `ends` (pattern), and what is left until the next begins is empty. `place` (column) is the row.
    The first `n_seen` (pattern) of `seen` (pattern, feature) are the features observed.
    """

    values: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    place: np.ndarray
    n_seen: np.ndarray
    seen: np.ndarray
    n_rows: int


def patterns(values: np.ndarray, rows: Rows) -> Patterns:
    """Sort the scaled `values` (row, feature) by what is observed."""
    kinds, which = np.unique(rows.observed, axis=0, return_inverse=True)
    which = which.reshape(-1)  # NumPy 2.0 returned a column
    used = np.flatnonzero(kinds.any(axis=1))
    sorted_rows = [np.flatnonzero(which == number) for number in used]
    counts = np.array([len(part) for part in sorted_rows], np.int64)
    ends = np.cumsum(-(-counts // _STRIDE) * _STRIDE)
    begins = ends - (-(-counts // _STRIDE) * _STRIDE)
    n_columns = int(ends[-1]) if len(ends) else 0
    place = np.zeros(n_columns, np.int64)
    columns = aligned.py_func(n_columns * values.shape[1]).reshape(values.shape[1], n_columns)
    columns[:] = 0.0
    for begin, part in zip(begins, sorted_rows, strict=True):
        place[begin : begin + len(part)] = part
        columns[:, begin : begin + len(part)] = values[part].T
    seen = np.argsort(~kinds[used], axis=1, kind="stable")
    n_seen = kinds[used].sum(axis=1)
    return Patterns(columns, begins, begins + counts, place, n_seen, seen, len(values))


class Normals(NamedTuple):
    """Normal distributions (state) of scaled features.

    `mean` and `scale` are (state, feature), and `root` (state, feature, feature) are the lower
    Cholesky factors of the correlations.
    """

    mean: np.ndarray
    scale: np.ndarray
    root: np.ndarray


class White(NamedTuple):
    """Rows as standard normal numbers, for each pattern those that it has.

    `table` (row, state) is the log density, nats; `noise` (state times feature, column) are the
    numbers e; `triangle`, its `inverse`, and `basis` (pattern, state, feature, feature) have as
    many rows as features are seen, and 0 below: triangle @ basis are the rows of the root.
    """

    table: np.ndarray
    noise: np.ndarray
    triangle: np.ndarray
    inverse: np.ndarray
    basis: np.ndarray


@inner
def _turn(root: Any, seen: Any, n_seen: int, triangle: Any, inverse: Any, basis: Any) -> None:
    """Make the rows of the root that are seen triangular."""
    n = root.shape[0]
    for a in range(n_seen):
        own = basis[a]
        for d in range(n):
            own[d] = root[seen[a], d]
        for b in range(a):
            part = 0.0
            for d in range(n):
                part += own[d] * basis[b, d]
            for d in range(n):
                own[d] -= part * basis[b, d]
            triangle[a, b] = part
        length = 0.0
        for d in range(n):
            length += own[d] ** 2
        length = np.sqrt(length)
        triangle[a, a] = length
        for d in range(n):
            own[d] /= length
        for b in range(a):
            part = 0.0
            for c in range(b, a):
                part += triangle[a, c] * inverse[c, b]
            inverse[a, b] = -part / length
        inverse[a, a] = 1.0 / length


@kernel
def whiten(parts: Any, normals: Any) -> Any:
    """Log densities of all rows, and what `moments` needs to know."""
    mean, scale, values = normals.mean, normals.scale, parts.values
    n_states, n = mean.shape
    n_patterns, n_columns = parts.begins.shape[0], values.shape[1]
    shape = (n_patterns, n_states, n, n)
    triangle, inverse, basis = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    noise = aligned(n_states * n * n_columns).reshape((n_states * n, n_columns))
    table = np.zeros((parts.n_rows, n_states))
    away, density = np.empty((n, LANES)), np.empty(LANES)
    for p in range(n_patterns):
        seen, n_seen = parts.seen[p], parts.n_seen[p]
        for k in range(n_states):
            own = inverse[p, k]
            _turn(normals.root[k], seen, n_seen, triangle[p, k], own, basis[p, k])
            constant = -0.5 * n_seen * np.log(2.0 * np.pi)
            for a in range(n_seen):
                constant += np.log(own[a, a]) - np.log(scale[k, seen[a]])
            size = (parts.ends[p] - parts.begins[p] + _STRIDE - 1) // _STRIDE * _STRIDE
            for column in range(parts.begins[p], parts.begins[p] + size, LANES):
                for a in range(n_seen):
                    d = seen[a]
                    distance = load(values, (d, column)) - mean[k, d]
                    store(away, (a, 0), distance * (1.0 / scale[k, d]))
                squares = fill(0.0)
                for a in range(n_seen):
                    e = load(away, (0, 0)) * own[a, 0]
                    for b in range(1, a + 1):
                        e = e + load(away, (b, 0)) * own[a, b]
                    store(noise, (k * n + a, column), e)
                    squares = squares + e * e
                store(density, (0,), squares * -0.5 + constant)
                for lane in range(min(LANES, parts.ends[p] - column)):
                    table[parts.place[column + lane], k] = density[lane]
    return White(table, noise, triangle, inverse, basis)


@inner
def _take(weights: Any, place: Any, out: Any) -> float:
    """Write the weights (row) of a few rows to `out`, and 0 after them; returns their sum."""
    count = 0.0
    for i in range(out.shape[0]):
        out[i] = 0.0
        if i < place.shape[0]:
            out[i] = weights[place[i]]
            count += out[i]
    return count


@kernel
def moments(parts: Any, white: Any, weights: Any) -> Any:
    """Sum counts, e, and the products of e over rows with `weights` (row, state).

    Returns
    -------
    counts : ndarray (pattern, state)
    sums : ndarray (pattern, state, feature)
    products : ndarray (pattern, state, feature, feature)
    """
    noise, n_states = white.noise, weights.shape[1]
    n_patterns, n = parts.begins.shape[0], parts.values.shape[0]
    counts, sums = np.zeros((n_patterns, n_states)), np.zeros((n_patterns, n_states, n))
    products = np.zeros((n_patterns, n_states, n, n))
    weight, weighted = np.zeros(_BLOCK), np.empty(_BLOCK)
    for p in range(n_patterns):
        n_seen, end = parts.n_seen[p], parts.ends[p]
        for k in range(n_states):
            for first in range(parts.begins[p], end, _BLOCK):
                size = min(_BLOCK, (end - first + _STRIDE - 1) // _STRIDE * _STRIDE)
                count = _take(weights[:, k], parts.place[first:end], weight)
                if count < _NOTHING:
                    continue
                counts[p, k] += count
                for a in range(n_seen):
                    one = two = fill(0.0)
                    for i in range(0, size, _STRIDE):
                        x = load(noise, (k * n + a, first + i)) * load(weight, (i,))
                        y = load(noise, (k * n + a, first + i + LANES)) * load(weight, (i + LANES,))
                        store(weighted, (i,), x)
                        store(weighted, (i + LANES,), y)
                        one, two = one + x, two + y
                    sums[p, k, a] += total(one + two)
                    for b in range(a + 1):
                        one = two = fill(0.0)
                        for i in range(0, size, _STRIDE):
                            x = load(noise, (k * n + b, first + i))
                            y = load(noise, (k * n + b, first + i + LANES))
                            one = one + load(weighted, (i,)) * x
                            two = two + load(weighted, (i + LANES,)) * y
                        products[p, k, a, b] += total(one + two)
                        products[p, k, b, a] = products[p, k, a, b]
    return counts, sums, products


def slopes(
    parts: Patterns, normals: Normals, white: White, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradient of the sum of the table of log densities times `weights` (row, state).

    Returns
    -------
    mean : ndarray (state, feature)
    log_scale : ndarray (state, feature)
    root : ndarray (state, feature, feature)
        In all entries, those above the diagonal included.
    """
    counts, sums, products = moments(parts, white, weights)
    back = np.swapaxes(white.inverse, 2, 3)
    # of the squares of e, what is not expected; `back` is 0 where a feature is not seen
    excess = back @ products - counts[:, :, None, None] * back
    by_seen = (
        (back @ sums[..., None])[..., 0],
        (excess * white.triangle).sum(axis=3),
        excess @ white.basis,
    )
    to_mean, to_scale, to_root = (_by_feature(part, parts).sum(axis=0) for part in by_seen)
    return to_mean / normals.scale, to_scale, to_root


def _by_feature(values: np.ndarray, parts: Patterns) -> np.ndarray:
    """Bring values (pattern, state, seen, ...) into the order of the features."""
    place = np.argsort(parts.seen, axis=1)[:, None]
    return np.take_along_axis(values, place.reshape(*place.shape, *[1] * (values.ndim - 3)), axis=2)


def completed(
    parts: Patterns, normals: Normals, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the expected moments of scaled features, those that are missing included.

    Parameters
    ----------
    parts : Patterns
    normals : Normals
        Where what is missing is expected.
    weights : ndarray (row, state)

    Returns
    -------
    counts : ndarray (state)
    away : ndarray (state, feature)
        Sums of the distances from the means of `normals`.
    products : ndarray (state, feature, feature)
        Sums of the products of these distances.
    """
    white = whiten(parts, normals)
    counts, sums, products = moments(parts, white, weights)
    # a row is mean + known @ e + unknown @ (standard normal numbers that nothing is known of)
    whole = normals.scale[:, :, None] * normals.root
    known = whole @ np.swapaxes(white.basis, 2, 3)
    unknown = whole - known @ white.basis
    squares = known @ products @ np.swapaxes(known, 2, 3)
    squares += counts[:, :, None, None] * (unknown @ np.swapaxes(unknown, 2, 3))
    return counts.sum(axis=0), (known @ sums[..., None])[..., 0].sum(axis=0), squares.sum(axis=0)
