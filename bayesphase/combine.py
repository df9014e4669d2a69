"""Put runs that were recorded one by one into one metrics Dataset."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayesphase.contract import PARAMETER_COORDS
from bayesphase.dataset import check_structure

_SIDE_BY_SIDE: dict[str, Any] = {
    "dim": "run",
    "data_vars": "all",
    "coords": "minimal",
    "compat": "override",
    "join": "outer",
}


def combine_runs(datasets: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put runs side by side; where a run has no checkpoint at a step it holds NaN.

    Parameters
    ----------
    datasets : sequence of Dataset
        Metrics with dims (run, step[, parameter | example]) whose runs differ; their steps,
        parameters and variables may differ too.

    Returns
    -------
    Dataset
        All runs, over the union of steps, parameters and examples. `epoch` keeps the dim
        (step) where all runs agree on it, and gets (run, step) where they do not. Attributes that
        differ between runs are dropped.

    Raises
    ------
    TypeError
        If `datasets` is not a sequence, or holds something else than Datasets.
    ValueError
        If there is nothing to combine, a run occurs twice, the metrics were computed by different
        definitions, or a parameter has another layer, kind or shape in another run.
    """
    if isinstance(datasets, xr.Dataset | str | os.PathLike) or not isinstance(datasets, Iterable):
        raise TypeError(
            f"datasets is a {type(datasets).__name__}, expected several: give a list of Datasets, "
            "one for each run or group of runs"
        )
    datasets = list(datasets)
    for ds in datasets:
        if isinstance(ds, str | os.PathLike):
            raise TypeError(
                f"datasets holds the path {os.fspath(ds)!r}, expected Datasets: open each first, "
                "with bayesphase.open_metrics(path)"
            )
    if not datasets:
        raise ValueError("there are no runs to combine: give at least one metrics Dataset")
    parts = [check_structure(ds) for ds in datasets]
    key = "metric_definitions"
    definitions = {str(ds.attrs[key]) for ds in parts if key in ds.attrs}
    if len(definitions) > 1:
        raise ValueError(
            f"the runs were measured by the definitions {' and '.join(sorted(definitions))}: "
            "their metrics can't be compared, collect them again with one version"
        )
    columns = _parameter_coords([ds for ds in parts if "parameter" in ds.dims])
    epochs = [
        ds["epoch"].broadcast_like(ds[["run", "step"]]) for ds in parts if "epoch" in ds.coords
    ]
    bare = [ds.drop_vars(["epoch", *PARAMETER_COORDS], errors="ignore") for ds in parts]
    if columns:  # joined here, in their order: an outer join in xarray sorts labels that differ
        names = columns["parameter"][1]
        bare = [ds.reindex(parameter=names) if "parameter" in ds.dims else ds for ds in bare]
    combined = xr.concat(bare, combine_attrs="drop_conflicts", **_SIDE_BY_SIDE).sortby("step")
    if epochs:
        epoch = xr.concat(epochs, **_SIDE_BY_SIDE).reindex_like(combined[["run", "step"]])
        columns["epoch"] = _shared(epoch, np.result_type(*(part.dtype for part in epochs)))
    return check_structure(combined.assign_coords(columns))


def _parameter_coords(parts: list[xr.Dataset]) -> dict[str, Any]:
    """Join the coordinates of the parameters over all runs, in the order they first occur."""
    if not parts:
        return {}
    names = list(dict.fromkeys(name for ds in parts for name in ds["parameter"].values))
    held = [c for c in PARAMETER_COORDS if any(c in ds.coords for ds in parts)]
    columns = {c: ("parameter", _column(parts, c, names)) for c in held}
    return {"parameter": ("parameter", names)} | columns


def _column(parts: list[xr.Dataset], column: str, names: list[str]) -> list[str]:
    """Join one coordinate of the parameters over all runs; the runs must agree on it."""
    found: dict[str, str] = {}
    for ds in parts:
        if column not in ds.coords:
            continue
        for name, value in zip(ds["parameter"].values, ds[column].values, strict=True):
            if found.setdefault(name, value) != value:
                raise ValueError(
                    f"the parameter {name!s} has {column} {found[name]!s} in one run and {value!s} "
                    "in another: rename it, or combine runs of one network only"
                )
    return [found.get(name, "") for name in names]


def _shared(epoch: xr.DataArray, dtype: np.dtype) -> xr.DataArray:
    """Reduce (run, step) to (step) where all runs that have a step agree on its epoch."""
    lowest, highest = epoch.min("run"), epoch.max("run")
    return lowest.astype(dtype) if bool((lowest == highest).all()) else epoch
