"""Fits made by hand: DataTrees with the groups of a real fit and known answers, with no sampling.

`fit_from_paths` wraps paths that a test writes out itself; `synthetic_fit` draws plausible ones.
Import them with ``from synthetic import synthetic_fit``.
"""

import numpy as np
import xarray as xr

MISSING = -1


def fit_from_paths(
    state, *, steps=None, runs=None, n_states=None, transition_probs=None, features=None
):
    """Make a fit of given paths.

    state: (chain, draw, run, step) integers, or (draw, run, step) for one chain; -1 is missing.
    transition_probs: (chain, draw, state, state_next); by default the paths' own frequencies.
    features: (run, step, feature); by default one feature, the most likely state's number.
    """
    state = np.asarray(state, dtype=np.int8)
    state = state if state.ndim == 4 else state[None]
    n_chains, n_draws, n_runs, n_steps = state.shape
    n_states = int(state.max()) + 1 if n_states is None else n_states
    counts = (state[..., None] == np.arange(n_states)).sum(axis=(0, 1))
    missing = counts.sum(axis=-1) == 0
    most_likely = np.where(missing, MISSING, counts.argmax(axis=-1)).astype(np.int8)
    if transition_probs is None:
        transition_probs = _transition_frequencies(state, n_states)
    if features is None:
        features = most_likely[..., None].astype(float)
    features = np.where(missing[..., None], np.nan, features)
    n_features = features.shape[-1]

    by_draw = {"chain": np.arange(n_chains), "draw": np.arange(n_draws)}
    by_time = {
        "run": [f"seed{i}" for i in range(n_runs)] if runs is None else list(runs),
        "step": 10 * np.arange(n_steps) if steps is None else np.asarray(steps, dtype=np.int64),
    }
    states = {"state": np.arange(n_states)}
    names = {"feature": [f"metric{i}" for i in range(n_features)]}
    centre = np.array(
        [[_mean(features[most_likely == k, d]) for d in range(n_features)] for k in range(n_states)]
    )
    each_draw = (n_chains, n_draws, 1, 1)
    posterior = xr.Dataset(
        {
            "initial_probs": (
                ("chain", "draw", "state"),
                np.full((n_chains, n_draws, n_states), 1 / n_states),
            ),
            "transition_probs": (("chain", "draw", "state", "state_next"), transition_probs),
            "mean": (("chain", "draw", "state", "feature"), np.tile(centre, each_draw)),
            "scale": (
                ("chain", "draw", "state", "feature"),
                np.full((n_chains, n_draws, n_states, n_features), 0.5),
            ),
        },
        coords=by_draw | states | {"state_next": np.arange(n_states)} | names,
    )
    paths = xr.Dataset(
        {
            "state": (("chain", "draw", "run", "step"), state),
            "most_likely": (("run", "step"), most_likely),
        },
        coords=by_draw | by_time,
    )
    return xr.DataTree.from_dict(
        {
            "posterior": posterior,
            "paths": paths,
            "sample_stats": xr.Dataset(
                {
                    "diverging": (("chain", "draw"), np.zeros((n_chains, n_draws), dtype=bool)),
                    "lp": (("chain", "draw"), np.full((n_chains, n_draws), -90.0)),
                    "label_ambiguity": (("chain", "draw"), np.zeros((n_chains, n_draws))),
                },
                coords=by_draw,
            ),
            "restarts": xr.Dataset({"log_density": ("restart", np.full(12, -80.0))}),
            "log_likelihood": xr.Dataset(
                {
                    "run_log_likelihood": (
                        ("chain", "draw", "run"),
                        np.full((n_chains, n_draws, n_runs), -100.0),
                    )
                },
                coords=by_draw | {"run": by_time["run"]},
            ),
            "residuals": xr.Dataset(
                {
                    "standardized": (
                        ("run", "step", "feature"),
                        np.where(missing[..., None], np.nan, features - centre[most_likely]) / 0.5,
                    )
                },
                coords=by_time | names,
            ),
            "observed_data": xr.Dataset(
                {"features": (("run", "step", "feature"), features)},
                coords=by_time | names,
            ),
        }
    )


def synthetic_fit(
    *,
    n_chains=2,
    n_draws=50,
    n_runs=3,
    n_steps=40,
    n_states=3,
    n_features=2,
    jitter=2.0,
    missing=0.0,
    random_seed=0,
):
    """Make a fit whose runs pass through the states in order, with uncertain boundaries.

    jitter: sd of a boundary over draws, in checkpoints. missing: share of checkpoints that a run
    lacks. The last run never reaches the last state (where there is more than one of each).
    """
    rng = np.random.default_rng(random_seed)
    middle = np.linspace(0, n_steps, n_states + 1)[1:-1] + rng.normal(
        0, n_steps / (4 * n_states), (n_runs, n_states - 1)
    )
    if n_runs > 1 and n_states > 1:
        middle[-1, -1] = np.inf
    bounds = middle + rng.normal(0, jitter, (n_chains, n_draws, n_runs, n_states - 1))
    bounds = np.maximum.accumulate(bounds, axis=-1)
    state = (np.arange(n_steps) >= bounds[..., None]).sum(axis=-2)
    truth = (np.arange(n_steps) >= np.maximum.accumulate(middle, -1)[..., None]).sum(axis=-2)
    features = rng.normal(truth[..., None] * np.linspace(1, -1, n_features), 0.2)
    lost = rng.random((n_runs, n_steps)) < missing
    lost[:, 0] = False
    return fit_from_paths(np.where(lost, MISSING, state), n_states=n_states, features=features)


def _transition_frequencies(state, n_states):
    counts = np.full((*state.shape[:2], n_states, n_states), 0.1)
    for chain, draw, run in np.ndindex(state.shape[:3]):
        path = state[chain, draw, run]
        path = path[path != MISSING]
        np.add.at(counts[chain, draw], (path[:-1], path[1:]), 1)
    return counts / counts.sum(axis=-1, keepdims=True)


def _mean(values):
    return values.mean() if len(values) else 0.0


def fit_at(spec, features, named, *, n_draws=20, random_seed=0):
    """Make a fit whose draws are all the same parameters, each with a path of its own.

    With the parameters that the data were drawn from, nothing is left that is not known but states.
    """
    from bayesphase.model.decoding import sample_paths
    from bayesphase.model.spec import record

    rng = np.random.default_rng(random_seed)
    rows, emission = spec.rows, spec.emission
    log_emission = emission.log_density(rows.values, rows, named, np)
    with np.errstate(divide="ignore"):
        potentials = spec.transition.log_potentials(named, np)
    paths = np.stack(
        [sample_paths(log_emission, *potentials, rows.layout, rng=rng)[0] for _ in range(n_draws)]
    )
    chain_draw = {"chain": [0], "draw": np.arange(n_draws)}
    along = {"run": features["run"].values, "step": features["step"].values}
    grid = rows.to_grid(paths, (features.sizes["run"], features.sizes["step"]), MISSING)
    observed = features.to_dataset(name="features")
    if spec.known_states is not None:
        observed = observed.assign(known_states=spec.known_states)
    posterior = {
        name: (("chain", "draw", *dims), np.tile(named[name], (1, n_draws) + (1,) * len(dims)))
        for name, dims in spec.dims.items()
    }
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(
                posterior, coords={**chain_draw, "state": np.arange(spec.n_states)}
            ),
            "paths": xr.Dataset(
                {"state": (("chain", "draw", "run", "step"), grid[None])}, coords=chain_draw | along
            ),
            "observed_data": observed,
        }
    )
    tree.attrs = record(spec)
    return tree
