"""Correlation matrices by independent numbers: partial correlations on a canonical vine.

The partial correlation r_jk of the features j > k given those before k is one number in (-1, 1) for
each pair, any such numbers make a correlation matrix, and each matrix is made in one way. If they
are independent, r_jk on (-1, 1) with both parameters of a beta distribution eta + (D - 2 - k) / 2
(k from 0), the density of the matrix R of D features is proportional to |R|^(eta - 1): LKJ
(Lewandowski, Kurowicka & Joe 2009, doi:10.1016/j.jmva.2009.04.008).

Pairs (pair) lie along the last axis, row by row below the diagonal. Their shares are (1 + r) / 2;
the logarithm of the odds of a share is twice Fisher's z of the partial correlation.
"""

from typing import Any

import numpy as np


def pairs(n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """Row j and column k (pair) of each pair."""
    return np.tril_indices(n_features, -1)


def beta_shape(n_features: int, eta: float) -> np.ndarray:
    """Both parameters (pair) of the beta distributions of shares that make a matrix LKJ(eta)."""
    _, k = pairs(n_features)
    return eta + 0.5 * (n_features - 2 - k)


def factor(shares: Any, n_features: int, xp: Any) -> Any:
    """Cholesky factor (..., feature, feature) of the correlation matrix.

    Parameters
    ----------
    shares : array (..., pair)
    n_features : int
    xp : module
        `numpy` or `pytensor.tensor`.
    """
    return factor_of(2.0 * shares - 1.0, xp.log(4.0 * shares * (1.0 - shares)), n_features, xp)


def factor_of(r: Any, log_left: Any, n_features: int, xp: Any) -> Any:
    """Do the same from partial correlations `r` and the logarithms of 1 - r², both (..., pair)."""
    half = 0.5 * _triangle(log_left, 0.0, n_features, xp)
    before = xp.cumsum(half, axis=-1) - half
    return _triangle(r, 1.0, n_features, xp) * xp.exp(before)


def _triangle(values: Any, diagonal: float, n_features: int, xp: Any) -> Any:
    """Put values (..., pair) below a diagonal."""
    n_pairs = n_features * (n_features - 1) // 2
    place = np.full((n_features, n_features), n_pairs)
    place[pairs(n_features)] = np.arange(n_pairs)
    np.fill_diagonal(place, n_pairs + 1)
    zeros = xp.zeros((*values.shape[:-1], 1))
    return xp.concatenate([values, zeros, zeros + diagonal], axis=-1)[..., place]


def shares_of(root: np.ndarray) -> np.ndarray:
    """Shares (..., pair) from a Cholesky factor: what `factor` undoes."""
    left = np.sqrt(np.cumsum(root[..., ::-1] ** 2, axis=-1)[..., ::-1])
    j, k = pairs(root.shape[-1])
    return 0.5 * (1.0 + root[..., j, k] / left[..., j, k])


def slopes(r: np.ndarray, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the derivatives of a Cholesky factor in the logarithms of the odds of its shares.

    That of r_jk moves the entry at (j, k), by the first of the results (..., pair), and shrinks all
    entries to the right of it in proportion, by the second.
    """
    j, k = pairs(root.shape[-1])
    left = np.sqrt(np.cumsum(root[..., ::-1] ** 2, axis=-1)[..., ::-1])
    return 0.5 * (1.0 - r**2) * left[..., j, k], -0.5 * r


def pull_back(slope: np.ndarray, r: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Gradient (..., pair) in the logarithms of odds.

    Parameters
    ----------
    slope : ndarray (..., feature, feature)
        In the entries of the Cholesky factor `root`; what is above the diagonal does not matter.
    r : ndarray (..., pair)
        Its partial correlations.
    root : ndarray (..., feature, feature)
    """
    j, k = pairs(root.shape[-1])
    own, shrink = slopes(r, root)
    reached = slope * root * np.tri(root.shape[-1])
    later = np.cumsum(reached[..., ::-1], axis=-1)[..., ::-1] - reached
    return slope[..., j, k] * own + later[..., j, k] * shrink
