"""Other runs under the posterior of a fit, which does not learn from them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import xarray as xr

from bayesphase._checks import check_count, check_seed, threads
from bayesphase.model.forecast import log_filtered_states
from bayesphase.model.known import UNKNOWN, aligned, anchor
from bayesphase.model.offset_integral import draw_offsets
from bayesphase.model.paths import Paths, at_parameters, most_likely, sample_states
from bayesphase.model.pointwise import chosen_draws, flat_posterior, with_the_features_of
from bayesphase.model.rows import rows_of
from bayesphase.model.spec import Spec, least_checkpoints, recorded
from bayesphase.model.tree import groups_of_data

# coordinates in which `bayesphase.standardize` keeps what it did
_LOCATION, _SCALE = "feature_location", "feature_scale"
# draws that are filtered together, which is quicker than one by one
_BLOCK = 16


def decode(
    fit: xr.DataTree,
    features: xr.DataArray,
    *,
    known_states: xr.DataArray | None = None,
    filtered: bool = False,
    draws: int | None = None,
    random_seed: int | None = None,
    cores: int | None = None,
) -> xr.DataTree:
    """Find the phases of new runs with a fit to others, without fitting again.

    The posterior of the fit stays as it is: new runs are read with it, each by itself. Every table
    and figure of a fit can be made of the result.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    features : DataArray (run, step, feature)
        The fit's features, in any order, of other runs; NaN where missing. They are put on the
        fit's scale: give them in their own units (``standardize=None``), on the fit's scale
        (``standardize="reference"``), or on a scale of their own, which is undone.
    known_states : DataArray (run, step), optional
        As in `bayesphase.build_model`, of the new runs.
    filtered : bool
        Whether to add the probabilities of phases given the past alone, as they could have been
        known while the run went on.
    draws : int, optional
        How many draws of the posterior at most, as many of each chain and spread evenly; by default
        all.
    random_seed : int, optional
        The same seed draws the same paths.
    cores : int, optional
        Threads to share the draws out over; all cores by default.

    Returns
    -------
    DataTree
        As `bayesphase.fit` returns it, with the new runs in `paths`, `log_likelihood`, `residuals`
        and `observed_data`, the `posterior`, `sample_stats` and `restarts` of the fit, and
        ``"decode"`` as its attribute ``made_by``. Where runs have offsets, those of the new runs
        are drawn for each draw of the posterior given all of the run, and `offset` (run, feature)
        in `posterior` holds them. The attributes ``location`` and ``spread`` (feature) are those
        of the fit's features, which priors go by.

        With `filtered` there is a group `filtered` with ``phase_probability`` (run, step, state),
        the posterior mean of p(state | features up to the step), NaN without a checkpoint.

    Raises
    ------
    TypeError, ValueError
        If the features are not those of the fit or can't be used, if the fit's were standardized
        within each run, which leaves no scale for other runs, or another argument can't be used.

    Notes
    -----
    Paths come from p(z | y, parameters), by forward filtering and backward sampling, for each draw
    of parameters from p(parameters | the fit's runs). Filtered probabilities are averages of those
    of the forward recursion, and no later value changes a bit of them. Where runs have offsets,
    filtering draws an offset given each beginning of a run anew and takes a few milliseconds for
    each draw and checkpoint; probabilities are then shares of draws. What is told of states later
    in a run is not used before.

    Examples
    --------
    >>> import bayesphase as bp
    >>> x = bp.simulate(n_states=2, n_runs=3, n_steps=60, random_seed=1)["features"]
    >>> fit = bp.fit(x[:2], 2, random_seed=1, progressbar=False)  # doctest: +SKIP
    >>> bp.boundaries(bp.decode(fit, x[2:], random_seed=1))  # doctest: +SKIP
    """
    if cores is not None:
        check_count("cores", cores, least=1)
    seeds = np.random.SeedSequence(check_seed(random_seed)).spawn(3)
    fitted = recorded(fit)
    features = on_the_scale_of(fit, features)
    spec = spec_of(fitted, features, known_states)
    chosen = chosen_draws(fit, draws)
    flat = {
        name: values[chosen.ravel()]
        for name, values in flat_posterior(fit).items()
        if name != "offset"
    }
    kept = {"draw": chosen[0]}
    posterior = fit["posterior"].to_dataset().isel(kept).drop_dims("run", errors="ignore")
    chain_draw = (posterior.sizes["chain"], posterior.sizes["draw"])
    if spec.emission.offsets:
        offset = offsets_given(spec, flat, seed=seeds[0], cores=cores)
        flat["offset"] = offset
        dims = ("chain", "draw", "run", "feature")
        posterior = posterior.assign_coords(run=features["run"].values)
        posterior["offset"] = (dims, offset.reshape(*chain_draw, *offset.shape[1:]))
    states, log_likelihood = sample_states(spec, flat, seed=seeds[1], cores=cores)
    as_fitted = {
        name: fit[name].to_dataset().isel(kept, missing_dims="ignore")
        for name in ("sample_stats", "restarts")
        if name in fit.children
    }
    paths = Paths(
        posterior,
        states.reshape(*chain_draw, -1),
        log_likelihood.reshape(*chain_draw, -1),
        np.zeros(chain_draw),  # nothing is numbered here
        most_likely(spec, flat),
    )
    groups = {
        "posterior": posterior,
        **as_fitted,
        **groups_of_data(features, spec, paths),
    }
    if filtered:
        groups["filtered"] = _filtered(spec, features, flat, seed=seeds[2], cores=cores)
    tree = xr.DataTree.from_dict(groups)
    units = {"location": spec.rows.location.tolist(), "spread": spec.rows.spread.tolist()}
    tree.attrs = {**fit.attrs, **units, "made_by": "decode", "random_seed": random_seed}
    return tree


def on_the_scale_of(fit: xr.DataTree, features: xr.DataArray) -> xr.DataArray:
    """Put features of other runs into the order and on the scale of the fit's.

    Raises
    ------
    ValueError
        If they are others than the fit's, or one of the two has a scale that the other can't take.
    """
    features = with_the_features_of(fit, features)
    if not isinstance(features, xr.DataArray):
        return features  # `rows_of` says what is wrong
    known = fit["observed_data"].to_dataset()["features"]
    if _LOCATION not in known.coords:
        if _LOCATION in features.coords:
            raise ValueError(
                "the features are standardized, but those of the fit are not: make both the same "
                "way"
            )
        return features
    location, scale = known[_LOCATION], known[_SCALE]
    if "run" in location.dims:
        raise ValueError(
            "the fit's features were standardized within each run, so that there is no scale for "
            "other runs: fit to features made with standardize='pooled' or 'reference'"
        )
    if _LOCATION in features.coords:
        if features[_LOCATION].equals(location) and features[_SCALE].equals(scale):
            return features
        features = features * features[_SCALE] + features[_LOCATION]
        features = features.drop_vars([_LOCATION, _SCALE])
    scaled = (features.astype(np.float64) - location) / scale
    scaled = scaled.transpose("run", "step", "feature")
    return scaled.assign_attrs(known.attrs | {"standardization": "reference"})


def spec_of(spec: Spec, features: xr.DataArray, known_states: xr.DataArray | None = None) -> Spec:
    """Lay a fit's model out for other runs, in its unit of time."""
    least = least_checkpoints(known_states, spec.rows)
    rows = rows_of(features, units_of=spec.rows, least=least)
    chain, rows = spec.structure.laid_out(rows, spec.n_states)
    if known_states is not None:
        known_states = aligned(known_states, features, spec.n_states)
        chain, rows = anchor(chain, known_states, rows, features, spec.n_states)
    return spec._replace(rows=rows, transition=chain, known_states=known_states)


def offsets_given(
    spec: Spec, flat: dict[str, np.ndarray], *, seed: np.random.SeedSequence, cores: int | None
) -> np.ndarray:
    """Draw offsets (draw, run, feature) of the spec's runs, one for each draw of the parameters."""
    n_draws = len(next(iter(flat.values())))
    seeds, observed = seed.spawn(n_draws), spec.emission.observe(spec.rows)
    shape = (len(spec.rows.layout.lengths), spec.rows.values.shape[1])
    offset = np.empty((n_draws, *shape))

    def one(draw: int) -> None:
        parameters = {name: values[draw] for name, values in flat.items()}
        here, lines, potentials = at_parameters(spec, observed, parameters)
        rng = np.random.default_rng(seeds[draw])
        offset[draw] = draw_offsets(here, lines, potentials, parameters["offset_scale"], rng)

    with ThreadPoolExecutor(threads(cores)) as pool:
        list(pool.map(one, range(n_draws)))
    return offset


def _filtered(
    spec: Spec,
    features: xr.DataArray,
    flat: dict[str, np.ndarray],
    *,
    seed: np.random.SeedSequence,
    cores: int | None,
) -> xr.Dataset:
    """Probabilities of states (run, step, state) given the past, averaged over draws."""
    if spec.emission.offsets:
        rows = np.arange(len(spec.rows.values))
        by_row = filtered_by_beginning(spec, features, flat, rows=rows, seed=seed, cores=cores)
    else:
        by_row = filtered_states(spec, flat).mean(axis=0)
    grid = np.full((*features.shape[:2], spec.n_states), np.nan)
    grid[spec.rows.run, spec.rows.step] = by_row
    along = {name: c for name, c in features.coords.items() if "feature" not in c.dims}
    attrs = {"long_name": "probability of the phase given the past of the run", "units": "1"}
    return xr.Dataset(
        {"phase_probability": (("run", "step", "state"), grid, attrs)},
        coords={**along, "state": np.arange(spec.n_states)},
    )


def filtered_states(spec: Spec, flat: dict[str, np.ndarray]) -> np.ndarray:
    """Probabilities of the state of each row given its past (draw, row, state)."""
    n_draws = len(next(iter(flat.values())))
    each = [{name: values[d] for name, values in flat.items()} for d in range(n_draws)]
    blocks = [each[first : first + _BLOCK] for first in range(0, n_draws, _BLOCK)]
    return np.exp(np.concatenate([log_filtered_states(spec, block) for block in blocks]))


def filtered_by_beginning(
    spec: Spec,
    features: xr.DataArray,
    flat: dict[str, np.ndarray],
    *,
    rows: np.ndarray,
    seed: np.random.SeedSequence,
    cores: int | None,
) -> np.ndarray:
    """Probabilities of states (row, state) where what is known of an offset grows with the run.

    Of the `rows` (row) alone.
    """
    flat = {name: values for name, values in flat.items() if name != "offset"}
    by_row = np.empty((len(rows), spec.n_states))
    places = zip(spec.rows.run[rows], spec.rows.step[rows], seed.spawn(len(rows)), strict=True)
    known_states, firsts = spec.known_states, set(spec.rows.layout.starts.tolist())
    if known_states is not None:
        known_states = known_states.assign_coords(run=features["run"], step=features["step"])
    for at, (run, step, own) in enumerate(places):
        begun = {"run": [run], "step": slice(0, step + 1)}
        known = None if known_states is None else known_states.isel(begun)
        if known is not None and rows[at] in firsts:
            state = int(known[0, -1])
            if state != UNKNOWN:
                by_row[at] = np.arange(spec.n_states) == state
                continue
            known = None  # of a single checkpoint there is nothing to rule out
        beginning = spec_of(spec, features.isel(begun), known)
        for_offset, for_states = own.spawn(2)
        offset = offsets_given(beginning, flat, seed=for_offset, cores=cores)
        with_it = {**flat, "offset": offset}
        states, _ = sample_states(beginning, with_it, seed=for_states, cores=cores)
        by_row[at] = (states[:, -1:] == np.arange(spec.n_states)).mean(axis=0)
    return by_row
