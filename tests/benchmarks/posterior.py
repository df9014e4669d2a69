"""What a whole posterior costs: the same model and priors, NUTS, every route in a fresh process.

The clock runs from the data to the draws, imports excluded; caches on disk are warm for bayesphase
and PyTensor, and JAX keeps none by default. Peers start all chains at the parameters of the case,
near the truth. bayesphase gets no such help: its total includes its search for starting points, and
after sampling one path per draw, the relabelling and the most likely path, which no peer gives.
"""

from importlib import import_module
from typing import Any

import numpy as np

from tests.benchmarks.alone import TooLong, alone
from tests.benchmarks.data import case
from tests.benchmarks.peers import NEEDS, installed
from tests.benchmarks.report import Settings, complain, duration, show

SIZES = ("S", "M", "L")
_DRAWS, _TUNE = 500, 500
_APART = 4.0  # combined Monte Carlo standard errors
_OURS = "bayesphase"
_ROUTES: dict[str, tuple[str, dict[str, str]]] = {
    _OURS: ("ours", {}),
    "NumPyro, parallel chains": ("numpyro", {"chain_method": "parallel"}),
    "NumPyro, vectorized chains": ("numpyro", {"chain_method": "vectorized"}),
    "pymc-extras, pm.sample": ("pymc_extras", {"sampler": "pymc"}),
    "pymc-extras, nutpie": ("pymc_extras", {"sampler": "nutpie"}),
}
_COMPILED = {"bayesphase, pm.sample": ("ours", {"sampler": "pymc"})}
_NOTE = """ours/peer: effective draws a second of bayesphase over those of the peer.
max |z|: largest difference to a posterior mean of bayesphase, in combined standard errors."""
_COLUMNS = (
    *("", "total", "to 1st draw", "sampling", "min ESS", "max R-hat", "div."),
    *("ESS/s total", "ours/peer", "ESS/s sampling", "ours/peer", "max |z|"),
)


def run(settings: Settings) -> list[str]:
    """Print one table per size."""
    failures = []
    alone("peers.ours:warm_up")
    routes = {**_ROUTES, **(_COMPILED if settings.compiled else {})}
    for size in settings.sizes or SIZES:
        results: dict[str, Any] = {}
        for label, (module, options) in routes.items():
            results[label] = _result(settings, size, module, options)
        rows, notes = [], [_NOTE]
        for label, result in results.items():
            if isinstance(result, str):
                notes.append(f"{label}: {result}.")
            else:
                rows.append(_row(label, result, results[_OURS]))
                failures += _complaints(f"{size}, {label}", result, results[_OURS])
        show(
            f"Posterior, {case(size)}, {settings.chains} chains, "
            f"{settings.tune or _TUNE} + {settings.draws or _DRAWS} draws",
            _COLUMNS,
            rows,
            "\n".join(notes),
        )
    return failures


def _result(settings: Settings, size: str, module: str, options: dict[str, str]) -> Any:
    """Measure, or say in words why there is nothing."""
    if not installed(module):
        return f"{NEEDS[module]} is not installed"
    try:
        return alone(
            "posterior:measure",
            limit=60.0 * settings.minutes,
            size=size,
            module=module,
            options=options,
            draws=settings.draws or _DRAWS,
            tune=settings.tune or _TUNE,
            chains=settings.chains,
            seed=settings.seed,
        )
    except TooLong:
        return f"ended after {settings.minutes:g} minutes"
    except RuntimeError as error:
        complain(str(error))
        return "failed"


def _row(label: str, result: dict[str, Any], ours: Any) -> tuple[Any, ...]:
    rates = _rates(result)
    # ours may have failed
    our_rates = _rates(ours) if isinstance(ours, dict) else (None, None)
    over = [a / b if a and b else None for a, b in zip(our_rates, rates, strict=True)]
    return (
        label,
        *(duration(result[key]) for key in ("total", "before", "sampling")),
        *(result["ess"], f"{result['rhat']:.3f}", result["divergences"]),
        *(rates[0], over[0], rates[1], over[1]),
        _apart(result, ours) if isinstance(ours, dict) else None,
    )


def _rates(result: dict[str, Any]) -> tuple[float, float | None]:
    sampling = result["sampling"]
    return result["ess"] / result["total"], result["ess"] / sampling if sampling else None


def _apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    means = np.array(one["mean"]) - np.array(other["mean"])
    errors = np.hypot(one["error"], other["error"])
    return float(np.max(np.abs(means) / errors))


def _complaints(about: str, result: dict[str, Any], ours: Any) -> list[str]:
    found = []
    if result["rhat"] > 1.05:
        found.append(complain(f"{about}: chains do not agree, R-hat {result['rhat']:.2f}"))
    if isinstance(ours, dict) and _apart(result, ours) > _APART:
        found.append(complain(f"{about}: some posterior means are over {_APART} errors off ours"))
    return found


def measure(
    *,
    size: str,
    module: str,
    options: dict[str, str],
    draws: int,
    tune: int,
    chains: int,
    seed: int,
) -> dict[str, Any]:
    """Sample one route and summarise its draws; runs in a process of its own."""
    _import_first(module)
    problem = case(size)
    peer = import_module(f"tests.benchmarks.peers.{module}")
    sampled = peer.posterior(problem, draws=draws, tune=tune, chains=chains, seed=seed, **options)
    times = {key: getattr(sampled, key) for key in ("total", "before", "sampling", "divergences")}
    draws_of = {name: sampled.draws[name] for name in problem.parameters}
    return {**times, **summary(_aligned(draws_of, problem.parameters["mean"]))}


def _import_first(module: str) -> None:
    """Import what a route needs: the clock is not to run on it."""
    names = {
        "ours": ("nutpie.compiled_pyfunc", "sklearn.cluster", "bayesphase.model.fit"),
        "numpyro": ("numpyro.infer", "tests.benchmarks.peers.jax_density"),
        "pymc_extras": ("nutpie", "pymc_extras"),
    }[module]
    for name in names:
        import_module(name)


def _aligned(draws: dict[str, np.ndarray], true_mean: np.ndarray) -> dict[str, np.ndarray]:
    """Number the states as in `true_mean` (state, feature); no chain leaves its own numbering."""
    from scipy.optimize import linear_sum_assignment

    drawn = draws["mean"].mean(axis=(0, 1))
    distance = ((true_mean[:, None] - drawn[None]) ** 2).sum(axis=-1)
    order = linear_sum_assignment(distance)[1]
    aligned = {name: value[:, :, order] for name, value in draws.items()}
    aligned["transition_probs"] = aligned["transition_probs"][..., order]
    return aligned


def summary(draws: dict[str, np.ndarray]) -> dict[str, Any]:
    """Give means and their Monte Carlo errors, smallest bulk ESS and largest R-hat of all."""
    import arviz_stats
    import xarray as xr

    chain_draw = next(iter(draws.values())).shape[:2]
    flat = np.concatenate([value.reshape(*chain_draw, -1) for value in draws.values()], axis=-1)
    # one that never moves, as the only probability of a single state, has none of these
    flat = flat[..., np.ptp(flat, axis=(0, 1)) > 1e-12]
    x = xr.Dataset({"x": (("chain", "draw", "parameter"), flat)})
    return {
        "mean": flat.mean(axis=(0, 1)).tolist(),
        "error": arviz_stats.mcse(x)["x"].values.tolist(),
        "ess": float(arviz_stats.ess(x, method="bulk")["x"].min()),
        "rhat": float(arviz_stats.rhat(x)["x"].max()),
    }
