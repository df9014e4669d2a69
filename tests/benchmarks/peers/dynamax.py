"""dynamax: filters in JAX; its gradient is JAX's."""

from collections.abc import Iterator
from time import perf_counter
from typing import Any

from tests.benchmarks.data import Case
from tests.benchmarks.peers import Evaluation


def gradients(case: Case) -> Iterator[Evaluation]:
    """The quicker of its filter on a log-emission array of our own and of its model as it comes.

    The priors are added to both, and runs are a batch (vmap).
    """
    import numpy as np

    from tests.benchmarks.peers import jax_density
    from tests.benchmarks.peers.ours import point
    from tests.benchmarks.timing import quickest

    x = point(case)
    ways = {"hmm_filter": _filter(case), "DiagonalGaussianHMM": _model(case)}
    calls, results, builds = {}, {}, {}
    for name, log_likelihood in ways.items():
        start = perf_counter()
        density = jax_density.log_density(case, log_likelihood)
        calls[name] = jax_density.compiled(density, x)
        results[name] = calls[name]()
        builds[name] = perf_counter() - start
    best = quickest(calls)
    value, gradient = results[best]
    label = f"dynamax, {best}"
    yield Evaluation(
        label, calls[best], "density", float(value), np.asarray(gradient), builds[best]
    )


def _filter(case: Case) -> Any:
    import jax
    import jax.numpy as jnp
    from dynamax.hidden_markov_model import hmm_filter

    from tests.benchmarks.peers.jax_density import log_emission

    emission = log_emission(case)
    of_runs = jax.vmap(hmm_filter, in_axes=(None, None, 0))

    def log_likelihood(log_initial: Any, log_transition: Any, mean: Any, scale: Any) -> Any:
        initial, transition = jnp.exp(log_initial), jnp.exp(log_transition)
        return of_runs(initial, transition, emission(mean, scale)).marginal_loglik.sum()

    return log_likelihood


def _model(case: Case) -> Any:
    import jax
    import jax.numpy as jnp
    from dynamax.hidden_markov_model import DiagonalGaussianHMM

    model = DiagonalGaussianHMM(case.n_states, case.values.shape[-1])
    values = jnp.asarray(case.values)
    example, _ = model.initialize(jax.random.PRNGKey(0))
    of_runs = jax.vmap(model.marginal_log_prob, in_axes=(None, 0))

    def log_likelihood(log_initial: Any, log_transition: Any, mean: Any, scale: Any) -> Any:
        parameters = example._replace(
            initial=example.initial._replace(probs=jnp.exp(log_initial)),
            transitions=example.transitions._replace(transition_matrix=jnp.exp(log_transition)),
            emissions=example.emissions._replace(means=mean, scale_diags=scale),
        )
        return of_runs(parameters, values).sum()

    return log_likelihood
