"""pymc-extras: a PyMC model whose discrete chain of states is summed out by `marginalize`."""

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np

from tests.benchmarks.data import Case
from tests.benchmarks.peers import Evaluation, Posterior


def gradients(case: Case) -> Iterator[Evaluation]:
    """Log density and gradient compiled by PyTensor's numba backend, its quickest."""
    import pymc_extras  # noqa: F401  # so that the import is not timed

    from tests.benchmarks.peers.ours import of_model

    start = perf_counter()
    model = marginalized(case)
    building = perf_counter() - start
    evaluation = of_model(model, case, label="pymc-extras marginalize (numba)", mode="NUMBA")
    yield evaluation._replace(build=building + evaluation.build)


def marginalized(case: Case) -> Any:
    """The same model with the same priors, its variables in the order of bayesphase."""
    import pymc as pm
    import pymc_extras as pmx

    n_runs, n_steps, n_features = case.values.shape
    spec = case.spec
    coords = {
        "state": np.arange(case.n_states),
        "state_next": np.arange(case.n_states),
        "feature": np.arange(n_features),
    }
    with pm.Model(coords=coords) as model:
        v = {name: spec.priors[name].build(name, dims) for name, dims in spec.dims.items()}
        states = pmx.DiscreteMarkovChain(
            "states",
            P=v["transition_probs"],
            init_dist=pm.Categorical.dist(p=v["initial_probs"]),
            shape=(n_runs, n_steps),
        )
        pm.Normal("features", v["mean"][states], v["scale"][states], observed=case.values)
    return pmx.marginalize(model, ["states"])


def posterior(
    case: Case, *, draws: int, tune: int, chains: int, seed: int, sampler: str = "nutpie"
) -> Posterior:
    """NUTS by nutpie or PyMC, all chains from the parameters of the case.

    "Before the first draw" is until the sampler is entered (nutpie), or until it first reports one
    (PyMC, whose first report is after one tuning step).
    """
    import pymc as pm

    settings = {"draws": draws, "tune": tune, "chains": chains}
    start = perf_counter()
    model = marginalized(case)
    if sampler == "nutpie":
        import nutpie

        compiled = nutpie.compile_pymc_model(
            model, initial_points=case.parameters, jitter_rvs=set()
        )
        sampling_from = perf_counter()
        tree = nutpie.sample(compiled, **settings, seed=seed, save_warmup=False, progress_bar=False)
    else:
        reports: list[float] = []
        tree = pm.sample(
            **settings,
            model=model,
            initvals=[case.parameters] * chains,
            init="adapt_diag",
            nuts_sampler="pymc",
            random_seed=seed,
            progressbar=False,
            compute_convergence_checks=False,
            callback=lambda **_: reports or reports.append(perf_counter()),
        )
        sampling_from = reports[0]
    end = perf_counter()
    drawn = {name: tree["posterior"][name].values for name in case.parameters}
    diverging = int(tree["sample_stats"]["diverging"].values.sum())
    return Posterior(drawn, diverging, end - start, sampling_from - start, end - sampling_from)
