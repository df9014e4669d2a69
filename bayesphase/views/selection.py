"""The features that a model sees: which metrics, of which matrices, on which scale."""

import warnings
from collections.abc import Sequence

import numpy as np
import xarray as xr

from bayesphase.dataset import require_dataset, validate_metrics
from bayesphase.views.aggregation import aggregate, known_names
from bayesphase.views.scaling import HOW
from bayesphase.views.scaling import standardize as _standardize

WEIGHT_METRICS = (
    "l1_norm",
    "l2_norm",
    "l1_l2_ratio",
    "trace",
    "spectral_norm",
    "trace_spectral_ratio",
    "singular_value_mean",
    "singular_value_var",
    "weight_mean",
    "weight_median",
    "weight_var",
    "bias_mean",
    "bias_median",
    "bias_var",
)


class MetricLeftOutWarning(UserWarning):
    """A metric of the default selection can tell nothing here and was left out."""


def features(
    ds: xr.Dataset,
    *,
    metrics: Sequence[str] | None = None,
    how: str = "mean",
    by: str | None = None,
    log: Sequence[str] = (),
    standardize: str | None = "pooled",
    reference: slice | tuple[int, int] | xr.DataArray | xr.Dataset | None = None,
) -> xr.DataArray:
    """Make the features that a model is fitted to.

    Parameters
    ----------
    ds : Dataset
        Metrics with dims (run, step[, parameter | example]).
    metrics : sequence of str, optional
        Metrics to use, in this order. By default those of `WEIGHT_METRICS` that `ds` has: losses
        and accuracies are left for checking what the phases mean, and come in only by name.
    how : {"mean", "median", "min", "max", "sum"}
        How to aggregate over weight matrices; see `aggregate`.
    by : str, optional
        A coordinate of ``parameter``, such as "layer": one feature per metric and group, named
        ``metric[group]``.
    log : sequence of str, optional
        Metrics to take the natural logarithm of, after aggregation: norms and losses that change
        by orders of magnitude. The feature is then named ``log_metric``.
    standardize : {"pooled", "run", "reference"} or None
        See `standardize`; None keeps the metrics' own units. The published method uses "run",
        which forces every run to the same mean and spread: a run that stays in its first phase
        then looks as if it had gone through all of them. "pooled" keeps differences between runs,
        so it is the default here. Use "reference" where nothing may look ahead.
    reference : slice, (start, stop), DataArray or Dataset, optional
        With standardize="reference": a window of steps, or features, or metrics of other runs,
        of which features are made in the same way.

    Returns
    -------
    DataArray
        ``features``, float64, dims (run, step, feature), NaN where missing. The attributes say how
        it was made; location and scale are coordinates.

    Warns
    -----
    MetricLeftOutWarning
        If a metric of the default selection is NaN everywhere (a network without biases) or
        constant, and so is left out.

    Raises
    ------
    TypeError
        If `ds` is no Dataset or holds text where numbers belong, or `metrics` or `log` is no list.
    ValueError
        If `standardize` is unknown; a metric is, or it was asked for and is constant or all NaN;
        a run has fewer than 2 checkpoints; a logarithm is asked of values that are not positive; or
        `ds` breaks the contract in another way (infinite values, steps that repeat or are out of
        order).
    """
    require_dataset(ds)
    _check_scaling(standardize, reference)
    names = _select(ds, metrics)
    log = known_names(log, names, what="log")
    ds = _used(ds, names)
    x = _stack(aggregate(ds, how=how, by=by), names, by=by, log=log)
    x = _without_useless(x, asked=metrics is not None)
    record = {"metrics": names, "aggregation": how, "by": by, "log": log}
    x.attrs |= {key: value for key, value in record.items() if value}
    if isinstance(reference, xr.Dataset):
        others = aggregate(_used(reference, names), how=how, by=by)
        reference = _stack(others, names, by=by, log=log)
    if standardize is None:
        return x
    return _standardize(x, how=standardize, reference=reference)


def _check_scaling(standardize: object, reference: object) -> None:
    if standardize is not None and standardize not in HOW:
        raise ValueError(
            f"standardize must be one of {', '.join(map(repr, HOW))} or None, got {standardize!r}"
        )
    if standardize == "reference" and reference is None:
        raise ValueError(
            "standardize='reference' needs a reference: a window of steps, or other runs"
        )
    if standardize != "reference" and reference is not None:
        raise ValueError("a reference is of use with standardize='reference' only")


def _select(ds: xr.Dataset, metrics: Sequence[str] | None) -> list[str]:
    if metrics is not None:
        names = known_names(metrics, ds.data_vars)
        if not names:
            raise ValueError(f"metrics is empty; there are: {', '.join(map(str, ds.data_vars))}")
        wide = [name for name in names if "example" in ds[name].dims]
        if wide:
            raise ValueError(f"{wide} hold a value per example: use bayesphase.pca for those")
        return names
    names = [name for name in WEIGHT_METRICS if name in ds.data_vars]
    if not names:
        raise ValueError(
            "there is none of the 14 weight metrics; name what to use with metrics=[...], of: "
            f"{', '.join(map(str, ds.data_vars))}"
        )
    unknown = [name for name in names if bool(ds[name].isnull().all())]
    if len(unknown) == len(names):
        return names  # validation says what is wrong with it
    for name in unknown:
        _warn_left_out(name, "NaN everywhere")
    return [name for name in names if name not in unknown]


def _used(ds: xr.Dataset, names: list[str]) -> xr.Dataset:
    """Validate what is used, and keep beside it what aggregation has to know."""
    known_names(names, ds.data_vars)
    used = validate_metrics(ds[names], min_steps=2)
    if "nonfinite_count" in ds:
        used = used.assign(nonfinite_count=ds["nonfinite_count"])
    return used


def _stack(ds: xr.Dataset, names: list[str], *, by: str | None, log: list[str]) -> xr.DataArray:
    """Put metrics, and their groups, side by side along ``feature``."""
    columns = []
    for name in names:
        metric = ds[name]
        if name in log:
            if bool((metric <= 0).any()):
                raise ValueError(
                    f"log of {name!r} needs positive values, its least is {float(metric.min())}"
                )
            metric = metric.copy(data=np.log(metric.values))
        label = f"log_{name}" if name in log else name
        if by is not None and by in metric.dims:
            groups = [f"{label}[{group}]" for group in metric[by].values]
            metric = metric.rename({by: "feature"}).assign_coords(feature=groups)
        else:
            metric = metric.expand_dims(feature=[label])
        columns.append(metric.drop_attrs())
    x = xr.concat(columns, dim="feature", coords="minimal", compat="override")
    x = x.transpose("run", "step", "feature").astype(float)
    x["feature"] = x["feature"].astype(str)
    for name in ("run", "step", "epoch"):
        if name in x.coords:
            x[name].attrs = dict(ds[name].attrs)
    return x.rename("features").assign_attrs(long_name="features of training", units="mixed")


def _without_useless(x: xr.DataArray, *, asked: bool) -> xr.DataArray:
    """Leave out features that are NaN everywhere or constant, or object if they were asked for."""
    useless = {}
    for name in x["feature"].values.tolist():
        values = x.sel(feature=name).values
        values = values[~np.isnan(values)]
        if not values.size:
            useless[name] = "NaN at every checkpoint, for a matrix always lacks it"
        elif values.std() <= 1e-14 * abs(values.mean()):
            useless[name] = f"constant ({values[0]})"
    for name, why in useless.items():
        if asked or len(useless) == x.sizes["feature"]:
            raise ValueError(
                f"the feature {name!r} is {why}, so no phase can be told by it: leave it out, or "
                "look for why it is so"
            )
        _warn_left_out(name, why)
    return x.drop_sel(feature=list(useless))


def _warn_left_out(name: str, why: str) -> None:
    warnings.warn(f"{name!r} is {why}: it is left out", MetricLeftOutWarning, stacklevel=4)
