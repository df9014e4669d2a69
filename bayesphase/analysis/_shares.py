"""Least squares of times on shares that sum to one, for many draws of the shares at once."""

from typing import NamedTuple

import numpy as np

# relative size under which a singular value of the shares counts as 0
_RCOND = 1e-9


class Shares(NamedTuple):
    """Least-squares fits of all draws; dims (draw) or (draw, state).

    `coefficient` is how much longer a run that spends all its time in the state is expected to take
    than the mean of the states, and `p_value` that of the two-sided t test of it being 0; NaN where
    no run is ever in the state. `r2` is in-sample, `adjusted_r2` for the number of states, and
    `r2_by_run` is of predictions of runs that are left out of the fit. `p_overall` is that of the F
    test of no state making a difference. What needs more runs than there are is NaN, and so are
    all R2 and p-values where all took the same time.
    """

    coefficient: np.ndarray
    p_value: np.ndarray
    r2: np.ndarray
    adjusted_r2: np.ndarray
    r2_by_run: np.ndarray
    p_overall: np.ndarray


def regress(shares: np.ndarray, time: np.ndarray) -> Shares:
    """Fit time (run) by shares (draw, run, state), each row of which sums to one.

    An intercept would be the sum of all shares, and is left out; R2 is about the mean, as with one.
    """
    from scipy.special import fdtrc, stdtr

    _, n_runs, n_states = shares.shape
    ever = shares.max(axis=1) > 0
    inverse, rank = _inverse(shares)
    level = inverse @ time
    fitted = (shares @ level[..., None])[..., 0]
    centred = time - time.mean()
    # nothing to explain where all are the same, whatever the rounding
    total = (centred**2).sum() if np.ptp(time) > 0.0 else np.nan
    residual = ((time - fitted) ** 2).sum(axis=1)
    left, used = n_runs - rank, rank - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = 1.0 - residual / total
        variance = np.where(left > 0, residual / left, np.nan)
        adjusted = 1.0 - variance * (n_runs - 1) / total
        if np.isnan(total):
            variance = np.full_like(variance, np.nan)
        f = np.where(used > 0, (total - residual) / used / variance, np.nan)
        p_overall = np.where(left > 0, fdtrc(used, left, f), np.nan)
        # contrasts with the mean of the states that there are
        weights = ever / ever.sum(axis=1, keepdims=True)
        contrast = np.eye(n_states) - weights[:, None, :]
        coefficient = (contrast @ level[..., None])[..., 0]
        error = np.sqrt(((contrast @ inverse) ** 2).sum(axis=2) * variance[:, None])
        t = np.abs(coefficient) / error
        p_value = 2.0 * stdtr(left[:, None], -t)
    # where states can't be told apart by their shares, neither can their coefficients
    known = ever & (rank == ever.sum(axis=1))[:, None]
    return Shares(
        np.where(known, coefficient, np.nan),
        np.where(known & (left > 0)[:, None], p_value, np.nan),
        r2,
        adjusted,
        _r2_by_run(shares, time),
        p_overall,
    )


def _r2_by_run(shares: np.ndarray, time: np.ndarray) -> np.ndarray:
    """R2 (draw) of predictions of each run by all others, over those by the mean of the others."""
    n_runs = len(time)
    if n_runs < 3 or np.ptp(time) == 0.0:
        return np.full(len(shares), np.nan)
    off = np.empty(shares.shape[:2])
    for run in range(n_runs):
        others = np.arange(n_runs) != run
        inverse, _ = _inverse(shares[:, others])
        # about their mean, which is said of a state that only this run is in
        mean = time[others].mean()
        level = inverse @ (time[others] - mean)
        off[:, run] = time[run] - mean - (shares[:, run] * level).sum(axis=1)
    from_mean = (time - time.mean()) * n_runs / (n_runs - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1.0 - (off**2).sum(axis=1) / (from_mean**2).sum()


def _inverse(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pseudo-inverse (draw, state, run) of the shares, and their rank (draw)."""
    left, values, right = np.linalg.svd(shares, full_matrices=False)
    known = values > _RCOND * values[:, :1]
    inverted = np.where(known, 1.0 / np.where(known, values, 1.0), 0.0)
    inverse = np.swapaxes(right, 1, 2) @ (inverted[:, :, None] * np.swapaxes(left, 1, 2))
    return inverse, known.sum(axis=1)
