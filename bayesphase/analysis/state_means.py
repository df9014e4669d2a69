"""What features are like in each phase: where they lie, or how fast they change."""

import numpy as np
import xarray as xr

from bayesphase.analysis._elpd import features_of
from bayesphase.analysis._paths import check_ci_prob
from bayesphase.analysis.phases import most_likely_path


def state_means(fit: xr.DataTree, *, ci_prob: float = 0.9) -> xr.Dataset:
    """Mean level of each feature in each phase or, where a phase is a law of motion, mean speed.

    In families of levels (``"gaussian"``, ``"full_gaussian"``, ``"student_t"``, and
    ``"autoregressive"``, whose features go back to one) it is the level. In families of changes it
    is the expected change per so many optimiser steps as the attribute ``step_unit`` of the fit
    says: the drift, or for ``"quadratic_drift"`` drift + slope y + curvature y², on average over
    the values y from which the checkpoints of the phase on the most likely path set out.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    ci_prob : float, default 0.9
        Probability of the equal-tailed intervals.

    Returns
    -------
    Dataset
        Dims (state, feature). ``mean`` is the posterior median, ``lower`` and ``upper`` bound the
        interval; ``scale``, ``scale_lower`` and ``scale_upper`` are the same of the noise. NaN
        where a law of motion has no checkpoint to be averaged over. The attribute ``quantity`` is
        "level" or "speed".

    Raises
    ------
    TypeError
        If `fit` is no fit.
    ValueError
        If its family has neither levels nor drifts by state and feature, or `ci_prob` is not
        between 0 and 1.

    Examples
    --------
    >>> bp.state_means(fit)["mean"].sel(feature="l2_norm")  # doctest: +SKIP
    """
    ci_prob = check_ci_prob(ci_prob)
    path = most_likely_path(fit)
    if "posterior" not in fit.children or "observed_data" not in fit.children:
        raise ValueError(
            f"the fit lacks 'posterior' or 'observed_data', it has {sorted(fit.children)}: use the "
            f"DataTree that bayesphase.fit returns"
        )
    features = features_of(fit)
    posterior = fit["posterior"].to_dataset()
    mean, quantity = _mean(fit, posterior, features, path)
    units = str(features.attrs.get("units", "1"))
    noise_units = units
    if "mean" not in posterior:
        per = f"{fit.attrs['step_unit']:g} optimiser steps"
        noise_units = f"{units} per sqrt({per})"  # noise adds up from one checkpoint to the next
        units = f"{units} per {per}" if quantity == "speed" else units
    table = _summary(mean, "mean", f"mean {quantity} in the phase", units, ci_prob)
    if "scale" in posterior:
        table |= _summary(
            posterior["scale"], "scale", "scale of the noise in the phase", noise_units, ci_prob
        )
    return xr.Dataset(table, attrs={"ci_prob": ci_prob, "quantity": quantity})


def _mean(
    fit: xr.DataTree, posterior: xr.Dataset, features: xr.DataArray, path: xr.DataArray
) -> tuple[xr.DataArray, str]:
    """Return level or speed (chain, draw, state, feature), and which of the two it is."""
    if "mean" in posterior:
        return posterior["mean"], "level"
    if "level" in posterior:  # of the speeds where these revert
        differences = fit.attrs.get("emission_options", {}).get("differences", 0)
        return posterior["level"], "speed" if differences else "level"
    if "drift" not in posterior:
        raise ValueError(
            f"the family {fit.attrs.get('emission')!r} has neither 'mean', 'level' nor 'drift' by "
            f"state and feature, only {sorted(map(str, posterior.data_vars))}"
        )
    if "slope" not in posterior:
        return posterior["drift"], "speed"
    first, second = _moments(posterior, features, path)
    speed = posterior["drift"] + posterior["slope"] * first + posterior["curvature"] * second
    return speed, "speed"


def _moments(
    posterior: xr.Dataset, features: xr.DataArray, path: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean of what features set out from in each state, and of its square, without offsets.

    Dims (state, feature), and (chain, draw) where there are offsets.
    """
    n_states = posterior.sizes["state"]
    values = features.transpose("run", "step", "feature").values
    states = path.transpose("run", "step").values
    sums = np.zeros((3, len(values), n_states, values.shape[2]))
    for r, (run, state) in enumerate(zip(values, states, strict=True)):
        before = _before(run)
        known = np.isfinite(before) & np.isfinite(run)
        for k in range(n_states):
            here = (state == k)[:, None] & known
            powers = (np.ones_like(before), before, before**2)
            sums[:, r, k] = [np.where(here, power, 0.0).sum(axis=0) for power in powers]
    dims = ("run", "state", "feature")
    number, total, squares = (
        xr.DataArray(s, dims=dims, coords={"run": features["run"], "feature": features["feature"]})
        for s in sums
    )
    offset = posterior["offset"] if "offset" in posterior else xr.zeros_like(features["run"], float)
    n = number.sum("run")
    first = (total - number * offset).sum("run") / n
    second = (squares - 2 * offset * total + number * offset**2).sum("run") / n
    return first, second


def _before(run: np.ndarray) -> np.ndarray:
    """Value of each feature at its last checkpoint before; NaN where there is none."""
    known = np.isfinite(run)
    rows = np.arange(len(run))[:, None]
    last = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    last = np.vstack([np.full_like(last[:1], -1), last[:-1]])
    return np.where(last >= 0, np.take_along_axis(run, np.maximum(last, 0), axis=0), np.nan)


def _summary(
    values: xr.DataArray, name: str, long_name: str, units: str, ci_prob: float
) -> dict[str, xr.DataArray]:
    """Return median and interval over draws, (state, feature)."""
    draws = values.transpose("chain", "draw", "state", "feature")
    tail = (1 - ci_prob) / 2
    ends = np.quantile(draws.values, [0.5, tail, 1 - tail], axis=(0, 1))
    prefix = "" if name == "mean" else f"{name}_"
    names = {
        name: long_name,
        f"{prefix}lower": f"lower end of the interval of the {long_name}",
        f"{prefix}upper": f"upper end of the interval of the {long_name}",
    }
    coords = {dim: draws[dim].values for dim in ("state", "feature")}
    return {
        key: xr.DataArray(
            end, coords, ("state", "feature"), attrs={"long_name": what, "units": units}
        )
        for (key, what), end in zip(names.items(), ends, strict=True)
    }
