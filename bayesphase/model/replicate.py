"""Data as the model would make them, on the grid of those that it was fitted to."""

from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr

from bayesphase._checks import check_seed
from bayesphase.model import offsets
from bayesphase.model.decoding import sample_paths
from bayesphase.model.emissions import QuadraticDrift
from bayesphase.model.family import Emission
from bayesphase.model.pointwise import chosen_draws, flat_posterior
from bayesphase.model.rows import Rows
from bayesphase.model.simulate import draw_states
from bayesphase.model.spec import Spec, recorded

# spreads of the data: further off, a drift that grows with itself has run away
_FARTHEST = 1e4


def posterior_predictive(
    fit: xr.DataTree, *, draws: int | None = 100, random_seed: int | None = None
) -> xr.Dataset:
    """Draw data sets like the one that was fitted, from its model at draws of the posterior.

    Each has the runs and the checkpoints of the fit's data, and holes where these have holes.
    Families of changes, which condition on the first values of each run, start from those observed.
    What the draws do not look like is what the model has not understood: see `predictive_checks`.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    draws : int, optional
        How many draws of the posterior at most, as many of each chain and spread evenly; None for
        all. There is one data set for each.
    random_seed : int, optional
        The same seed gives the same data.

    Returns
    -------
    Dataset
        `features` (sample, run, step, feature), in the features' units, NaN where they are missing,
        and the `state` (sample, run, step) that each checkpoint was drawn from, -1 where there is
        none. The coordinates `chain` and `draw` (sample) say which parameters are behind a sample.
        Infinite is a feature of "quadratic_drift" from where it has run away, 10,000 spreads from
        where it was observed, since a drift that grows with the feature may do so.

    Raises
    ------
    TypeError, ValueError
        If `draws` is no positive integer, `random_seed` no seed or `fit` no fit.

    Examples
    --------
    >>> import bayesphase as bp
    >>> data = bp.simulate(n_states=2, n_runs=2, n_steps=60, random_seed=1)
    >>> fit = bp.fit(data["features"], 2, random_seed=1, progressbar=False)  # doctest: +SKIP
    >>> bp.posterior_predictive(fit, random_seed=1)["features"].dims  # doctest: +SKIP
    ('sample', 'run', 'step', 'feature')

    As a group for ArviZ's predictive checks, each sample under its own chain and draw:

    >>> made = bp.posterior_predictive(fit)  # doctest: +SKIP
    >>> made = made.set_index(sample=["chain", "draw"]).unstack("sample")  # doctest: +SKIP
    >>> fit["posterior_predictive"] = xr.DataTree(made)  # doctest: +SKIP
    >>> arviz_plots.plot_ppc_dist(fit, var_names="features")  # doctest: +SKIP
    """
    pairs = realisations(fit, draws=draws, random_seed=random_seed)
    made = [replicated[["features", "state"]] for _, replicated in pairs]
    return xr.concat(made, "sample", coords=["chain", "draw"], compat="override", join="override")


def realisations(
    fit: xr.DataTree, *, draws: int | None, random_seed: int | None
) -> Iterator[tuple[xr.Dataset, xr.Dataset]]:
    """Go through draws: the observed data as one explains them, and data that it would make.

    Parameters
    ----------
    fit : DataTree
    draws : int or None
    random_seed : int or None

    Yields
    ------
    observed, replicated : Dataset
        `features` and `residual` (run, step, feature), standardized innovations, and `state` (run,
        step): on the path that was sampled of the observed data, and on the one that the others
        were drawn from. Scalar coordinates are `chain` and `draw`.
    """
    spec = recorded(fit)
    chosen = chosen_draws(fit, draws)
    flat = flat_posterior(fit)
    features = fit["observed_data"].to_dataset()["features"].transpose("run", "step", "feature")
    paths = fit["paths"].to_dataset()["state"].transpose("chain", "draw", "run", "step").values
    names, n_draws, rows = fit["posterior"].to_dataset(), paths.shape[1], spec.rows
    # a generator per draw, whichever others there are
    seeds = np.random.SeedSequence(check_seed(random_seed)).spawn(paths.shape[0] * n_draws)
    for at in chosen.ravel():
        chain, draw = divmod(int(at), n_draws)
        labels = {"chain": names["chain"].values[chain], "draw": names["draw"].values[draw]}
        named = {name: values[at] for name, values in flat.items()}
        path = paths[chain, draw, rows.run, rows.step]
        observed = _on_the_grid(spec, features, path, rows.values, named)
        states, values = draw_rows(spec, named, np.random.default_rng(seeds[at]))
        replicated = _on_the_grid(
            spec, features, states, stopped(spec.emission, rows, values), named
        )
        yield observed.assign_coords(labels), replicated.assign_coords(labels)


def draw_rows(
    spec: Spec, parameters: Mapping[str, np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw states (row) and features (row, feature) of all runs at given parameters.

    Known states are kept, and features are 0 where they are missing.
    """
    rows = spec.rows
    with np.errstate(divide="ignore"):  # a probability that a prior drew as 0
        log_transition, log_initial = spec.transition.log_potentials(parameters, np)
    if spec.known_states is None:
        states = draw_states(rng, np.exp(log_transition), np.exp(log_initial), rows.layout)
    else:  # given what is known, also of later checkpoints
        nothing = np.zeros((len(rows.values), spec.n_states))
        states, _ = sample_paths(nothing, log_transition, log_initial, rows.layout, rng=rng)
    drawn = spec.emission.sample(rng, states, parameters, offsets.without(rows, parameters))
    return states, drawn + offsets.of_rows(parameters, rows) * rows.observed


def stopped(emission: Emission, rows: Rows, values: np.ndarray) -> np.ndarray:
    """Make features infinite from where they ran away, before rounding has spoilt their changes."""
    if not isinstance(emission, QuadraticDrift):
        return values
    out = values.copy()
    away = rows.observed & ~(np.abs(values - rows.location) <= _FARTHEST * rows.spread)
    for start, length in zip(rows.layout.starts, rows.layout.lengths, strict=True):
        run = slice(start, start + length)
        out[run][np.logical_or.accumulate(away[run], axis=0)] = np.inf
    return out


def _on_the_grid(
    spec: Spec,
    features: xr.DataArray,
    states: np.ndarray,
    values: np.ndarray,
    named: Mapping[str, np.ndarray],
) -> xr.Dataset:
    """Lay out states (row), features (row, feature) and their residuals as the data are."""
    rows = spec.rows
    with np.errstate(invalid="ignore"):  # of infinite features
        own = offsets.without(rows._replace(values=values), named)
        residual = spec.emission.residuals(own, states, named)
    grid = np.full((2, *features.shape), np.nan)
    grid[:, rows.run, rows.step] = (
        np.where(rows.observed, values, np.nan),
        np.where(np.isfinite(residual), residual, np.nan),
    )
    along = ("run", "step", "feature")
    return xr.Dataset(
        {
            "features": (along, grid[0], features.attrs),
            "residual": (along, grid[1], {"long_name": "standardized residual", "units": "1"}),
            "state": (
                along[:2],
                rows.to_grid(
                    states.astype(np.int8), (features.sizes["run"], features.sizes["step"]), -1
                ),
                {"long_name": "state", "units": "1"},
            ),
        },
        coords=features.coords,
    )
