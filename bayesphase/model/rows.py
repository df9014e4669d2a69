"""Features on a grid of runs and steps, laid out as the rows that the recursions work on."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from bayesphase._checks import check_integer
from bayesphase.model.lanes import Layout, end_to_end


class Units(NamedTuple):
    """What rows of other runs take from those of a fit; see `Rows`."""

    step_unit: float
    location: np.ndarray
    spread: np.ndarray


class Rows(NamedTuple):
    """Checkpoints of all runs, end to end; a checkpoint without any feature has no row.

    `values` (row, feature) is 0 where a feature is missing and `observed` (row, feature) is False
    there; `run` and `step` (row) are positions on the grid; `time` (row) is in optimiser steps, and
    `step_unit` the median distance of two steps on the grid; `location` and `spread` (feature) are
    mean and standard deviation of what is observed, the spread 1 for a constant feature.
    """

    values: np.ndarray
    observed: np.ndarray
    run: np.ndarray
    step: np.ndarray
    time: np.ndarray
    step_unit: float
    layout: Layout
    location: np.ndarray
    spread: np.ndarray

    @property
    def complete(self) -> bool:
        """Whether nothing is missing within the rows."""
        return bool(self.observed.all())

    @property
    def gap(self) -> np.ndarray:
        """Optimiser steps (row) since the run's checkpoint before, 0 at its first."""
        gap = np.diff(self.time, prepend=self.time[0])
        gap[self.layout.starts] = 0.0
        return gap

    def with_gap_index(self, gap_index: np.ndarray) -> "Rows":
        """Return the same rows, with other transition matrices (row) leading into them."""
        return self._replace(layout=self.layout._replace(gap_index=gap_index))

    def to_grid(self, column: np.ndarray, grid: tuple[int, int], fill: Any) -> np.ndarray:
        """Put a column (..., row) back on the grid (..., run, step)."""
        out = np.full((*column.shape[:-1], *grid), fill, column.dtype)
        out[..., self.run, self.step] = column
        return out


def rows_of(
    features: xr.DataArray, *, units_of: Rows | Units | None = None, least: int = 2
) -> Rows:
    """Lay features out as rows.

    Parameters
    ----------
    features : DataArray (run, step, feature)
        As `bayesphase.features` returns them; NaN where missing. An attribute ``step_unit`` takes
        the place of the median gap, so that some of the checkpoints have the unit of all.
    units_of : Rows or Units, optional
        Rows of the same features whose unit of time, location and spread are taken: these are
        other runs, and a feature may have no value here.
    least : int
        Checkpoints that a run must have.

    Raises
    ------
    TypeError
        If `features` is no DataArray or does not hold numbers.
    ValueError
        If dims are missing, steps are not increasing, a value is infinite, a feature has no value,
        or a run has too few checkpoints.
    """
    features = check_features(features, may_lack_features=units_of is not None, least=least)
    values = features.transpose("run", "step", "feature").values.astype(np.float64)
    run, step = np.nonzero(~np.isnan(values).all(axis=2))
    flat = values[run, step]
    observed = ~np.isnan(flat)
    flat = np.where(observed, flat, 0.0)
    time = features["step"].values[step].astype(np.float64)
    layout = end_to_end(np.bincount(run, minlength=values.shape[0]))
    if units_of is not None:
        units = units_of.step_unit, units_of.location, units_of.spread
    else:
        unit = features.attrs.get("step_unit", _usual_gap(run, time))
        units = float(unit), *location_and_spread(flat, observed)
    step_unit, location, spread = units
    return Rows(flat, observed, run, step, time, step_unit, layout, location, spread)


def _usual_gap(run: np.ndarray, time: np.ndarray) -> float:
    """Median distance between checkpoints (row) of a run, over all runs."""
    return float(np.median(np.diff(time)[np.diff(run) == 0]))


def location_and_spread(values: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (feature) of what is observed of `values` (row, feature)."""
    count = np.maximum(observed.sum(axis=0), 1)
    location = (values * observed).sum(axis=0) / count
    spread = np.sqrt((((values - location) * observed) ** 2).sum(axis=0) / count)
    # a constant feature has a spread of rounding errors only
    return location, np.where(spread > 1e-12 * np.abs(location), spread, 1.0)


def check_features(
    features: xr.DataArray, *, may_lack_features: bool = False, least: int = 2
) -> xr.DataArray:
    """Return `features` if a model can be fitted to them; see `rows_of` for what is raised."""
    if not isinstance(features, xr.DataArray):
        raise TypeError(
            f"features must be an xarray.DataArray with dims (run, step, feature), as "
            f"bayesphase.features(metrics) returns, got {type(features).__name__}"
        )
    if not np.issubdtype(features.dtype, np.number) or np.iscomplexobj(features):
        raise TypeError(f"features must hold real numbers, got dtype {features.dtype}")
    _check_labels(features)
    _check_steps(features)
    _check_values(features.transpose("run", "step", "feature"), may_lack_features, least)
    return features


def _check_labels(features: xr.DataArray) -> None:
    if set(features.dims) != {"run", "step", "feature"}:
        raise ValueError(
            f"features must have the dims (run, step, feature), got {tuple(features.dims)}"
        )
    for dim in ("run", "step", "feature"):
        if features.sizes[dim] == 0:
            raise ValueError(f"features has no {dim}: its dim {dim!r} has length 0")
        if dim not in features.coords:
            raise ValueError(f"features has no coordinate {dim!r}; assign its labels")
    for dim in ("run", "feature"):
        index = features.indexes[dim]
        if index.has_duplicates:
            repeated = sorted(set(index[index.duplicated()]))
            raise ValueError(f"features has {dim} labels that occur twice: {repeated}")


def _check_values(features: xr.DataArray, may_lack_features: bool, least: int) -> None:
    runs, steps, names = (features[dim].values.tolist() for dim in ("run", "step", "feature"))
    infinite = np.argwhere(np.isinf(features.values))
    if infinite.size:
        r, t, d = infinite[0]
        raise ValueError(
            f"feature {names[d]!r} is infinite in run {runs[r]!r} at step {steps[t]}; use NaN for "
            f"a missing value"
        )
    present = ~np.isnan(features.values)
    for d in np.flatnonzero(~present.any(axis=(0, 1)) & (not may_lack_features)):
        raise ValueError(f"feature {names[d]!r} is NaN everywhere; leave it out")
    checkpoints = present.any(axis=2).sum(axis=1)
    for r in np.flatnonzero(checkpoints < least):
        needed = "a sequence needs at least 2" if least == 2 else f"at least {least} is needed"
        raise ValueError(
            f"run {runs[r]!r} has {checkpoints[r]} checkpoint(s) with a feature, but {needed}"
        )


def _check_steps(features: xr.DataArray) -> None:
    steps = features["step"].values
    if not np.issubdtype(steps.dtype, np.number):
        raise TypeError(f"steps must be numbers, got dtype {steps.dtype}")
    for before, after in pairwise(steps):
        if after == before:
            raise ValueError(f"step {before} occurs twice; steps must increase")
        if not after > before:  # also where one of them is NaN
            raise ValueError(f"steps must increase, but {after} follows {before}; sort by step")


def check_n_states(n_states: int, rows: Rows) -> int:
    """Return `n_states` if the data can hold that many.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is under 1, over the number of checkpoints, or over 127.
    """
    n_states = check_integer("n_states", n_states)
    most = min(len(rows.values), np.iinfo(np.int8).max)
    if not 1 <= n_states <= most:
        raise ValueError(
            f"n_states must lie between 1 and {most} (there are {len(rows.values)} checkpoints in "
            f"all), got {n_states}"
        )
    return n_states
