"""Marginal likelihoods against sums over all paths, against each other and against themselves."""

import exact_evidence
import numpy as np
import pytest
import xarray as xr

import bayesphase as bp
from bayesphase.model.bridge import (
    Proposal,
    bridge,
    effective_size,
    fit_proposal,
    symmetrised,
)
from bayesphase.model.evidence import evidence
from bayesphase.model.spec import recorded, specify
from bayesphase.model.target import Target
from bayesphase.model.tempering import Tempering

RNG = np.random.default_rng(3)
APART = np.concatenate([RNG.normal(0.0, 0.3, 4), RNG.normal(3.0, 0.3, 4)])
ALIKE = RNG.normal(0.0, 1.0, 7)  # two states are one too many


def features_of(values):
    return xr.DataArray(
        np.asarray(values)[None, :, None],
        dims=("run", "step", "feature"),
        coords={"run": ["a"], "step": np.arange(len(values)), "feature": ["f"]},
    )


def fitted(values, n_states, *, draws=1500, priors=None, random_seed=2):
    return bp.fit(
        features_of(values),
        n_states,
        emission="gaussian",
        priors=priors,
        draws=draws,
        tune=400,
        random_seed=random_seed,
        progressbar=False,
    )


def model_of(fit):
    """Arguments of `exact_evidence`."""
    spec = recorded(fit)

    def each(name, key):
        value = np.asarray(spec.priors[name].parameters[key], np.float64)
        return np.broadcast_to(value, (spec.n_states, 1))[:, 0]

    mean = [each("mean", k) for k in ("mu", "sigma")]
    scale = [each("scale", k) for k in ("alpha", "beta")]
    return {
        "values": fit["observed_data"]["features"].values.ravel(),
        "initial": np.asarray(spec.priors["initial_probs"].parameters["a"]),
        "transition": np.asarray(spec.priors["transition_probs"].parameters["a"]),
        "priors": list(zip(*mean, *scale, strict=True)),
    }


def exact(fit):
    return exact_evidence.log_evidence(**model_of(fit))


def estimated(fit, **options):
    return evidence(
        fit, **{"method": "bridge", "random_seed": 1, "particles": 100, "cores": 1, **options}
    )


def renamed(fit, orders):
    """Renumber the states of every draw; orders: (chain, draw, state)."""
    posterior = fit["posterior"].to_dataset().copy(deep=True)
    for name, dims in recorded(fit).dims.items():
        values = posterior[name].values
        for axis, dim in enumerate(dims, start=2):
            if dim.startswith("state"):
                others = tuple(a for a in range(2, values.ndim) if a != axis)
                values = np.take_along_axis(values, np.expand_dims(orders, others), axis)
        posterior[name] = posterior[name].copy(data=values)
    fit = fit.copy()
    fit["posterior"] = xr.DataTree(posterior)
    return fit


BY_STATE = {"mean": bp.Prior("Normal", mu=np.array([[0.0], [1.5]]), sigma=1.5)}
HARDLY = {"mean": bp.Prior("Normal", mu=1.0, sigma=np.array([[2.0], [2.2]]))}


@pytest.mark.parametrize(
    ("values", "n_states", "priors", "n_renumberings"),
    [
        (APART, 1, None, 1),
        (APART, 2, None, 2),
        (APART, 2, BY_STATE, 2),
        (APART, 2, HARDLY, 2),
        (ALIKE, 2, None, 2),
        (ALIKE, 2, BY_STATE, 2),
        (ALIKE, 3, None, 6),
    ],
    ids=["one", "two", "by state", "hardly by state", "alike", "alike by state", "three alike"],
)
def test_it_is_the_sum_over_all_paths(values, n_states, priors, n_renumberings):
    fit = fitted(values, n_states, priors=priors)
    found = estimated(fit)
    assert found.n_renumberings == n_renumberings
    # one part in a hundred, but where a few checkpoints are cut in three
    assert found.relative_error < (0.01 if n_states == 1 else 0.05)
    assert abs(found.log_evidence - exact(fit)) < 3.5 * found.relative_error


def under_wider_priors(fit):
    """The same draws, said to be of a fit under priors that say half as much."""
    other, attrs = fit.copy(), dict(fit.attrs)
    wider = {name: repr(prior.wider()) for name, prior in recorded(fit).priors.items()}
    other.attrs = {**attrs, "priors": wider}
    return other


@pytest.mark.parametrize(
    ("values", "n_states", "priors"),
    [(APART, 1, None), (APART, 2, None), (APART, 2, BY_STATE), (ALIKE, 2, None)],
    ids=["one", "two", "by state", "alike"],
)
def test_under_wider_priors_it_is_the_sum_over_all_paths(values, n_states, priors):
    fit = fitted(values, n_states, priors=priors)
    found = estimated(fit)
    ratio = np.exp(found.wider)
    error = ratio.std() / ratio.mean() / np.sqrt(0.3 * ratio.size)
    value = found.log_evidence + np.log(ratio.mean())
    expected = exact(under_wider_priors(fit))
    if n_states == 1:
        assert abs(expected - exact(fit)) > 0.3  # it is no small matter
    assert abs(value - expected) < 4.0 * np.hypot(error, found.relative_error)
    assert error < 0.5  # the ratio may have a heavy tail


def test_under_wider_priors_it_is_that_of_a_fit_under_these():
    data = bp.simulate(n_states=2, n_runs=2, n_steps=60, n_features=2, random_seed=1)["features"]
    fit = bp.fit(data, 2, emission="autoregressive", random_seed=1, progressbar=False)
    priors = {name: prior.wider() for name, prior in recorded(fit).priors.items()}
    other = bp.fit(
        data, 2, emission="autoregressive", priors=priors, random_seed=2, progressbar=False
    )
    one, table = estimated(other), bp.log_evidence(fit, random_seed=1)
    assert float(table["mcse_wider"]) < 0.2
    error = np.hypot(float(table["mcse_wider"]), one.relative_error)
    assert abs(float(table["log_evidence_wider"]) - one.log_evidence) < 4.0 * error
    assert abs(float(table["log_evidence"]) - one.log_evidence) > 8.0 * error


@pytest.mark.slow
@pytest.mark.parametrize("values", [APART, ALIKE], ids=["apart", "alike"])
def test_it_is_within_one_part_in_a_hundred(values):
    fit = fitted(values, 2, draws=20_000)
    assert abs(estimated(fit).log_evidence - exact(fit)) < 0.01


@pytest.fixture(scope="module")
def two_of_two():
    return fitted(APART, 2)


@pytest.mark.parametrize("values", [APART, ALIKE], ids=["apart", "alike"])
def test_names_of_states_make_no_difference(values):
    fit = fitted(values, 2)
    found = estimated(fit)
    shape = (fit["posterior"].sizes["chain"], fit["posterior"].sizes["draw"], 2)
    rng = np.random.default_rng(5)
    swapped = np.broadcast_to([1, 0], shape)
    at_random = np.argsort(rng.random(shape), axis=-1)
    for orders in (swapped, at_random):
        other = estimated(renamed(fit, orders))
        error = np.hypot(found.relative_error, other.relative_error)
        assert error < 0.1
        assert abs(other.log_evidence - found.log_evidence) < 4.0 * error


def test_priors_that_only_pymc_knows(two_of_two):
    # the same priors, said otherwise
    spread = APART.std()
    named = {"mean": bp.Prior("Normal", mu=APART.mean(), tau=(2.0 * spread) ** -2.0)}
    some = two_of_two.copy()
    some["posterior"] = xr.DataTree(two_of_two["posterior"].to_dataset().isel(draw=slice(100)))
    other, attrs = some.copy(), dict(some.attrs)
    other.attrs = {
        **attrs,
        "priors": {**attrs["priors"], **{name: repr(p) for name, p in named.items()}},
    }
    target = Target(recorded(other), np.array(["f"]))
    assert not target.compiled
    assert Target(recorded(two_of_two), np.array(["f"])).compiled
    found, same = estimated(other), estimated(some)
    np.testing.assert_allclose(found.log_evidence, same.log_evidence, atol=1e-6)
    assert found.n_renumberings == 2


def test_the_prior_is_the_density_without_data(two_of_two):
    spec = recorded(two_of_two)
    target = Target(spec, np.array(["f"]))
    points = target.points(two_of_two["posterior"].to_dataset())[0, :5]
    log_likelihood = target(points) - target.prior()(points)
    stored = two_of_two["log_likelihood"]["run_log_likelihood"].values[0, :5].sum(axis=-1)
    np.testing.assert_allclose(log_likelihood, stored, atol=1e-9)


def test_exchanges_renumber_parameters(two_of_two):
    target = Target(recorded(two_of_two), np.array(["f"]))
    point = target.points(two_of_two["posterior"].to_dataset())[0, 0]
    order = np.array([[[1, 0]]])
    draw = two_of_two.copy()
    draw["posterior"] = xr.DataTree(two_of_two["posterior"].to_dataset().isel(chain=[0], draw=[0]))
    swapped = target.points(renamed(draw, order)["posterior"].to_dataset())[0, 0]
    np.testing.assert_allclose(target.exchange([1, 0]) @ point, swapped, atol=1e-9)
    assert target.exchangeable(target, point[None]) == [[0, 1]]


def test_states_with_priors_of_their_own_are_not_exchangeable():
    mu = np.array([[0.0], [1.0], [0.0]])
    spec = specify(
        features_of(ALIKE),
        3,
        emission="gaussian",
        transition="sticky",
        priors={"mean": bp.Prior("Normal", mu=mu, sigma=1.0)},
    )
    target = Target(spec, np.array(["f"]))
    points = np.random.default_rng(1).normal(size=(3, target.n_dim))
    assert target.exchangeable(target, points) == [[0, 2], [1]]


def test_the_standard_error_is_that_of_repeated_fits():
    values = np.concatenate([RNG.normal(0.0, 1.0, 12), RNG.normal(2.0, 1.0, 12)])
    found = [estimated(fitted(values, 2, draws=150, random_seed=s)) for s in range(12)]
    logs = np.array([f.log_evidence for f in found])
    stated = np.sqrt(np.mean([f.relative_error**2 for f in found]))
    # of 12 estimates the standard deviation itself is off by a fifth
    assert 0.5 < logs.std(ddof=1) / stated < 1.6


def test_sequential_monte_carlo_needs_no_draws():
    spec = specify(
        features_of(APART[1:7]), 2, emission="gaussian", transition="sticky", priors=None
    )
    sampler = Tempering(Target(spec, np.array(["f"])))
    a = {
        name: np.asarray(spec.priors[f"{name}_probs"].parameters["a"])
        for name in ("initial", "transition")
    }
    rows = spec.rows
    prior = (rows.location[0], 2.0 * rows.spread[0], 2.0, 0.2 * rows.spread[0])
    truth = exact_evidence.log_evidence(APART[1:7], **a, priors=[prior, prior])
    found = [sampler.log_evidence(np.random.default_rng(s), 200) for s in range(2)]
    assert abs(np.mean(found) - truth) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("n_states", [1, 2, 3])
def test_both_methods_agree(n_states):
    data = bp.simulate(n_states=2, n_runs=2, n_steps=60, n_features=2, random_seed=1)
    fit = bp.fit(data["features"], n_states, emission="gaussian", random_seed=1, progressbar=False)
    one, other = estimated(fit), estimated(fit, method="smc", particles=400)
    error = np.hypot(one.relative_error, other.relative_error)
    assert error < 0.3
    # four repeats leave the error of the second uncertain itself
    assert abs(one.log_evidence - other.log_evidence) < 4.0 * max(error, 0.1)


def normal_log_density(points, spread=1.0):
    z = points / spread
    return -0.5 * np.sum(z**2 + np.log(2.0 * np.pi) + 2.0 * np.log(spread), axis=-1)


def test_the_bridge_is_exact_where_the_proposal_is_the_density():
    estimate = bridge(np.full((2, 50), 3.7), np.full(80, 3.7))
    np.testing.assert_allclose(estimate.log_integral, 3.7)
    assert estimate.relative_error == 0.0


def test_errors_of_the_bridge_are_those_of_repeats():
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        # draws with an autocorrelation of 0.8 of a normal density whose integral is e^2
        noise = rng.normal(size=(2, 400, 3))
        draws = np.empty_like(noise)
        draws[:, 0] = noise[:, 0]
        for t in range(1, 400):
            draws[:, t] = 0.8 * draws[:, t - 1] + 0.6 * noise[:, t]
        proposal = Proposal(np.full(3, 0.4), 1.2 * np.eye(3))
        proposed = proposal.draw(rng, 800)
        found.append(
            bridge(
                2.0
                + normal_log_density(draws)
                - proposal.log_density(draws.reshape(-1, 3)).reshape(2, 400),
                2.0 + normal_log_density(proposed) - proposal.log_density(proposed),
            )
        )
    logs = np.array([f.log_integral for f in found])
    stated = np.mean([f.relative_error for f in found])
    assert abs(logs.mean() - 2.0) < 4.0 * stated / np.sqrt(60)
    assert 0.75 < logs.std() / stated < 1.3


def test_the_effective_size_of_an_autoregression():
    rng = np.random.default_rng(2)
    noise, rho = rng.normal(size=(4, 20_000)), 0.7
    values = np.empty_like(noise)
    values[:, 0] = noise[:, 0]
    for t in range(1, noise.shape[1]):
        values[:, t] = rho * values[:, t - 1] + np.sqrt(1.0 - rho**2) * noise[:, t]
    expected = values.size * (1.0 - rho) / (1.0 + rho)
    np.testing.assert_allclose(effective_size(values), expected, rtol=0.1)
    np.testing.assert_allclose(effective_size(noise), noise.size, rtol=0.05)
    # chains that disagree are worth a draw each
    assert effective_size(noise + 100.0 * np.arange(4)[:, None]) < 20


def test_the_proposal_has_the_moments_of_the_points():
    rng = np.random.default_rng(4)
    factor = np.array([[2.0, 0.0], [1.5, 0.5]])
    points = 3.0 + rng.normal(size=(20_000, 2)) @ factor.T
    proposal = fit_proposal(points, len(points))
    np.testing.assert_allclose(proposal.factor, factor, atol=0.05)
    drawn = proposal.draw(rng, 20_000)
    np.testing.assert_allclose(np.cov(drawn.T), factor @ factor.T, atol=0.15)
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    both = symmetrised(proposal, [np.eye(2), swap], points[:5])
    np.testing.assert_allclose(both, symmetrised(proposal, [np.eye(2), swap], points[:5, ::-1]))


def test_correlations_that_are_noise_are_shrunk():
    rng = np.random.default_rng(5)
    proposal = fit_proposal(rng.normal(size=(60, 40)), 60)
    correlation = proposal.factor @ proposal.factor.T
    assert np.abs(correlation - np.diag(np.diagonal(correlation))).max() < 0.1


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"method": "chib"}, ValueError, r"method must be one of \['bridge', 'smc'\], got 'chib'"),
        ({"random_seed": -1}, ValueError, "random_seed must be at least 0"),
        ({"particles": 2}, ValueError, "particles must be at least 20, got 2"),
        ({"cores": 0}, ValueError, "cores must be at least 1, got 0"),
    ],
)
def test_bad_options_are_named(two_of_two, options, error, match):
    with pytest.raises(error, match=match):
        estimated(two_of_two, **options)


def test_fits_that_are_none_or_too_short(two_of_two):
    with pytest.raises(TypeError, match=r"expected the DataTree that bayesphase\.fit returns"):
        estimated(None)
    short = two_of_two.copy()
    short["posterior"] = xr.DataTree(two_of_two["posterior"].to_dataset().isel(draw=slice(5)))
    with pytest.raises(ValueError, match="the fit has 5 draws in each chain, and at least 20"):
        estimated(short)
    border = two_of_two.copy()
    posterior = two_of_two["posterior"].to_dataset().copy(deep=True)
    posterior["initial_probs"].values[0, 0] = 1.0, 0.0
    border["posterior"] = xr.DataTree(posterior)
    with pytest.raises(ValueError, match="1 of 6000 draws lie on the border of parameter space"):
        estimated(border)
