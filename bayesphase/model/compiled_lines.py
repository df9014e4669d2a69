"""The emission's part of the compiled density: from coordinates to lines, and the prior."""

from typing import Any, NamedTuple

import numpy as np

from bayesphase.model.simd import inlined


class Priors(NamedTuple):
    """Parameters of the priors for scaled features, and the scaling.

    Mean and standard deviation of the location, the shape and scale of the scale, mean and standard
    deviation of the rate or its logarithm, and those of the bend, all (state, feature); `constant`
    is all that does not depend on the parameters, those of the chain included.
    """

    location_mu: np.ndarray
    location_sigma: np.ndarray
    scale_alpha: np.ndarray
    scale_beta: np.ndarray
    rate_mu: np.ndarray
    rate_sigma: np.ndarray
    bend_mu: np.ndarray
    bend_sigma: np.ndarray
    location: np.ndarray
    spread: np.ndarray
    constant: np.ndarray


class Frame(NamedTuple):
    """The sampler's coordinates u: PyMC's are `centre` + L u, with L in blocks.

    `blocks` (block) are the sizes of the lower triangles for the chain, which `triangles` holds one
    after the other, `spread` (kind, state, feature) the diagonal for locations, log scales and,
    where there are any, rates (or their logarithms) and bends. Rates also move with the coordinate
    of their location, and bends with those of location and rate, by `shear` (3, state, feature).
    """

    centre: np.ndarray
    blocks: np.ndarray
    triangles: np.ndarray
    spread: np.ndarray
    shear: np.ndarray


class Point(NamedTuple):
    """A point: what `lines` of scaled features are made of, all (state, feature)."""

    location: np.ndarray
    scale: np.ndarray
    rate: np.ndarray
    bend: np.ndarray


@inlined
def read(u: Any, n_states: int, n_features: int, frame: Any, priors: Any) -> Any:
    """Read location, log scale, rate and bend off the end of `u`, one after the other."""
    centre, stretch = frame.centre, frame.spread
    location, spread = priors.location, priors.spread
    place, scale = np.empty((n_states, n_features)), np.empty((n_states, n_features))
    rate, bend = np.ones((n_states, n_features)), np.zeros((n_states, n_features))
    at, size = u.shape[0] - stretch.shape[0], n_states * n_features
    for k in range(n_states):
        for d in range(n_features):
            own = k * n_features + d
            x = centre[at] + stretch[own] * u[at]
            place[k, d] = (x - location[d]) / spread[d]
            x = centre[at + size] + stretch[size + own] * u[at + size]
            scale[k, d] = np.exp(x) / spread[d]
            if stretch.shape[0] > 2 * size:
                x = centre[at + 2 * size] + stretch[2 * size + own] * u[at + 2 * size]
                x += frame.shear[own] * u[at]
                rate[k, d] = x
                if stretch.shape[0] == 3 * size:
                    rate[k, d] = np.exp(x)
                else:
                    x = centre[at + 3 * size] + stretch[3 * size + own] * u[at + 3 * size]
                    x += frame.shear[size + own] * u[at]
                    x += frame.shear[2 * size + own] * u[at + 2 * size]
                    bend[k, d] = x * spread[d]
            at += 1
    return Point(place, scale, rate, bend)


@inlined
def add(point: Any, slopes: Any, frame: Any, priors: Any, gradient: Any) -> float:
    """Log prior of location, scale, rate and bend, Jacobian included; writes their gradient."""
    n_states, n_features = point.location.shape
    value, size = 0.0, n_states * n_features
    at = gradient.shape[0] - frame.spread.shape[0]
    for k in range(n_states):
        for d in range(n_features):
            own = k * n_features + d
            m, sigma = point.location[k, d], priors.location_sigma[own]
            deviation = (m - priors.location_mu[own]) / sigma
            rate, alpha = priors.scale_beta[own] / point.scale[k, d], priors.scale_alpha[own]
            log_scale = np.log(point.scale[k, d] * priors.spread[d])
            value -= 0.5 * deviation**2 + rate + alpha * log_scale
            slope = slopes[0][k, d] - deviation / sigma
            gradient[at] = slope / priors.spread[d] * frame.spread[own]
            slope = slopes[1][k, d] + rate - alpha
            gradient[at + size] = slope * frame.spread[size + own]
            if frame.spread.shape[0] > 2 * size:
                curved = frame.spread.shape[0] > 3 * size
                x, sigma = point.rate[k, d], priors.rate_sigma[own]
                if not curved:
                    x = np.log(x)
                deviation = (x - priors.rate_mu[own]) / sigma
                value -= 0.5 * deviation**2
                slope = slopes[2][k, d] - deviation / sigma
                gradient[at + 2 * size] = slope * frame.spread[2 * size + own]
                gradient[at] += slope * frame.shear[own]
                if curved:
                    sigma = priors.bend_sigma[own]
                    deviation = (point.bend[k, d] / priors.spread[d] - priors.bend_mu[own]) / sigma
                    value -= 0.5 * deviation**2
                    slope = slopes[3][k, d] * priors.spread[d] - deviation / sigma
                    gradient[at + 3 * size] = slope * frame.spread[3 * size + own]
                    gradient[at] += slope * frame.shear[size + own]
                    gradient[at + 2 * size] += slope * frame.shear[2 * size + own]
            at += 1
    return value
