"""Forecasts of runs that are named: in a file of metrics, whether they were fitted or not."""

from collections.abc import Callable, Sequence
from typing import Any

import xarray as xr

from bayesphase.analysis.forecast_runs import forecast_runs, unconverged
from bayesphase.analysis.forecast_scores import in_own_units
from bayesphase.views import features as make_features

UNCONVERGED = "unconverged"  # stands for all such runs, unless one is called so


def runs_ahead(
    fit: xr.DataTree,
    metrics: xr.Dataset,
    runs: Sequence[str],
    *,
    converged: str = "eval_accuracy > 0.9",
    now: int | None = None,
    random_seed: int | None = None,
    tell: Callable[[str], Any] = lambda text: None,
) -> xr.Dataset:
    """Forecast runs that were fitted, as if they had not been, and others of the metrics.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    metrics : Dataset
        Of all these runs. Features of those that were not fitted are made of it in the way in which
        those of the fit say that they were.
    runs : sequence of str
        Their names; "unconverged" stands for all runs of the metrics in which `converged` does not
        come to hold.
    converged, now, random_seed, tell
        As of `forecast_runs`.

    Returns
    -------
    Dataset
        As `bayesphase.forecast` returns it.

    Raises
    ------
    TypeError, ValueError
        If there is no such run or all have converged, the fit's features do not say how they were
        made, or as of `forecast_runs`.
    """
    fitted = fit["observed_data"].to_dataset()["features"]
    names = _named(runs, fitted, metrics, converged)
    known = [run for run in fitted["run"].values.tolist() if str(run) in names]
    new = [run for run in metrics["run"].values.tolist() if str(run) in names and run not in known]
    parts = [in_own_units(fitted.sel(run=known))] if known else []
    if new:
        parts.append(_made_like(fitted, metrics).sel(run=new))
    return forecast_runs(
        fit,
        xr.concat(parts, "run", join="outer", coords="minimal", compat="override"),
        metrics=metrics,
        converged=converged,
        now=now,
        random_seed=random_seed,
        tell=tell,
    )


def _named(
    runs: Sequence[str], fitted: xr.DataArray, metrics: xr.Dataset, converged: str
) -> set[str]:
    """Name the runs that are asked for."""
    there = list(map(str, [*metrics["run"].values, *fitted["run"].values]))
    there = list(dict.fromkeys(there))
    found: set[str] = set()
    for run in runs:
        if run in there:
            found.add(run)
        elif run == UNCONVERGED:
            found |= set(unconverged(metrics, converged=converged))
            if not found:
                raise ValueError(
                    f"{converged} came to hold in all runs of the metrics, so that none is to be "
                    "forecast: name runs, and the step up to which they are known"
                )
        else:
            raise ValueError(
                f"there is no run {run!r} to forecast; there are {there}, and {UNCONVERGED!r} "
                f"stands for those that have not converged"
            )
    return found


def _made_like(fitted: xr.DataArray, metrics: xr.Dataset) -> xr.DataArray:
    """Make features, in the units of the metrics, in the way in which others were made."""
    made = fitted.attrs
    if "metrics" not in made or "aggregation" not in made:
        raise ValueError(
            "the fit's features do not say how they were made of metrics, so that those of other "
            "runs can't be: make them, and give bayesphase.report a forecast of bayesphase.forecast"
        )
    log = made.get("log", ())
    names = fitted["feature"].values.tolist()

    def is_used(metric: str) -> bool:
        label = f"log_{metric}" if metric in log else metric
        return any(name == label or name.startswith(f"{label}[") for name in names)

    used = [metric for metric in made["metrics"] if is_used(metric)]
    return make_features(
        metrics,
        metrics=used,
        how=made["aggregation"],
        by=made.get("by"),
        log=[metric for metric in log if metric in used],
        standardize=None,
    ).sel(feature=names)
