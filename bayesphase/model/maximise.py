"""The M-step of EM: location, scale, rate and bend of each state that fit expected sums best."""

from typing import Any, NamedTuple

import numpy as np

from bayesphase.model.innovations import Sums
from bayesphase.model.lines import CURVE, REVERSION, WALK, moments

# Default priors for scaled features: the location is normal with this standard deviation, the
# logarithm of the rate (per median gap) normal with these
LOCATION_SPREADS = 2.0
RATE_PRIOR = {"mu": np.log(0.03), "sigma": 2.0}

# rates that are tried, per median gap: from next to none to all at once
_RATES = np.geomspace(1e-4, 4.0, 40)

# stands for the prior of the location where it has little to say: enough to define that of a state
# without checkpoints
_TIGHT = 1e-3


class Best(NamedTuple):
    """Parameters (state, feature) of scaled features; `log_prior` is up to a constant."""

    location: np.ndarray
    scale: np.ndarray
    rate: np.ndarray
    bend: np.ndarray
    log_prior: float


def maximise(kind: int, sums: Sums, gaps: np.ndarray, shape: float, prior_scale: Any) -> Best:
    """Find the parameters with the largest expected log density.

    Parameters
    ----------
    kind : int
        Of line, see `lines`.
    sums : Sums
    gaps : ndarray (gap)
    shape : float
    prior_scale : ndarray (feature)
        The inverse-gamma prior of the scale.
    """
    count = sums.counts.sum(axis=0)
    bend = np.zeros(count.shape)
    if kind == REVERSION:
        location, scale, rate = _reversion(sums, gaps, count, shape, prior_scale)
    elif kind == CURVE:
        location, rate, bend, squares = _curve(sums, gaps)
        scale = _scale(count, squares, shape, prior_scale)
    else:
        stretch = (gaps if kind == WALK else np.ones(len(gaps)))[:, None, None]
        widening = stretch if kind == WALK else 1.0  # of the variance
        weight = (stretch**2 / widening * sums.weights).sum(axis=0) + _TIGHT
        location = (stretch / widening * sums.values).sum(axis=0) / weight
        m = location * stretch
        squares = sums.squares - 2.0 * m * sums.values + m**2 * sums.weights
        squares = (squares / widening).sum(axis=0) + _TIGHT * location**2
        scale, rate = _scale(count, squares, shape, prior_scale), np.ones(location.shape)
    log_prior = -np.sum(shape * np.log(scale) + prior_scale / scale)
    log_prior -= 0.5 * np.sum((location / LOCATION_SPREADS) ** 2)
    if kind == REVERSION:
        log_prior -= 0.5 * np.sum(_rate_score(rate) ** 2)
    elif kind == CURVE:
        log_prior -= 0.5 * np.sum((rate**2 + bend**2) / LOCATION_SPREADS**2)
    return Best(location, scale, rate, bend, float(log_prior))


def _curve(sums: Sums, gaps: np.ndarray) -> tuple[np.ndarray, ...]:
    """Regress changes on 1, y and y²; also returns what is left of their squares, over the gaps."""
    products = moments(sums, gaps) + _TIGHT * np.eye(3)
    parts = (sums.values, sums.products, sums.square_products)
    with_change = np.stack([part.sum(axis=0) for part in parts], axis=-1)
    coefficients = np.linalg.solve(products, with_change[..., None])[..., 0]
    squares = (sums.squares / gaps[:, None, None]).sum(axis=0)
    squares = squares - (coefficients * with_change).sum(axis=-1)
    return coefficients[..., 0], coefficients[..., 1], coefficients[..., 2], squares


def _scale(count: Any, squares: Any, shape: float, prior_scale: Any) -> Any:
    """Mode in log scale s of s^-(count + shape) exp(-prior_scale / s - squares / (2 s²))."""
    order = count + shape
    squares = np.maximum(squares, 0.0)
    return (prior_scale + np.sqrt(prior_scale**2 + 4.0 * order * squares)) / (2.0 * order)


def _rate_score(rate: np.ndarray) -> np.ndarray:
    return (np.log(rate) - RATE_PRIOR["mu"]) / RATE_PRIOR["sigma"]


def _reversion(
    sums: Sums, gaps: np.ndarray, count: np.ndarray, shape: float, prior_scale: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Try all rates; given one, location and scale are those of a weighted regression."""
    best = np.full(count.shape, -np.inf)
    location, scale, rate = (np.zeros(count.shape) for _ in range(3))
    for r in _RATES:
        pull = np.expm1(-r * gaps)[:, None, None]
        widening = (-np.expm1(-2.0 * r * gaps) / (2.0 * r))[:, None, None]
        # the change is pull * (previous - m), with a variance of scale² widening
        distance = (sums.values - pull * sums.previous) / widening
        weight = (pull**2 / widening * sums.weights).sum(axis=0)
        spread = (sums.squares / np.maximum(sums.weights, _TIGHT) / widening).mean(axis=0)
        weight = weight + spread / LOCATION_SPREADS**2 + 1e-12
        m = -(pull * distance).sum(axis=0) / weight
        squares = (
            sums.squares
            - 2.0 * pull * (sums.products - m * sums.values)
            + pull**2 * (sums.previous_squares - 2.0 * m * sums.previous + m**2 * sums.weights)
        )
        s = _scale(count, (squares / widening).sum(axis=0), shape, prior_scale)
        score = -(count + shape) * np.log(s) - prior_scale / s
        score -= 0.5 * ((np.maximum(squares, 0.0) / widening).sum(axis=0) / s**2)
        score -= 0.5 * (sums.counts * np.log(widening)).sum(axis=0)
        score -= 0.5 * (m / LOCATION_SPREADS) ** 2 + 0.5 * _rate_score(r) ** 2
        better = score > best
        best = np.where(better, score, best)
        location, scale = np.where(better, m, location), np.where(better, s, scale)
        rate = np.where(better, r, rate)
    return location, scale, rate
