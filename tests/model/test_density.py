"""The compiled density against the PyMC model that it stands for."""

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import check_grad

import bayesphase as bp
from bayesphase.model import sampling
from bayesphase.model.build import build_from
from bayesphase.model.density import direct_density
from bayesphase.model.emissions import (
    AutoRegressive,
    Gaussian,
    QuadraticDrift,
    RandomWalk,
    StudentT,
)
from bayesphase.model.spec import specify
from bayesphase.model.transitions import ContinuousTime, LeftToRight, Sticky, StickyHDP


def _features(*, n_runs=3, n_steps=40, n_features=2, missing=0.0, ragged=False, seed=0):
    data = bp.simulate(
        n_states=2, n_runs=n_runs, n_steps=n_steps, n_features=n_features, random_seed=seed
    )
    # far from location 0 and scale 1, differently in each feature
    factor = 10.0 ** np.arange(n_features)
    features = data["features"] * factor - 5.0 * factor
    rng = np.random.default_rng(seed)
    features = features.where(rng.random(features.shape) >= missing)
    if ragged:
        features = features.where((features["run"] != "run-1") | (features["step"] < 150))
    return features


def _specify(features, n_states, *, priors=None, emission="gaussian", transition="sticky"):
    return specify(features, n_states, emission=emission, transition=transition, priors=priors)


def _uneven(features):
    """Some steps close together, others far apart."""
    gaps = np.resize([10, 10, 20, 10, 70], features.sizes["step"])
    return features.assign_coords(step=np.cumsum(gaps))


def _pymc_value_and_gradient(spec, features, x):
    import pymc as pm
    from pytensor.compile.mode import Mode

    model = build_from(spec, features["feature"].values)
    function = model.logp_dlogp_function(ravel_inputs=True, mode=Mode("py", "fast_compile"))
    function.set_extra_values({})
    layout = pm.blocking.DictToArrayBijection.map(model.initial_point()).point_map_info
    return function(pm.blocking.RaveledVars(x, layout))


def _assert_as_in_pymc(density, spec, features, x, *, value=1e-9, slope=1e-7, least=1e-8):
    """Compare value and gradient at `x`, the latter also in shares of its largest element."""
    found, gradient = density(x)
    expected, expected_gradient = _pymc_value_and_gradient(spec, features, x)
    np.testing.assert_allclose(found, expected, rtol=value)
    np.testing.assert_allclose(
        gradient, expected_gradient, rtol=slope, atol=least * np.abs(expected_gradient).max()
    )


REPLACED = {
    "mean": bp.Prior("Normal", mu=0.3, sigma=2.0),
    "scale": bp.Prior("InverseGamma", alpha=np.array([3.0, 4.0]), beta=0.7),
    "initial_probs": bp.Prior("Dirichlet", a=np.array([2.0, 0.5, 1.0])),
}


@pytest.mark.parametrize(
    ("options", "n_states", "priors", "transition"),
    [
        ({}, 3, None, "sticky"),
        ({}, 1, None, "sticky"),
        ({"missing": 0.2}, 3, None, "sticky"),
        ({"ragged": True}, 2, None, "sticky"),
        ({"missing": 0.2, "ragged": True}, 3, REPLACED, Sticky(concentration=0.5, stickiness=2.0)),
        ({"n_features": 1, "n_runs": 1}, 4, None, Sticky(stickiness=0.0)),
    ],
)
def test_value_and_gradient_are_those_of_the_pymc_model(options, n_states, priors, transition):
    features = _features(**options)
    spec = _specify(features, n_states, priors=priors, transition=transition)
    density = direct_density(spec)
    rng = np.random.default_rng(1)
    for _ in range(2):
        x = rng.normal(size=density.n_dim)
        _assert_as_in_pymc(density, spec, features, x, value=1e-10, slope=1e-8, least=1e-9)


FAMILIES = [
    StudentT(),
    StudentT(df=2.5),
    RandomWalk(df=None),
    RandomWalk(df=4.0),
    AutoRegressive(df=None),
    AutoRegressive(df=5.0),
    AutoRegressive(df=None, differences=1),
    AutoRegressive(df=3.0, differences=1),
    QuadraticDrift(df=None),
    QuadraticDrift(df=5.0),
]


@pytest.mark.parametrize(
    ("emission", "even"),
    [
        *((family, False) for family in FAMILIES),
        (FAMILIES[3], True),
        (FAMILIES[5], True),
        (FAMILIES[9], True),
    ],
)
def test_families_have_the_density_of_the_pymc_model(emission, even):
    """Even gaps and nothing missing, and the opposite: the two have kernels of their own."""
    features = _features() if even else _uneven(_features(missing=0.2, ragged=True))
    spec = _specify(features, 2, emission=emission)
    density = direct_density(spec)
    rng = np.random.default_rng(1)
    for size in (0.3, 1.0):
        x = size * rng.normal(size=density.n_dim)
        _assert_as_in_pymc(density, spec, features, x)
    near = density.around(density.parameters(x))
    u = rng.normal(size=near.n_dim)
    there = density(density.unconstrained(near.parameters(u)))[0]
    np.testing.assert_allclose(near(u)[0], there, rtol=1e-12)


CHAINS = [
    Sticky(),
    Sticky(allowed=((True, True, False), (True, True, True), (False, True, True))),
    LeftToRight(),
    LeftToRight(skip=True),
    ContinuousTime(),
    StickyHDP(),
    StickyHDP(weight_concentration=0.3, concentration=4.0, stickiness=0.0),
]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("transition", CHAINS, ids=repr)
@pytest.mark.parametrize("emission", [Gaussian(), QuadraticDrift(df=5.0)], ids=repr)
def test_every_chain_has_the_density_of_the_pymc_model(emission, transition, known):
    """With uneven gaps and missing values; what is compared is what nutpie calls by its address."""
    features = _uneven(_features(n_steps=20, missing=0.2))
    known_states = None
    if known:
        known_states = xr.full_like(features.isel(feature=0, drop=True), -1.0)
        known_states[0, 0], known_states[0, 12], known_states[2, 7] = 0, 2, 1
    spec = specify(
        features,
        3,
        emission=emission,
        transition=transition,
        priors=None,
        known_states=known_states,
    )
    density = direct_density(spec)
    called = sampling._for_nutpie(density)
    assert called.compiled_logp_func is density.compiled
    assert called.user_data is density.block
    rng = np.random.default_rng(1)
    x = 0.3 * rng.normal(size=density.n_dim)
    _assert_as_in_pymc(density, spec, features, x)
    near = density.around(density.parameters(x))
    u = 0.3 * rng.normal(size=near.n_dim)
    parameters = near.parameters(u)
    np.testing.assert_allclose(near.unconstrained(parameters), u, atol=1e-7)
    np.testing.assert_allclose(
        near(u)[0], density(density.unconstrained(parameters))[0], rtol=1e-10
    )
    assert check_grad(lambda u: near(u)[0], lambda u: near(u)[1], u) < 1e-3 * np.linalg.norm(
        near(u)[1]
    )


def test_gradient_is_that_of_the_value():
    density = direct_density(_specify(_features(missing=0.1), 3))
    x = density.unconstrained(
        density.parameters(np.random.default_rng(2).normal(size=density.n_dim) * 0.3)
    )
    error = check_grad(lambda x: density(x)[0], lambda x: density(x)[1], x)
    assert error < 1e-4 * np.linalg.norm(density(x)[1])


@pytest.mark.parametrize("n_states", [1, 3])
def test_coordinates_around_a_point_change_nothing_but_the_coordinates(n_states):
    density = direct_density(_specify(_features(missing=0.1, ragged=True), n_states))
    rng = np.random.default_rng(4)
    centre = density.parameters(rng.normal(size=density.n_dim) * 0.3)
    near = density.around(centre)
    for name, value in near.parameters(np.zeros(near.n_dim)).items():
        np.testing.assert_allclose(value, centre[name], rtol=1e-12)
    u = rng.normal(size=near.n_dim)
    parameters = near.parameters(u)
    np.testing.assert_allclose(near.unconstrained(parameters), u, atol=1e-9)
    there = density(density.unconstrained(parameters))[0]
    np.testing.assert_allclose(near(u)[0], there, rtol=1e-12)
    error = check_grad(lambda u: near(u)[0], lambda u: near(u)[1], u)
    assert error < 1e-4 * np.linalg.norm(near(u)[1])


def test_points_and_parameters_go_there_and_back():
    density = direct_density(_specify(_features(), 3))
    x = np.random.default_rng(3).normal(size=(5, 2, density.n_dim))
    parameters = density.parameters(x)
    assert parameters["transition_probs"].shape == (5, 2, 3, 3)
    np.testing.assert_allclose(parameters["transition_probs"].sum(axis=-1), 1.0)
    one = {name: value[4, 1] for name, value in parameters.items()}
    np.testing.assert_allclose(density.unconstrained(one), x[4, 1], atol=1e-12)


@pytest.mark.parametrize(
    "priors",
    [
        {"scale": bp.Prior("HalfNormal", sigma=1.0)},
        {"mean": bp.Prior("StudentT", nu=3, mu=0.0, sigma=1.0)},
        {"scale": bp.Prior("InverseGamma", mu=1.0, sigma=0.5)},
    ],
)
def test_models_with_other_priors_are_left_to_pymc(priors):
    assert direct_density(_specify(_features(), 2, priors=priors)) is None
