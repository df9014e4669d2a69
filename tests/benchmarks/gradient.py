"""What one log density with its gradient costs: all ways of all peers, in one process, in turns.

Every library gets one thread where it can be told so, as a chain among several has. Values are
first compared with a density written with SciPy, gradients with each other.
"""

from importlib import import_module
from typing import Any

import numpy as np

from tests.benchmarks import reference
from tests.benchmarks.alone import ONE_THREAD, alone
from tests.benchmarks.data import case
from tests.benchmarks.peers import split_by_installed
from tests.benchmarks.peers.hmmlearn import YARDSTICK
from tests.benchmarks.report import Settings, complain, duration, show
from tests.benchmarks.timing import interleaved

SIZES = ("S", "M", "L")
_PEERS = ("ours", "hmmlearn", "dynamax", "numpyro", "pymc_extras")
_TARGET = 0.3  # times the yardstick, at M and L


def run(settings: Settings) -> list[str]:
    """Print one table per size."""
    failures = []
    there, missing = split_by_installed(_PEERS)
    for size in settings.sizes or SIZES:
        result = alone(
            "gradient:measure",
            environment=ONE_THREAD,
            size=size,
            peers=there,
            seconds=settings.seconds,
            compiled=settings.compiled,
        )
        rows = result["rows"]
        ours = next(row["median"] for row in rows if row["label"] == "bayesphase")
        show(
            f"Log density and gradient, {case(size)}",
            ["", "median", "min", "bayesphase = 1", "first result after"],
            [
                (
                    row["label"],
                    duration(row["median"]),
                    duration(row["min"]),
                    row["median"] / ours,
                    duration(row["build"]),
                )
                for row in rows
            ],
            "\n".join([*_yardstick(rows, ours), *(f"{name} is not installed" for name in missing)]),
        )
        failures += [complain(f"{size}: {failure}") for failure in result["failures"]]
    return failures


def _yardstick(rows: list[dict[str, Any]], ours: float) -> list[str]:
    """Say how bayesphase compares with the recursions that it is to beat."""
    found = [row["median"] for row in rows if row["label"] == YARDSTICK]
    of = f"bayesphase / {YARDSTICK}"
    return [f"{of} = {ours / time:.2f} (target {_TARGET} at M and L)" for time in found]


def measure(*, size: str, peers: list[str], seconds: float, compiled: bool) -> dict[str, Any]:
    """Build everything, compare, time; runs in a process of its own."""
    problem = case(size)
    evaluations, failures = [], []
    for peer in peers:
        module = import_module(f"tests.benchmarks.peers.{peer}")
        options = {"compiled": compiled} if peer == "ours" else {}
        try:
            evaluations += module.gradients(problem, **options)
        except Exception as error:  # a peer may be broken in any way; the others are not
            failures.append(f"{peer} fails with {type(error).__name__}: {error}")
    failures += _disagreements(problem, evaluations)
    times = interleaved({e.label: e.call for e in evaluations}, seconds=seconds)
    rows = [{"label": e.label, "build": e.build, **times[e.label]} for e in evaluations]
    return {"rows": rows, "failures": failures}


def _disagreements(problem: Any, evaluations: list[Any]) -> list[str]:
    """List values off the reference by 1e-8 or more, and gradients off bayesphase by 1e-6."""
    right = {
        "likelihood": reference.log_likelihood(problem),
        "density": reference.log_density(problem),
    }
    ours = next(e.gradient for e in evaluations if e.label == "bayesphase")
    failures = []
    for e in evaluations:
        if not abs(e.value / right[e.of] - 1.0) < 1e-8:
            failures.append(f"{e.label} has log {e.of} {e.value!r}, expected {right[e.of]!r}")
        if e.gradient is not None:
            error = np.abs(e.gradient - ours).max() / np.abs(ours).max()
            if not error < 1e-6:
                failures.append(f"{e.label} has a gradient that is off by {error:.1e} (relative)")
    return failures
