"""Forecasts that need no phases: what one would try first.

Those of times take when it happened in finished runs, NaN where it did not, and return samples;
those that know nothing return none.
"""

from collections.abc import Callable

import numpy as np

_N_SAMPLES = 200
_MIDDLES = (np.arange(_N_SAMPLES) + 0.5) / _N_SAMPLES
# an accuracy of 0 or 1 has no log-odds
_LEAST_SHARE = 1e-4
# of a prefix: what it takes to tell a trend from noise
_LEAST_POINTS = 5


def later_ones(event: np.ndarray, now: float) -> np.ndarray:
    """Take the steps (run) at which it happened, of the runs in which it had not by now."""
    return np.sort(event[event > now])


def mean(event: np.ndarray, now: float) -> np.ndarray:
    """Forecast the mean of those later ones, without any doubt."""
    later = later_ones(event, now)
    return np.full(min(len(later), 1), later.mean() if len(later) else np.nan)


def constant_hazard(event: np.ndarray, last: np.ndarray, now: float) -> np.ndarray:
    """Forecast an exponential distribution from now on: events over the time at risk."""
    happened = ~np.isnan(event)
    if not happened.any():
        return np.empty(0)
    rate = happened.sum() / np.where(happened, event, last).sum()
    return now - np.log1p(-_MIDDLES) / rate


class Trend:
    """The straight line that the recent half of a metric follows, and what may be.

    A share is logistic in the logarithm of time and a positive metric a power law; others are
    linear in the logarithm of time.

    Parameters
    ----------
    steps, values : ndarray (checkpoint)
        Up to now, without NaN.
    seen : ndarray
        Values of the metric in finished runs, to tell with `values` what kind it is.
    rng : Generator
    """

    def __init__(
        self, steps: np.ndarray, values: np.ndarray, seen: np.ndarray, rng: np.random.Generator
    ) -> None:
        self.to_line, self._back = _scale_of(np.append(seen, values))
        half = slice(len(steps) // 2, None)
        x, y = np.log1p(steps[half]), self.to_line(values[half])
        self.known = len(x) >= _LEAST_POINTS
        if not self.known:
            return
        design = np.column_stack([np.ones(len(x)), x])
        best, *_ = np.linalg.lstsq(design, y, rcond=None)
        self._sd = float(np.sqrt(((y - design @ best) ** 2).sum() / (len(x) - 2)))
        covariance = self._sd**2 * np.linalg.inv(design.T @ design)
        self._lines = rng.multivariate_normal(best, covariance, _N_SAMPLES)
        self._noise = self._sd * rng.standard_normal(_N_SAMPLES)

    def crosses(self, threshold: float, now: float, *, above: bool) -> np.ndarray:
        """Return steps (sample), from now on, at which it gets above a threshold, or below it.

        Now where the line is there already, whatever the metric is; infinite where it never is.
        """
        if not self.known:
            return np.empty(0)
        level, slope = self._lines.T
        goal = float(self.to_line(np.array(threshold)))
        here = level + slope * np.log1p(now)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            step = np.expm1((goal - level) / slope)
        step = np.where(step > now, step, np.inf)
        return np.where(here > goal if above else here < goal, now, step)

    def at(self, step: float) -> np.ndarray:
        """Return values (sample) at a step."""
        if not self.known:
            return np.empty(0)
        return self._back(self._lines @ [1.0, np.log1p(step)] + self._noise)


def _scale_of(seen: np.ndarray) -> tuple[Callable, Callable]:
    low, high = np.nanmin(seen), np.nanmax(seen)
    if low >= 0.0 and high <= 1.0:
        return _log_odds, lambda x: 1.0 / (1.0 + np.exp(-x))
    if low > 0.0:
        return np.log, lambda x: np.exp(np.minimum(x, 700.0))
    return np.asarray, np.asarray


def _log_odds(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, _LEAST_SHARE, 1.0 - _LEAST_SHARE)
    return np.log(share / (1.0 - share))
