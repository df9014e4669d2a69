"""Bridge sampling: the integral of a density from draws of it and of a proposal fitted to them.

Meng & Wong 1996 (Statistica Sinica 6, 831); Gronau et al. 2017 (doi:10.1016/j.jmp.2017.09.005).
The proposal is averaged over renumberings of the states, which makes the answer the same whatever
names the draws have (Frühwirth-Schnatter 2004, doi:10.1111/j.1368-423X.2004.00125.x; Celeux,
Frühwirth-Schnatter & Robert 2019, doi:10.1201/9780429055911-7).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

# rounds of the iteration; each brings it closer by a factor, a few dozen are usual
_ROUNDS = 5000
_TOLERANCE = 1e-10


class Proposal(NamedTuple):
    """A multivariate normal distribution.

    `centre` (dim); `factor` (dim, dim) is the lower triangle whose product with its own transpose
    is the covariance.
    """

    centre: np.ndarray
    factor: np.ndarray

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw points (n, dim)."""
        return self.centre + rng.normal(size=(n, len(self.centre))) @ self.factor.T

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Log density (point), nats."""
        z = solve_triangular(self.factor, (points - self.centre).T, lower=True)
        constant = np.sum(np.log(np.diagonal(self.factor)))
        constant += 0.5 * len(self.centre) * np.log(2.0 * np.pi)
        return -constant - 0.5 * np.sum(z**2, axis=0)


class Estimate(NamedTuple):
    """Log of the integral (nats), its relative standard error, and the draws' effective number."""

    log_integral: float
    relative_error: float
    effective_draws: float


def fit_proposal(points: np.ndarray, effective: float) -> Proposal:
    """Fit mean and covariance to points (point, dim), as good as so many independent ones.

    Correlations are shrunk towards 0, by as much as their errors make up of them (Schäfer &
    Strimmer 2005, doi:10.2202/1544-6115.1175): a few thousand draws do not settle the tens of
    thousands of correlations that a large model has.
    """
    centre, spread = points.mean(axis=0), points.std(axis=0, ddof=1)
    # one that does not vary, up to rounding; whatever the units
    spread = np.maximum(spread, 1e-15 * np.abs(centre))
    spread = np.where(spread > 0.0, spread, 1e-12)
    z = (points - centre) / spread
    correlation = z.T @ z / (len(points) - 1)
    identity = np.eye(len(centre))
    off = correlation * (1.0 - identity)
    errors = np.sum((1.0 - off**2) ** 2 * (1.0 - identity)) / max(effective - 1.0, 1.0)
    kept = max(0.0, 1.0 - errors / max(float(np.sum(off**2)), 1e-300))
    factor = np.linalg.cholesky(identity + kept * off)
    return Proposal(centre, spread[:, None] * factor)


def symmetrised(
    proposal: Proposal, exchanges: Iterable[np.ndarray], points: np.ndarray
) -> np.ndarray:
    """Log density (point) of the proposal with its states renumbered at random.

    Parameters
    ----------
    proposal : Proposal
    exchanges : iterable of ndarray (dim, dim)
        Matrices of all renumberings of a group, the one that does nothing included.
    points : ndarray (point, dim)
    """
    total, n_exchanges = np.full(len(points), -np.inf), 0
    for matrix in exchanges:
        np.logaddexp(total, proposal.log_density(points @ matrix.T), out=total)
        n_exchanges += 1
    return total - np.log(n_exchanges)


def bridge(draws: np.ndarray, proposed: np.ndarray) -> Estimate:
    """Estimate the integral by the bridge function that is optimal for draws of this quality.

    Parameters
    ----------
    draws : ndarray (chain, draw)
        Log density less that of the proposal, nats, at draws of the density.
    proposed : ndarray (point)
        The same at independent draws of the proposal.

    Returns
    -------
    Estimate

    Notes
    -----
    With p the density over its integral and q the proposal, the relative variance is that of
    p / (s1 p + s2 q) over the points proposed, plus that of q / (s1 p + s2 q) over the draws, each
    over the squared mean and the effective number (Frühwirth-Schnatter 2004; Gronau et al. 2017,
    equation 16).
    """
    shift = float(np.median(draws))
    first, second = np.ravel(draws) - shift, proposed - shift
    n_first = effective_size(draws)
    weights = np.array([n_first, len(second)]) / (n_first + len(second))
    log_s1, log_s2 = np.log(weights)
    log_r = 0.0
    for _ in range(_ROUNDS):
        above = logsumexp(second - np.logaddexp(log_s1 + second, log_s2 + log_r)) - np.log(
            len(second)
        )
        below = logsumexp(-np.logaddexp(log_s1 + first, log_s2 + log_r)) - np.log(len(first))
        before, log_r = log_r, above - below
        if not np.isfinite(log_r):
            return Estimate(float("nan"), float("inf"), n_first)
        if abs(log_r - before) < _TOLERANCE:
            break
    f_first = np.exp(-np.logaddexp(log_s1 + draws - shift - log_r, log_s2))
    f_second = np.exp(second - log_r - np.logaddexp(log_s1 + second - log_r, log_s2))
    n_effective = effective_size(f_first)
    variance = f_first.var() / f_first.mean() ** 2 / n_effective
    variance += f_second.var() / f_second.mean() ** 2 / len(second)
    return Estimate(log_r + shift, float(np.sqrt(variance)), n_effective)


def effective_size(values: np.ndarray) -> float:
    """Effective number of independent draws among values (chain, draw).

    From the autocorrelations, summed until those of a pair of lags are together negative (Geyer
    1992, doi:10.1214/ss/1177011137), around the mean of all chains, so that chains that disagree
    count as few. At most the number of draws.
    """
    n_draws = values.shape[1]
    centred = values - values.mean()
    if n_draws < 4 or not np.any(centred) or not np.isfinite(centred).all():
        return float(values.size)
    spectrum = np.fft.rfft(centred, 2 * n_draws, axis=1)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :n_draws].mean(axis=0)
    correlation = covariance / covariance[0]
    n_pairs = n_draws // 2
    pairs = correlation[: 2 * n_pairs].reshape(n_pairs, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    pairs = np.minimum.accumulate(pairs[: negative[0]] if len(negative) else pairs)
    time = max(2.0 * pairs.sum() - 1.0, 1.0)
    return values.size / time
