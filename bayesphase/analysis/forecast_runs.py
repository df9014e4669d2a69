"""Runs of a fit, or beside it, as forecasts that could have been made while they went on."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayesphase.analysis._finished import read_criterion
from bayesphase.analysis.convergence import convergence
from bayesphase.analysis.forecast import forecast
from bayesphase.analysis.forecast_scores import in_own_units, scaled_like

_LEAST = 3  # finished runs that times can be learned from


def unconverged(metrics: xr.Dataset, *, converged: str) -> list[str]:
    """Name the runs of metrics in which `converged`, as of `forecast`, does not come to hold."""
    criterion = read_criterion(converged)
    table = convergence(
        metrics,
        metric=criterion.metric,
        threshold=criterion.threshold,
        below=not criterion.above,
    )
    return [str(run) for run in table["run"].values[~table["converged"].values]]


def forecast_runs(
    fit: xr.DataTree,
    features: xr.DataArray,
    *,
    metrics: xr.Dataset,
    converged: str = "eval_accuracy > 0.9",
    now: int | None = None,
    random_seed: int | None = None,
    tell: Callable[[str], Any] = lambda text: None,
    **settings: Any,
) -> xr.Dataset:
    """Forecast runs with a fit, or where it knows them, with another like it that does not.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    features : DataArray (run, step, feature)
        Of the runs to forecast, as of `forecast`. If the fit knows any of these, its model is
        fitted anew, with as many draws, to its other runs, on a scale that they alone make: that
        takes as long as the fit did.
    metrics, converged, now, random_seed
        As of `forecast`. No metric of a run to forecast that was recorded after `now` is used.
    tell : callable
        Is told what takes long, before it is done.
    **settings
        Of `bayesphase.fit`, instead of those of the fit.

    Returns
    -------
    Dataset
        As of `forecast`.

    Raises
    ------
    TypeError, ValueError
        As `forecast` does, or if fewer than three runs of the fit are left to learn from.
    """
    known = fit["observed_data"].to_dataset()["features"]["run"].values
    others = known[~np.isin(known, features["run"].values)]
    if len(others) < len(known):
        if len(others) < _LEAST:
            raise ValueError(
                f"{len(others)} of the {len(known)} runs that were fitted are left to learn from, "
                f"expected at least {_LEAST}: forecast fewer of them"
            )
        tell(f"fitting the model anew to the {len(others)} other runs")
        fit = _refitted(fit, others, random_seed=random_seed, **settings)
    tell("forecasting")
    return forecast(
        fit, features, metrics=metrics, converged=converged, now=now, random_seed=random_seed
    )


def _refitted(
    fit: xr.DataTree, runs: Sequence[str] | np.ndarray, *, random_seed: int | None, **settings: Any
) -> xr.DataTree:
    """Fit the model of a fit to some of its runs."""
    from bayesphase.model.fit import fit as fit_model
    from bayesphase.model.spec import default_priors, recorded

    observed = fit["observed_data"].to_dataset()
    features, known = observed["features"], observed.get("known_states")
    if "run" in features.coords.get("feature_scale", xr.DataArray()).dims:
        raise ValueError(
            "the fit's features were standardized within each run, so that there is no scale for "
            "runs that it does not know: fit to features made with standardize='pooled'"
        )
    spec = recorded(fit)
    defaults = default_priors(spec.transition, spec.emission, spec.rows, spec.n_states)
    # default priors are those of the data, of which the runs that are left out are no part
    own = {
        name: prior
        for name, prior in spec.priors.items()
        if repr(prior) != repr(defaults.get(name))
    }
    draws = fit["posterior"].sizes
    names = ("sampler", "tune", "target_accept")
    as_before = {name: fit.attrs[name] for name in names if name in fit.attrs}
    if "restarts" in fit.children:
        as_before["n_restarts"] = fit["restarts"].sizes["restart"]
    return fit_model(
        scaled_like(in_own_units(features).sel(run=runs), like=features),
        spec.n_states,
        emission=spec.emission,
        transition=spec.structure,
        priors=own or None,
        known_states=None if known is None else known.sel(run=runs),
        random_seed=random_seed,
        **{
            **{"draws": draws["draw"], "chains": draws["chain"], "progressbar": False},
            **as_before,
            **settings,
        },
    )
