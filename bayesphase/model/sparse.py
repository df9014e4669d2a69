"""Coordinates in which a sparse Dirichlet is easy to sample: scores of gamma variables.

Dirichlet probabilities are gamma variables over their sum, of the concentrations as shapes. Where a
shape a is far below 1, the logarithm t of such a variable has a tail of length 1 / a to the left,
and a chain that moves in t, or in log-ratios of probabilities, needs steps of 1 / a there and of 1
where data hold on to it. If a is itself a variable, no step size is right: a funnel. The score x
with

    t = x - (1 / a - 1) log(1 + exp(-x))

has neither: dt/dx is 1 on the right, where data are, and 1 / a in the tail. Its density is about
the logistic one as a tends to 0, whatever a, so that steps of about 1 do everywhere. Nothing is
approximated: the density here is the gamma's, its Jacobian included. The sum of the variables of
a Dirichlet vector, which no data inform, is sampled along with it, so that exchanging two entries
is to exchange two scores.

All functions work on arrays that broadcast; `log_shape` is log a.
"""

from math import lgamma
from typing import Any

import numpy as np
from numba import njit
from scipy.special import expit

# steps of Newton's method, which gains at least 1 in the score by each
_MOST_STEPS = 1000
_SETTLED = 1e-12


def log_gamma(score: Any, log_shape: Any, xp: Any = np) -> Any:
    """Logarithm t of the gamma variable with this score.

    `xp` is numpy or pytensor.tensor.
    """
    return score - xp.expm1(-log_shape) * _softplus(-score, xp)


def _softplus(x: Any, xp: Any) -> Any:
    return np.logaddexp(0.0, x) if xp is np else xp.softplus(x)


@njit(cache=True)
def _tail(score):  # type: ignore[no-untyped-def]
    """Logarithm of 1 + exp(-score)."""
    return np.log1p(np.exp(-abs(score))) + max(-score, 0.0)


@njit(cache=True)
def log_value(score, log_shape):  # type: ignore[no-untyped-def]
    """`log_gamma` of one score."""
    return score - np.expm1(-log_shape) * _tail(score)


@njit(cache=True)
def entry(score, log_shape, pull):  # type: ignore[no-untyped-def]
    """Log density of one score, and derivatives of a log posterior.

    Parameters
    ----------
    score, log_shape : float
        Of a gamma variable with scale 1.
    pull : float
        Derivative with respect to its logarithm of what is added to the prior.

    Returns
    -------
    log_density : float
        Of the score under the prior, nats.
    by_score, by_shape : float
        Derivatives of the log posterior with respect to the score and the log shape.
    """
    shape, tail = np.exp(log_shape), _tail(score)
    left = np.exp(-score - tail)  # what the logistic distribution has beyond the score
    value = np.exp(score - np.expm1(-log_shape) * tail)
    inner = shape + (1.0 - shape) * left
    log_density = shape * score - (1.0 - shape) * tail - value - lgamma(1.0 + shape) + np.log(inner)
    pull = pull - value
    by_score = inner + (1.0 - shape) * (left**2 - left) / inner
    by_score += pull * (1.0 + np.expm1(-log_shape) * left)
    by_shape = shape * (score + tail - _psi(1.0 + shape) + (1.0 - left) / inner)
    return log_density, by_score, by_shape + pull * tail * np.exp(-log_shape)


@njit(cache=True)
def _psi(x):  # type: ignore[no-untyped-def]
    """Digamma function of x > 0 (Abramowitz & Stegun 1964, 6.3.5 and 6.3.18)."""
    below = 0.0
    while x < 10.0:
        below += 1.0 / x
        x += 1.0
    u = 1.0 / x**2
    series = u * (1 / 12 - u * (1 / 120 - u * (1 / 252 - u * (1 / 240 - u * (1 / 132)))))
    return np.log(x) - 0.5 / x - series - below


def log_density_graph(score: Any, log_shape: Any) -> Any:
    """Log density of scores of gamma variables with scale 1, nats, as a PyTensor graph."""
    import pytensor.tensor as pt

    shape = pt.exp(log_shape)
    value = shape * score - (1.0 - shape) * pt.softplus(-score)
    value -= pt.exp(log_gamma(score, log_shape, pt)) + pt.gammaln(1.0 + shape)
    return value + pt.log(shape + (1.0 - shape) * pt.sigmoid(-score))


@njit(cache=True)
def most_probable(log_shape, count, widening):  # type: ignore[no-untyped-def]
    """Find the score whose density, times the variable to the power `count`, is the largest.

    `widening` is 1 and what else is subtracted for each unit of the variable. The density has one
    peak: its derivative is bisected.
    """
    low, high = -50.0, 50.0
    for _ in range(60):
        score = 0.5 * (low + high)
        pull = count - (widening - 1.0) * np.exp(log_value(score, log_shape))
        if entry(score, log_shape, pull)[1] > 0.0:
            low = score
        else:
            high = score
    return 0.5 * (low + high)


def score_of(log_value: np.ndarray, log_shape: np.ndarray) -> np.ndarray:
    """Undo `log_gamma`."""
    log_value, log_shape = np.broadcast_arrays(log_value, log_shape)
    # in the tail first: from there Newton's steps do not overshoot, the function being concave
    score = np.minimum(log_value, 0.0) * np.exp(np.minimum(log_shape, 0.0))
    stretch = np.expm1(-log_shape)
    for _ in range(_MOST_STEPS):
        step = (log_value - log_gamma(score, log_shape)) / (1.0 + stretch * expit(-score))
        score = score + step
        if (np.abs(step) <= _SETTLED * (1.0 + np.abs(score))).all():
            break
    return score


def draw(rng: np.random.Generator, log_shape: np.ndarray, size: Any = None) -> np.ndarray:
    """Draw scores.

    A gamma variable of shape a is one of shape a + 1 times a uniform one to the power 1 / a
    (Marsaglia & Tsang 2000, doi:10.1145/358407.358414), which does not underflow as a logarithm.
    """
    log_shape = np.broadcast_to(log_shape, np.shape(log_shape) if size is None else size)
    log_value = np.log(rng.gamma(np.exp(log_shape) + 1.0))
    log_value -= rng.exponential(size=log_shape.shape) * np.exp(-log_shape)
    return score_of(log_value, log_shape)
