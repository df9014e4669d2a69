"""How the cost of one log density with its gradient grows: linearly, or there is a defect.

Steps of a single run, runs of 200 steps and features are each varied while the rest is held; one
thread, median of calls taken in turns. A sweep's smallest case has a fixed cost in it, so that the
cost per row falls at first and must not rise later (but for data that outgrow the caches).
"""

from typing import Any

from tests.benchmarks.alone import ONE_THREAD, alone
from tests.benchmarks.data import N_FEATURES
from tests.benchmarks.report import Settings, duration, show

_STATES = 5
_SWEEPS: dict[str, tuple[dict[str, int], tuple[int, ...]]] = {
    "n_steps": ({"n_runs": 1, "n_features": N_FEATURES}, (10**3, 10**4, 10**5, 10**6)),
    "n_runs": ({"n_steps": 200, "n_features": N_FEATURES}, (1, 10, 100, 1000)),
    "n_features": ({"n_runs": 8, "n_steps": 500}, (1, 2, 4, 8, 16, 32, 64, 128)),
}
_TITLES = {
    "n_steps": "steps of one run, 14 features",
    "n_runs": "runs of 200 steps, 14 features",
    "n_features": "features, 8 runs x 500",
}


def run(settings: Settings) -> list[str]:
    """Print one table per sweep."""
    for name, (fixed, values) in _SWEEPS.items():
        measured = alone(
            "scale:measure",
            environment=ONE_THREAD,
            name=name,
            fixed=fixed,
            values=values,
            seconds=settings.seconds,
        )
        smallest = measured[0]["per_row"]
        show(
            f"Growth with the number of {_TITLES[name]}, K={_STATES}",
            [name, "log density and gradient", "per row", "first = 1", "per row and feature"],
            [
                (
                    f"{row['value']:,}",
                    duration(row["seconds"]),
                    duration(row["per_row"]),
                    row["per_row"] / smallest,
                    duration(row["per_row"] / row["n_features"]),
                )
                for row in measured
            ],
        )
    return []


def measure(
    *, name: str, fixed: dict[str, int], values: list[int], seconds: float
) -> list[dict[str, Any]]:
    """Time one sweep; runs in a process of its own."""
    from tests.benchmarks.data import simulated
    from tests.benchmarks.peers.ours import gradients
    from tests.benchmarks.timing import interleaved

    calls, rows = {}, []
    for value in values:
        sizes = {**fixed, name: value}
        problem = simulated(f"{name}={value}", n_states=_STATES, **sizes)
        (evaluation,) = gradients(problem)
        calls[str(value)] = evaluation.call
        n_rows = sizes["n_runs"] * sizes["n_steps"]
        rows.append({"value": value, "n_rows": n_rows, "n_features": sizes["n_features"]})
    times = interleaved(calls, seconds=seconds)
    for row in rows:
        row["seconds"] = times[str(row["value"])]["median"]
        row["per_row"] = row["seconds"] / row["n_rows"]
    return rows
