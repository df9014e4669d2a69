import numpy as np
import pymc as pm
import pytest
import xarray as xr
from exact import Problem, enumerate_run, few_examples, runs
from hypothesis import given
from hypothesis import strategies as st
from pymc.model.transform.conditioning import remove_value_transforms
from pytensor.compile.mode import Mode
from scipy.stats import dirichlet, halfnorm, invgamma, norm
from test_rows import BAD, grid

from bayesphase.model.build import build_model
from bayesphase.model.emissions import Gaussian
from bayesphase.model.priors import Prior
from bayesphase.model.rows import rows_of
from bayesphase.model.simulate import simulate
from bayesphase.model.transitions import Sticky

# PyMC 6 compiles with numba, which says that it calls our Python function as it is
python_draws = pytest.mark.filterwarnings("ignore:Numba will use object mode")


def small_features(rng):
    """Two runs, with a missing value, a missing checkpoint and a short run."""
    values = rng.normal(size=(2, 5, 2))
    values[0, 1, 1] = values[0, 3] = values[1, 3:] = np.nan
    return grid(values)


def point(rng, n_states, n_features):
    return {
        "initial_probs": rng.dirichlet(np.ones(n_states)),
        "transition_probs": rng.dirichlet(np.ones(n_states), n_states),
        "mean": rng.normal(size=(n_states, n_features)),
        "scale": rng.uniform(0.3, 2.0, (n_states, n_features)),
    }


def log_density(model):
    """Log density of the model as a function of its parameters as they are, not transformed."""
    return remove_value_transforms(model).compile_logp(
        mode=Mode(linker="py", optimizer="fast_compile")
    )


def log_likelihood(features, named):
    rows = rows_of(features)
    terms = norm.logpdf(rows.values[:, None], named["mean"], named["scale"])
    problem = Problem(
        np.where(rows.observed[:, None], terms, 0.0).sum(axis=-1),
        np.log(named["transition_probs"])[None],
        np.log(named["initial_probs"]),
        rows.layout,
    )
    return sum(enumerate_run(run).log_likelihood for run in runs(problem))


def dirichlet_rows(probs, concentration):
    return sum(dirichlet.logpdf(p, a) for p, a in zip(probs, concentration, strict=True))


def test_density_is_prior_plus_likelihood():
    rng = np.random.default_rng(1)
    features = small_features(rng)
    named, rows = point(rng, 3, 2), rows_of(features)
    expected = (
        log_likelihood(features, named)
        + dirichlet.logpdf(named["initial_probs"], np.ones(3))
        + dirichlet_rows(named["transition_probs"], 1.0 + 20.0 * np.eye(3))
        + norm.logpdf(named["mean"], rows.location, 2.0 * rows.spread).sum()
        + invgamma.logpdf(named["scale"], 2.0, scale=0.2 * rows.spread).sum()
    )
    assert log_density(build_model(features, 3, emission="gaussian"))(named) == pytest.approx(
        expected, rel=1e-12
    )


def test_given_priors_and_settings_are_used():
    rng = np.random.default_rng(2)
    features = small_features(rng)
    named = point(rng, 2, 2)
    model = build_model(
        features,
        2,
        emission=Gaussian(),
        transition=Sticky(concentration=0.5, stickiness=3.0),
        priors={
            "scale": Prior("HalfNormal", sigma=0.5),
            "mean": Prior("Normal", mu=np.array([1.0, 2.0]), sigma=0.1),
        },
    )
    expected = (
        log_likelihood(features, named)
        + dirichlet.logpdf(named["initial_probs"], np.ones(2))
        + dirichlet_rows(named["transition_probs"], 0.5 + 3.0 * np.eye(2))
        + norm.logpdf(named["mean"], [1.0, 2.0], 0.1).sum()
        + halfnorm.logpdf(named["scale"], scale=0.5).sum()
    )
    assert log_density(model)(named) == pytest.approx(expected, abs=1e-7)


def test_one_state_is_a_plain_normal_model():
    rng = np.random.default_rng(3)
    features = small_features(rng)
    model = build_model(features, 1, emission="gaussian")
    assert {variable.name for variable in model.free_RVs} == {"mean", "scale"}
    assert {"initial_probs", "transition_probs"} <= set(model.named_vars)
    named, rows = point(rng, 1, 2), rows_of(features)
    expected = (
        log_likelihood(features, named)
        + norm.logpdf(named["mean"], rows.location, 2.0 * rows.spread).sum()
        + invgamma.logpdf(named["scale"], 2.0, scale=0.2 * rows.spread).sum()
    )
    found = log_density(model)({name: named[name] for name in ("mean", "scale")})
    assert found == pytest.approx(expected, rel=1e-12)


def test_dims_and_coordinates():
    features = small_features(np.random.default_rng(4))
    model = build_model(features, 3, emission="gaussian")
    assert model.named_vars_to_dims == {
        "initial_probs": ("state",),
        "transition_probs": ("state", "state_next"),
        "mean": ("state", "feature"),
        "scale": ("state", "feature"),
        "features": ("row", "feature"),
    }
    assert list(model.coords["feature"]) == ["f0", "f1"]
    assert list(model.coords["state"]) == [0, 1, 2]
    assert len(model.coords["row"]) == 7


TIGHT = {
    "mean": Prior("Normal", mu=np.array([[-10.0, 0.0], [10.0, 5.0]]), sigma=1e-3),
    "scale": Prior("Gamma", mu=2.0, sigma=1e-3),
    "initial_probs": Prior("Dirichlet", a=1e5 * np.array([0.8, 0.2])),
    "transition_probs": Prior("Dirichlet", a=1e5 * np.array([[0.9, 0.1], [0.5, 0.5]])),
}


def assert_predictive_has_the_models_moments(drawn):
    """Features (sample, run, step, feature) of the model that `TIGHT` leaves possible."""
    # states lie ten standard deviations apart, so that a feature tells its state
    state = drawn[..., 0] > 0
    n = state.shape[0] * state.shape[1]
    assert abs(state[:, :, 0].mean() - 0.2) < 4 * np.sqrt(0.16 / n)
    for k, leave in ((0, 0.1), (1, 0.5)):
        before, after = state[:, :, :-1] == k, state[:, :, 1:] != k
        error = np.sqrt(leave * (1 - leave) / before.sum())
        assert abs(after[before].mean() - leave) < 4 * error
        inside = drawn[state == k]
        error = 2.0 / np.sqrt(len(inside))
        expected = TIGHT["mean"].parameters["mu"][k]
        assert (np.abs(inside.mean(axis=0) - expected) < 4 * error + 1e-2).all()
        np.testing.assert_allclose(inside.std(axis=0), 2.0, rtol=0.05)


@python_draws
def test_prior_and_posterior_predictive_draws_have_the_models_moments():
    features = simulate(n_states=2, n_runs=3, n_steps=8, n_features=2, random_seed=5)["features"]
    model = build_model(features, 2, emission="gaussian", priors=TIGHT)
    prior = pm.sample_prior_predictive(draws=500, model=model, random_seed=1)
    drawn = prior["prior_predictive"]["features"].values.reshape(500, 3, 8, 2)
    assert_predictive_has_the_models_moments(drawn)

    posterior = xr.Dataset(
        {name: prior["prior"][name] for name in ("initial_probs", *TIGHT)},
        coords={"chain": [0]},
    )
    predicted = pm.sample_posterior_predictive(
        posterior, model=model, random_seed=2, progressbar=False
    )["posterior_predictive"]["features"].values.reshape(500, 3, 8, 2)
    assert_predictive_has_the_models_moments(predicted)
    assert np.corrcoef(predicted[:, 0, 4, 0], drawn[:, 0, 4, 0])[0, 1] < 0.3  # new paths


@python_draws
def test_probabilities_that_underflow_can_be_drawn_from():
    features = simulate(n_states=2, n_runs=1, n_steps=5, n_features=1, random_seed=6)["features"]
    sparse = {"transition_probs": Prior("Dirichlet", a=np.full((2, 2), 1e-3))}
    model = build_model(features, 2, emission="gaussian", priors=sparse)
    prior = pm.sample_prior_predictive(draws=20, model=model, random_seed=1)
    assert (
        prior["prior"]["transition_probs"].values == 0
    ).any()  # or the case is not the one meant
    assert np.isfinite(prior["prior_predictive"]["features"].values).all()


@pytest.fixture(scope="module")
def density_of_runs():
    """Compiled densities of one data set, and of the same with its runs in another order."""
    features = simulate(n_states=3, n_runs=3, n_steps=12, n_features=2, random_seed=7)["features"]
    features[0, 2] = features[1, 8:] = features[2, 3, 0] = np.nan
    longer = features.reindex(step=[*features.step.values, 500, 510])  # steps that no run has
    return [
        log_density(build_model(x, 3, emission="gaussian"))
        for x in (features, features.isel(run=[2, 0, 1]), longer)
    ]


@few_examples
@given(seed=st.integers(0, 2**32))
def test_numbers_of_states_order_of_runs_and_empty_steps_do_not_matter(density_of_runs, seed):
    rng = np.random.default_rng(seed)
    named, order = point(rng, 3, 2), rng.permutation(3)
    renumbered = {name: value[order] for name, value in named.items()}
    renumbered["transition_probs"] = named["transition_probs"][order][:, order]
    original, moved, longer = density_of_runs
    value = original(named)
    assert np.isfinite(value)
    assert original(renumbered) == pytest.approx(value, rel=1e-11)
    assert moved(named) == pytest.approx(value, rel=1e-11)
    assert longer(named) == pytest.approx(value, rel=1e-11)


@pytest.mark.parametrize(("make", "error", "message"), BAD.values(), ids=BAD)
def test_features_that_can_not_be_used(make, error, message):
    with pytest.raises(error, match=message):
        build_model(make(), 2, emission="gaussian")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_states": 0}, ValueError, "n_states must lie between 1 and 7 .* got 0"),
        ({"n_states": 8}, ValueError, "n_states must lie between 1 and 7 .* got 8"),
        ({"n_states": 2.0}, TypeError, "n_states must be an integer, got 2.0"),
        ({"n_states": True}, TypeError, "n_states must be an integer, got True"),
        (
            {"emission": "gausian"},
            ValueError,
            r"emission must be one of \[.*'gaussian'.*\].*'gausian'",
        ),
        (
            {"emission": Gaussian},
            ValueError,
            r"emission must be one of \[.*'gaussian'.*\] or an object",
        ),
        ({"transition": None}, ValueError, r"transition must be one of .*'sticky'.* got None"),
        ({"transition": Gaussian()}, ValueError, "transition must be one of"),
        ({"priors": {"sd": Prior("Normal")}}, ValueError, r"priors names \['sd'\], but the model"),
        ({"priors": {"drift": 0.0}}, TypeError, "prior of 'drift' must be a bayesphase.Prior"),
        (
            {"priors": {"drift": Prior("Gausian", mu=0.0)}},
            ValueError,
            "prior of 'drift' names 'Gausian', which is no PyMC distribution",
        ),
    ],
)
def test_arguments_that_can_not_be_used(arguments, error, message):
    features = small_features(np.random.default_rng(8))
    with pytest.raises(error, match=message):
        build_model(features, **{"n_states": 2, **arguments})
