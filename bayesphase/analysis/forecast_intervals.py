"""A forecast in medians and intervals."""

from collections.abc import Iterable

import numpy as np
import xarray as xr

from bayesphase.analysis._paths import check_ci_prob


def forecast_intervals(
    table: xr.Dataset, *, ci_prob: float | Iterable[float] = (0.5, 0.9)
) -> xr.Dataset:
    """Sum up a forecast: medians and equal-tailed intervals.

    Parameters
    ----------
    table : Dataset
        What `bayesphase.forecast` returns.
    ci_prob : float, or iterable of float
        Probabilities of the intervals.

    Returns
    -------
    Dataset
        Every variable of the forecast with samples but ``path``, with the dim `quantile` instead
        of `sample`: the median and both ends of all intervals, in increasing order, each one of the
        samples that are not NaN: of entries, of those that happen. ``state_probability`` (run,
        ahead, state) is that of the phase that was the last to be entered for the first time by
        then, ``entry_probability`` (run, state) that the phase is ever entered, NaN where no sample
        says when, and ``phase_probability`` is kept.

    Raises
    ------
    TypeError, ValueError
        If `table` is no forecast, or a probability not between 0 and 1.
    """
    if not isinstance(table, xr.Dataset):
        raise TypeError(
            f"expected the Dataset that bayesphase.forecast returns, got {type(table).__name__}"
        )
    if "entry_step" not in table or "sample" not in table.dims:
        raise ValueError(
            f"expected the table that bayesphase.forecast returns, this one has {list(table)}"
        )
    each = ci_prob if isinstance(ci_prob, Iterable) else (ci_prob,)
    tails = [(1 - check_ci_prob(p)) / 2 for p in each]
    # rounded, so that they can be selected by their names
    at = np.unique(np.round([0.5, *tails, *(1 - tail for tail in tails)], 9))
    out = {"phase_probability": table["phase_probability"]}
    for name, variable in table.data_vars.items():
        if "sample" not in variable.dims or name == "path":
            continue
        dims = [dim for dim in variable.dims if dim != "sample"]
        values = _quantiles(variable.transpose("sample", *dims).values, at)
        out[str(name)] = xr.DataArray(values, dims=("quantile", *dims), attrs=variable.attrs)
    happens = table["entry_step"].notnull().mean("sample").transpose("run", "state")
    attrs = {"long_name": "probability that the phase is ever entered", "units": "1"}
    out["entry_probability"] = happens.where(happens > 0).assign_attrs(attrs)
    attrs = {"long_name": "probability that the phase is the last one entered", "units": "1"}
    share = _last_entered(table)
    out["state_probability"] = xr.DataArray(share, dims=("run", "ahead", "state"), attrs=attrs)
    coords = {name: c for name, c in table.coords.items() if "sample" not in c.dims}
    return xr.Dataset(out, coords={**coords, "quantile": at}, attrs=table.attrs)


def _last_entered(table: xr.Dataset) -> np.ndarray:
    """Shares (run, ahead, state) of samples in which a state is the last one entered by then."""
    entry = table["entry_step"].transpose("sample", "run", "state").values
    at = (table["now"] + table["ahead"]).transpose("run", "ahead").values
    latest = np.full((len(entry), *at.shape), -np.inf)
    last = np.full(latest.shape, -1)
    for state, step in enumerate(np.moveaxis(entry, 2, 0)[..., None]):
        later = (step <= at) & (step >= latest)  # not where it is NaN
        latest, last = np.where(later, step, latest), np.where(later, state, last)
    return np.stack([(last == k).mean(axis=0) for k in range(entry.shape[2])], axis=-1)


def _quantiles(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Quantiles (quantile, ...) of values (sample, ...), each one of them; NaN is left out."""
    ordered = np.sort(values, axis=0)  # NaN last
    count = (~np.isnan(values)).sum(axis=0)
    place = np.ceil(at.reshape(-1, *(1,) * count.ndim) * count - 1e-6).astype(int) - 1
    return np.take_along_axis(ordered, np.clip(place, 0, np.maximum(count - 1, 0)), axis=0)
