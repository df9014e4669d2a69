"""How well a model predicts runs that it was fitted without."""

from collections.abc import Callable
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesphase._checks import check_count, check_seed
from bayesphase.analysis._elpd import (
    MOST_ERROR,
    elpd_data,
    good_k_of,
    label,
    label_k,
    log_mean_exp,
    n_draws_of,
    smoothed,
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
        NaN. `pareto_k` (run) says how heavy the tail of the held-out density is over the draws;
        `elpd_i` has a coordinate `bridged` (run), True where it was too heavy for their mean.

    Warns
    -----
    UserWarning
        If some elpd_i are unreliable: k-hat is above `good_k`, and bridge sampling was not possible
        or two estimates by it differ by more than a nat.

    Raises
    ------
    TypeError, ValueError
        As `fit` does; if `folds` is not between 2 and the number of runs; or if a fit would have no
        value of some feature.

    Notes
    -----
    elpd_i is the logarithm of the mean of p(y_r | parameters) over the draws of a fit without run
    r, where k-hat is at most `good_k`. Where runs differ by more than posteriors are wide, that
    mean rests on a few draws and is far too small, by 80 to 2,400 nats in the runs that ship with
    the project. There the run is added to those of the fold in a further fit (one of all runs does
    for all folds of one run), and elpd_i is the logarithm of the ratio of the two fits' normalising
    constants, by bridge sampling (Meng & Wong 1996).

    Examples
    --------
    >>> import bayesphase as bp
    >>> x = bp.simulate(n_states=2, n_runs=4, n_steps=60, random_seed=1)["features"]
    >>> elpds = {str(k): bp.kfold(x, k, random_seed=1) for k in (1, 2)}  # doctest: +SKIP
    >>> bp.compare(elpds)  # doctest: +SKIP
    """
    from bayesphase.model.held_out import log_predictive
    from bayesphase.model.pointwise import run_log_likelihood

    fit_to, folds = _prepare(features, n_states, folds, random_seed, settings)
    fold_of = np.arange(features.sizes["run"]) % folds
    runs = features["run"].values
    densities, bridged, error = [], xr.full_like(features["run"], np.nan, float), {}
    for fold in range(folds):
        fitted = fit_to(fold_of != fold)
        held_out = run_log_likelihood(fitted, features.isel(run=np.flatnonzero(fold_of == fold)))
        densities.append(held_out)
        _, pareto_k = smoothed(held_out)
        heavy = ~(pareto_k <= good_k_of(n_draws_of(held_out)))
        for run in held_out["run"].values[heavy.values]:
            more = fit_to((fold_of != fold) | (runs == run))
            bridged.loc[run], error[run] = log_predictive(fitted, more)
    together = xr.concat(densities, "run").sel(run=runs)
    return _of_held_out(together, bridged, error, features, folds)


def _prepare(
    features: xr.DataArray,
    n_states: int,
    folds: int | None,
    random_seed: int | None,
    settings: dict[str, Any],
) -> tuple[Callable[[np.ndarray], xr.DataTree], int]:
    """Check the arguments; return what fits the model to some of the runs (run), and `folds`."""
    from bayesphase.model.fit import fit
    from bayesphase.model.spec import specify

    check_seed(random_seed)
    given = signature(fit).bind(features, n_states, **settings)
    given.apply_defaults()
    model = {name: given.arguments[name] for name in ("emission", "transition", "priors")}
    spec = specify(features, n_states, **model)
    settings = {**settings, "priors": spec.priors}
    features = features.assign_attrs(step_unit=spec.rows.step_unit)
    n_runs = features.sizes["run"]
    if n_runs < 2:
        raise ValueError(
            f"runs are left out one fold at a time, and there is only {features['run'].values}"
        )
    if folds is None:
        folds = min(n_runs, _MOST_FOLDS)
    if check_count("folds", folds, least=2) > n_runs:
        raise ValueError(
            f"folds must lie between 2 and the number of runs, got {folds} with {n_runs} run(s)"
        )
    seeds = iter(np.random.SeedSequence(random_seed).generate_state(folds + n_runs))
    all_runs: list[xr.DataTree] = []

    def fit_to(some: np.ndarray) -> xr.DataTree:
        if some.all() and all_runs:
            return all_runs[0]
        try:
            fitted = fit(
                features.isel(run=np.flatnonzero(some)),
                n_states,
                random_seed=int(next(seeds)),
                **settings,
            )
        except Exception as error:
            without = features["run"].values[~some].tolist()
            error.add_note(f"This was the fit without the runs {without}.")
            raise
        if some.all():
            all_runs.append(fitted)
        return fitted

    return fit_to, folds


def _of_held_out(
    densities: xr.DataArray,
    bridged: xr.DataArray,
    error: dict[str, float],
    features: xr.DataArray,
    folds: int,
) -> "ELPDData":
    """Put together the log densities (chain, draw, run) of runs under fits without them."""
    elpd_i = bridged.where(bridged.notnull(), log_mean_exp(densities))
    _, pareto_k = smoothed(densities)
    elpd_i = elpd_i.assign_coords(bridged=bridged.notnull())
    label(elpd_i, "run", features.transpose("run", "step", "feature"))
    label_k(pareto_k)
    apart = np.array([error.get(run, 0.0) for run in features["run"].values])
    unsure = elpd_i.copy(data=~(apart <= MOST_ERROR))
    warn(
        unsure,
        "a held-out density that few draws decide about, and that bridge sampling did not settle: "
        "raise draws",
    )
    return elpd_data(
        "loo_kfold",
        elpd_i,
        p=np.nan,
        n_samples=n_draws_of(densities),
        warning=bool(unsure.any()),
        good_k=good_k_of(n_draws_of(densities)),
        pareto_k=pareto_k,
        n_folds=folds,
    )
