"""Sequential Monte Carlo from the prior to the posterior: the evidence without a fit's draws.

Del Moral, Doucet & Jasra 2006 (doi:10.1111/j.1467-9868.2006.00553.x), along prior times likelihood
to a power that rises from 0 to 1; moves are Hamiltonian, with steps that adapt to the particles'
acceptance (Buchholz, Chopin & Jacob 2021, doi:10.1214/20-BA1222). Particles come from the prior and
so reach all modes and all names of states by themselves.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax, logsumexp

from bayesphase.model.target import Target

# share of the particles that their weights are worth after each rise of the power
_KEPT = 0.6
# moves at each power go on until particles have gone so far, in typical widths, or so often
_FAR, _MOST_MOVES = 0.7, 8
_LEAPS = 6
_ACCEPTED = 0.75
# powers, after which something is wrong
_MOST_POWERS = 2000


class _Particles(NamedTuple):
    """Points (particle, dim) with log prior and log likelihood (particle) and their gradients."""

    points: np.ndarray
    prior: np.ndarray
    likelihood: np.ndarray
    prior_slope: np.ndarray
    slope: np.ndarray

    def take(self, index: np.ndarray) -> "_Particles":
        return _Particles(*(array[index] for array in self))

    def where(self, kept: np.ndarray, others: "_Particles") -> "_Particles":
        """Take these where `kept` (particle), else `others`."""
        pairs = zip(self, others, strict=True)
        return _Particles(
            *(np.where(kept[:, None] if a.ndim > 1 else kept, a, b) for a, b in pairs)
        )


class Tempering:
    """A sampler for one model.

    Parameters
    ----------
    target : Target
    """

    def __init__(self, target: Target) -> None:
        self._target, self._prior = target, target.prior()

    def log_evidence(self, rng: np.random.Generator, particles: int) -> float:
        """Estimate the log of the integral, nats; its exponential is unbiased for a fixed ladder.

        Parameters
        ----------
        rng : Generator
        particles : int
        """
        now = self._at(prior_draws(self._target, rng, particles))
        total, power, step = 0.0, 0.0, 0.3
        for _ in range(_MOST_POWERS):
            if power >= 1.0:
                return total
            rise = _next_rise(now.likelihood, 1.0 - power)
            log_weights = rise * now.likelihood
            total += float(logsumexp(log_weights) - np.log(particles))
            power = min(1.0, power + rise)
            now = now.take(_resampled(rng, log_softmax(log_weights)))
            now, step = self._moved(rng, now, power, step)
        raise RuntimeError(
            f"after {_MOST_POWERS} powers of the likelihood only {power:.2g} is reached: use "
            f"method='bridge', or more particles"
        )

    def _at(self, points: np.ndarray) -> _Particles:
        with np.errstate(all="ignore"):
            prior, prior_slope = _evaluate(self._prior, points)
            both, both_slope = _evaluate(self._target, points)
            likelihood = both - prior
        bad = ~np.isfinite(prior) | ~np.isfinite(likelihood)
        bad |= ~np.isfinite(prior_slope).all(axis=1) | ~np.isfinite(both_slope).all(axis=1)
        # so far out that the likelihood underflows: no weight, and no move leads there
        likelihood[bad], prior[bad] = -1e300, -1e300
        prior_slope[bad], both_slope[bad] = 0.0, 0.0
        return _Particles(points, prior, likelihood, prior_slope, both_slope - prior_slope)

    def _moved(
        self, rng: np.random.Generator, now: _Particles, power: float, step: float
    ) -> tuple[_Particles, float]:
        """Move particles without changing their distribution at this power."""
        start = now.points
        width = _widths(start)
        for _ in range(_MOST_MOVES):
            momentum = rng.normal(size=start.shape)
            # a step of its own for each particle: what is too long in one place is not in another
            own = step * np.exp(0.3 * rng.normal(size=(len(start), 1)))
            there, pushed = now, momentum
            for _ in range(_LEAPS):
                pushed = pushed + 0.5 * own * width * _slope(there, power)
                there = self._at(there.points + own * width * pushed)
                pushed = pushed + 0.5 * own * width * _slope(there, power)
            gain = _log_density(there, power) - _log_density(now, power)
            gain += 0.5 * np.sum(momentum**2 - pushed**2, axis=1)
            accept = np.exp(np.minimum(gain, 0.0))
            now = there.where(rng.random(len(start)) < accept, now)
            step *= float(np.exp(accept.mean() - _ACCEPTED))
            step = min(max(step, 1e-4), 1.5)
            if np.median(np.abs(now.points - start) / width) > _FAR:
                break
        return now, step


def prior_draws(target: Target, rng: np.random.Generator, n: int) -> np.ndarray:
    """Points (n, dim) drawn from the prior of the model's free variables, by PyMC."""
    import pymc as pm

    from bayesphase.model.build import build_from

    spec = target.spec
    model = build_from(spec, target.feature)
    names = list(spec.dims)
    with model:
        drawn = pm.draw(
            [model[name] for name in names],
            draws=n,
            mode="FAST_COMPILE",
            random_seed=int(rng.integers(2**31)),
        )
    arrays = [np.reshape(values, (n, *np.shape(values)[1:])) for values in drawn]
    tiny = np.finfo(float).tiny
    points = []
    for values in zip(*arrays, strict=True):
        parameters = dict(zip(names, values, strict=True))
        # a probability that was drawn as 0 to the last digit
        parameters = {k: np.where(v == 0.0, tiny, v) for k, v in parameters.items()}
        points.append(target.unconstrained(parameters))
    return np.stack(points)


def _evaluate(target: Target, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, slopes = zip(*map(target.value_and_gradient, points), strict=True)
    return np.array(values), np.array(slopes)


def _log_density(at: _Particles, power: float) -> np.ndarray:
    return at.prior + power * at.likelihood


def _slope(at: _Particles, power: float) -> np.ndarray:
    return at.prior_slope + power * at.slope


def _next_rise(log_likelihood: np.ndarray, most: float) -> float:
    """How far the power can rise for the weights to be worth the share of particles wanted."""
    n = len(log_likelihood)

    def lacking(rise: float) -> float:
        log_weights = rise * log_likelihood
        worth = 2.0 * logsumexp(log_weights) - logsumexp(2.0 * log_weights)
        return float(worth - np.log(_KEPT * n))

    if lacking(most) >= 0.0:
        return most
    low = most
    while lacking(low) < 0.0 and low > 1e-300:
        low /= 2.0
    return float(brentq(lacking, low, 2.0 * low, xtol=1e-14 * low, rtol=1e-6))


def _resampled(rng: np.random.Generator, log_weights: np.ndarray) -> np.ndarray:
    """Draw indices (particle) by weight, systematically."""
    n = len(log_weights)
    places = (np.arange(n) + rng.random()) / n
    return np.minimum(np.searchsorted(np.cumsum(np.exp(log_weights)), places), n - 1)


def _widths(points: np.ndarray) -> np.ndarray:
    """Typical widths (dim): half of what the middle 68% of the particles span."""
    low, high = np.quantile(points, [0.16, 0.84], axis=0)
    return np.maximum(0.5 * (high - low), 1e-9)
