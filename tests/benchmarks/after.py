"""What comes after sampling, for 4,000 draws: paths, one labelling, the fit itself, every table.

Nothing is sampled: the sampler's place is taken by draws scattered around the parameters of the
case, about as widely as a posterior. Memory is the growth of the process's peak, in MiB.
"""

import resource
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from tests.benchmarks.alone import alone
from tests.benchmarks.data import Case, case
from tests.benchmarks.report import Settings, complain, duration, show

SIZES = ("M", "L")
_CHAINS, _DRAWS = 4, 1000
_TARGETS = {"M": 3.0, "L": 60.0}  # seconds, paths to boundaries
_TABLES = (
    *("boundaries", "first_entry", "phase_probabilities", "switches", "dwell_times"),
    *("visited_states", "most_likely_path", "training_map", "diagnose"),
    "checkpoint_log_likelihood",
)


def run(settings: Settings) -> list[str]:
    """Print one table per size."""
    failures = []
    alone("peers.ours:warm_up")
    for size in settings.sizes or SIZES:
        try:
            measured = alone("after:measure", limit=60.0 * settings.minutes, size=size)
        except Exception as error:  # the other sizes are still worth having
            failures.append(complain(f"{size}: {type(error).__name__}: {error}"))
            continue
        total = sum(step["seconds"] for step in measured)
        rows = [
            (step["name"], duration(step["seconds"]), f"{step['memory']:.0f}") for step in measured
        ]
        rows.append(("in all", duration(total), f"{sum(step['memory'] for step in measured):.0f}"))
        wanted = sum(step["seconds"] for step in measured[:2])
        target = f" (target {_TARGETS[size]:g} s)" if size in _TARGETS else ""
        show(
            f"After sampling, {case(size)}, {_CHAINS} x {_DRAWS} draws",
            ["", "time", "peak memory +MiB"],
            rows,
            f"bp.fit and boundaries: {duration(wanted)}{target}",
        )
    return failures


def measure(*, size: str) -> list[dict[str, Any]]:
    """Time the steps one by one; runs in a process of its own."""
    import bayesphase as bp
    from tests.benchmarks.peers.ours import warm_up

    warm_up()
    problem = case(size)
    fit, seconds, memory = _fit_of_given_draws(problem)
    steps = [{"name": "bp.fit after its sampler", "seconds": seconds, "memory": memory}]
    return steps + [_timed(name, partial(getattr(bp, name), fit)) for name in _TABLES]


def _fit_of_given_draws(problem: Case) -> tuple[Any, float, float]:
    """Run `bp.fit` with the sampler replaced; the clock starts where the sampler would return."""
    import bayesphase as bp
    import bayesphase.model.fit as module

    given = _scattered(problem)
    started: dict[str, float] = {}

    def sampler(*_: Any, **__: Any) -> Any:
        started.update(time=perf_counter(), memory=_peak())
        return given

    original = module.sample_direct
    module.sample_direct = sampler
    try:
        fit = bp.fit(
            problem.features,
            problem.n_states,
            emission="gaussian",
            n_restarts=1,
            random_seed=1,
            progressbar=False,
        )
    finally:
        module.sample_direct = original
    return fit, perf_counter() - started["time"], _peak() - started["memory"]


def _scattered(problem: Case) -> Any:
    """What the sampler returns: parameters a hundredth of a standard deviation apart."""
    import xarray as xr

    spec, rng = problem.spec, np.random.default_rng(1)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in problem.parameters}
    for _ in range(_CHAINS * _DRAWS):
        for family in (spec.transition, spec.emission):
            for name, value in family.jitter(rng, problem.parameters, 0.01).items():
                drawn[name].append(value)
    arrays = {}
    for name, values in drawn.items():
        array = np.stack(values).reshape(_CHAINS, _DRAWS, *values[0].shape)
        axes = [f"{name}_{axis}" for axis in range(values[0].ndim)]
        arrays[name] = (("chain", "draw", *axes), array)
    coords = {"chain": np.arange(_CHAINS), "draw": np.arange(_DRAWS)}
    stats = {
        "lp": (("chain", "draw"), rng.normal(size=(_CHAINS, _DRAWS))),
        "diverging": (("chain", "draw"), np.zeros((_CHAINS, _DRAWS), bool)),
    }
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(arrays, coords=coords),
            "sample_stats": xr.Dataset(stats, coords=coords),
        }
    )


def _timed(name: str, call: Callable[[], Any]) -> dict[str, Any]:
    before, start = _peak(), perf_counter()
    call()
    return {"name": name, "seconds": perf_counter() - start, "memory": _peak() - before}


def _peak() -> float:
    """Largest memory that this process has held so far, MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
