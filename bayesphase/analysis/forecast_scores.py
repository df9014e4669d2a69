"""How good forecasts are, on runs that the fit has not seen, beside what one would try first."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayesphase._checks import check_seed
from bayesphase.analysis._finished import read_criterion
from bayesphase.analysis._scoring import Scored

_TOLERANCES = (0.1, 0.2, 0.3, 0.5)
_SHARES = tuple(round(0.1 * tenths, 1) for tenths in range(1, 10))


def forecast_scores(
    features: xr.DataArray,
    metrics: xr.Dataset,
    n_states: int,
    *,
    converged: str = "eval_accuracy > 0.9",
    seen: Sequence[float] = _SHARES,
    fits: Mapping[str, xr.DataTree] | None = None,
    draws: int = 100,
    random_seed: int | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Forecast each run from its beginning by a fit to the others, and score what was said.

    Parameters
    ----------
    features : DataArray (run, step, feature)
        Of finished runs. Where they are standardized, this is undone, and done anew with the runs
        of each fit, so that no run has a part in its own scale.
    metrics : Dataset
        As of `bayesphase.forecast`.
    n_states : int
    converged : str
        As of `bayesphase.forecast`.
    seen : sequence of float
        Shares of the steps up to convergence, or up to the end of a run that does not converge, at
        which forecasts are made.
    fits : mapping, optional
        Fits to the other runs, by the run that they lack, where there are such already.
    draws : int
        Samples of each forecast at most.
    random_seed : int, optional
        The same seed gives the same scores.
    **settings
        Passed on to `fit`.

    Returns
    -------
    Dataset
        - ``crps`` (event, forecaster, run, seen), optimiser steps, `event` being "converged" and
          the entries into phases, "phase 1" and so on; the smaller, the better. NaN once it has
          happened;
        - ``rank`` (event, forecaster, run, seen): the share of samples before what happened. It is
          in the central half in half of all cases, if intervals cover as they say;
        - ``median``, ``lower`` and ``upper`` of the time, the latter of the 90% interval;
        - ``step`` (event, run) at which it happened;
        - ``saved`` (tolerance, forecaster, run): the share of the steps up to convergence that need
          not have been run to know the step of convergence up to a share of it, the `tolerance`:
          from there on the median always was as near. 0 if it never was;
        - ``stopped`` (tolerance, forecaster, run): the share that is saved if one stops as soon as
          the interval is not wider than the tolerance, to either side, as a share of its median,
          and ``stopped_off``, how far off the median then was, as a share of the true step;
        - ``metric_crps`` and ``metric_rank`` (metric, ahead, metric_forecaster, run, seen): of the
          metrics' values some steps ahead, in logarithms where all are positive, in the other runs,
          in this one and in all forecasts of the case: `ahead` as a share of the median time to
          convergence of the others, which is ``steps_ahead`` (ahead, run).

        Forecasters are: the `forecast`; the entries of paths simulated from the model, whose dwell
        times are "geometric"; when it happened in other runs ("empirical"), of those in which it
        happens later than now, or their "mean"; a "constant_hazard" learned from them; the
        metric's own trend, "extrapolated" as a logistic curve of log time if it is a share, a power
        law if it is positive; of metrics, the "last" value, and "empirical" ones of the other runs
        at the same step.

    Raises
    ------
    TypeError, ValueError
        As `bayesphase.fit` and `bayesphase.forecast` do, or if there are fewer than four runs.

    Notes
    -----
    Not every forecaster says something of every case: no other run may be later than now, and a
    trend takes five checkpoints. Compare means over the cases that all have, as below.

    Times past twice the last step of all runs count as that, for forecasts may be infinite. Of a
    run in which it did not happen, all is cut at its end, and there is no rank.

    Examples
    --------
    >>> import bayesphase as bp
    >>> metrics = bp.open_metrics("data/modular_addition.nc")  # doctest: +SKIP
    >>> scores = bp.forecast_scores(bp.features(metrics), metrics, 3)  # doctest: +SKIP
    >>> crps = scores["crps"].sel(event="converged")  # doctest: +SKIP
    >>> crps = crps.dropna("forecaster", how="all")  # doctest: +SKIP
    >>> all_have = crps.notnull().all("forecaster")  # doctest: +SKIP
    >>> crps.where(all_have).mean("run").to_pandas()  # doctest: +SKIP
    """
    from bayesphase.model.fit import fit

    criterion = read_criterion(converged)
    runs = features["run"].values.tolist()
    if len(runs) < 4:
        raise ValueError(
            f"forecasts are learned from at least 3 runs and scored on another, got {runs}"
        )
    shares = _checked(seen)
    seeds = np.random.SeedSequence(check_seed(random_seed)).generate_state(2 * len(runs))
    raw = in_own_units(features)
    scored = []
    for run, for_fit, for_forecast in zip(runs, seeds[::2], seeds[1::2], strict=True):
        others = [other for other in runs if other != run]
        if fits is not None and run in fits:
            fitted = fits[run]
        else:
            fitted = fit(
                scaled_like(raw.sel(run=others), like=features),
                n_states,
                random_seed=int(for_fit),
                **{"progressbar": False, **settings},
            )
        one = Scored(fitted, raw.sel(run=[run]), metrics, criterion, converged, draws)
        scored.append(one.scores(shares, random_seed=int(for_forecast)))
    table = xr.concat(scored, "run", data_vars="all", join="outer").assign_coords(run=runs)
    return _with_savings(table).assign_attrs(converged=converged, n_samples=draws)


def _checked(seen: Sequence[float]) -> np.ndarray:
    shares = np.asarray(seen, float)
    if shares.ndim != 1 or not shares.size or not ((shares > 0) & (shares < 1)).all():
        raise ValueError(f"seen must hold shares between 0 and 1, got {seen!r}")
    return np.sort(shares)


def in_own_units(features: xr.DataArray) -> xr.DataArray:
    """Undo what standardizing did, if it was done."""
    if "feature_scale" not in features.coords:
        return features
    own = features * features["feature_scale"] + features["feature_location"]
    return own.drop_vars(["feature_scale", "feature_location"])


def scaled_like(raw: xr.DataArray, *, like: xr.DataArray) -> xr.DataArray:
    """Standardize by all that is here, as `bayesphase.standardize` does, if the others were."""
    if "feature_scale" not in like.coords:
        return raw
    location, scale = raw.mean(("run", "step")), raw.std(("run", "step"))
    scale = scale.where(scale > 1e-14 * abs(location), 1.0)
    scaled = ((raw - location) / scale).transpose("run", "step", "feature")
    return scaled.assign_coords(feature_location=location, feature_scale=scale)


def _with_savings(table: xr.Dataset) -> xr.Dataset:
    """Add what need not have been run."""
    truth = table["step"].sel(event="converged")
    converged = table.sel(event="converged")
    off = abs(converged["median"] - truth) / truth
    width = (converged["upper"] - converged["lower"]) / 2.0 / converged["median"]
    tolerance = xr.DataArray(
        list(_TOLERANCES), dims="tolerance", coords={"tolerance": list(_TOLERANCES)}
    )
    # from the last share on, as long as all later ones are near as well
    near = (off <= tolerance).sortby("seen", ascending=False).cumprod("seen").sortby("seen")
    narrow = width <= tolerance
    first_narrow = _first_seen(narrow)
    saved, stopped = 1.0 - _first_seen(near.astype(bool)), 1.0 - first_narrow
    # compared with what was seen itself: 1 - (1 - 0.1) is not 0.1
    stopped_off = off.where(table["seen"] == first_narrow).max("seen")
    happened = truth.notnull()
    variables = {
        "saved": (saved.fillna(0.0), "share of the steps to convergence that were not needed"),
        "stopped": (stopped.fillna(0.0), "share of the steps that stopping at the width saves"),
        "stopped_off": (stopped_off, "how far the median was off then, as a share of the step"),
    }
    order = ("tolerance", "forecaster", "run")
    return table.assign(
        {
            name: values.where(happened)
            .transpose(*order)
            .drop_vars("event", errors="ignore")
            .assign_attrs(long_name=long_name, units="1")
            for name, (values, long_name) in variables.items()
        }
    )


def _first_seen(there: xr.DataArray) -> xr.DataArray:
    """Smallest share that was seen where it is true; NaN where it never is."""
    return there["seen"].where(there).min("seen")
