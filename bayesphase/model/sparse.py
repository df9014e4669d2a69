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

from typing import Any

import numpy as np
from scipy.special import expit, gammaln, psi

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


def log_density(score: np.ndarray, log_shape: np.ndarray) -> np.ndarray:
    """Log density of scores of gamma variables with scale 1, nats."""
    shape, left = np.exp(log_shape), expit(-score)
    value = shape * score - (1.0 - shape) * np.logaddexp(0.0, -score)
    value -= np.exp(log_gamma(score, log_shape)) + gammaln(1.0 + shape)
    return value + np.log(shape + (1.0 - shape) * left)


def log_density_graph(score: Any, log_shape: Any) -> Any:
    """Return the same as `log_density`, as a PyTensor graph."""
    import pytensor.tensor as pt

    shape = pt.exp(log_shape)
    value = shape * score - (1.0 - shape) * pt.softplus(-score)
    value -= pt.exp(log_gamma(score, log_shape, pt)) + pt.gammaln(1.0 + shape)
    return value + pt.log(shape + (1.0 - shape) * pt.sigmoid(-score))


def slopes(
    score: np.ndarray, log_shape: np.ndarray, pull: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives, with respect to scores and log shapes, of a log density.

    Parameters
    ----------
    score, log_shape : ndarray
    pull : ndarray
        Derivative with respect to `log_gamma` of what is added to the prior.
    """
    shape, left = np.exp(log_shape), expit(-score)
    inner = shape + (1.0 - shape) * left
    pull = pull - np.exp(log_gamma(score, log_shape))
    by_score = shape + (1.0 - shape) * left + (1.0 - shape) * (left**2 - left) / inner
    by_score += pull * (1.0 + np.expm1(-log_shape) * left)
    tail = np.logaddexp(0.0, -score)
    by_shape = shape * (score + tail - psi(1.0 + shape) + (1.0 - left) / inner)
    return by_score, by_shape + pull * tail * np.exp(-log_shape)


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
