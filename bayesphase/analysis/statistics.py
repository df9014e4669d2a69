"""What data that a model makes are compared with the observed ones by.

Each statistic is a function of a Dataset with `features`, `residual` (run, step, feature) and
`state` (run, step), their dims in this order: a single number, or an array with the dim `feature`
or `state`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr

from bayesphase.analysis._lagged import lagged_correlation
from bayesphase.analysis._paths import STEP_UNITS, visits_of

Function = Callable[[xr.Dataset], float | xr.DataArray]


class Statistic(NamedTuple):
    """A function, its units, and what it is in words."""

    function: Function
    units: str = "1"
    long_name: str = ""


def autocorrelation(data: xr.Dataset) -> xr.DataArray:
    """Correlation (feature) of residuals of successive checkpoints in the same phase."""
    residual, state = (data.variables[name].values for name in ("residual", "state"))
    correlation, _ = lagged_correlation(residual, state=state)
    return xr.DataArray(correlation, dims="feature", coords={"feature": data["feature"]})


def largest_residual(data: xr.Dataset) -> xr.DataArray:
    """Largest magnitude (feature) of the residuals, in scales of their phases."""
    return abs(data["residual"]).max(("run", "step"))


def n_switches(data: xr.Dataset) -> float:
    """Switches of state, mean over runs."""
    return float(np.mean([max(len(lengths) - 1, 0) for _, lengths in _visits(data)]))


def mean_dwell(data: xr.Dataset) -> xr.DataArray:
    """Mean length (state) of the visits of all runs, in optimiser steps; NaN if there is none."""
    return _by_state(data, np.mean)


def longest_dwell(data: xr.Dataset) -> xr.DataArray:
    """Length (state) of the longest visit of all runs, in optimiser steps."""
    return _by_state(data, np.max)


STATISTICS = {
    "autocorrelation": Statistic(
        autocorrelation, "1", "lag-1 autocorrelation of residuals within phases"
    ),
    "largest_residual": Statistic(largest_residual, "scales", "largest residual"),
    "mean_dwell": Statistic(mean_dwell, STEP_UNITS, "mean visit of a phase"),
    "longest_dwell": Statistic(longest_dwell, STEP_UNITS, "longest visit of a phase"),
    "n_switches": Statistic(n_switches, "switches a run", "switches of phase"),
}


def _visits(data: xr.Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    """States (visit) and lengths (visit) of each run; the last visit ends with the run."""
    states, steps = (data.variables[name].values for name in ("state", "step"))
    found = []
    for path in states:
        there = path >= 0
        _, state, begin = visits_of(path[there][None], steps[there])
        found.append((state, np.diff(begin, append=steps[there][-1:])))
    return found


def _by_state(data: xr.Dataset, reduce: Callable[[np.ndarray], float]) -> xr.DataArray:
    visits = _visits(data)
    state = np.concatenate([of_run for of_run, _ in visits])
    length = np.concatenate([of_run for _, of_run in visits])
    labels = np.arange(data.attrs["n_states"])
    values = [reduce(length[state == k]) if (state == k).any() else np.nan for k in labels]
    return xr.DataArray(values, dims="state", coords={"state": labels})
