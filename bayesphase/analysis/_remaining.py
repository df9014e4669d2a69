"""How long it still takes until something happens, learned from runs in which it did or did not."""

from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr
from scipy.stats import t as student_t

# shrinkage of coefficients of standardized covariates, in runs: the best is chosen
_SHRINKAGE = np.geomspace(0.01, 30.0, 8)
# checkpoints whose expected log time is so near count for how far off an expectation may be
_NEAR = 0.3
# of the iterations that fill in what was not seen to the end
_ROUNDS, _SETTLED = 50, 1e-4
LEAST_EVENTS = 3


class Line(NamedTuple):
    """A linear function of covariates: `at` their means, in units of their spreads."""

    level: float
    slope: np.ndarray
    at: np.ndarray
    spread: np.ndarray

    def __call__(self, covariates: np.ndarray) -> np.ndarray:
        """Values (checkpoint) at covariates (checkpoint, covariate)."""
        return self.level + (covariates - self.at) / self.spread @ self.slope


class Remaining(NamedTuple):
    """The distribution of the log of the time that remains, given covariates.

    `expected` and `square` (checkpoint) are what a line that did not know the run expected, and the
    square of how far it was off; `weight` (checkpoint) sums to 1 in each run; `df` are the degrees
    of freedom.
    """

    line: Line
    expected: np.ndarray
    square: np.ndarray
    weight: np.ndarray
    df: int

    def quantile(self, covariates: np.ndarray, probability: np.ndarray) -> np.ndarray:
        """Quantiles (sample) of the remaining time at covariates (sample, covariate)."""
        centre = self.line(covariates)
        away = (self.expected - centre[:, None]) / _NEAR
        # far from everything what counts is all, and not nothing
        near = self.weight * (np.exp(-0.5 * away**2) + 1e-9)
        scale = np.sqrt((near @ self.square) / near.sum(axis=1))
        return np.exp(centre + scale * student_t(self.df).ppf(probability))


def learn(
    covariates: np.ndarray, steps: np.ndarray, event: np.ndarray, last: np.ndarray
) -> Remaining | None:
    """Learn how the time that remains depends on where runs are.

    The log of the time until the event is linear in the covariates. Every checkpoint before a run's
    event is an example, and all of one run together count as one, since they share its fate. Runs
    in which it did not happen are censored at their end: what is missing is filled in with what is
    expected of it, given that it is longer, until this settles (Schmee & Hahn 1979,
    doi:10.1080/00401706.1979.10489811). How far off a forecast may be is what it was off in each
    run when it had not seen that run; so is the shrinkage chosen.

    Parameters
    ----------
    covariates : ndarray (run, step, covariate)
        NaN where a run has no checkpoint.
    steps : ndarray (step)
    event : ndarray (run)
        Step at which it happened; NaN if it did not.
    last : ndarray (run)
        Last step of each run.

    Returns
    -------
    Remaining, or None
        None if it happened, past the first checkpoint, in fewer than three runs.
    """
    happened = ~np.isnan(event)
    end = np.where(happened, event, last)
    example = ~np.isnan(covariates).any(axis=2) & (steps < end[:, None])
    run, step = np.nonzero(example)
    n_events = int((happened & example.any(axis=1)).sum())
    if n_events < LEAST_EVENTS:
        return None
    x, time = covariates[run, step], np.log(end[run] - steps[step])
    weight = 1.0 / example.sum(axis=1)[run]
    candidates = []
    for shrinkage in _SHRINKAGE:
        filled, variance = _filled_in(x, time, weight, ~happened[run], shrinkage)
        expected = np.empty(len(time))
        for one in np.unique(run):
            rest = run != one
            line = _line(x[rest], filled[rest], weight[rest], shrinkage)
            expected[~rest] = line(x[~rest])
        square = (filled - expected) ** 2 + variance
        line = _line(x, filled, weight, shrinkage)
        candidates.append(Remaining(line, expected, square, weight, n_events - 1))
    return min(candidates, key=lambda one: float(np.average(one.square, weights=weight)))


def _line(x: np.ndarray, y: np.ndarray, weight: np.ndarray, shrinkage: float) -> Line:
    """Ridge regression of `y` (checkpoint) on `x` (checkpoint, covariate)."""
    at = np.average(x, axis=0, weights=weight)
    spread = np.sqrt(np.average((x - at) ** 2, axis=0, weights=weight))
    spread = np.where(spread > 1e-9, spread, 1.0)
    z, level = (x - at) / spread, float(np.average(y, weights=weight))
    precision = (z * weight[:, None]).T @ z + shrinkage * np.eye(z.shape[1])
    slope = np.linalg.solve(precision, (z * weight[:, None]).T @ (y - level))
    return Line(level, slope, at, spread)


def _filled_in(
    x: np.ndarray, time: np.ndarray, weight: np.ndarray, censored: np.ndarray, shrinkage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Log times (checkpoint) where those that are censored are as expected, and their variances."""
    filled, variance = time.copy(), np.zeros(len(time))
    if not censored.any():
        return filled, variance
    for _ in range(_ROUNDS):
        line = _line(x, filled, weight, shrinkage)
        centre = line(x)
        sd = np.sqrt(np.average((filled - centre) ** 2 + variance, weights=weight))
        z = (time - centre)[censored] / sd
        # hazard of the normal distribution; from logs, as far out both are 0
        hazard = np.exp(-0.5 * z**2 - 0.5 * np.log(2.0 * np.pi) - log_ndtr(-z))
        more = centre[censored] + sd * hazard
        moved = np.abs(more - filled[censored]).max()
        filled[censored] = more
        variance[censored] = sd**2 * np.clip(1.0 + z * hazard - hazard**2, 0.0, 1.0)
        if moved < _SETTLED:
            break
    return filled, variance
