"""The number of visited states under a sticky hierarchical Dirichlet process."""

from itertools import product

import numpy as np
import pytest
import xarray as xr
from scipy.special import gammaln
from test_rows import grid

import bayesphase as bp
from bayesphase.model.density import direct_density
from bayesphase.model.lanes import end_to_end
from bayesphase.model.paths import draw_paths
from bayesphase.model.sampling import sample_direct
from bayesphase.model.simulate import draw_states
from bayesphase.model.spec import specify
from bayesphase.model.tree import posterior_of

QUICK = {"chains": 2, "cores": 2, "target_accept": 0.8, "progressbar": False}


def sampled_states(spec, emission, *, draws, random_seed):
    """Sample from near the prior's mode with given `mean` and `scale`; states (draw, row)."""
    chain, _ = spec.transition.maximise(
        np.zeros((1, spec.n_states, spec.n_states)), np.zeros(spec.n_states)
    )
    density = direct_density(spec).around({**chain, **emission})
    sampled = sample_direct(density, draws=draws, tune=300, random_seed=random_seed, **QUICK)
    labels = {
        "run": np.arange(len(spec.rows.layout.lengths)),
        "feature": np.array([f"feature-{d}" for d in range(spec.rows.values.shape[1])]),
    }
    posterior = posterior_of(spec, sampled, labels)
    paths = draw_paths(spec, posterior, seed=np.random.SeedSequence(random_seed), cores=1)
    return paths.states, paths.posterior


def visited(states):
    """How many distinct states each path (..., row) has."""
    return np.apply_along_axis(lambda path: len(np.unique(path)), -1, states)


def shares(number, n_states):
    """Share of each number of states, and the standard error of it, by chains' batches."""
    happened = number[..., None] == np.arange(1, n_states + 1)
    batches = happened.reshape(happened.shape[0] * 10, -1, n_states).mean(axis=1)
    return happened.mean(axis=(0, 1)), batches.std(axis=0, ddof=1) / np.sqrt(len(batches))


def log_prob_of(paths, weights, structure):
    """Log probability (weight draw, path) of paths given weights, rows summed out."""
    n_states = weights.shape[1]
    own = structure.stickiness * np.eye(n_states)
    logs = np.log(weights)[:, paths[:, 0]]
    for j in range(n_states):
        shape = structure.concentration * weights + own[j]
        counts = np.array(
            [[np.sum((p[:-1] == j) & (p[1:] == k)) for k in range(n_states)] for p in paths]
        )
        total = structure.concentration + structure.stickiness
        logs = logs + gammaln(total) - gammaln(total + counts.sum(axis=1))
        for k in range(n_states):
            logs = logs + gammaln(shape[:, k, None] + counts[:, k]) - gammaln(shape[:, k, None])
    return logs


@pytest.mark.parametrize("n_states", [2, 3])
def test_number_visited_is_that_of_all_paths_enumerated(n_states):
    """Emissions known, weights drawn from their prior, rows and paths summed out exactly."""
    rng = np.random.default_rng(n_states)
    structure = bp.StickyHDP(weight_concentration=1.5, concentration=2.0, stickiness=2.0)
    mean = np.arange(n_states)[:, None] * 1.0
    y = np.array([0.1, 0.4, 0.2, 0.9, 1.1, 0.8, 0.3])[:, None]
    priors = {
        "mean": bp.Prior("Normal", mu=mean, sigma=1e-3),
        "scale": bp.Prior("InverseGamma", alpha=1e6, beta=0.7e6),
    }
    features = grid(y[None])
    spec = specify(features, n_states, emission="gaussian", transition=structure, priors=priors)
    emission = {"mean": mean, "scale": np.full((n_states, 1), 0.7)}
    states, _ = sampled_states(spec, emission, draws=1000, random_seed=1)
    found, error = shares(visited(states), n_states)

    paths = np.array(list(product(range(n_states), repeat=len(y))))
    weights = rng.dirichlet(np.full(n_states, structure.weight_concentration / n_states), 2000)
    weights = np.maximum(weights, 1e-300)
    log_emission = -0.5 * ((y - mean[:, 0]) / 0.7) ** 2
    log_joint = log_prob_of(paths, weights, structure)
    log_joint = log_joint + log_emission[np.arange(len(y)), paths].sum(axis=1)
    probs = np.exp(log_joint - log_joint.max()).mean(axis=0)
    probs /= probs.sum()
    truth = [probs[visited(paths) == n].sum() for n in range(1, n_states + 1)]
    assert (np.array(truth) > 0.01).all()
    assert np.abs(found - truth).max() < 0.05
    assert (np.abs(found - truth) < 4 * error + 0.01).all()


def test_without_data_the_number_visited_is_that_of_simulated_chains():
    n_states, lengths = 4, np.array([20, 25])
    structure = bp.StickyHDP(weight_concentration=2.0, concentration=2.0, stickiness=5.0)
    features = grid(np.random.default_rng(0).normal(size=(2, 25, 1)))
    features[0, 20:] = np.nan
    spec = specify(features, n_states, emission="gaussian", transition=structure, priors=None)
    nothing = spec.rows._replace(
        values=np.zeros_like(spec.rows.values), observed=np.zeros_like(spec.rows.observed)
    )
    spec = spec._replace(rows=nothing)
    emission = {"mean": np.zeros((n_states, 1)), "scale": np.ones((n_states, 1))}
    states, posterior = sampled_states(spec, emission, draws=800, random_seed=2)
    found, error = shares(visited(states), n_states)

    rng = np.random.default_rng(3)
    layout = end_to_end(lengths)
    numbers, first_weight = [], []
    for _ in range(4000):
        weights = rng.dirichlet(np.full(n_states, structure.weight_concentration / n_states))
        base = np.maximum(structure.concentration * weights, 1e-300)
        own = structure.stickiness * np.eye(n_states)
        rows = np.stack([rng.dirichlet(base + o) for o in own])
        # of very small concentrations NumPy's may be no number: all on the largest
        initial = np.nan_to_num(rng.dirichlet(base), nan=0.0)
        initial = initial if initial.sum() > 0 else np.eye(n_states)[weights.argmax()]
        numbers.append(len(np.unique(draw_states(rng, rows[None], initial, layout))))
        first_weight.append(weights[0])
    truth = np.bincount(numbers, minlength=n_states + 1)[1:] / len(numbers)
    assert (np.abs(found - truth) < 4 * np.hypot(error, np.sqrt(0.25 / 4000))).all()
    # and the weights, of any state, are Dirichlet
    largest = posterior["state_weights"].max("state").mean().item()
    draws = rng.dirichlet(np.full(n_states, structure.weight_concentration / n_states), 4000)
    assert largest == pytest.approx(draws.max(axis=1).mean(), abs=0.05)


def planted(n_states, emission, *, n_runs=2, n_steps=120):
    """Runs that go through so many phases, constant or drifting."""
    mean = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 3.0]])[:n_states]
    data = bp.simulate(
        n_states=n_states,
        n_runs=n_runs,
        n_steps=n_steps,
        n_features=2,
        mean=mean,
        transition_probs=np.eye(n_states) if n_states == 1 else None,
        random_seed=10 + n_states,
    )
    n_visited = len(np.unique(data["path"]))
    if emission == "gaussian":
        return data["features"], n_visited
    # each phase has its own drift and noise
    drift = np.array([[0.5, -0.2], [-0.5, 0.6], [0.1, 0.1]])[data["path"].values]
    noise = np.array([0.3, 0.6, 0.05])[data["path"].values][..., None]
    rng = np.random.default_rng(1)
    changes = drift + noise * rng.normal(size=drift.shape)
    return data["features"].copy(data=changes.cumsum(axis=1)), n_visited


def fit_many(features, emission, n_states=6, **options):
    settings = {"draws": 400, "chains": 2, "n_restarts": 12, "progressbar": False, **options}
    return bp.fit(
        features, n_states, emission=emission, transition="sticky_hdp", random_seed=1, **settings
    )


@pytest.mark.filterwarnings("ignore:The number of states visited has:UserWarning")
def test_planted_states_are_counted():
    features, truth = planted(3, "gaussian", n_runs=1)
    fit = fit_many(features, "gaussian", n_states=5, draws=200, n_restarts=10)
    table = bp.visited_counts(fit)
    assert int(table["n_states"][table["probability"].values.argmax()]) == truth == 3
    # states that no run visits come last
    assert (table["visited"].values[:3] == 1).all()
    assert (table["visited"].values[3:] < 0.5).all()
    assert table["probability_by_concentration"].sel(n_states=3).min() > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("emission", ["gaussian", "quadratic_drift"])
@pytest.mark.parametrize("n_states", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:The number of states visited has:UserWarning")
def test_planted_states_are_the_most_probable_number(emission, n_states):
    features, truth = planted(n_states, emission)
    table = bp.visited_counts(fit_many(features, emission))
    assert int(table["n_states"][table["probability"].values.argmax()]) == truth == n_states


def drawn_from_the_model(rng, structure, n_states, priors, *, n_runs, n_steps):
    weights = rng.dirichlet(np.full(n_states, structure.weight_concentration / n_states))
    base = np.maximum(structure.concentration * weights, 1e-12)
    initial = rng.dirichlet(base)
    rows = np.stack([rng.dirichlet(base + o) for o in structure.stickiness * np.eye(n_states)])
    shape = (n_states, 2)
    scale = priors["scale"].parameters
    return bp.simulate(
        n_states=n_states,
        n_runs=n_runs,
        n_steps=n_steps,
        n_features=2,
        mean=rng.normal(0.0, priors["mean"].parameters["sigma"], shape),
        scale=scale["beta"] / rng.gamma(scale["alpha"], size=shape),
        transition_probs=rows,
        initial_probs=initial,
        random_seed=rng,
    )


@pytest.mark.filterwarnings("ignore:The (number|chains):UserWarning", "ignore:All:UserWarning")
@pytest.mark.parametrize("n_sets", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_the_stated_probability_is_how_often_it_is_right(n_sets, capsys):
    """Parameters from the prior, data from the model; errors in binomial standard errors."""
    rng = np.random.default_rng(7)
    structure = bp.StickyHDP(weight_concentration=2.0, concentration=2.0, stickiness=20.0)
    n_states = 4
    priors = {
        "mean": bp.Prior("Normal", mu=0.0, sigma=1.5),
        "scale": bp.Prior("InverseGamma", alpha=30.0, beta=29.0),
    }
    stated, happened = [], []
    for seed in range(n_sets):
        data = drawn_from_the_model(rng, structure, n_states, priors, n_runs=2, n_steps=40)
        fit = bp.fit(
            data["features"],
            n_states,
            emission="gaussian",
            transition=structure,
            priors=priors,
            draws=300,
            chains=2,
            n_restarts=6,
            random_seed=seed,
            progressbar=False,
        )
        table = bp.visited_counts(fit)
        stated.append(table["probability"].values)
        truth = len(np.unique(data["path"]))
        happened.append(table["n_states"].values == truth)
    p, h = np.array(stated), np.array(happened)
    error = np.sqrt((p * (1 - p)).sum(axis=0) + 0.1)
    z = (h - p).sum(axis=0) / error
    # of the number that is called the most probable
    rows = np.arange(n_sets), p.argmax(axis=1)
    best = p[rows]
    z_best = (h[rows] - best).sum() / np.sqrt((best * (1 - best)).sum() + 0.1)
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{n_sets} data sets: the most probable number has probability {best.mean():.3f} and "
            f"is right in {h[rows].mean():.3f} (z = {z_best:.1f}); by number z = {z.round(1)}"
        )
    assert np.abs(z).max() < 3.5
    assert abs(z_best) < 3.5


def test_options_are_checked():
    with pytest.raises(ValueError, match="weight_concentration must be positive, got 0"):
        bp.StickyHDP(weight_concentration=0)
    with pytest.raises(ValueError, match="concentration must be positive and stickiness"):
        bp.StickyHDP(concentration=-1.0)


def test_one_state_needs_no_weights():
    features = grid(np.random.default_rng(0).normal(size=(1, 10, 1)))
    model = bp.build_model(features, 1, emission="gaussian", transition="sticky_hdp")
    assert {variable.name for variable in model.free_RVs} == {"mean", "scale"}


def test_the_best_start_leaves_states_unvisited():
    """One phase, many states: the mode of the largest mass is not one that cuts it up."""
    data = bp.simulate(
        n_states=1, n_runs=2, n_steps=60, n_features=2, transition_probs=np.eye(1), random_seed=1
    )
    from bayesphase.model.fit import _rescored
    from bayesphase.model.initial import starting_points
    from bayesphase.model.modes import _path

    spec = specify(data["features"], 6, emission="gaussian", transition=bp.StickyHDP(), priors=None)
    modes = starting_points(
        spec.rows,
        6,
        emission=spec.emission,
        transition=spec.transition,
        n_restarts=12,
        rng=np.random.default_rng(1),
    )
    best, *_, worst = _rescored(modes, direct_density(spec), by_mass=True)
    assert len(np.unique(_path(best, spec))) == 1
    assert len(np.unique(_path(worst, spec))) > 1


def test_a_saved_fit_says_its_structure(tmp_path):
    from bayesphase.model.spec import record, recorded

    features = grid(np.random.default_rng(0).normal(size=(1, 10, 1))).rename("features")
    structure = bp.StickyHDP(weight_concentration=0.5)
    spec = specify(features, 3, emission="gaussian", transition=structure, priors=None)
    tree = xr.DataTree.from_dict({"observed_data": features.to_dataset()})
    tree.attrs = record(spec)
    assert recorded(tree).structure == structure
