"""Features that vary together: densities, the M-step, fits and what is asked of them."""

from itertools import product

import exact_evidence
import numpy as np
import pytest
import xarray as xr
from scipy.special import gammaln
from scipy.stats import chi2, multivariate_normal
from test_density import _assert_as_in_pymc, _features, _uneven

import bayesphase as bp
from bayesphase.model.density import direct_density
from bayesphase.model.emissions import FullGaussian
from bayesphase.model.initial import _Climb
from bayesphase.model.leave_one_out import leave_one_out
from bayesphase.model.patterns import Normals, moments, patterns, slopes, whiten
from bayesphase.model.rows import rows_of
from bayesphase.model.spec import recorded, specify
from bayesphase.model.transitions import ContinuousTime, LeftToRight, Sticky, StickyHDP
from bayesphase.model.vine import factor


def _every_pattern(*, n_features=3, n_rows=40, n_copies=5):
    """Rows (row, feature) in which every choice of features is missing, but for all of them."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n_rows, n_features)) * 10.0 ** np.arange(n_features)
    kinds = np.array(list(product([True, False], repeat=n_features))[:-1])
    seen = np.vstack([kinds.repeat(n_copies, axis=0), np.ones((n_rows, n_features), bool)])[:n_rows]
    return np.where(rng.permutation(seen), values, np.nan)


def _as_features(values):
    return xr.DataArray(
        values[None],
        dims=("run", "step", "feature"),
        coords={
            "run": ["a"],
            "step": 10 * np.arange(len(values)),
            "feature": [f"x{d}" for d in range(values.shape[1])],
        },
    )


def _parameters(rng, spec):
    density = direct_density(spec)
    return density.parameters(rng.normal(size=density.n_dim))


def _specify(features, n_states, **options):
    settings = {"emission": FullGaussian(), "transition": "sticky", "priors": None, **options}
    return specify(features, n_states, **settings)


@pytest.mark.parametrize("n_features", [1, 2, 3])
def test_log_density_is_scipys_whatever_is_missing(n_features):
    spec = _specify(_as_features(_every_pattern(n_features=n_features)), 2)
    rows = spec.rows
    named = _parameters(np.random.default_rng(1), spec)
    correlation = spec.emission.derive(named, n_features, np)["correlation"]
    covariance = correlation * named["scale"][:, :, None] * named["scale"][:, None, :]
    expected = np.array(
        [
            [
                multivariate_normal(mean[seen], matrix[np.ix_(seen, seen)]).logpdf(row[seen])
                for mean, matrix in zip(named["mean"], covariance, strict=True)
            ]
            for row, seen in zip(rows.values, rows.observed, strict=True)
        ]
    )
    in_graph = spec.emission.log_density(rows.values, rows, named, np)
    np.testing.assert_allclose(in_graph, expected, rtol=1e-9)
    observed = spec.emission.observe(rows)
    compiled = spec.emission.lines(named, observed) - observed.unit[:, None]
    np.testing.assert_allclose(compiled, expected, rtol=1e-9)


def test_values_that_are_missing_do_not_matter():
    rows = rows_of(_as_features(_every_pattern()))
    spec = _specify(_as_features(_every_pattern()), 2)
    named = _parameters(np.random.default_rng(1), spec)
    other = np.where(rows.observed, rows.values, 1e6)
    np.testing.assert_array_equal(
        spec.emission.log_density(other, rows, named, np),
        spec.emission.log_density(rows.values, rows, named, np),
    )


def test_rows_are_summed_up_as_they_are():
    """More rows of a pattern than are summed up at a time, and fewer than a vector holds."""
    rng = np.random.default_rng(2)
    rows = rows_of(_as_features(_every_pattern(n_rows=411)))
    parts = patterns(np.where(rows.observed, rows.values, 0.0), rows)
    root = np.linalg.cholesky(np.array([[1, 0.5, 0.2], [0.5, 1, -0.3], [0.2, -0.3, 1]]))
    normals = Normals(rng.normal(size=(2, 3)), rng.uniform(1, 2, (2, 3)), np.stack([root, root.T]))
    normals = normals._replace(root=np.stack([root, np.eye(3)]))
    weights = rng.dirichlet([1.0, 1.0], len(rows.values))
    weights[100:300] = [1.0, 0.0]
    white = whiten(parts, normals)
    counts, sums, products = moments(parts, white, weights)
    for p in range(len(parts.begins)):
        columns = slice(parts.begins[p], parts.ends[p])
        weight = weights[parts.place[columns]]
        np.testing.assert_allclose(counts[p], weight.sum(axis=0))
        for k in range(2):
            e = white.noise[3 * k : 3 * k + parts.n_seen[p], columns]
            n = len(e)
            np.testing.assert_allclose(sums[p, k, :n], e @ weight[:, k], atol=1e-9)
            np.testing.assert_allclose(products[p, k, :n, :n], (e * weight[:, k]) @ e.T, atol=1e-9)
    # the gradient of the mean is known in closed form where nothing is missing
    whole = rows.observed.all(axis=1)
    to_mean, _, _ = slopes(parts, normals, white, weights * whole[:, None])
    precision = np.linalg.inv(normals.root @ np.swapaxes(normals.root, 1, 2))
    away = (rows.values[whole, None] - normals.mean) / normals.scale
    expected = np.einsum("kij,rkj,rk->ki", precision, away, weights[whole]) / normals.scale
    np.testing.assert_allclose(to_mean, expected, rtol=1e-9)


CHAINS = [
    StickyHDP(),
    Sticky(),
    Sticky(allowed=((True, True, False), (True, True, True), (False, True, True))),
    LeftToRight(skip=True),
    ContinuousTime(),
]


@pytest.mark.parametrize(
    ("options", "n_states", "transition", "known"),
    [
        ({}, 3, "sticky", False),
        ({"n_features": 4}, 1, "sticky", False),
        ({"n_features": 1}, 2, "sticky", False),
        ({"n_features": 3, "missing": 0.3, "ragged": True}, 2, "sticky", False),
        *(({"n_features": 3, "missing": 0.2}, 3, chain, True) for chain in CHAINS),
    ],
)
def test_value_and_gradient_are_those_of_the_pymc_model(options, n_states, transition, known):
    features = _uneven(_features(n_steps=20, **options))
    known_states = None
    if known:
        known_states = xr.full_like(features.isel(feature=0, drop=True), -1.0)
        known_states[0, 0], known_states[0, 12], known_states[2, 7] = 0, 2, 1
    spec = _specify(features, n_states, transition=transition, known_states=known_states)
    density = direct_density(spec)
    rng = np.random.default_rng(1)
    x = 0.5 * rng.normal(size=density.n_dim)
    _assert_as_in_pymc(density, spec, features, x)
    near = density.around(density.parameters(x))
    u = 0.3 * rng.normal(size=near.n_dim)
    parameters = near.parameters(u)
    np.testing.assert_allclose(near.unconstrained(parameters), u, atol=1e-7)
    point = density.unconstrained(parameters)
    np.testing.assert_allclose(near(u)[0], density(point)[0], rtol=1e-10)
    # the gradient along any direction follows from PyMC's
    direction = rng.normal(size=near.n_dim)
    step = 1e-6 * direction
    moved = density.unconstrained(near.parameters(u + step)) - density.unconstrained(
        near.parameters(u - step)
    )
    np.testing.assert_allclose(near(u)[1] @ direction, density(point)[1] @ moved / 2e-6, rtol=1e-5)


def test_priors_given_by_the_user():
    features = _features()
    priors = {
        "mean": bp.Prior("Normal", mu=0.3, sigma=2.0),
        "scale": bp.Prior("InverseGamma", alpha=np.array([3.0, 4.0]), beta=0.7),
        "correlation_shares": bp.Prior("Beta", alpha=2.0, beta=5.0),
    }
    spec = _specify(features, 2, priors=priors)
    density = direct_density(spec)
    x = np.random.default_rng(1).normal(size=density.n_dim)
    _assert_as_in_pymc(density, spec, features, x)
    other = {"correlation_shares": bp.Prior("Uniform", lower=0.2, upper=0.8)}
    assert direct_density(_specify(features, 2, priors=other)) is None


@pytest.mark.parametrize("eta", [0.0, -1.0, np.nan, np.inf])
def test_eta_must_be_positive(eta):
    with pytest.raises(ValueError, match=f"eta must be a positive number, got {eta}"):
        FullGaussian(eta=eta)


def _correlated(*, n_runs=2, n_steps=80, missing=0.1, seed=3):
    """Features (run, step, feature) of two states that differ in correlation, and their path."""
    rng = np.random.default_rng(seed)
    data = bp.simulate(n_states=2, n_runs=n_runs, n_steps=n_steps, n_features=3, random_seed=1)
    path = data["path"].values
    root = np.linalg.cholesky(CORRELATION)
    noise = np.einsum("rtij,rtj->rti", root[path], rng.normal(size=(*path.shape, 3)))
    features = data["features"].copy(data=np.array([-0.3, 0.3])[path][..., None] + 0.5 * noise)
    return features.where(rng.random(features.shape) >= missing), path


CORRELATION = np.array(
    [[[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]], [[1, -0.7, 0.3], [-0.7, 1, 0], [0.3, 0, 1]]], float
)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_em_never_goes_down(missing):
    features, _ = _correlated(missing=missing)
    spec = _specify(features, 2)
    emission, chain = spec.emission, spec.transition
    states = np.random.default_rng(1).integers(2, size=len(spec.rows.values))
    climb = _Climb(emission.observe(spec.rows), states, 2, emission, chain)
    heights = [climb.run(1, tolerance=-np.inf).log_density for _ in range(40)]
    assert np.diff(heights).min() > -1e-8
    assert heights[-1] - heights[0] > 10.0


def test_maximum_is_that_of_the_moments_where_nothing_is_missing():
    rows = rows_of(_as_features(np.random.default_rng(0).normal(size=(5000, 3)) @ np.ones((3, 3))))
    noisy = rows.values + np.random.default_rng(1).normal(size=rows.values.shape)
    rows = rows_of(_as_features(noisy))
    emission = FullGaussian()
    observed = emission.observe(rows)
    found, _ = emission.maximise(observed, observed.sum_up(np.ones((len(noisy), 1))))
    correlation = emission.derive(found, 3, np)["correlation"][0]
    np.testing.assert_allclose(correlation, np.corrcoef(noisy.T), atol=1e-4)
    np.testing.assert_allclose(found["mean"][0], noisy.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(found["scale"][0], noisy.std(axis=0), rtol=1e-3)


def test_draws_have_the_covariance_and_residuals_the_scale():
    rng = np.random.default_rng(4)
    rows = rows_of(_as_features(rng.normal(size=(20_000, 2))))
    named = {
        "mean": np.array([[1.0, -2.0], [0.0, 5.0]]),
        "scale": np.array([[0.5, 2.0], [3.0, 1.0]]),
        "correlation_shares": np.array([[0.9], [0.2]]),
    }
    states = rng.integers(2, size=20_000)
    drawn = FullGaussian().sample(rng, states, named, rows)
    for k in range(2):
        here = drawn[states == k]
        # Wilks: twice the log likelihood that is lost at the true parameters, five of them
        root = factor(named["correlation_shares"][k], 2, np) * named["scale"][k][:, None]
        truth = multivariate_normal(named["mean"][k], root @ root.T)
        fitted = multivariate_normal(here.mean(axis=0), np.cov(here.T, bias=True))
        lost = 2.0 * (fitted.logpdf(here).sum() - truth.logpdf(here).sum())
        assert chi2(5).sf(lost) > 1e-3
    residuals = FullGaussian().residuals(rows._replace(values=drawn), states, named)
    np.testing.assert_allclose(residuals.std(axis=0), 1.0, atol=0.02)


@pytest.fixture(scope="module")
def fitted():
    features, path = _correlated()
    fit = bp.fit(features, 2, emission="full_gaussian", draws=400, random_seed=1, progressbar=False)
    return fit, features, path


@pytest.mark.filterwarnings("ignore:Do not trust this evidence")
def test_one_feature_has_no_correlations_and_is_the_diagonal_model():
    x = bp.simulate(n_states=2, n_runs=2, n_steps=40, n_features=1, random_seed=1)["features"]
    options = {"draws": 200, "random_seed": 1, "progressbar": False}
    full, diagonal = (
        bp.fit(x, 2, emission=emission, **options) for emission in ("full_gaussian", "gaussian")
    )
    assert bp.diagnose(full).attrs["verdict"]
    ours, theirs = (
        float(bp.log_evidence(f, random_seed=1)["log_evidence"]) for f in (full, diagonal)
    )
    assert ours == pytest.approx(theirs, abs=0.1)
    path = bp.decode(full, x, random_seed=1)["paths"]["most_likely"]
    xr.testing.assert_equal(path, bp.decode(diagonal, x, random_seed=1)["paths"]["most_likely"])
    ahead = bp.forecast(full, x.assign_coords(run=["a", "b"]), draws=50, random_seed=1)
    assert np.isfinite(ahead["features"]).all()


def test_a_fit_recovers_correlations_and_path(fitted):
    fit, _, path = fitted
    posterior = fit["posterior"]["correlation"]
    assert posterior.dims == ("chain", "draw", "state", "feature", "feature_other")
    low, high = np.quantile(posterior.values, [0.005, 0.995], axis=(0, 1))
    assert ((low - 1e-9 <= CORRELATION) & (high + 1e-9 >= CORRELATION)).all()
    assert high[0, 2, 0] - low[0, 2, 0] < 1.0
    assert (fit["paths"]["most_likely"].values == path).mean() > 0.95
    diagnosis = bp.diagnose(fit)
    assert diagnosis.attrs["believable"], diagnosis.attrs["verdict"]


def test_a_fit_holds_what_its_draws_say(fitted):
    """Its derived variable, its likelihoods, its residuals, and what defined the model."""
    fit, features, _ = fitted
    spec = recorded(fit)
    assert spec.emission == FullGaussian()
    assert fit["posterior"]["pair"].values.tolist()[0] == "feature-1, feature-0"
    one = fit["posterior"].to_dataset().isel(chain=1, draw=7)
    named = {name: one[name].values for name in spec.dims}
    correlation = spec.emission.derive(named, 3, np)["correlation"]
    np.testing.assert_allclose(one["correlation"].values, correlation)
    rows = spec.rows
    log_emission = spec.emission.log_density(rows.values, rows, named, np)
    potentials = spec.transition.log_potentials(named, np)
    expected = leave_one_out(log_emission, *potentials, rows.layout)
    found = bp.checkpoint_log_likelihood(fit).isel(chain=1, draw=7).values[rows.run, rows.step]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(
        bp.run_log_likelihood(fit, features), fit["log_likelihood"]["run_log_likelihood"]
    )
    residuals = fit["residuals"]["standardized"]
    assert (np.isnan(residuals) == np.isnan(features)).all()


def _log_evidence(values, *, eta, priors):
    """Evidence of one state and two features (row, feature), by quadrature.

    The means are integrated in closed form, scales and correlation by the trapezoidal rule. priors:
    mu, sigma, alpha and beta of each feature.
    """
    mu, sigma, alpha, beta = (np.array([prior[i] for prior in priors]) for i in range(4))
    seen = ~np.isnan(values)
    spreads = values[seen.all(axis=1)].std(axis=0)
    grids = [np.linspace(np.log(0.2 * s), np.log(8.0 * s), 45) for s in spreads]
    z = np.linspace(-4.0, 4.0, 81) / np.sqrt(max(1.0, eta))
    log_1, log_2, z = np.meshgrid(*grids, z, indexing="ij")
    scales, r = (np.exp(log_1), np.exp(log_2)), np.tanh(z)
    log = eta * np.log1p(-(r**2))  # of Fisher's z, its Jacobian included
    log -= np.log(np.trapezoid(np.exp(eta * np.log1p(-(np.tanh(z[0, 0]) ** 2))), z[0, 0]))
    for d, log_scale in enumerate((log_1, log_2)):
        log += _inverse_gamma(log_scale, alpha[d], beta[d])
    # precision of the means, and that times their expectation
    p = [[1.0 / sigma[0] ** 2 + 0.0 * r, 0.0 * r], [0.0 * r, 1.0 / sigma[1] ** 2 + 0.0 * r]]
    h = [mu[d] / sigma[d] ** 2 + 0.0 * r for d in range(2)]
    log = log - 0.5 * np.sum(mu**2 / sigma**2) - np.log(sigma).sum()
    for row, here in zip(np.nan_to_num(values), seen, strict=True):
        a, b = (here[d] / scales[d] for d in range(2))
        left = 1.0 - r**2 if here.all() else 1.0
        cross = -r * a * b / left
        p[0][0] = p[0][0] + a**2 / left
        p[1][1] = p[1][1] + b**2 / left
        p[0][1] = p[0][1] + cross
        h[0] = h[0] + a**2 / left * row[0] + cross * row[1]
        h[1] = h[1] + b**2 / left * row[1] + cross * row[0]
        squares = (a * row[0]) ** 2 / left + (b * row[1]) ** 2 / left + 2 * cross * row[0] * row[1]
        log = log - 0.5 * squares - 0.5 * np.log(left) - 0.5 * here.sum() * np.log(2.0 * np.pi)
        log = log - here[0] * log_1 - here[1] * log_2
    determinant = p[0][0] * p[1][1] - p[0][1] ** 2
    fit = (p[1][1] * h[0] ** 2 + p[0][0] * h[1] ** 2 - 2.0 * p[0][1] * h[0] * h[1]) / determinant
    log = log + 0.5 * fit - 0.5 * np.log(determinant)
    top = log.max()
    total = np.exp(log - top)
    for axis_values in (z[0, 0], grids[1], grids[0]):
        total = np.trapezoid(total, axis_values, axis=-1)
    return float(np.log(total) + top)


def _inverse_gamma(log_scale, alpha, beta):
    return alpha * np.log(beta) - gammaln(alpha) - alpha * log_scale - beta * np.exp(-log_scale)


@pytest.mark.parametrize(("eta", "missing"), [(1.5, True), (1e4, False)])
def test_evidence_is_that_of_quadrature(eta, missing):
    """And with a large eta that of independent features."""
    rng = np.random.default_rng(6)
    values = rng.normal(size=(14, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]]) * [1.0, 3.0]
    if missing:
        values[[1, 5, 9], [0, 1, 0]] = np.nan
    features = _as_features(values)
    emission = FullGaussian(eta=eta)
    spec = _specify(features, 1, emission=emission)
    priors = [
        (
            spec.priors["mean"].parameters["mu"][d],
            spec.priors["mean"].parameters["sigma"][d],
            2.0,
            spec.priors["scale"].parameters["beta"][d],
        )
        for d in range(2)
    ]
    expected = _log_evidence(values, eta=eta, priors=priors)
    fit = bp.fit(features, 1, emission=emission, draws=500, random_seed=1, progressbar=False)
    found = bp.log_evidence(fit, random_seed=1)
    assert found["log_evidence"].item() == pytest.approx(expected, abs=0.05)
    if eta > 1e3:
        alone = [
            exact_evidence.log_evidence(
                values[:, d], initial=np.ones(1), transition=np.ones((1, 1)), priors=[p]
            )
            for d, p in enumerate(priors)
        ]
        assert expected == pytest.approx(sum(alone), abs=0.01)
