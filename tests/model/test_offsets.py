"""Offsets of runs: the density against PyMC's, one phase in closed form, and what comes after.

With one state the model is a one-way layout with random effects of runs: given the two scales, the
features of a run are jointly normal, so that everything is known up to a quadrature over these.
"""

from functools import cache

import numpy as np
import pytest
import xarray as xr
from scipy.special import gammaln, logsumexp
from scipy.stats import multivariate_normal
from test_density import _assert_as_in_pymc, _features, _uneven

import bayesphase as bp
from bayesphase.model import held_out, offsets
from bayesphase.model.density import direct_density
from bayesphase.model.emissions import AutoRegressive, Gaussian, QuadraticDrift, StudentT
from bayesphase.model.forward_backward import forward_backward
from bayesphase.model.pointwise import likelihood_of_rows
from bayesphase.model.rows import rows_of
from bayesphase.model.spec import recorded, specify
from bayesphase.model.target import Target
from bayesphase.model.transitions import LeftToRight, Sticky

QUICK = {"progressbar": False, "n_restarts": 2}


def _specify(features, n_states, **options):
    options = {"emission": Gaussian(offsets=True), "transition": "sticky", "priors": None} | options
    return specify(features, n_states, **options)


def _levels(*, n_states=2, n_runs=6, n_steps=60, n_features=2, apart=1.0, seed=0):
    """Runs through states whose levels differ by 3, and their offsets (run, feature)."""
    mean = 3.0 * np.arange(n_states)[:, None] * np.ones(n_features)
    data = bp.simulate(
        n_states=n_states, n_runs=n_runs, n_steps=n_steps, mean=mean, scale=0.5,
        n_features=n_features, random_seed=seed,
    )  # fmt: skip
    offset = apart * np.random.default_rng(seed).normal(size=(n_runs, n_features))
    return data["features"] + offset[:, None], offset


class _InPymc:
    """A density of two states in PyMC's coordinates, which for parabolas are not its own.

    Coordinates of lines come after those of the chain: one less than there are probabilities.
    """

    def __init__(self, density, emission):
        self._density, self._emission, self._chain = density, emission, 2**2 - 1

    def _from_own(self, u):
        if self._emission.name != "quadratic_drift":
            return u
        x, found = u.copy(), self._density.parameters(u)
        lines = [np.log(found[name]) if name == "scale" else found[name] for name in found
                 if name in self._emission.dims]  # fmt: skip
        x[self._chain : self._chain + np.size(lines)] = np.ravel(lines)
        return x

    def __call__(self, x):
        u = x.copy()
        for _ in range(3):  # each coordinate of a line moves with the ones after it: exact by now
            u += x - self._from_own(u)
        value, slope = self._density(u)
        step = 1e-4
        turn = np.stack(
            [
                (self._from_own(u + step * unit) - self._from_own(u - step * unit)) / (2.0 * step)
                for unit in np.eye(len(u))
            ],
            axis=1,
        )
        return value, np.linalg.solve(turn.T, slope)


@pytest.mark.parametrize(
    ("emission", "transition", "even"),
    [
        (Gaussian(offsets=True), "sticky", True),
        (Gaussian(offsets=True), LeftToRight(), False),
        (StudentT(offsets=True), "sticky", False),
        (AutoRegressive(offsets=True), "sticky", False),
        (AutoRegressive(offsets=True, df=None), "sticky", True),
        (QuadraticDrift(offsets=True), "sticky", False),
        (QuadraticDrift(offsets=True), "sticky", True),
    ],
    ids=repr,
)
def test_value_and_gradient_are_those_of_the_pymc_model(emission, transition, even):
    """Of more runs than are worked on at a time, and of unequal length."""
    features = _features(n_runs=10, n_steps=25, ragged=True)
    if not even:
        features = _uneven(features.where(np.random.default_rng(0).random(features.shape) > 0.2))
    spec = _specify(features, 2, emission=emission, transition=transition)
    density = direct_density(spec)
    rng = np.random.default_rng(1)
    for size in (0.3, 1.0):
        x = size * rng.normal(size=density.n_dim)
        _assert_as_in_pymc(_InPymc(density, emission), spec, features, x)
    near = density.around(density.parameters(x))
    u = rng.normal(size=near.n_dim)
    np.testing.assert_allclose(near.unconstrained(near.parameters(u)), u, atol=1e-8)
    there = density(density.unconstrained(near.parameters(u)))[0]
    value, slope = near(u)
    np.testing.assert_allclose(value, there, rtol=1e-10)
    step, along = 1e-6, rng.normal(size=len(u)) / np.sqrt(len(u))
    change = (near(u + step * along)[0] - near(u - step * along)[0]) / (2.0 * step)
    assert change == pytest.approx(slope @ along, rel=1e-4, abs=1e-5 * np.abs(slope).max())


def test_what_all_offsets_share_is_left_to_the_prior():
    """In the coordinates that are sampled, parabolas move along: no curved valley is left."""
    features = _features(n_runs=4, n_steps=25)
    spec = _specify(features, 2, emission=QuadraticDrift(offsets=True))
    target = Target(spec, features["feature"].values)
    prior = target.prior()
    x = 0.3 * np.random.default_rng(2).normal(size=target.n_dim)
    parameters = direct_density(spec).parameters(x)
    points = [x]
    for common in (-1.0, 2.0):
        there = target.unconstrained({**parameters, "offset": parameters["offset"] + common})
        n_offsets = parameters["offset"].size
        points.append(np.concatenate([x[:-n_offsets], there[-n_offsets:]]))
        assert np.abs(points[-1] - x).max() > 0.5
    fit = target(np.array(points)) - prior(np.array(points))
    np.testing.assert_allclose(fit[1:], fit[0], rtol=1e-9)


def test_what_is_sampled_is_the_offset_by_another_name():
    precision, scale = np.array([[30.0, 0.1]]), np.array([0.5, 2.0])
    offset = np.array([[0.3, -4.0]])
    unit = offsets.to_unit(offset, scale, precision)
    np.testing.assert_allclose(offsets.of_unit(unit, scale, precision), offset, rtol=1e-14)


def test_changes_have_no_offsets():
    with pytest.raises(ValueError, match="same at any level"):
        bp.RandomWalk(offsets=True)
    with pytest.raises(ValueError, match="same at any level"):
        bp.AutoRegressive(offsets=True, differences=1)


def test_offsets_must_be_true_or_false():
    with pytest.raises(TypeError, match="offsets must be True or False, got 'yes'"):
        bp.Gaussian(offsets="yes")


def test_the_prior_of_the_scale_can_be_replaced_and_only_where_there_is_one():
    features, _ = _levels()
    priors = {"offset_scale": bp.Prior("HalfNormal", sigma=0.1)}
    spec = _specify(features, 2, priors=priors)
    assert direct_density(spec) is not None
    other = {"offset_scale": bp.Prior("Exponential", lam=1.0)}
    assert direct_density(_specify(features, 2, priors=other)) is None
    with pytest.raises(ValueError, match="offset_scale"):
        _specify(features, 2, priors=priors, emission="gaussian")


def test_draws_of_the_pymc_model_have_the_offsets_of_their_runs():
    import pymc as pm

    features, _ = _levels(n_steps=200, n_features=1)
    model = bp.build_model(features, 1, emission=Gaussian(offsets=True))
    with model:
        drawn, mean, scale, offset = pm.draw(
            [model[name] for name in ("features", "mean", "scale", "offset")],
            mode="FAST_COMPILE", random_seed=1,
        )  # fmt: skip
    by_run = drawn.reshape(6, 200, 1).mean(axis=1)
    z = (by_run - mean - offset) / (scale / np.sqrt(200))
    assert np.abs(z).max() < 4.0
    assert np.abs(offset).min() > scale / np.sqrt(200) / 10.0


# One state, one feature, five runs of six checkpoints: closed forms

_SCALES = 70


@pytest.fixture(scope="module")
def layout():
    rng = np.random.default_rng(3)
    y = 4.0 + rng.normal(0.0, 0.8, (5, 1)) + rng.normal(0.0, 0.6, (5, 6))
    coords = {"run": list("abcde"), "step": np.arange(6), "feature": ["x"]}
    return xr.DataArray(y[..., None], dims=("run", "step", "feature"), coords=coords)


@cache
def _grid(priors):
    """Points of the scales of noise and offsets, and logs of their prior probabilities."""
    (_, _), (alpha, beta), sigma = priors
    log_scale = np.linspace(np.log(0.2), np.log(2.5), _SCALES)
    log_width = np.linspace(np.log(1e-3), np.log(4.0 * sigma), _SCALES)
    log_prior = alpha * np.log(beta) - gammaln(alpha) - alpha * log_scale
    log_prior -= beta * np.exp(-log_scale)
    log_prior_width = 0.5 * np.log(2.0 / np.pi) - np.log(sigma) + log_width
    log_prior_width -= 0.5 * (np.exp(log_width) / sigma) ** 2
    area = np.log(log_scale[1] - log_scale[0]) + np.log(log_width[1] - log_width[0])
    return np.exp(log_scale), np.exp(log_width), log_prior[:, None] + log_prior_width + area


def _priors(spec):
    numbers = {name: prior.parameters for name, prior in spec.priors.items()}
    pairs = [("mean", "mu", "sigma"), ("scale", "alpha", "beta")]
    mean, scale = (
        tuple(float(np.ravel(numbers[name][key])[0]) for key in keys) for name, *keys in pairs
    )
    return mean, scale, float(np.ravel(numbers["offset_scale"]["sigma"])[0])


def _by_quadrature(features, spec):
    """Log density (noise, offsets) of the data with both scales, the mean integrated out."""
    priors = _priors(spec)
    (mu, sigma), _, _ = priors
    scales, widths, logs = _grid(priors)
    y = features.values[..., 0]
    same = np.kron(np.eye(len(y)), np.ones((y.shape[1], y.shape[1])))
    density = [
        [
            multivariate_normal.logpdf(
                y.ravel(), np.full(y.size, mu),
                scale**2 * np.eye(y.size) + width**2 * same + sigma**2,
            )
            for width in widths
        ]
        for scale in scales
    ]  # fmt: skip
    return logs + np.array(density)


@pytest.fixture(scope="module")
def one_phase(layout):
    return bp.fit(layout, 1, emission=Gaussian(offsets=True), random_seed=1, draws=2000, **QUICK)


def test_the_evidence_of_one_phase_is_that_of_a_one_way_layout(layout, one_phase):
    exact = logsumexp(_by_quadrature(layout, recorded(one_phase)))
    found = bp.log_evidence(one_phase, random_seed=1)
    assert float(found["mcse"]) < 0.03
    assert float(found["log_evidence"]) == pytest.approx(exact, abs=0.03)


def test_draws_of_one_phase_have_the_moments_of_a_one_way_layout(layout, one_phase):
    spec = recorded(one_phase)
    logs = _by_quadrature(layout, spec)
    scales, widths, _ = _grid(_priors(spec))
    weights = np.exp(logs - logsumexp(logs))
    (mu, sigma), _, _ = _priors(spec)
    y = layout.values[..., 0]
    means, variances = np.zeros((2, *weights.shape, len(y)))
    for i, scale in enumerate(scales):
        for j, width in enumerate(widths):
            # means of runs are the level of all, their offset, and noise
            noise = scale**2 / y.shape[1]
            of_means = (noise + width**2) * np.eye(len(y)) + sigma**2
            gain = np.linalg.solve(of_means, width**2 * np.eye(len(y))).T
            means[i, j] = gain @ (y.mean(axis=1) - mu)
            variances[i, j] = width**2 - np.diag(gain) * width**2
    mean = np.einsum("ij,ijr->r", weights, means)
    square = np.einsum("ij,ijr->r", weights, means**2 + variances)
    drawn = one_phase["posterior"]["offset"].values[..., 0]
    sd = np.sqrt(square - mean**2)
    np.testing.assert_allclose(drawn.mean(axis=(0, 1)), mean, atol=0.1 * sd.max())
    np.testing.assert_allclose(drawn.std(axis=(0, 1)), sd, rtol=0.1)
    width = one_phase["posterior"]["offset_scale"].values.mean()
    assert width == pytest.approx(np.sum(weights * widths), rel=0.06)


@pytest.mark.filterwarnings("ignore:2 of 5 runs .'a', 'b'. have a Pareto k-hat")
def test_a_run_that_is_left_out_has_any_offset(layout, one_phase):
    """By leave-one-out, by the mean over draws without it, and by a ratio of evidences."""
    spec = recorded(one_phase)
    exact = logsumexp(_by_quadrature(layout, spec))
    exact -= logsumexp(_by_quadrature(layout.drop_sel(run="d"), spec))
    result = bp.loo(one_phase)
    assert float(result.pareto_k.sel(run="d")) < 0.5
    assert float(result.elpd_i.sel(run="d")) == pytest.approx(exact, abs=0.06)
    without = bp.fit(
        layout.drop_sel(run="d"), 1, emission=Gaussian(offsets=True), priors=spec.priors,
        random_seed=2, draws=2000, **QUICK,
    )  # fmt: skip
    densities = bp.run_log_likelihood(without, layout.sel(run=["d"])).values
    assert logsumexp(densities) - np.log(densities.size) == pytest.approx(exact, abs=0.06)
    value, error = held_out.log_predictive(without, one_phase)
    assert value == pytest.approx(exact, abs=0.05)
    assert error < 0.05


def test_the_likelihood_of_a_new_run_is_an_integral_over_its_offset():
    features, _ = _levels(n_runs=3, n_steps=12)
    features[1, 3:5, 0] = np.nan
    spec = _specify(features, 2)
    rng = np.random.default_rng(0)
    parameters = {
        "initial_probs": np.array([0.6, 0.4]),
        "transition_probs": np.array([[0.7, 0.3], [0.4, 0.6]]),
        "mean": np.array([[0.0, 0.0], [1.5, 1.0]]),  # close enough that states are in doubt
        "scale": np.array([[0.8, 0.7], [0.6, 0.9]]),
        "offset_scale": np.array([0.6, 1.1]),
    }
    draws = {name: np.repeat(value[None], 40, axis=0) for name, value in parameters.items()}
    found = likelihood_of_rows(spec, spec.rows, draws | {"offset": rng.normal(size=(40, 3, 2))})
    grid = np.linspace(-5.0, 5.0, 101)
    potentials = Sticky().log_potentials(parameters, np)
    total = np.full(3, -np.inf)
    for one in grid:
        for other in grid:
            z = np.array([one, other]) / parameters["offset_scale"]
            prior = -0.5 * z @ z - np.sum(np.log(parameters["offset_scale"])) - np.log(2.0 * np.pi)
            at = {**parameters, "offset": np.tile([one, other], (3, 1))}
            rows = offsets.without(spec.rows, at)
            emission = spec.emission.log_density(rows.values, rows, at, np)
            log = forward_backward(emission, *potentials, rows.layout).log_likelihood
            total = np.logaddexp(total, log + prior + 2.0 * np.log(grid[1] - grid[0]))
    mean = logsumexp(found, axis=0) - np.log(40)
    np.testing.assert_allclose(mean, total, atol=0.03)
    assert found.std(axis=0).max() < 0.15


@pytest.fixture(scope="module")
def several():
    """Fits with and without offsets to runs at different levels."""
    features, offset = _levels(n_runs=8)
    fits = {
        (with_offsets, k): bp.fit(
            features, k, emission=Gaussian(offsets=with_offsets), random_seed=1, draws=500,
            progressbar=False,
        )
        for with_offsets in (False, True)
        for k in (1, 2, 3)
    }  # fmt: skip
    return features, offset, fits


@pytest.mark.filterwarnings("ignore:Do not trust this evidence")
def test_runs_at_other_levels_need_no_more_phases(several):
    _, _, fits = several
    evidence = {key: float(bp.log_evidence(fit, random_seed=1)["log_evidence"])
                for key, fit in fits.items()}  # fmt: skip
    assert max((1, 2, 3), key=lambda k: evidence[True, k]) == 2
    assert max((1, 2, 3), key=lambda k: evidence[False, k]) == 3
    assert evidence[True, 2] > evidence[False, 3] + 50.0


def test_offsets_are_found_and_the_sampler_mixes(several):
    features, offset, fits = several
    fit = fits[True, 2]
    assert bp.diagnose(fit).attrs["believable"]
    drawn = fit["posterior"]["offset"]
    assert drawn.dims == ("chain", "draw", "run", "feature")
    np.testing.assert_array_equal(drawn["run"], features["run"])
    # what all runs have in common could as well be in the means
    contrasts = (drawn - drawn.mean("run")).values.reshape(-1, *offset.shape)
    z = (contrasts.mean(axis=0) - offset + offset.mean(axis=0)) / contrasts.std(axis=0)
    assert np.abs(z).max() < 4.0
    assert 0.5 < np.sqrt(np.mean(z**2)) < 1.5
    residuals = fit["residuals"]["standardized"].mean("step")
    assert np.abs(residuals).max() < 4.0 / np.sqrt(60)


def test_a_checkpoint_is_left_out_given_the_offset_of_its_run(several):
    _, _, fits = several
    fit = fits[True, 2].isel(draw=slice(3))
    found = bp.checkpoint_log_likelihood(fit, cores=1)
    spec = recorded(fit)
    point = fit["posterior"].to_dataset().isel(chain=1, draw=2)
    parameters = {str(name): value.values for name, value in point.items()}
    rows = offsets.without(spec.rows, parameters)
    emission = spec.emission.log_density(rows.values, rows, parameters, np)
    potentials = Sticky().log_potentials(parameters, np)
    whole = forward_backward(emission, *potentials, rows.layout).log_likelihood
    for run, step in ((0, 0), (3, 30), (7, 59)):
        rest = emission.copy()
        rest[(rows.run == run) & (rows.step == step)] = 0.0
        rest = forward_backward(rest, *potentials, rows.layout).log_likelihood
        value = found.isel(chain=1, draw=2, run=run, step=step)
        np.testing.assert_allclose(value, (whole - rest)[run], atol=1e-9)


def test_a_saved_fit_knows_its_offsets(several, tmp_path):
    fit = several[2][True, 2]
    bp.save_fit(fit, tmp_path / "fit.nc")
    again = bp.open_fit(tmp_path / "fit.nc")
    assert recorded(again).emission == Gaussian(offsets=True)
    run_log_likelihood = bp.run_log_likelihood(again.isel(draw=slice(20)), several[0])
    known = again["log_likelihood"]["run_log_likelihood"].isel(draw=slice(20))
    # two Monte Carlo estimates, of which only one knows an offset that is near the best
    apart = np.abs(run_log_likelihood - known)
    assert apart.mean() < 0.2
    assert apart.max() < 1.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Do not trust this evidence")
def test_without_room_for_offsets_it_is_the_pooled_model():
    """In density, by the evidence, and with a prior that fits let fall to the pooled model."""
    features, _ = _levels(n_runs=4, n_steps=30, n_features=1, apart=0.0)
    spec = _specify(features, 2)
    # the default priors do not depend on whether there are offsets
    settings = {"random_seed": 1, "draws": 1000, **QUICK}
    none = {"offset_scale": bp.Prior("HalfNormal", sigma=1e-5)}
    tight = bp.fit(features, 2, emission=Gaussian(offsets=True), priors=none, **settings)
    pooled = bp.fit(features, 2, emission="gaussian", **settings)
    above, below = (bp.log_evidence(fit, random_seed=1) for fit in (tight, pooled))
    error = float(np.hypot(above["mcse"], below["mcse"]))
    difference = float(above["log_evidence"] - below["log_evidence"])
    assert error < 0.1
    assert abs(difference) < 4.0 * error + 0.02
    assert set(spec.priors) - set(recorded(pooled).priors) == {"offset_scale"}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_future_of_a_run_that_begins_late():
    """It has no offset in fits to what was known before, which are made again."""
    features, _ = _levels(n_runs=3, n_steps=24, n_features=1)
    features[2, :13] = np.nan
    settings = {"draws": 100, "chains": 2, **QUICK}
    fit = bp.fit(features, 2, emission=Gaussian(offsets=True), random_seed=1, **settings)
    result = bp.lfo(fit, n_origins=4, min_steps=12, random_seed=1, n_restarts=1)
    assert np.isfinite(result.elpd_i).all()
    late = result.elpd_i.where(result.elpd_i["run"] == features["run"].values[2], drop=True)
    assert late.size == 3
    assert result.elpd_i.attrs["n_refits"] >= 2


@pytest.mark.parametrize("emission", [AutoRegressive(offsets=True), QuadraticDrift(offsets=True)])
def test_families_of_changes_find_the_levels_of_runs(emission):
    """Runs that all return to a level, each to its own."""
    rng = np.random.default_rng(0)
    n_runs, n_steps = 6, 150
    level = np.linspace(-2.0, 2.0, n_runs)
    y = np.empty((n_runs, n_steps))
    y[:, 0] = level + 4.0
    for t in range(1, n_steps):
        y[:, t] = level + 0.8 * (y[:, t - 1] - level) + 0.2 * rng.normal(size=n_runs)
    coords = {"run": list("abcdef"), "step": np.arange(n_steps), "feature": ["x"]}
    features = xr.DataArray(y[..., None], dims=("run", "step", "feature"), coords=coords)
    fit = bp.fit(features, 1, emission=emission, random_seed=1, draws=300, **QUICK)
    drawn = fit["posterior"]["offset"].values[..., 0].reshape(-1, n_runs)
    contrasts = drawn - drawn.mean(axis=1, keepdims=True)
    z = (contrasts.mean(axis=0) - level) / contrasts.std(axis=0)
    assert np.abs(z).max() < 4.0
    assert contrasts.std(axis=0).max() < 0.3


def test_intervals_of_offsets_cover():
    """Of data sets whose offsets are drawn from their prior: 90% intervals hold about 90%."""
    inside = []
    for seed in range(6):
        features, offset = _levels(n_runs=6, n_steps=40, apart=0.7, seed=seed + 10)
        fit = bp.fit(
            features, 2, emission=Gaussian(offsets=True), random_seed=1, draws=200, chains=2,
            **QUICK,
        )  # fmt: skip
        drawn = fit["posterior"]["offset"]
        contrast = drawn.isel(run=slice(1, None)) - drawn.isel(run=0, drop=True)
        lower, upper = contrast.quantile([0.05, 0.95], ("chain", "draw")).values
        truth = offset[1:] - offset[0]
        inside.append((lower < truth) & (truth < upper))
    # 60 contrasts; those of a data set and feature have one run in common
    assert 0.75 < np.mean(inside) < 0.99


def test_rows_of_one_run_lose_their_offset():
    rows = rows_of(_levels(n_runs=2, n_steps=3, n_features=1)[0])
    moved = offsets.without(rows, {"offset": np.array([[1.0], [-2.0]])})
    np.testing.assert_allclose(rows.values - moved.values, [[1.0]] * 3 + [[-2.0]] * 3)
    assert offsets.without(rows, {}) is rows
