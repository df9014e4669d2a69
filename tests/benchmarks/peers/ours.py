"""bayesphase itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np

from tests.benchmarks.data import Case
from tests.benchmarks.peers import Evaluation, Posterior


def gradients(case: Case, *, compiled: bool = False) -> Iterator[Evaluation]:
    """The density that `bp.fit` samples; with `compiled` also the PyMC model's own, two ways."""
    import bayesphase.model.density  # so that the import is not timed

    start = perf_counter()
    density = _density(case)
    x = density.unconstrained(case.parameters)
    value, gradient = density(x)
    build = perf_counter() - start
    yield Evaluation(
        "bayesphase", lambda: density(x), "density", float(value), np.array(gradient), build
    )
    if compiled:
        import bayesphase as bp

        for mode, name in (("CVM", "C"), ("NUMBA", "numba")):
            model = bp.build_model(case.features, case.n_states, emission="gaussian")
            yield of_model(model, case, label=f"bayesphase, pm.Model ({name})", mode=mode)


def of_model(model: Any, case: Case, *, label: str, mode: str) -> Evaluation:
    """Compile log density and gradient of a PyMC model with the variables of ours."""
    start = perf_counter()
    function = model.logp_dlogp_function(ravel_inputs=True, mode=mode)
    function.set_extra_values({})
    x, order = _in_its_order(model, case)
    value, gradient = function(x)
    build = perf_counter() - start
    back = np.empty_like(gradient)
    back[order] = gradient
    return Evaluation(label, lambda: function(x), "density", float(value), back, build)


def _in_its_order(model: Any, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Give the case's unconstrained point with the model's order of variables, and that order."""
    x = point(case)
    sizes = [
        value.size - (value.size // value.shape[-1] if "probs" in name else 0)
        for name, value in case.parameters.items()
    ]
    pieces = dict(
        zip(case.parameters, np.split(np.arange(x.size), np.cumsum(sizes)[:-1]), strict=True)
    )
    order = np.concatenate([pieces[variable.name] for variable in model.free_RVs])
    return x[order], order


def point(case: Case) -> np.ndarray:
    """Give the unconstrained point of a case, in the order that gradients are compared in."""
    return _density(case).unconstrained(case.parameters)


def _density(case: Case) -> Any:
    from bayesphase.model.density import direct_density

    return direct_density(case.spec)


@contextmanager
def watched_sampler() -> Iterator[dict[str, float]]:
    """Note when nutpie's sampler is entered and left: `entered` and `left` of the last call."""
    import nutpie

    original, times = nutpie.sample, {}

    def sample(*arguments: Any, **settings: Any) -> Any:
        times["entered"] = perf_counter()
        result = original(*arguments, **settings)
        times["left"] = perf_counter()
        return result

    nutpie.sample = sample
    try:
        yield times
    finally:
        nutpie.sample = original


def warm_up() -> None:
    """Fill the caches on disk and import what a fit imports: a small fit, and its tables."""
    import bayesphase as bp

    data = bp.simulate(n_states=2, n_runs=2, n_steps=50, n_features=2, random_seed=1)
    fit = bp.fit(
        data["features"],
        2,
        emission="gaussian",
        draws=20,
        tune=20,
        random_seed=1,
        progressbar=False,
    )
    bp.boundaries(fit)
    bp.checkpoint_log_likelihood(fit)


def posterior(
    case: Case, *, draws: int, tune: int, chains: int, seed: int, sampler: str = "nutpie"
) -> Posterior:
    """A whole `bp.fit`: search for the modes, sampling, paths, relabelling.

    Sampling ends where nutpie returns; what comes after is in the total.
    """
    import bayesphase as bp

    settings = {"draws": draws, "tune": tune, "chains": chains, "random_seed": seed}
    with watched_sampler() as times:
        start = perf_counter()
        fit = bp.fit(
            case.features,
            case.n_states,
            emission="gaussian",
            sampler=sampler,
            progressbar=False,
            **settings,
        )
        total = perf_counter() - start
    if sampler == "nutpie" and not times:
        raise RuntimeError("bp.fit did not call nutpie.sample, so its time can't be told")
    return Posterior(
        {name: fit["posterior"][name].values for name in case.parameters},
        int(fit["sample_stats"]["diverging"].sum()),
        total,
        times["entered"] - start if times else None,
        times["left"] - times["entered"] if times else None,
    )
