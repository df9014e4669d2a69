"""How well a fit predicts what it has not seen, from its own draws: leave-one-out and WAIC."""

import warnings
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayesphase.analysis._elpd import (
    LEAST_DRAWS,
    SAMPLE,
    elpd_data,
    features_of,
    label,
    label_k,
    log_mean_exp,
    n_draws_of,
    named,
    relative_efficiency,
    standard_error,
    warn,
)

if TYPE_CHECKING:
    from arviz_stats import ELPDData

UNITS = ("run", "checkpoint")

# Vehtari, Gelman & Gabry 2017, section 2.3: a variance from which WAIC is unreliable
_P_WAIC_LIMIT = 0.4


def loo(fit: xr.DataTree, *, by: str = "run") -> "ELPDData":
    """Estimate by importance sampling how well each run or checkpoint is predicted by the others.

    The unit is what is left out, and the two answer different questions. By run: how probable is a
    new run, such as another seed? By checkpoint: how probable is a checkpoint, given those before
    *and after* it? Where metrics are smooth in time the latter is easy, whatever the phases are,
    and rewards states that follow a drift in small steps.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    by : {"run", "checkpoint"}
        The unit.

    Returns
    -------
    arviz_stats.ELPDData
        `elpd`, the sum over units, its standard error `se`, and `p`, the effective number of
        parameters; `elpd_i` and `pareto_k` with the dim (run), or (checkpoint) with the coordinates
        `run` and `step`. In nats. ArviZ's functions take it, as `arviz_plots.plot_khat` does.

        `se` is of the units' sum, NaN for a single unit; it takes units to be independent, which
        runs are and checkpoints are not.

    Warns
    -----
    UserWarning
        If the Pareto k-hat of some units is above `good_k`, 0.7 or, with fewer than 2,154 draws,
        less: leaving these out changes the posterior too much for importance sampling.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit, has fewer than 25 draws or a density of 0, or `by` is no unit.

    Notes
    -----
    Given the parameters, runs are independent and checkpoints are not, but for both the posterior
    without a unit is that with it, weighted by ``1 / p(y_i | y_-i, parameters)`` (Bürkner, Gabry &
    Vehtari 2021, doi:10.1007/s00180-020-01045-4). The weights are Pareto-smoothed (Vehtari, Gelman
    & Gabry 2017, doi:10.1007/s11222-016-9696-4), and elpd_i is the logarithm of the weighted mean
    of ``p(y_i | y_-i, parameters)``. A checkpoint that is left out is one whose features are not
    known; the run is as long as before.

    Examples
    --------
    >>> bp.loo(fit)  # doctest: +SKIP
    >>> bp.loo(fit, by="checkpoint").pareto_k.groupby("run").max()  # doctest: +SKIP
    """
    from arviz_stats import loo as psis_loo

    densities = _densities(fit, by)
    tree = xr.DataTree.from_dict({"log_likelihood": densities.to_dataset(name="density")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ours below says which units
        result = psis_loo(
            tree, var_name="density", reff=relative_efficiency(densities), pointwise=True
        )
    result.se = standard_error(result.elpd_i.values)
    label(result.elpd_i, by, features_of(fit))
    label_k(result.pareto_k)
    unsure = ~(result.pareto_k <= result.good_k) | result.elpd_i.isnull()
    result.warning = bool(unsure.any())
    warn(
        unsure,
        f"a Pareto k-hat above {result.good_k:.2f}: their leave-one-out densities are unreliable, "
        f"and so is elpd. Use bayesphase.kfold, which fits without the runs it leaves out",
    )
    return result


def waic(fit: xr.DataTree, *, by: str = "run") -> "ELPDData":
    """Widely applicable information criterion, on the scale of the log predictive density.

    It estimates what `loo` does, less robustly, and is here for comparison with what others report.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    by : {"run", "checkpoint"}
        The unit, as in `loo`.

    Returns
    -------
    arviz_stats.ELPDData
        As of `loo`, without `pareto_k`; of the kind "waic". -2 `elpd` is WAIC as a deviance.

    Warns
    -----
    UserWarning
        If the variance of some units' log density is above 0.4, where WAIC is unreliable.

    Raises
    ------
    TypeError, ValueError
        As `loo` does.

    Notes
    -----
    elpd_i is the logarithm of the posterior mean of ``p(y_i | y_-i, parameters)``, less the
    posterior variance of its logarithm (Watanabe 2010; Vehtari, Gelman & Gabry 2017,
    doi:10.1007/s11222-016-9696-4, eq. 11 to 13). For a run that is ``p(y_i | parameters)``. WAIC is
    defined for data that are independent given the parameters, as runs are; by checkpoint it is the
    same formula with the conditional density in place of the likelihood.
    """
    densities = _densities(fit, by)
    p_i = densities.var(SAMPLE, ddof=1)
    elpd_i = log_mean_exp(densities) - p_i
    label(elpd_i, by, features_of(fit))
    unsure = p_i > _P_WAIC_LIMIT
    warn(
        unsure,
        f"a variance of their log density above {_P_WAIC_LIMIT}: WAIC is unreliable. Use "
        f"bayesphase.loo, which says where it is not",
    )
    return elpd_data(
        "waic",
        elpd_i,
        p=float(p_i.sum()),
        n_samples=n_draws_of(densities),
        warning=bool(unsure.any()),
        good_k=None,
    )


def _densities(fit: xr.DataTree, by: str) -> xr.DataArray:
    """Log densities (chain, draw, run or checkpoint) of units given the others, nats."""
    if by not in UNITS:
        raise ValueError(f"by must be one of {list(UNITS)}, got {by!r}")
    if not isinstance(fit, xr.DataTree):
        raise TypeError(
            f"expected the DataTree that bayesphase.fit returns, got {type(fit).__name__}"
        )
    missing = [g for g in ("posterior", "log_likelihood", "observed_data") if g not in fit.children]
    if missing:
        raise ValueError(
            f"the fit lacks the groups {missing}; its groups are {sorted(fit.children)}: use the "
            f"DataTree that bayesphase.fit returns"
        )
    if by == "run":
        densities = fit["log_likelihood"]["run_log_likelihood"].transpose(*SAMPLE, "run")
    else:
        densities = _of_checkpoints(fit)
    if (n_draws := n_draws_of(densities)) < LEAST_DRAWS:
        raise ValueError(f"the fit has {n_draws} draws in all, expected at least {LEAST_DRAWS}")
    impossible = ~xr.apply_ufunc(np.isfinite, densities).all(SAMPLE)
    if impossible.any():
        raise ValueError(
            f"{named(impossible)} have a density of 0 under some draws: is a prior too narrow?"
        )
    return densities


def _of_checkpoints(fit: xr.DataTree) -> xr.DataArray:
    """Leave-one-out densities (chain, draw, checkpoint), those of one run after the other."""
    from bayesphase.model.pointwise import checkpoint_log_likelihood

    grid = checkpoint_log_likelihood(fit)
    features = features_of(fit)
    run, step = np.nonzero(features.notnull().any("feature").values)
    return xr.DataArray(
        grid.values[:, :, run, step],
        dims=(*SAMPLE, "checkpoint"),
        coords={
            **{dim: grid[dim] for dim in SAMPLE},
            "checkpoint": np.arange(len(run)),
            "run": ("checkpoint", grid["run"].values[run]),
            "step": ("checkpoint", grid["step"].values[step]),
        },
    )
