"""How long a user waits: import, and from the call of `bp.fit` to the first draw, cold and warm.

A fit with one tuning step and one draw of one chain is timed until nutpie returns that draw:
specification, search for starting points, whatever is compiled, and the start of the sampler; then
until `fit` returns, which adds what is made of one draw. Imports that `fit` makes are included, but
for xarray, without which there are no features to pass.
Cold: neither numba nor PyTensor has anything on disk. Warm: a second process with the same caches.
"""

import cProfile
import io
import pstats
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import xarray as xr

from tests.benchmarks.alone import alone
from tests.benchmarks.data import case
from tests.benchmarks.report import Settings, console, duration, show

SIZES = ("S", "M")
_TARGETS = {"cold": 10.0, "warm": 1.0, "import": 0.5}
_LINES = 15
_PROFILED = "own functions, imports, and numba's compiling and loading, cumulative"
_SHOWN = r"bayesphase/|<module>|_compile_for_args|load_overload|k_means"
_DIMS = ("run", "step", "feature")


def run(settings: Settings) -> list[str]:
    """Print the times, then a profile of a cold and of a warm fit."""
    for size in settings.sizes or SIZES:
        rows = []
        cold, warm = _in_fresh_caches(size, profiled=False)
        for name, measured in (("cold", cold), ("warm", warm)):
            imported = duration(measured["import"])
            rows.append((f"{name} process", imported, *_times(measured["first"])))
            rows.append(("  again in the same process", "", *_times(measured["again"])))
            rows.append(("  again, one state more", "", *_times(measured["other"])))
        show(
            f"First draw, {case(size)}",
            ["", "import bayesphase", "to the first draw", "to the end of the fit"],
            rows,
            f"Targets: import {_TARGETS['import']} s, cold {_TARGETS['cold']} s, "
            f"warm {_TARGETS['warm']} s.",
        )
        profiles = dict(zip(("cold", "warm"), _in_fresh_caches(size, profiled=True), strict=True))
        for name, measured in profiles.items():
            console.print(f"Profile of a {name} fit, {size}, main thread: {_PROFILED}")
            console.print(measured["profile"], highlight=False, markup=False)
    return []


def _times(measured: dict[str, float]) -> tuple[str, str]:
    return duration(measured["draw"]), duration(measured["end"])


def _in_fresh_caches(size: str, *, profiled: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure in a process with empty caches, and in a second one with what the first has left."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "NUMBA_CACHE_DIR": str(Path(folder, "numba")),
            "PYTENSOR_FLAGS": f"base_compiledir={Path(folder, 'pytensor')}",
        }
        function = "first_draw:profile" if profiled else "first_draw:measure"
        problem, file = case(size), str(Path(folder, "features.npy"))
        np.save(file, problem.values)
        arguments = {"environment": environment, "file": file, "n_states": problem.n_states}
        cold = alone(function, **arguments)
        warm = alone(function, **arguments)
    return cold, warm


def measure(*, file: str, n_states: int) -> dict[str, Any]:
    """Time import and three fits; runs in a process of its own."""
    start = perf_counter()
    import bayesphase  # noqa: F401

    imported = perf_counter() - start
    features = _features(file)
    times = {
        "first": _one_draw(features, n_states),
        "again": _one_draw(features, n_states),
        "other": _one_draw(features, n_states + 1),
    }
    return {"import": imported, **times}


def profile(*, file: str, n_states: int) -> dict[str, str]:
    """Profile one fit; runs in a process of its own."""
    features = _features(file)
    profiler = cProfile.Profile()
    profiler.enable()
    _one_draw(features, n_states)
    profiler.disable()
    text = io.StringIO()
    stats = pstats.Stats(profiler, stream=text).sort_stats("cumulative")
    stats.print_stats(_SHOWN, _LINES)
    return {"profile": _readable(text.getvalue())}


def _readable(table: str) -> str:
    """Leave only the table, and of every path the last three parts."""
    lines = [line for line in table.splitlines() if line.strip()]
    first = next(i for i, line in enumerate(lines) if "ncalls" in line)
    shortened = []
    for line in lines[first:]:
        figures, where = line[:46], line[46:]
        shortened.append(figures + "/".join(where.split("/")[-3:]))
    return "\n".join(shortened)


def _features(file: str) -> xr.DataArray:
    """Read the data; made by bayesphase in here, they would import what is to be timed."""
    values = np.load(file)
    coords = {dim: np.arange(n) for dim, n in zip(_DIMS, values.shape, strict=True)}
    return xr.DataArray(values, dims=_DIMS, coords=coords)


def _one_draw(features: xr.DataArray, n_states: int) -> dict[str, float]:
    start = perf_counter()
    import bayesphase as bp
    from tests.benchmarks.peers.ours import watched_sampler

    with watched_sampler() as times:
        bp.fit(
            features,
            n_states,
            draws=1,
            tune=1,
            chains=1,
            random_seed=1,
            progressbar=False,
        )
    return {"draw": times["left"] - start, "end": perf_counter() - start}
