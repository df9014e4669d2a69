"""Scores of gamma variables: the density is the gamma's, whatever the shape."""

import numpy as np
import pytest
from pytensor.compile.mode import Mode
from scipy.integrate import quad
from scipy.special import psi
from scipy.stats import gamma, kstest

from bayesphase.model import sparse

SHAPES = [1e-8, 1e-3, 0.1, 0.7, 1.0, 3.0, 40.0]


@pytest.mark.parametrize("shape", SHAPES)
def test_density_integrates_to_one(shape):
    def density(score):
        return np.exp(sparse.entry(score, np.log(shape), 0.0)[0])

    whole = quad(density, -60, 60, limit=500, points=[0.0, np.log1p(1 / shape)])[0]
    assert whole == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("shape", SHAPES[2:])
def test_density_is_the_gammas_with_its_jacobian(shape):
    score = np.linspace(-5.0, 4.0, 50)
    log_value = sparse.log_gamma(score, np.log(shape))
    slope = np.gradient(score, log_value)  # for the order of magnitude; exact by differences below
    step = 1e-6
    ends = (sparse.log_gamma(score + s, np.log(shape)) for s in (step, -step))
    slope = (next(ends) - next(ends)) / (2 * step)
    expected = gamma.logpdf(np.exp(log_value), shape) + log_value + np.log(slope)
    found = [sparse.entry(x, np.log(shape), 0.0)[0] for x in score]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_about_as_wide_for_every_sparse_shape_and_draws_are_gamma(shape):
    rng = np.random.default_rng(1)
    log_shape = np.full(4000, np.log(shape))
    score = sparse.draw(rng, log_shape)
    assert np.isfinite(score).all()
    assert score.std() < 2.0
    log_value = sparse.log_gamma(score, log_shape)
    np.testing.assert_allclose(sparse.score_of(log_value, log_shape), score, atol=1e-9)
    if shape >= 0.1:  # smaller ones underflow
        assert kstest(np.exp(log_value), gamma(shape).cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pull", [0.0, 2.5])
def test_derivatives(shape, pull):
    def posterior(score, log_shape):
        return sparse.entry(score, log_shape, 0.0)[0] + pull * sparse.log_gamma(score, log_shape)

    step = 1e-6
    for score in (-3.0, 0.5, 4.0):
        at = score, np.log(shape)
        numeric = [
            (posterior(at[0] + a, at[1] + b) - posterior(at[0] - a, at[1] - b)) / (2 * step)
            for a, b in ((step, 0.0), (0.0, step))
        ]
        np.testing.assert_allclose(sparse.entry(*at, pull)[1:], numeric, rtol=1e-4, atol=1e-5)


def test_the_graph_has_the_same_density():
    score, log_shape = np.array([-30.0, -3.0, 0.1, 4.0]), np.log([1e-6, 0.02, 1.5, 30.0])
    graph = sparse.log_density_graph(score, log_shape).eval(mode=Mode("py", None))
    found = [sparse.entry(x, a, 0.0)[0] for x, a in zip(score, log_shape, strict=True)]
    np.testing.assert_allclose(graph, found, rtol=1e-12)


def test_digamma():
    x = np.array([1.0, 1.3, 4.0, 9.9, 35.0, 1e4])
    np.testing.assert_allclose([sparse._psi(v) for v in x], psi(x), rtol=1e-12)


@pytest.mark.parametrize("shape", [1e-4, 0.3, 20.0])
@pytest.mark.parametrize("count", [0.0, 0.4, 50.0])
def test_the_most_probable_score(shape, count):
    log_shape, widening = np.log(shape), 3.0
    best = sparse.most_probable(log_shape, count, widening)

    def height(score):
        log_value = sparse.log_gamma(score, log_shape)
        more = count * log_value - (widening - 1.0) * np.exp(log_value)
        return sparse.entry(score, log_shape, 0.0)[0] + more

    around = np.linspace(-20, 20, 4001)
    assert height(best) >= max(height(x) for x in around) - 1e-9
