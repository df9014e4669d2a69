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
    doi:10.1080/01621459.1987.10478458), for each draw of the predictors a chain of its own. Where
    none of the runs with a predictor (or none of those without it) has had the event, their times
    and the effect hold each other in place; they are then moved together in every sweep, by as much
    as the prior of the effect has it (Liu & Sabatti 2000, doi:10.1093/biomet/87.2.353).
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
    unseen = _unseen_groups(x, censored)
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
        for group in unseen:
            _move(group, y, log_time, drawn, sigma, rng)
    return Effects(drawn[:, 1:], drawn[:, 0], sigma)


class _Group(NamedTuple):
    """Runs with a predictor, or without it, none of which has had the event.

    `runs` (draw, run), of those `draws` (draw) in which it is so.
    """

    predictor: int
    with_it: bool
    draws: np.ndarray
    runs: np.ndarray


def _unseen_groups(x: np.ndarray, censored: np.ndarray) -> list[_Group]:
    """Find them, for each predictor that is 0 or 1."""
    groups = []
    for predictor in range(x.shape[2]):
        one = x[..., predictor]
        if not np.isin(one, (0.0, 1.0)).all():
            continue
        for with_it in (True, False):
            runs = one == with_it
            draws = np.flatnonzero(runs.any(axis=1) & ~(runs & ~censored).any(axis=1))
            if draws.size:
                groups.append(_Group(predictor, with_it, draws, runs[draws]))
    return groups


def _move(
    group: _Group,
    y: np.ndarray,
    least: np.ndarray,
    drawn: np.ndarray,
    sigma: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Move the times of such runs and what is expected of them by the same amount, in place.

    No residual changes, so that only the prior of the effect says by how much, and that times stay
    above where runs were last seen.
    """
    at, column = group.draws, 1 + group.predictor
    slack = np.where(group.runs, y[at] - least, np.inf).min(axis=1)
    effect, sd, zero = drawn[at, column], _WIDTH * sigma[at], np.zeros(len(at))
    if group.with_it:
        moved = _above(effect - slack, zero, sd, rng)
        by = moved - effect
    else:  # what is without the predictor has the intercept alone
        moved = -_above(-effect - slack, zero, sd, rng)
        by = effect - moved
        drawn[at, 0] += by
    drawn[at, column] = moved
    y[at] += group.runs * by[:, None]


def _above(
    least: np.ndarray, centre: np.ndarray, sigma: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw from normal distributions, of what lies above `least`; exact far out in the tail."""
    log_tail = log_ndtr((centre - least) / sigma)
    uniform = 1.0 - rng.random(centre.shape)
    return np.maximum(least, centre - sigma * ndtri_exp(log_tail + np.log(uniform)))
