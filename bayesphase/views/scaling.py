"""Features on a common scale, in a way that can be undone and carried over to other runs."""

import warnings

import numpy as np
import xarray as xr

LOCATION, SCALE = "feature_location", "feature_scale"
HOW = ("pooled", "run", "reference")


class ConstantMetricWarning(UserWarning):
    """A metric does not vary where its scale is taken from, so it was not scaled."""


def standardize(
    x: xr.DataArray,
    *,
    how: str = "pooled",
    reference: slice | tuple[int, int] | xr.DataArray | None = None,
) -> xr.DataArray:
    """Subtract a location from each feature and divide by a scale: mean and standard deviation.

    Parameters
    ----------
    x : DataArray
        Dims (run, step, feature); NaN where missing.
    how : {"pooled", "run", "reference"}
        Where location and scale come from.

        - "pooled": all checkpoints of all runs together. Differences between runs stay.
        - "run": each run by itself, as in the published method (arXiv:2308.09543). It removes
          differences between runs in level and spread, also those that training made.
        - "reference": other data, so that nothing looks ahead. See `reference`.

        Both "pooled" and "run" look ahead: what is early in a run is scaled by what came later.
    reference : slice or (start, stop) or DataArray, optional
        With how="reference" only. Steps, both ends included: location and scale are those of the
        checkpoints in this window, pooled over runs. Or features of other runs, dims (run, step,
        feature): standardized ones pass on their location and scale, others are pooled.

    Returns
    -------
    DataArray
        Like `x`, float64, with coordinates ``feature_location`` and ``feature_scale`` of dims
        (feature), or (run, feature) for "run". To undo it:
        ``x * x["feature_scale"] + x["feature_location"]``.

    Warns
    -----
    ConstantMetricWarning
        If a feature does not vary where its scale is taken from. Its scale is then 1.

    Raises
    ------
    TypeError
        If `x` or `reference` is of another type.
    ValueError
        If `how` is unknown, `x` is standardized already, or the reference does not fit.

    Notes
    -----
    The standard deviation divides by n (ddof=0). NaN is skipped.
    """
    _check_features(x, "x")
    x = x.astype(float)
    if LOCATION in x.coords:
        raise ValueError("x is standardized already: undo that first, or start from the metrics")
    if how not in HOW:
        raise ValueError(f"how must be one of {HOW}, got {how!r}")
    if (how == "reference") != (reference is not None):
        raise ValueError(
            f"how={how!r} with reference={'None' if reference is None else 'given'}: give a "
            "reference with how='reference', and only then"
        )
    if isinstance(reference, xr.DataArray) and LOCATION in reference.coords:
        location, scale = _stored(x, reference)
    else:
        source = x if reference is None else _source(x, reference)
        location, scale = _location_and_scale(source, ["step"] if how == "run" else ["run", "step"])
    result = ((x - location) / scale).transpose("run", "step", "feature")
    result = result.assign_coords({LOCATION: location, SCALE: scale})
    result.name = x.name
    result.attrs = x.attrs | {"standardization": how, "units": "1"}
    if isinstance(reference, slice | tuple):
        result.attrs["reference_steps"] = str(_window(reference))
    return result


def _location_and_scale(x: xr.DataArray, dims: list[str]) -> tuple[xr.DataArray, xr.DataArray]:
    count = x.notnull().sum(dims)
    # Without `.where` the mean of nothing would warn; location 0 and scale 1 leave NaN as it is.
    location = x.sum(dims) / count.where(count > 0, 1)
    scale = (((x - location) ** 2).sum(dims) / count.where(count > 0, 1)) ** 0.5
    # Spread of the size of rounding errors is no spread.
    constant = (scale <= 1e-14 * abs(location)) & (count > 0)
    for where in np.argwhere(constant.values):
        at = {str(dim): str(values.values) for dim, values in constant[tuple(where)].coords.items()}
        run = f" in run {at['run']!r}" if "run" in at else ""
        warnings.warn(
            f"metric {at['feature']!r} is constant{run}; it is centred and not scaled "
            "(scale 1). Leave it out if it tells nothing",
            ConstantMetricWarning,
            stacklevel=3,
        )
    scale = scale.where(~constant & (count > 0), 1.0)
    location.attrs = {"long_name": "location subtracted from the feature", "units": "mixed"}
    scale.attrs = {"long_name": "scale the feature was divided by", "units": "mixed"}
    return location, scale


def _stored(x: xr.DataArray, reference: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    _check_same_features(x, reference)
    if "run" in reference[LOCATION].dims:
        raise ValueError(
            "the reference was standardized within each run, so it has no scale for other runs: "
            "use one standardized with how='pooled' or how='reference'"
        )
    names = {"feature": x["feature"].values}
    return reference[LOCATION].sel(names), reference[SCALE].sel(names)


def _source(x: xr.DataArray, reference: object) -> xr.DataArray:
    if isinstance(reference, xr.DataArray):
        _check_features(reference, "reference")
        _check_same_features(x, reference)
        source = reference.sel(feature=x["feature"].values)
    elif isinstance(reference, slice | tuple):
        source = x.sel(step=_window(reference))
    else:
        raise TypeError(
            "reference must be a slice or (start, stop) of steps, or features of other runs, "
            f"got {type(reference).__name__}"
        )
    empty = source.isnull().all(["run", "step"])
    if bool(empty.any()):
        raise ValueError(
            f"the reference holds no value of {empty['feature'].values[empty.values].tolist()}; "
            f"steps of x go from {x['step'].values[0]} to {x['step'].values[-1]}"
        )
    return source


def _window(reference: slice | tuple[int, int]) -> slice:
    window = reference if isinstance(reference, slice) else slice(*reference)
    if window.step is not None:
        raise ValueError(f"reference is a start and a stop of steps, got {reference!r}")
    return window


def _check_features(x: object, what: str) -> None:
    if not isinstance(x, xr.DataArray):
        raise TypeError(
            f"{what} must be features as a DataArray, got {type(x).__name__}: "
            "bayesphase.features makes them of a metrics Dataset"
        )
    if set(x.dims) != {"run", "step", "feature"} or "feature" not in x.coords or not x.size:
        raise ValueError(
            f"{what} must have dims (run, step, feature), none empty, and names on 'feature'; "
            f"it has {dict(x.sizes)}"
        )


def _check_same_features(x: xr.DataArray, reference: xr.DataArray) -> None:
    missing = sorted(set(x["feature"].values.tolist()) - set(reference["feature"].values.tolist()))
    if missing:
        raise ValueError(f"the reference lacks the features {missing}: make both the same way")
