"""Rows sorted by which of their features are observed, and their correlated normal densities.

A row with holes has the marginal density of the features that are there. Their covariance is a part
of the whole one, and the triangular root of it is found from the whole one's root by a QR
decomposition, so that nothing is squared and the gradient is exact.
"""

from typing import NamedTuple

import numpy as np

from bayesphase.model.rows import Rows


class Pattern(NamedTuple):
    """Rows in which the same features are observed.

    `rows` are a slice where they are all there are, else their numbers; `features` are the
    positions of the observed, and `values` (row, seen) theirs.
    """

    rows: slice | np.ndarray
    features: np.ndarray
    values: np.ndarray


def patterns(values: np.ndarray, rows: Rows) -> list[Pattern]:
    """Sort the scaled `values` (row, feature) by what is observed; rows without any are left out.

    Parameters
    ----------
    values : ndarray (row, feature)
    rows : Rows
    """
    kinds, which = np.unique(rows.observed, axis=0, return_inverse=True)
    which = which.reshape(-1)  # NumPy 2.0 returned a column
    found = []
    for number, seen in enumerate(kinds):
        here: slice | np.ndarray = slice(None)
        if len(kinds) > 1:
            here = np.flatnonzero(which == number)
        if seen.any():
            features = np.flatnonzero(seen)
            found.append(Pattern(here, features, np.ascontiguousarray(values[here][:, features])))
    return found


class Normals(NamedTuple):
    """Normal distributions (state) of scaled features.

    `mean` and `scale` are (state, feature), and `root` (state, feature, feature) are the lower
    Cholesky factors of the correlations.
    """

    mean: np.ndarray
    scale: np.ndarray
    root: np.ndarray


class _White(NamedTuple):
    """Rows of a pattern as standard normal numbers `noise` (state, row, seen).

    `inverse` (state, seen, seen) is that of the triangular root of the correlations of what is
    seen, and `basis` (state, seen, feature) that times the rows of the whole root.
    """

    noise: np.ndarray
    inverse: np.ndarray
    basis: np.ndarray


def _whiten(pattern: Pattern, normals: Normals) -> _White:
    seen = pattern.features
    if len(seen) == normals.root.shape[-1]:
        triangle, basis = normals.root, np.broadcast_to(np.eye(len(seen)), normals.root.shape)
    else:
        # rows of the root = triangle @ basis, the basis with orthonormal rows
        q, r = np.linalg.qr(np.swapaxes(normals.root[:, seen], 1, 2))
        triangle, basis = np.swapaxes(r, 1, 2), np.swapaxes(q, 1, 2)
    inverse = np.linalg.inv(triangle)
    whitening = inverse / normals.scale[:, None, seen]
    offset = whitening @ normals.mean[:, seen, None]
    noise = pattern.values @ np.swapaxes(whitening, 1, 2)
    noise -= np.swapaxes(offset, 1, 2)
    return _White(noise, inverse, basis)


class Densities:
    """Log densities of all rows at one point.

    Parameters
    ----------
    parts : list of Pattern
    normals : Normals
    n_rows : int

    Attributes
    ----------
    table : ndarray (row, state)
        Log density of the scaled features, nats.
    """

    def __init__(self, parts: list[Pattern], normals: Normals, n_rows: int) -> None:
        self._normals = normals
        self.table = np.zeros((n_rows, len(normals.mean)))
        self._parts = [(pattern, _whiten(pattern, normals)) for pattern in parts]
        for pattern, white in self._parts:
            seen = pattern.features
            diagonal = np.abs(np.diagonal(white.inverse, axis1=1, axis2=2))
            constant = np.log(diagonal / normals.scale[:, seen]).sum(axis=1)
            constant -= 0.5 * len(seen) * np.log(2.0 * np.pi)
            squares = np.einsum("krd,krd->rk", white.noise, white.noise)
            self.table[pattern.rows] = constant - 0.5 * squares

    def slopes(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gradient of the sum of the table times `weights` (row, state).

        Returns
        -------
        mean : ndarray (state, feature)
        log_scale : ndarray (state, feature)
        root : ndarray (state, feature, feature)
            In all entries, those above the diagonal included.
        """
        mean, scale, root = self._normals
        to_mean, to_scale, to_root = np.zeros_like(mean), np.zeros_like(scale), np.zeros_like(root)
        for pattern, (noise, inverse, basis) in self._parts:
            seen, weight = pattern.features, weights[pattern.rows].T
            weighted = noise * weight[:, :, None]
            squares = np.swapaxes(weighted, 1, 2) @ noise
            back = np.swapaxes(inverse, 1, 2)
            to_mean[:, seen] += (back @ weighted.sum(axis=1)[:, :, None])[:, :, 0]
            # n away from what is expected of the squares of noise
            count = weight.sum(axis=1)[:, None, None]
            excess = back @ (squares - count * np.eye(len(seen)))
            to_root[:, seen] += excess @ basis
            triangle_rows = root[:, seen] @ np.swapaxes(basis, 1, 2)
            to_scale[:, seen] += np.einsum("kij,kij->ki", excess, triangle_rows)
        return to_mean / scale, to_scale, to_root


def completed(
    parts: list[Pattern], normals: Normals, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expected moments of scaled features, those that are missing included.

    Parameters
    ----------
    parts : list of Pattern
    normals : Normals
        Where what is missing is expected.
    weights : ndarray (row, state)

    Returns
    -------
    counts : ndarray (state)
    sums : ndarray (state, feature)
    products : ndarray (state, feature, feature)
    """
    n_states, n_features = normals.mean.shape
    counts, sums = np.zeros(n_states), np.zeros((n_states, n_features))
    products = np.zeros((n_states, n_features, n_features))
    for pattern in parts:
        seen, weight = pattern.features, weights[pattern.rows].T
        weighted = pattern.values * weight[:, :, None]
        n = weight.sum(axis=1)[:, None, None]
        first, second = weighted.sum(axis=1), np.swapaxes(weighted, 1, 2) @ pattern.values
        # all features = constant + slope @ the observed + what these say nothing of
        whole = normals.scale[:, :, None] * normals.root
        rows = np.swapaxes(whole[:, seen], 1, 2)
        slope = np.swapaxes(np.linalg.solve(np.swapaxes(rows, 1, 2) @ rows, whole[:, seen] @ np.swapaxes(whole, 1, 2)), 1, 2)
        slope[:, seen] = np.eye(len(seen))
        constant = normals.mean - (slope @ normals.mean[:, seen, None])[:, :, 0]
        unseen = whole - slope @ whole[:, seen]
        mixed = constant[:, :, None] * (slope @ first[:, :, None])[:, None, :, 0]
        counts += n[:, 0, 0]
        sums += n[:, 0] * constant + (slope @ first[:, :, None])[:, :, 0]
        products += slope @ second @ np.swapaxes(slope, 1, 2) + mixed + np.swapaxes(mixed, 1, 2)
        products += n * (
            constant[:, :, None] * constant[:, None, :] + unseen @ np.swapaxes(unseen, 1, 2)
        )
    return counts, sums, products
