"""Log densities under every posterior draw: of whole runs, and of checkpoints given the others."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import xarray as xr

from bayesphase._checks import check_count, threads
from bayesphase.model.observed import Observed
from bayesphase.model.offset_integral import log_integral
from bayesphase.model.paths import at_parameters
from bayesphase.model.rows import Rows, rows_of
from bayesphase.model.spec import Spec, recorded


def checkpoint_log_likelihood(fit: xr.DataTree, *, cores: int | None = None) -> xr.DataArray:
    """Log density of each checkpoint given all others of its run, for every posterior draw.

    It is what ArviZ's leave-one-out methods want where the unit is the checkpoint:
    ``p(y_t | y_-t, parameters)``, with the states summed out, and not the one-step prediction
    ``p(y_t | y_1..t-1)``. The unit of `fit["log_likelihood"]` is the run.

    Parameters
    ----------
    fit : DataTree
        As `bayesphase.fit` returns it.
    cores : int, optional
        Threads to share the draws out over; all cores by default.

    Returns
    -------
    DataArray (chain, draw, run, step)
        In nats; NaN where a run has no checkpoint. It holds eight bytes for every draw and
        checkpoint: select draws before (``fit.sel(draw=slice(None, None, 4))``) where that is much.

    Raises
    ------
    TypeError, ValueError
        If `cores` is no positive integer.

    Notes
    -----
    The density is the sum over states k of a_t(k) b_t(k) beta_t(k), over that of a_t(k) beta_t(k),
    with the predicted probabilities a, the emission densities b and the backward messages beta.

    Examples
    --------
    >>> import bayesphase as bp
    >>> data = bp.simulate(n_states=2, n_runs=2, n_steps=60, random_seed=1)
    >>> fit = bp.fit(data["features"], 2, random_seed=1, progressbar=False)  # doctest: +SKIP
    >>> bp.checkpoint_log_likelihood(fit).dims  # doctest: +SKIP
    ('chain', 'draw', 'run', 'step')
    """
    if cores is not None:
        check_count("cores", cores, least=1)
    spec = recorded(fit)
    rows = spec.rows
    features = fit["observed_data"]["features"]
    grid = (features.sizes["run"], features.sizes["step"])
    densities = np.full((*_chain_draw(fit), *grid), np.nan)
    flat = densities.reshape(-1, *grid)
    observed = spec.emission.observe(rows)
    unit = observed.unit

    def one(draw: int, here: Observed, lines: Any, potentials: Any) -> None:
        by_row = here.leave_one_out(lines, potentials)
        flat[draw, rows.run, rows.step] = by_row - unit

    _under_each_draw(spec, observed, flat_posterior(fit), one, cores)
    along = {name: c for name, c in features.coords.items() if "feature" not in c.dims}
    return xr.DataArray(
        densities,
        dims=("chain", "draw", "run", "step"),
        coords={**{dim: fit["posterior"][dim] for dim in ("chain", "draw")}, **along},
        name="checkpoint_log_likelihood",
        attrs={"long_name": "log density of a checkpoint given the others", "units": "nats"},
    )


def run_log_likelihood(
    fit: xr.DataTree, features: xr.DataArray, *, cores: int | None = None
) -> xr.DataArray:
    """Log-likelihood of any runs, such as new ones, under every posterior draw of a fit.

    Parameters
    ----------
    fit : DataTree
        As `bayesphase.fit` returns it.
    features : DataArray (run, step, feature)
        The fit's features, in any order, of other runs; NaN where missing. They have to be scaled
        as the fit's were: `bayesphase.features` of the new runs alone would scale them by
        themselves.
    cores : int, optional
        Threads to share the draws out over; all cores by default.

    Returns
    -------
    DataArray (chain, draw, run)
        In nats. For the runs of the fit it is `fit["log_likelihood"]`, up to a small Monte Carlo
        error where runs have offsets: these are integrated over their prior.

    Raises
    ------
    TypeError, ValueError
        If the features are not those of the fit or can't be used, or `cores` is no positive
        integer.

    Examples
    --------
    >>> import bayesphase as bp
    >>> x = bp.simulate(n_states=2, n_runs=3, n_steps=60, random_seed=1)["features"]
    >>> fit = bp.fit(x[:2], 2, random_seed=1, progressbar=False)  # doctest: +SKIP
    >>> bp.run_log_likelihood(fit, x[2:]).mean(("chain", "draw"))  # doctest: +SKIP
    """
    if cores is not None:
        check_count("cores", cores, least=1)
    spec = recorded(fit)
    features = with_the_features_of(fit, features)
    rows = rows_of(features, units_of=spec.rows)
    densities = likelihood_of_rows(spec, rows, flat_posterior(fit), cores=cores)
    return xr.DataArray(
        densities.reshape(*_chain_draw(fit), -1),
        dims=("chain", "draw", "run"),
        coords={**{d: fit["posterior"][d] for d in ("chain", "draw")}, "run": features["run"]},
        name="run_log_likelihood",
        attrs={"long_name": "log-likelihood of the whole run", "units": "nats"},
    )


def likelihood_of_rows(
    spec: Spec, rows: Rows, parameters: Mapping[str, np.ndarray], *, cores: int | None = None
) -> np.ndarray:
    """Log-likelihood of runs under given parameters, nats.

    Parameters
    ----------
    spec : Spec
        Says what the model is; its own rows play no part.
    rows : Rows
    parameters : mapping
        The model's variables, with dims (draw, ...). Offsets of runs play no part: those of these
        runs are integrated over their prior.
    cores : int or None
        Threads to share the draws out over; all cores by default.

    Returns
    -------
    ndarray (draw, run)
    """
    chain, rows = spec.structure.laid_out(rows, spec.n_states)
    spec = spec._replace(transition=chain, rows=rows)
    n_draws = len(next(iter(parameters.values())))
    densities = np.empty((n_draws, len(rows.layout.starts)))
    observed = spec.emission.observe(rows)
    unit = np.add.reduceat(observed.unit, rows.layout.starts)
    any_numbers = np.full(len(rows.values), 0.5)
    scale = parameters.get("offset_scale")
    # these runs may be others than those of the draws
    parameters = {name: values for name, values in parameters.items() if name != "offset"}

    def one(draw: int, here: Observed, lines: Any, potentials: Any) -> None:
        if scale is not None:
            rng = np.random.default_rng(draw)
            densities[draw] = log_integral(here, lines, potentials, scale[draw], rng)
            return
        # of the kernels that return log-likelihoods this does the least beside
        states = np.empty(len(rows.values), np.int8)
        here.draw_paths(lines, potentials, any_numbers, states, densities[draw])

    _under_each_draw(spec, observed, parameters, one, cores)
    return densities - unit


def likelihood_of_stretches(
    spec: Spec,
    parameters: Mapping[str, np.ndarray],
    starts: np.ndarray,
    stops: np.ndarray,
    *,
    cores: int | None = None,
) -> np.ndarray:
    """Log density of stretches of runs, each given all that came before in its run, nats.

    Parameters
    ----------
    spec : Spec
    parameters : mapping
        The model's variables, with dims (draw, ...).
    starts, stops : ndarray (...)
        First row of each stretch, and the row after its last; the same where it is empty.
    cores : int or None
        Threads to share the draws out over; all cores by default.

    Returns
    -------
    ndarray (draw, ...)
    """
    observed = spec.emission.observe(spec.rows)
    unit = observed.unit
    densities = np.zeros((len(next(iter(parameters.values()))), *starts.shape))
    some = stops > starts
    ends = np.stack([starts[some], stops[some]], axis=-1).ravel()

    def one(draw: int, here: Observed, lines: Any, potentials: Any) -> None:
        # the last stretch ends before a row that does not count
        by_row = np.append(here.one_step(lines, potentials) - unit, 0.0)
        densities[draw][some] = np.add.reduceat(by_row, ends)[::2]

    _under_each_draw(spec, observed, parameters, one, cores)
    return densities


def with_the_features_of(fit: xr.DataTree, features: xr.DataArray) -> xr.DataArray:
    """Put features into the order of the fit's; `rows_of` finds what else is wrong with them."""
    known = fit["observed_data"]["features"].indexes["feature"]
    if not isinstance(features, xr.DataArray) or "feature" not in features.indexes:
        return features
    given = features.indexes["feature"]
    if set(given) != set(known):
        raise ValueError(
            f"the fit has the features {known.tolist()}, but features has {given.tolist()}: give "
            f"the same ones"
        )
    return features if given.has_duplicates else features.sel(feature=known)


def _chain_draw(fit: xr.DataTree) -> tuple[int, int]:
    return fit["posterior"].sizes["chain"], fit["posterior"].sizes["draw"]


def chosen_draws(fit: xr.DataTree, draws: int | None) -> np.ndarray:
    """Choose draws of all chains, as many of each and spread evenly.

    Parameters
    ----------
    fit : DataTree
    draws : int or None
        How many at most, but one of each chain at least; all if None.

    Returns
    -------
    ndarray (chain, draw)
        Places in what `flat_posterior` returns.
    """
    n_chains, n_draws = _chain_draw(fit)
    n_each = n_draws
    if draws is not None:
        n_each = min(n_draws, max(1, check_count("draws", draws, least=1) // n_chains))
    at = np.linspace(0, n_draws - 1, n_each + 2)[1:-1] if n_each < n_draws else range(n_draws)
    return np.arange(n_chains)[:, None] * n_draws + np.round(at).astype(int)


def flat_posterior(fit: xr.DataTree) -> dict[str, np.ndarray]:
    """Parameters by name (draw, ...), chains one after the other."""
    posterior = fit["posterior"].to_dataset().transpose("chain", "draw", ...)
    n_draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    return {str(name): v.values.reshape(n_draws, *v.shape[2:]) for name, v in posterior.items()}


def _under_each_draw(
    spec: Spec,
    observed: Observed,
    parameters: Mapping[str, np.ndarray],
    one: Callable[[int, Observed, Any, Any], None],
    cores: int | None,
) -> None:
    """Call `one(draw, here, lines, potentials)` for all draws of the parameters, in threads.

    The last three are what `at_parameters` makes of a draw.
    """

    def each(draw: int) -> None:
        point = {name: values[draw] for name, values in parameters.items()}
        one(draw, *at_parameters(spec, observed, point))

    with ThreadPoolExecutor(threads(cores)) as pool:
        list(pool.map(each, range(len(next(iter(parameters.values()))))))
