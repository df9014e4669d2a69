"""How well a model predicts what comes next, from what came before."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from bayesphase._checks import check_count, check_seed
from bayesphase.analysis._elpd import (
    MOST_ERROR,
    elpd_data,
    features_of,
    good_k_of,
    label,
    label_k,
    log_mean_exp,
    smoothed,
    warn,
)

if TYPE_CHECKING:
    from arviz_stats import ELPDData


def lfo(
    fit: xr.DataTree,
    *,
    horizon: int = 1,
    n_origins: int | None = 10,
    min_steps: int | None = None,
    random_seed: int | None = None,
    **settings: Any,
) -> "ELPDData":
    """Leave the future out, and see how probable the next checkpoints are, given those before.

    At several steps, the origins, parameters are learned from what all runs have up to there. What
    is predicted of each run is its block: what it has on the next `horizon` steps, together.
    Unlike `loo` by checkpoint it never looks ahead, so that states that follow a drift in small
    steps gain nothing from where the drift went. What was done before the fit is not undone:
    features that `bayesphase.features` or `standardize` scaled have seen the future, and so have
    default priors, which are those of the fit.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns. Its model is fitted again, with its priors and its number of
        draws.
    horizon : int
        How many steps of the grid ahead; 1 predicts one checkpoint of each run at a time.
    n_origins : int, optional
        How many origins, spread evenly over the steps; None for every step. Many close ones need
        fewer fits each, since draws of one serve for the next as long as posteriors are alike.
    min_steps : int, optional
        Steps of the grid up to the first origin; by default a quarter of all.
    random_seed : int, optional
        The same seed gives the same draws.
    **settings
        Passed on to `fit`, in place of the fit's own, such as ``draws=500``.

    Returns
    -------
    arviz_stats.ELPDData
        Of the kind "lfo_cv": `elpd`, the sum over blocks, and its standard error `se`, which takes
        blocks to be independent; `elpd_i` and `pareto_k` (block), nats, with the coordinates `run`,
        `origin` (the step known up to), `step` (the last one predicted), `refitted`, whether there
        was a fit at this origin, and `bridged`. `p` is NaN. `elpd_i` has the attributes `horizon`
        and `n_refits`, without fits for bridges. A run is predicted from its third checkpoint on.

        `pareto_k` says how heavy the tail is, over the draws, of what elpd_i is the mean of.

    Warns
    -----
    UserWarning
        If some elpd_i are unreliable: k-hat is above `good_k`, and bridge sampling was not possible
        or two estimates by it differ by more than a nat.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit or was told states, `horizon`, `n_origins` or `min_steps` do not go with
        its number of steps, or as `fit` does.

    Notes
    -----
    elpd_i is log p(block of the run | all checkpoints of all runs up to the origin), with states
    and parameters summed out. From one origin to the next the draws are weighted by how probable
    each makes what came between, Pareto-smoothed; where k-hat of these weights, or of these times
    the block's density, is above `good_k` (0.7 with 2,154 draws or more) the model is fitted again
    (Bürkner, Gabry & Vehtari 2020, doi:10.1080/00949655.2020.1783262). If the tail of the block's
    density is too heavy even then, as where a block begins a phase that no run was in before, the
    block is added to the data of a further fit, and elpd_i is the logarithm of the ratio of the two
    fits' normalising constants, as in `kfold`.

    Examples
    --------
    >>> import bayesphase as bp
    >>> x = bp.simulate(n_states=2, n_runs=4, n_steps=60, random_seed=1)["features"]
    >>> fits = bp.fit_range(x, [1, 2], random_seed=1)  # doctest: +SKIP
    >>> elpds = {k: bp.lfo(fit, random_seed=1) for k, fit in fits.items()}  # doctest: +SKIP
    >>> bp.compare(elpds)  # doctest: +SKIP
    """
    from bayesphase.model.future import Future

    check_seed(random_seed)
    if not isinstance(fit, xr.DataTree):
        raise TypeError(
            f"expected the DataTree that bayesphase.fit returns, got {type(fit).__name__}"
        )
    origins = _origins(fit, horizon, n_origins, min_steps)
    future = Future(fit, origins, horizon, settings)
    n_fits = len(origins) + int(future.predicted.sum())
    seeds = map(int, np.random.SeedSequence(random_seed).generate_state(n_fits))
    blocks = list(_predicted(future, good_k_of(future.n_draws), seeds))
    return _of_blocks(blocks, fit, future, horizon)


class _Block(NamedTuple):
    """What was found out about one block; `at` and `run` are positions."""

    at: int
    run: int
    elpd: float
    pareto_k: float
    refitted: bool
    bridged: bool = False
    error: float = 0.0


class _Draws(NamedTuple):
    """Draws of a fit at an origin; see `Future.densities` for the others."""

    origin: int
    known: xr.DataArray
    ahead: xr.DataArray


def _origins(
    fit: xr.DataTree, horizon: int, n_origins: int | None, min_steps: int | None
) -> np.ndarray:
    """Positions (origin) on the grid of steps."""
    n_steps = fit["observed_data"].sizes["step"] if "observed_data" in fit.children else 0
    if min_steps is None:
        min_steps = max(n_steps // 4, 2)
    first = check_count("min_steps", min_steps, least=2) - 1
    last = n_steps - 1 - check_count("horizon", horizon, least=1)
    if last < first:
        raise ValueError(
            f"min_steps and horizon must leave an origin on the {n_steps} steps of the fit, got "
            f"{min_steps} and {horizon}"
        )
    n_possible = last - first + 1
    if n_origins is None:
        n_origins = n_possible
    if check_count("n_origins", n_origins, least=1) > n_possible:
        raise ValueError(
            f"n_origins must be at most {n_possible}, the steps from min_steps on that have "
            f"{horizon} after them, got {n_origins}"
        )
    return np.unique(np.round(np.linspace(first, last, n_origins)).astype(int))


def _predicted(future: Any, good_k: float, seeds: Iterator[int]) -> Iterator[_Block]:
    """Go from origin to origin, fitting again where draws of the last fit do not serve."""
    draws = None
    for at, runs in enumerate(map(np.flatnonzero, future.predicted)):
        if not len(runs):
            continue
        found = None if draws is None else _weighed(draws, at, runs, good_k)
        if found is not None:
            for run, elpd, pareto_k in zip(runs, *found, strict=True):
                yield _Block(at, int(run), elpd, pareto_k, refitted=False)
            continue
        fitted = future.fit_to(at, random_seed=next(seeds))
        draws = _Draws(at, *future.densities(fitted))
        ahead = draws.ahead.isel(origin=at, run=runs)
        found = log_mean_exp(ahead).values, smoothed(ahead)[1].values
        for run, elpd, pareto_k in zip(runs, *found, strict=True):
            block = _Block(at, int(run), elpd, pareto_k, refitted=True)
            if not pareto_k <= good_k:
                block = _bridged(block, future, fitted, next(seeds))
            yield block


def _weighed(
    draws: _Draws, at: int, runs: np.ndarray, good_k: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Predict by draws of an earlier fit: elpd and k-hat (run); None if they do not serve."""
    log_weights = draws.known.isel(origin=[at]) - draws.known.isel(origin=draws.origin)
    ahead = draws.ahead.isel(origin=at, run=runs)
    smooth, of_weights = smoothed(log_weights)
    _, pareto_k = smoothed(log_weights.isel(origin=0) + ahead)
    if not all(bool((k <= good_k).all()) for k in (of_weights, pareto_k)):
        return None
    smooth = smooth.isel(origin=0)
    return (log_mean_exp(smooth + ahead) - log_mean_exp(smooth)).values, pareto_k.values


def _bridged(block: _Block, future: Any, fitted: xr.DataTree, seed: int) -> _Block:
    """Estimate a density by a further fit, if that can be done."""
    value, error = future.log_predictive(block.at, block.run, fitted, random_seed=seed)
    if np.isfinite(value):
        block = block._replace(elpd=value, bridged=True)
    return block._replace(error=error)


def _of_blocks(blocks: list[_Block], fit: xr.DataTree, future: Any, horizon: int) -> "ELPDData":
    """Put together what was found out."""
    features = features_of(fit)
    steps, origins = features["step"].values, future.origins
    at, run = (np.array([getattr(block, name) for block in blocks]) for name in ("at", "run"))
    coords = {
        "block": np.arange(len(blocks)),
        "run": ("block", features["run"].values[run]),
        "origin": ("block", steps[origins[at]]),
        "step": ("block", steps[origins[at] + horizon]),
        "refitted": ("block", [block.refitted for block in blocks]),
        "bridged": ("block", [block.bridged for block in blocks]),
    }
    elpd_i = xr.DataArray([block.elpd for block in blocks], dims="block", coords=coords)
    pareto_k = elpd_i.copy(data=[block.pareto_k for block in blocks])
    unsure = elpd_i.copy(data=[not block.error <= MOST_ERROR for block in blocks])
    refits = np.unique(at[elpd_i["refitted"].values])
    label(elpd_i, "block", features)
    elpd_i.attrs |= {"horizon": horizon, "n_refits": len(refits)}
    label_k(pareto_k)
    warn(
        unsure,
        "a density that few draws decide about, and that bridge sampling did not settle: raise "
        "draws",
    )
    return elpd_data(
        "lfo_cv",
        elpd_i,
        p=np.nan,
        n_samples=future.n_draws,
        warning=bool(unsure.any()),
        good_k=good_k_of(future.n_draws),
        pareto_k=pareto_k,
        forecast_horizon=horizon,
        min_observations=int(origins[0]) + 1,
        refits=steps[origins[refits]],
        n_refits=len(refits),
    )
