"""From rates of switching to transition matrices: the exponential of a generator, exactly enough.

A generator has the rates beside its diagonal and rows that sum to 0. Shifted by its largest rate of
leaving it has no negative entry, and neither has any term of its exponential's series nor of the
squarings that follow: nothing cancels, so that every probability, however small, has nearly all of
its digits (uniformisation with scaling and squaring; Moler & Van Loan 2003,
doi:10.1137/S00361445024180; Xue & Ye 2013, doi:10.1090/S0025-5718-2013-02677-4).
"""

from typing import Any

import numpy as np

from bayesphase.model.simd import inner, kernel

# terms of the series for a matrix whose rows sum to at most 1: what is left out is under 1e-17
_TERMS = 18


@inner
def _product(one: Any, other: Any, factor: float, out: Any) -> None:
    n = one.shape[0]
    for i in range(n):
        for j in range(n):
            total = 0.0
            for k in range(n):
                total += one[i, k] * other[k, j]
            out[i, j] = total * factor


@inner
def _shifted(rates: Any, gap: float, out: Any) -> Any:
    """Write what is exponentiated before squaring; returns the shift and number of squarings."""
    n = rates.shape[0]
    most = 0.0
    for i in range(n):
        leave = 0.0
        for j in range(n):
            if j != i:
                leave += rates[i, j]
        out[i, i] = -leave
        most = max(most, leave)
    squarings = 0
    while np.isfinite(most * gap) and most * gap * 0.5**squarings > 1.0:
        squarings += 1
    small = gap * 0.5**squarings
    for i in range(n):
        for j in range(n):
            out[i, j] = (out[i, i] + most if i == j else rates[i, j]) * small
    return most * small, squarings


@kernel
def matrices(rates: Any, gaps: Any) -> Any:
    """Transition matrices exp(Q gap), rows that sum to 1.

    Parameters
    ----------
    rates : ndarray (state, state)
        Of switching from state i (first) to j; the diagonal is not looked at.
    gaps : ndarray (gap)
        In the inverse of the rates' unit.

    Returns
    -------
    ndarray (gap, state, state)
    """
    n = rates.shape[0]
    out = np.empty((gaps.shape[0], n, n))
    base, term, new, total = (
        np.empty((n, n)),
        np.empty((n, n)),
        np.empty((n, n)),
        np.empty((n, n)),
    )
    for g in range(gaps.shape[0]):
        shift, squarings = _shifted(rates, gaps[g], base)
        term[:] = np.eye(n)
        total[:] = term
        for i in range(1, _TERMS):
            _product(base, term, 1.0 / i, new)
            term[:] = new
            total += term
        total *= np.exp(-shift)
        for _ in range(squarings):
            _product(total, total, 1.0, new)
            total[:] = new
        out[g] = total
    return out


@kernel
def derivative(rates: Any, gaps: Any, weights: Any) -> Any:
    """Differentiate sum(weights * matrices(rates, gaps)) with respect to the generator.

    The integral over a gap of exp(Q' s) W exp(Q' (gap - s)) is a block of the exponential of
    [[Q', W], [0, Q']] gap (Van Loan 1978, doi:10.1109/TAC.1978.1101743); its two distinct blocks
    are kept.

    Parameters
    ----------
    rates : ndarray (state, state)
    gaps : ndarray (gap)
    weights : ndarray (gap, state, state)

    Returns
    -------
    ndarray (state, state)
        Entries of the generator taken one by one, those on its diagonal too.
    """
    n = rates.shape[0]
    out = np.zeros((n, n))
    base, part = np.empty((n, n)), np.empty((n, n))
    term, slope, new, other = (
        np.empty((n, n)),
        np.empty((n, n)),
        np.empty((n, n)),
        np.empty((n, n)),
    )
    total, result = np.empty((n, n)), np.empty((n, n))
    for g in range(gaps.shape[0]):
        shift, squarings = _shifted(rates, gaps[g], part)
        base[:] = part.T
        weight = weights[g] * (gaps[g] * 0.5**squarings)
        term[:] = np.eye(n)
        slope[:] = 0.0
        total[:] = term
        result[:] = 0.0
        for i in range(1, _TERMS):
            _product(base, slope, 1.0 / i, new)
            _product(weight, term, 1.0 / i, other)
            slope[:] = new + other
            _product(base, term, 1.0 / i, new)
            term[:] = new
            total += term
            result += slope
        total *= np.exp(-shift)
        result *= np.exp(-shift)
        for _ in range(squarings):
            _product(total, result, 1.0, new)
            _product(result, total, 1.0, other)
            result[:] = new + other
            _product(total, total, 1.0, new)
            total[:] = new
        out += result
    return out
