"""What estimates of predictive performance have in common, made by one unit after the other."""

import warnings
from dataclasses import fields
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from arviz_stats import ELPDData

SAMPLE = ("chain", "draw")
# Pareto tails are a fifth of the draws, and fitted to five at least
LEAST_DRAWS = 25
# Pareto k-hat up to which importance sampling is reliable, however many draws there are
GOOD_K = 0.7
# nats that half the difference of two estimates by bridge sampling may be
MOST_ERROR = 0.5


def standard_error(elpd_i: np.ndarray) -> float:
    """Return the standard error of the sum of the values (unit); NaN for a single unit."""
    return float(np.sqrt(elpd_i.size * elpd_i.var(ddof=1))) if elpd_i.size > 1 else np.nan


def fingerprint(features: xr.DataArray) -> str:
    """Return a text that is another one for other features."""
    labels = [features[dim].values.tolist() for dim in features.dims]
    values = np.ascontiguousarray(features.values, np.float64) + 0.0  # no negative zeros
    return f"{crc32(repr(labels).encode()):08x}{crc32(np.nan_to_num(values, nan=np.pi)):08x}"


def features_of(fit: xr.DataTree) -> xr.DataArray:
    """Take the features (run, step, feature) out of a fit."""
    return fit["observed_data"].to_dataset()["features"].transpose("run", "step", "feature")


def n_draws_of(densities: xr.DataArray) -> int:
    return densities.sizes["chain"] * densities.sizes["draw"]


def log_mean_exp(densities: xr.DataArray) -> xr.DataArray:
    """Logarithm of the mean over the draws of what `densities` (chain, draw, unit) are logs of."""
    with np.errstate(divide="ignore"):  # a density of 0 under all draws
        mean = xr.apply_ufunc(np.log, _relative(densities).mean(SAMPLE))
    return _top(densities) + mean


def _top(densities: xr.DataArray) -> xr.DataArray:
    """Largest log density (unit) under any draw; any number where all densities are 0."""
    return densities.max(SAMPLE).clip(min=np.finfo(float).min)


def _relative(densities: xr.DataArray) -> xr.DataArray:
    """Densities over the largest under any draw, from their logs (chain, draw, unit)."""
    return xr.apply_ufunc(np.exp, densities - _top(densities))


def relative_efficiency(densities: xr.DataArray) -> float:
    """Effective over actual number of draws, of densities (chain, draw, unit), mean over units.

    Unlike that of parameters, which ArviZ would take, it does not depend on how states are named.
    """
    from arviz_stats import ess

    relative = _relative(densities).rename("density")
    with np.errstate(invalid="ignore", divide="ignore"):
        sizes = ess(relative, method="mean").values / n_draws_of(densities)
    known = sizes[np.isfinite(sizes)]
    return float(known.mean()) if known.size else 1.0


def good_k_of(n_draws: int) -> float:
    """How large Pareto k-hat may be (Vehtari et al. 2024, arXiv:1507.02646, equation 14)."""
    return min(1.0 - 1.0 / np.log10(n_draws), GOOD_K) if n_draws > 1 else GOOD_K


def smoothed(log_weights: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Smooth the upper tails of weights (chain, draw, unit), given by their logarithms.

    Returns
    -------
    smoothed : DataArray (chain, draw, unit)
        Logarithms of weights, up to a factor.
    pareto_k : DataArray (unit)
        How heavy the tails are, minus infinity where weights are all the same. NaN, and weights are
        as they were, where draws are too few or a single one has all of the weight.
    """
    import arviz_stats  # noqa: F401  # adds its methods to arrays

    smooth = log_weights.transpose(*SAMPLE, ...).copy()
    pareto_k = xr.full_like(smooth.isel(chain=0, draw=0, drop=True), np.nan)
    if n_draws_of(smooth) < LEAST_DRAWS:
        return smooth, pareto_k
    reff = relative_efficiency(smooth)
    for unit in range(pareto_k.size):
        weights = smooth[..., unit]
        if weights.min() == weights.max():
            pareto_k[unit] = -np.inf
        elif xr.apply_ufunc(np.isfinite, weights).all():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                better, k = (-weights).azstats.psislw(r_eff=reff, dim=list(SAMPLE))
            # where all but one are 0 to the last digit, older versions of ArviZ call that good
            if xr.apply_ufunc(np.isfinite, better).all():
                smooth[..., unit], pareto_k[unit] = better, k
    return smooth, pareto_k


def label(elpd_i: xr.DataArray, by: str, features: xr.DataArray) -> None:
    """Say what is left out, and of which data: `bayesphase.compare` looks there."""
    elpd_i.name = "elpd"
    elpd_i.attrs = {
        "long_name": f"log predictive density of a {by} that is left out",
        "units": "nats",
        "unit": by,
        "data": fingerprint(features),
    }


def label_k(pareto_k: xr.DataArray) -> None:
    """Name Pareto k-hat, which has inherited the name of what it is about."""
    pareto_k.name = "pareto_k"
    pareto_k.attrs = {"long_name": "Pareto k-hat", "units": "1"}


def warn(unsure: xr.DataArray, what: str) -> None:
    if unsure.any():
        warnings.warn(f"{named(unsure)} have {what}.", UserWarning, stacklevel=3)


def named(which: xr.DataArray) -> str:
    """Name units (run, or others of runs) in a sentence: how many they are, and of which runs."""
    (unit,) = which.dims
    runs = which["run"].values[which.values].tolist()
    count = {run: f"{runs.count(run)} of " if unit != "run" else "" for run in runs}
    names = [f"{of}{run!r}" for run, of in count.items()]
    listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"{len(runs)} of {which.size} {unit}s ({listed})"


def elpd_data(kind: str, elpd_i: xr.DataArray, **values: Any) -> "ELPDData":
    """Make ArviZ's object for estimates by units; it has a class for each kind from 1.3 on."""
    import arviz_stats.utils

    utils: Any = arviz_stats.utils  # what it has depends on its version
    values = {
        "elpd": float(elpd_i.sum()),
        "se": standard_error(elpd_i.values),
        "n_data_points": elpd_i.size,
        "scale": "log",
        "elpd_i": elpd_i,
        **values,
    }
    known = {field.name for field in fields(utils.ELPDData)}
    if "kind" in known:
        of_old = {name: value for name, value in values.items() if name in known}
        return utils.ELPDData(kind=kind, **of_old)
    if kind in _CLASSES:
        return getattr(utils, _CLASSES[kind])(**values)
    result = utils.ELPDData(**values)
    result._kind = kind  # none of ArviZ's
    return result


_CLASSES = {"loo_kfold": "ELPDDataLOOKFold", "lfo_cv": "ELPDDataLFO"}
