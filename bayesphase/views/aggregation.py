"""One number per checkpoint from the metrics of its weight matrices."""

import difflib
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr

from bayesphase.dataset import require_dataset

_HOW = ("mean", "median", "min", "max", "sum")


def aggregate(
    ds: xr.Dataset,
    *,
    how: str = "mean",
    metrics: Sequence[str] | None = None,
    by: str | None = None,
) -> xr.Dataset:
    """Aggregate the metrics of weight matrices over the matrices.

    The published method takes the mean (Hu et al. 2023, arXiv:2308.09543), and so does the
    default; a ratio is then a mean of ratios.

    A matrix whose metric is NaN at only some checkpoints of a run, because a weight was not finite
    there, makes the aggregate NaN there: the mean of the others would be a jump that never was.
    A matrix whose metric is NaN throughout a run is no part of that run's network (runs of
    different depth) or has no such metric, and is left out. Where no checkpoint of the run has
    finite weights only, by ``nonfinite_count``, the two can't be told apart: the aggregate is NaN.

    Parameters
    ----------
    ds : Dataset
        Metrics with dims (run, step[, parameter | example]).
    how : {"mean", "median", "min", "max", "sum"}
        How to aggregate.
    metrics : sequence of str, optional
        The variables to return; all by default.
    by : str, optional
        A coordinate of ``parameter``, such as "layer" or "kind": aggregate within its groups.

    Returns
    -------
    Dataset
        The variables with ``parameter`` aggregated, dims (run, step), or (run, step, `by`); the
        others as they are. The units are those of the metrics.

    Warns
    -----
    UserWarning
        If runs differ in the matrices that go into a metric: the aggregates are then of different
        things.

    Raises
    ------
    TypeError
        If `ds` is no Dataset, or `metrics` no list of names.
    ValueError
        If `how`, a metric or `by` is unknown; the message lists what there is.
    """
    require_dataset(ds)
    if how not in _HOW:
        raise ValueError(f"how must be one of {_HOW}, got {how!r}")
    names = list(map(str, ds.data_vars)) if metrics is None else known_names(metrics, ds.data_vars)
    if by is not None and (by not in ds.coords or ds[by].dims != ("parameter",)):
        there = [str(name) for name, c in ds.coords.items() if c.dims == ("parameter",)]
        raise ValueError(f"by must be a coordinate of 'parameter', one of {there}, got {by!r}")
    reduced = {
        name: _reduce(ds[name], _clean_checkpoints(ds, name), how, by)
        if "parameter" in ds[name].dims
        else ds[name]
        for name in names
    }
    keep = [name for name, c in ds.coords.items() if "parameter" not in c.dims]
    result = xr.Dataset(reduced, attrs=ds.attrs | {"aggregation": how})
    return result.assign_coords({n: ds[n] for n in keep if set(ds[n].dims) <= set(result.dims)})


def known_names(
    names: Iterable[str], known: Iterable[object], *, what: str = "metrics"
) -> list[str]:
    """Return `names` as a list if all are known, else say which are near.

    `what` is the parameter they were given for.

    Raises
    ------
    TypeError
        If `names` is not a sequence of names: text, say.
    ValueError
        If a name is unknown or occurs twice.
    """
    there = [str(name) for name in known]
    if isinstance(names, str) or not isinstance(names, Iterable):
        example = [names] if isinstance(names, str) else there[:1]
        raise TypeError(
            f"{what} is {names!r}, expected a list of metric names: use {what}={example}"
        )
    names = list(names)
    for name in names:
        if name not in there:
            near = difflib.get_close_matches(str(name), there, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise ValueError(f"there is no metric {name!r}; {hint}There are: {', '.join(there)}")
        if names.count(name) > 1:
            raise ValueError(f"metric {name!r} is named twice: name each once")
    return names


def _clean_checkpoints(ds: xr.Dataset, name: str) -> xr.DataArray:
    """Tell where (run, step) a checkpoint exists whose weights were all finite."""
    exists = ds[name].notnull().any("parameter")
    return exists & (ds["nonfinite_count"] == 0) if "nonfinite_count" in ds else exists


def _reduce(metric: xr.DataArray, clean: xr.DataArray, how: str, by: str | None) -> xr.DataArray:
    absent = metric.isnull().all("step") & clean.any("step")
    _warn_if_runs_differ(metric, absent)
    # A value that is missing for a reason (not absent) has to survive a reduction that skips NaN.
    unknown = metric.isnull() & ~absent
    value = _over_matrices(metric, how, by).where(
        _over_matrices(~absent, "any", by) & ~_over_matrices(unknown, "any", by)
    )
    value.attrs = dict(metric.attrs)
    label = metric.attrs.get("long_name", metric.name)
    value.attrs["long_name"] = f"{how} over {'' if by is None else by + ' of '}matrices of: {label}"
    return value.transpose("run", "step", ...)


def _over_matrices(values: xr.DataArray, how: str, by: str | None) -> xr.DataArray:
    """Reduce over ``parameter``, within the groups of `by` in the order they first occur."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice|Mean of empty slice", RuntimeWarning)
        if by is None:
            return getattr(values, how)("parameter")
        reduced = getattr(values.groupby(by), how)("parameter")
    return reduced.sel({by: list(dict.fromkeys(values[by].values.tolist()))})


def _warn_if_runs_differ(metric: xr.DataArray, absent: xr.DataArray) -> None:
    absent = absent.transpose("run", "parameter")
    differs = absent.values.any(axis=0) & ~absent.values.all(axis=0)
    if differs.any():
        matrix = int(np.flatnonzero(differs)[0])
        run = int(np.flatnonzero(absent.values[:, matrix])[0])
        warnings.warn(
            f"runs differ in the matrices that have {metric.name!r}: run "
            f"{str(absent['run'].values[run])!r} has none for "
            f"{str(absent['parameter'].values[matrix])!r}, {int(differs.sum())} matrices differ "
            "in all; their aggregates are not of the same thing: select the common ones first",
            UserWarning,
            stacklevel=4,
        )
