"""Curves to draw against steps: one array out of whatever holds the losses."""

import numpy as np
import xarray as xr

from bayesphase.plots._tables import require_dims

MOST_FEATURES = 3
_CHOOSE = 'choose some, as in loss=metrics[["train_loss", "eval_loss"]]'
_DECADES = 2.0  # curves that span as many are drawn on a log scale


def loss_curves(loss: xr.DataArray | xr.Dataset, *, most: int) -> xr.DataArray:
    """Return losses with dims (curve, run, step); attrs ``label`` is for their axis."""
    if isinstance(loss, xr.DataArray):
        loss = loss.to_dataset(name=loss.name or "loss", promote_attrs=False)
    if not isinstance(loss, xr.Dataset):
        raise TypeError(
            f"loss is a {type(loss).__name__}, expected a DataArray with dims (run, step) or a "
            "Dataset of such"
        )
    names = [str(name) for name in loss.data_vars]
    for name in names:
        if set(loss[name].dims) > {"run", "step"}:  # the whole metrics Dataset, say
            raise ValueError(
                f"loss {name!r} has dims {', '.join(map(str, loss[name].dims))}, expected run, "
                f"step: {_CHOOSE}"
            )
        require_dims(loss[name], ("run", "step"), name=f"loss {name!r}")
    if not 1 <= len(names) <= most:
        raise ValueError(
            f"loss has {len(names)} variables {names}, expected 1 to {most}: {_CHOOSE}"
        )
    words = [name.replace("_", " ") for name in names]
    kinds = {word.split(" ")[-1] for word in words}
    units = {str(loss[name].attrs.get("units", "1")) for name in names}
    label = words[0] if len(words) == 1 else kinds.pop() if len(kinds) == 1 else "value"
    if len(units) == 1 and (unit := units.pop()) not in ("", "1"):
        label += f" ({unit})"
    return _stack([loss[name] for name in names], words, label)


def first_features(fit: xr.DataTree) -> xr.DataArray:
    """Return the first features of a fit as curves, dims (curve, run, step)."""
    features = fit["observed_data"].to_dataset()["features"].isel(feature=slice(MOST_FEATURES))
    names = [str(name).replace("_", " ") for name in features["feature"].values.tolist()]
    return _stack([features.isel(feature=i) for i in range(len(names))], names, "feature")


def span_decades(curves: xr.DataArray) -> bool:
    """Return whether the curves are all positive and span so much as to need a log scale."""
    values = curves.values[np.isfinite(curves.values)]
    return bool(
        values.size and values.min() > 0 and np.log10(values.max() / values.min()) >= _DECADES
    )


def _stack(arrays: list[xr.DataArray], names: list[str], label: str) -> xr.DataArray:
    plain = [array.reset_coords(drop=True).transpose("run", "step") for array in arrays]
    curves = xr.concat(plain, dim="curve", join="outer", coords="minimal", compat="override")
    return curves.assign_coords(curve=names).assign_attrs(label=label)
