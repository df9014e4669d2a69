"""How well a model predicts runs that it was fitted without."""

import warnings
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesphase.analysis._elpd import (
    LEAST_DRAWS,
    SAMPLE,
    elpd_data,
    label,
    label_k,
    log_mean_exp,
    n_draws_of,
    relative_efficiency,
    warn,
)

if TYPE_CHECKING:
    from arviz_stats import ELPDData

# up to so many runs each is left out by itself
_MOST_FOLDS = 10


def kfold(
    features: xr.DataArray,
    n_states: int,
    *,
    folds: int | None = None,
    random_seed: int | None = None,
    **settings: Any,
) -> "ELPDData":
    """Fit without some of the runs, and see how probable these are; every run is left out once.

    It is what `loo` by run approximates from a single fit. The priors are those of a fit of all
    runs: the default ones, which depend on the features' location and spread, are taken from all
    runs once, so that all fits are of one model. What was done before is not undone, either:
    features that `bayesphase.features` or `standardize` scaled by all runs together have seen the
    runs that are left out here.

    Parameters
    ----------
    features : DataArray (run, step, feature)
        NaN where missing.
    n_states : int
    folds : int, optional
        How many fits are made; the run at position i is left out of number i modulo `folds`, for
        any model. By default each run has a fit of its own where there are up to 10 runs, and there
        are 10 fits otherwise.
    random_seed : int, optional
        The same seed gives the same draws.
    **settings
        Passed on to `fit`.

    Returns
    -------
    arviz_stats.ELPDData
        As of `loo` by run, of the kind "loo_kfold": `elpd`, `se` and `elpd_i` (run), nats. `p` is
        NaN: it would take a fit of all runs. `pareto_k` (run) is of the densities p(y_r |
        parameters) themselves, whose mean over the draws elpd_i is the logarithm of.

    Warns
    -----
    UserWarning
        If k-hat of some runs is above `good_k`: a few draws decide about their mean.

    Raises
    ------
    TypeError, ValueError
        As `fit` does; if `folds` is not between 2 and the number of runs; or if a fit would have no
        value of some feature.

    Examples
    --------
    >>> import bayesphase as bp
    >>> x = bp.simulate(n_states=2, n_runs=4, n_steps=60, random_seed=1)["features"]
    >>> elpds = {str(k): bp.kfold(x, k, random_seed=1) for k in (1, 2)}  # doctest: +SKIP
    >>> bp.compare(elpds)  # doctest: +SKIP
    """
    from bayesphase.model.checks import check_count, check_seed
    from bayesphase.model.fit import fit
    from bayesphase.model.pointwise import run_log_likelihood
    from bayesphase.model.spec import specify

    check_seed(random_seed)
    given = signature(fit).bind(features, n_states, **settings)
    given.apply_defaults()
    model = {name: given.arguments[name] for name in ("emission", "transition", "priors")}
    settings["priors"] = specify(features, n_states, **model).priors
    n_runs = features.sizes["run"]
    if folds is None:
        folds = n_runs if n_runs <= _MOST_FOLDS else _MOST_FOLDS
    if n_runs < 2 or check_count("folds", folds, least=2) > n_runs:
        raise ValueError(
            f"folds must lie between 2 and the number of runs, got {folds} with {n_runs} run(s)"
        )
    seeds = np.random.SeedSequence(random_seed).generate_state(folds)
    densities = []
    for fold, seed in enumerate(seeds):
        out = np.arange(n_runs) % folds == fold
        rest, held_out = (features.isel(run=np.flatnonzero(which)) for which in (~out, out))
        try:
            fitted = fit(rest, n_states, random_seed=int(seed), **settings)
        except Exception as error:
            error.add_note(f"This was the fit without the runs {held_out['run'].values.tolist()}.")
            raise
        densities.append(run_log_likelihood(fitted, held_out))
    together = xr.concat(densities, "run").sel(run=features["run"].values)
    return _of_held_out(together, features, folds)


def _of_held_out(densities: xr.DataArray, features: xr.DataArray, folds: int) -> "ELPDData":
    """Put together the log densities (chain, draw, run) of runs under fits without them."""
    elpd_i = log_mean_exp(densities)
    label(elpd_i, "run", features.transpose("run", "step", "feature"))
    n_draws = n_draws_of(densities)
    good_k = min(1.0 - 1.0 / np.log10(n_draws), 0.7) if n_draws > 1 else 0.7
    pareto_k = xr.full_like(elpd_i, np.nan)
    if n_draws >= LEAST_DRAWS and np.isfinite(densities).all():
        reff = relative_efficiency(densities)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, pareto_k = (-densities).azstats.psislw(r_eff=reff, dim=list(SAMPLE))
    label_k(pareto_k)
    unsure = ~(pareto_k <= good_k)
    warn(
        unsure,
        f"a Pareto k-hat above {good_k:.2f}, or too few draws to tell: a few draws decide about "
        f"their mean density. Raise draws",
    )
    return elpd_data(
        "loo_kfold",
        elpd_i,
        p=np.nan,
        n_samples=n_draws,
        warning=bool(unsure.any()),
        good_k=good_k,
        pareto_k=pareto_k,
        n_folds=folds,
    )
