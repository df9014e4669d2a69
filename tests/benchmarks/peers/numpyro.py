"""NumPyro: NUTS in JAX; a hidden Markov model is written by hand as a scan over the steps."""

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np

from tests.benchmarks.data import Case
from tests.benchmarks.peers import Evaluation, Posterior


def gradients(case: Case) -> Iterator[Evaluation]:
    """The quickest of four ways to write the scan: log space or scaled, unrolled or not."""
    from tests.benchmarks.peers import jax_density
    from tests.benchmarks.peers.ours import point
    from tests.benchmarks.timing import quickest

    x = point(case)
    calls, results, builds = {}, {}, {}
    for name, recursion in jax_density.RECURSIONS.items():
        start = perf_counter()
        density = jax_density.log_density(case, _likelihood(case, recursion))
        calls[name] = jax_density.compiled(density, x)
        results[name] = calls[name]()
        builds[name] = perf_counter() - start
    best = quickest(calls)
    value, gradient = results[best]
    yield Evaluation(
        f"JAX scan ({best})",
        calls[best],
        "density",
        float(value),
        np.asarray(gradient),
        builds[best],
    )


def _likelihood(case: Case, recursion: Any) -> Any:
    from tests.benchmarks.peers.jax_density import log_emission

    emission = log_emission(case)

    def log_likelihood(log_initial: Any, log_transition: Any, mean: Any, scale: Any) -> Any:
        return recursion(log_initial, log_transition, emission(mean, scale))

    return log_likelihood


def posterior(
    case: Case,
    *,
    draws: int,
    tune: int,
    chains: int,
    seed: int,
    chain_method: str = "parallel",
    recursion: str = "scaled",
) -> Posterior:
    """NUTS with the same priors, all chains from the parameters of the case.

    "Before the first draw" is until XLA has compiled the program that samples, the largest of all.
    """
    import numpyro

    if chain_method == "parallel":
        numpyro.set_host_device_count(chains)
    import jax

    from tests.benchmarks.peers import jax_density

    compiled_at: list[tuple[float, float]] = []

    def note(event: str, seconds: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled_at.append((seconds, perf_counter()))

    jax.monitoring.register_event_duration_secs_listener(note)
    start = perf_counter()
    kernel = numpyro.infer.NUTS(
        _model(case, _likelihood(case, jax_density.RECURSIONS[recursion])),
        init_strategy=numpyro.infer.init_to_value(values=case.parameters),
    )
    mcmc = numpyro.infer.MCMC(
        kernel,
        num_warmup=tune,
        num_samples=draws,
        num_chains=chains,
        chain_method=chain_method,
        progress_bar=False,
    )
    mcmc.run(jax.random.PRNGKey(seed))
    drawn = {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}
    diverging = int(np.asarray(mcmc.get_extra_fields()["diverging"]).sum())
    end = perf_counter()
    sampling_from = max(compiled_at)[1]
    return Posterior(drawn, diverging, end - start, sampling_from - start, end - sampling_from)


def _model(case: Case, log_likelihood: Any) -> Any:
    import jax.numpy as jnp
    import numpyro
    from numpyro import distributions as dist

    k, d = case.n_states, case.values.shape[-1]
    priors = {name: prior.parameters for name, prior in case.spec.priors.items()}

    def model() -> None:
        initial = numpyro.sample("initial_probs", dist.Dirichlet(priors["initial_probs"]["a"]))
        rows = dist.Dirichlet(priors["transition_probs"]["a"]).to_event(1)
        transition = numpyro.sample("transition_probs", rows)
        normal = dist.Normal(priors["mean"]["mu"], priors["mean"]["sigma"])
        mean = numpyro.sample("mean", normal.expand((k, d)).to_event(2))
        inverse_gamma = dist.InverseGamma(priors["scale"]["alpha"], priors["scale"]["beta"])
        scale = numpyro.sample("scale", inverse_gamma.expand((k, d)).to_event(2))
        value = log_likelihood(jnp.log(initial), jnp.log(transition), mean, scale)
        numpyro.factor("features", value)

    return model
