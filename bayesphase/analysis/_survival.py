"""Regression of times that may be censored on what runs went through, for many draws at once.

log(time) of a run is normal about intercept + effects · x with standard deviation sigma: an
accelerated-failure-time model (Wei 1992, doi:10.1002/sim.4780111409), in which exp(effect) is the
factor that x = 1 multiplies the time by. A run that was seen up to a time without the event had a
longer one.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

# prior standard deviation of an effect, in sigmas
_WIDTH = 10.0
# of sigma: inverse gamma, worth one observation that is a factor exp(0.3) off
_WORTH, _SPREAD = 1.0, 0.3
# after so many sweeps censored times are taken for draws of the posterior
_SWEEPS = 100


class Effects(NamedTuple):
    """Draws of the posterior: `effect` (draw, predictor), `intercept` and `sigma` (draw)."""

    effect: np.ndarray
    intercept: np.ndarray
    sigma: np.ndarray


def sample_effects(
    x: np.ndarray, log_time: np.ndarray, censored: np.ndarray, *, rng: np.random.Generator
) -> Effects:
    """Draw once from the posterior under each draw of the predictors.

    Parameters
    ----------
    x : ndarray (draw, run, predictor)
        The effect of a predictor that is 0 in all runs of a draw has its prior there.
    log_time : ndarray (run)
        Logarithm of the time of the event, or of the last one without it.
    censored : ndarray (run)
        Whether it is the latter. At least one run must not be.
    rng : Generator

    Returns
    -------
    Effects

    Notes
    -----
    The prior is p(intercept) constant, effect ~ Normal(0, (10 sigma)²), and sigma² inverse-gamma,
    so that without censored times the posterior is a normal-inverse-gamma distribution, and draws
    are exact. With them, Gibbs sampling fills the censored times in (Tanner & Wong 1987,
    doi:10.1080/01621459.1987.10478458), for each draw of the predictors a chain of its own.
    """
    n_draws, n_runs, n_effects = x.shape
    design = np.concatenate([np.ones((n_draws, n_runs, 1)), x], axis=2)
    precision = np.swapaxes(design, 1, 2) @ design
    index = np.arange(1, n_effects + 1)
    precision[:, index, index] += _WIDTH**-2.0
    root = np.linalg.cholesky(precision)
    inverse = np.swapaxes(np.linalg.inv(root), 1, 2)
    solve = inverse @ np.swapaxes(design @ inverse, 1, 2)
    y = np.broadcast_to(log_time, (n_draws, n_runs)).copy()
    for _ in range(_SWEEPS if censored.any() else 1):
        mean = (solve @ y[..., None])[..., 0]
        fitted = (design @ mean[..., None])[..., 0]
        off = ((y - fitted) ** 2).sum(axis=1) + (mean[:, 1:] ** 2).sum(axis=1) / _WIDTH**2
        # the intercept has a flat prior, which takes one degree of freedom
        shape = 0.5 * (_WORTH + n_runs - 1)
        sigma = np.sqrt(0.5 * (_WORTH * _SPREAD**2 + off) / rng.standard_gamma(shape, n_draws))
        noise = (inverse @ rng.standard_normal((n_draws, n_effects + 1, 1)))[..., 0]
        drawn = mean + sigma[:, None] * noise
        if censored.any():
            centre = (design[:, censored] @ drawn[..., None])[..., 0]
            y[:, censored] = _above(log_time[censored], centre, sigma[:, None], rng)
    return Effects(drawn[:, 1:], drawn[:, 0], sigma)


def _above(
    least: np.ndarray, centre: np.ndarray, sigma: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw from normal distributions, of what lies above `least`; exact far out in the tail."""
    log_tail = log_ndtr((centre - least) / sigma)
    uniform = 1.0 - rng.random(centre.shape)
    return np.maximum(least, centre - sigma * ndtri_exp(log_tail + np.log(uniform)))
