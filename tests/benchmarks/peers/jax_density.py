"""The same density in JAX, for the peers that are written in it: double precision, runs as a batch.

The coordinates are those of bayesphase: centred log-ratios of the probabilities without the last,
means, logarithms of the scales, one after the other.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import gammaln, logsumexp

from tests.benchmarks.data import Case

jax.config.update("jax_enable_x64", True)

# log-likelihood of all runs from log-initial (state), log-transition (state, state) and
# log-emission (run, step, state)
Recursion = Callable[[Any, Any, Any], Any]


def log_space(log_initial: Any, log_transition: Any, log_emission: Any, *, unroll: int = 1) -> Any:
    """Forward recursion on log-probabilities."""
    steps = jnp.moveaxis(log_emission, 1, 0)

    def step(alpha: Any, emission: Any) -> tuple[Any, None]:
        return logsumexp(alpha[:, :, None] + log_transition, axis=1) + emission, None

    alpha, _ = lax.scan(step, log_initial + steps[0], steps[1:], unroll=unroll)
    return logsumexp(alpha, axis=1).sum()


def scaled(log_initial: Any, log_transition: Any, log_emission: Any, *, unroll: int = 1) -> Any:
    """Forward recursion on probabilities, brought back to sum 1 at every step."""
    steps = jnp.moveaxis(log_emission, 1, 0)
    top = lax.stop_gradient(steps.max(axis=-1, keepdims=True))
    emission = jnp.exp(steps - top)
    transition = jnp.exp(log_transition)

    def step(probs: Any, row: Any) -> tuple[Any, Any]:
        joint = (probs @ transition) * row
        total = joint.sum(axis=-1)
        return joint / total[:, None], total

    first = jnp.exp(log_initial) * emission[0]
    total = first.sum(axis=-1)
    _, totals = lax.scan(step, first / total[:, None], emission[1:], unroll=unroll)
    return jnp.log(total).sum() + jnp.log(totals).sum() + top.sum()


RECURSIONS: dict[str, Recursion] = {
    "log": log_space,
    "log, unrolled": partial(log_space, unroll=8),
    "scaled": scaled,
    "scaled, unrolled": partial(scaled, unroll=8),
}


def log_emission(case: Case) -> Callable[[Any, Any], Any]:
    """Log-emission (run, step, state) of mean and scale, as one product with (y², y, 1)."""
    rows = case.spec.rows
    location, spread = rows.location, rows.spread
    z = (case.values - location) / spread
    statistics = jnp.asarray(np.concatenate([z**2, z], axis=-1))

    def function(mean: Any, scale: Any) -> Any:
        m, precision = (mean - location) / spread, (scale / spread) ** -2.0
        constant = (m**2 * precision + 2.0 * jnp.log(scale) + jnp.log(2.0 * jnp.pi)).sum(axis=1)
        coefficient = jnp.concatenate([-0.5 * precision, m * precision], axis=1)
        return statistics @ coefficient.T - 0.5 * constant

    return function


def log_density(case: Case, log_likelihood: Callable[[Any, Any, Any, Any], Any]) -> Any:
    """Joint log density of an unconstrained point.

    `log_likelihood` takes log-initial, log-transition, mean and scale.
    """
    k, d = case.n_states, case.values.shape[-1]
    priors = {name: prior.parameters for name, prior in case.spec.priors.items()}
    cuts = np.cumsum([k - 1, k * (k - 1), k * d])

    def simplex(ratios: Any) -> Any:
        full = jnp.concatenate([ratios, -ratios.sum(axis=-1, keepdims=True)], axis=-1)
        return jax.nn.log_softmax(full, axis=-1)

    def dirichlet(a: Any, log_probs: Any) -> Any:
        constant = gammaln(a.sum(axis=-1)) - gammaln(a).sum(axis=-1) + np.log(k)
        return (constant + (a * log_probs).sum(axis=-1)).sum()

    def function(x: Any) -> Any:
        first, rows, mean, log_scale = jnp.split(x, cuts)
        log_initial, log_transition = simplex(first), simplex(rows.reshape(k, k - 1))
        mean, log_scale = mean.reshape(k, d), log_scale.reshape(k, d)
        scale = jnp.exp(log_scale)
        normal, inverse_gamma = priors["mean"], priors["scale"]
        alpha, beta = inverse_gamma["alpha"], jnp.broadcast_to(inverse_gamma["beta"], (k, d))
        sigma = jnp.broadcast_to(normal["sigma"], (k, d))
        deviation = (mean - normal["mu"]) / sigma
        value = dirichlet(priors["initial_probs"]["a"], log_initial)
        value += dirichlet(priors["transition_probs"]["a"], log_transition)
        value -= (0.5 * deviation**2 + jnp.log(sigma) + 0.5 * jnp.log(2.0 * jnp.pi)).sum()
        value += (alpha * jnp.log(beta) - gammaln(alpha) - alpha * log_scale - beta / scale).sum()
        return value + log_likelihood(log_initial, log_transition, mean, scale)

    return function


def compiled(density: Callable[[Any], Any], x: np.ndarray) -> Callable[[], Any]:
    """Value and gradient at `x`, compiled; a call returns when they are there."""
    function = jax.jit(jax.value_and_grad(density))
    point = jnp.asarray(x)
    return lambda: jax.block_until_ready(function(point))
