"""The exponent of a power law in the tail of eigenvalues."""

from __future__ import annotations

import numpy as np

_FEWEST = 8  # values in a tail: the error of the exponent is then some 35% of alpha - 1


def power_law_alpha(eigenvalues: np.ndarray) -> float:
    r"""Fit a power law :math:`p(x) \propto x^{-\alpha}, x \ge x_{min}` to the largest values.

    For each value as :math:`x_{min}`, alpha is the maximum-likelihood estimate
    :math:`1 + n / \sum_i \log(x_i / x_{min})` over the n values from it on (Hill's estimator, Hill
    1975, doi:10.1214/aos/1176343247); the :math:`x_{min}` is taken at which the largest distance
    between the empirical and the fitted cumulative distribution (Kolmogorov-Smirnov) is least:
    Clauset, Shalizi & Newman 2009, doi:10.1137/070710111. Tails of fewer than 8 values are not
    considered. Its use for weights: Martin & Mahoney 2021, JMLR 22(165).

    The choice of :math:`x_{min}` may jump between two checkpoints, and alpha with it.

    Parameters
    ----------
    eigenvalues : ndarray
        Of W^T W, shape (n,), in any order; zeros are left out. Alpha has no units.

    Returns
    -------
    float
        NaN if there are fewer than 8 positive values, or all of every tail are equal.
    """
    x = np.sort(eigenvalues[eigenvalues > 0.0])
    if x.size < _FEWEST:
        return float("nan")
    logs = np.log(x)
    starts = np.arange(x.size - _FEWEST + 1)
    starts = starts[np.r_[True, np.diff(x[: starts.size]) > 0]]  # a tail has all of equal values
    counts = x.size - starts
    sums = np.cumsum(logs[::-1])[::-1][starts] - counts * logs[starts]
    spread = sums > 1e-10 * counts  # equal values have no exponent
    best = (np.inf, float("nan"))
    for start, n, total in zip(starts[spread], counts[spread], sums[spread], strict=True):
        rate = n / total  # alpha - 1
        fitted = -np.expm1(-rate * (logs[start:] - logs[start]))
        steps = np.arange(n + 1) / n
        distance = max((steps[1:] - fitted).max(), (fitted - steps[:-1]).max())
        best = min(best, (float(distance), float(1.0 + rate)))
    return best[1]
