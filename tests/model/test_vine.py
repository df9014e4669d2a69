"""Correlation matrices from independent partial correlations."""

import numpy as np
import pytest
from scipy.differentiate import jacobian
from scipy.optimize import approx_fprime
from scipy.special import expit
from scipy.stats import beta, ks_2samp, kstest

from bayesphase.model.vine import beta_shape, factor, pairs, pull_back, shares_of


def _matrix(shares, n_features):
    root = factor(shares, n_features, np)
    return root @ np.swapaxes(root, -1, -2)


def _drawn(rng, size, n_features, eta):
    shape = beta_shape(n_features, eta)
    return _matrix(rng.beta(shape, shape, (size, len(shape))), n_features)


@pytest.mark.parametrize("n_features", [1, 2, 5])
def test_shares_make_a_correlation_matrix_and_are_found_again(n_features):
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.001, 0.999, (3, 2, n_features * (n_features - 1) // 2))
    root = factor(shares, n_features, np)
    np.testing.assert_allclose(root, np.linalg.cholesky(_matrix(shares, n_features)), atol=1e-12)
    np.testing.assert_allclose((root**2).sum(axis=-1), 1.0)
    np.testing.assert_allclose(shares_of(root), shares, rtol=1e-9)


def test_shares_are_of_partial_correlations():
    """Of features 1 and 2 given feature 0: what is left of their covariance without it."""
    matrix = _matrix(np.array([0.9, 0.3, 0.6]), 3)
    assert [pair.tolist() for pair in pairs(3)] == [[1, 2, 2], [0, 0, 1]]
    given = matrix[1:, 1:] - np.outer(matrix[1:, 0], matrix[0, 1:])
    partial = given[0, 1] / np.sqrt(given[0, 0] * given[1, 1])
    np.testing.assert_allclose([matrix[0, 1], matrix[0, 2], partial], [0.8, -0.4, 0.2])


@pytest.mark.parametrize("eta", [0.7, 1.0, 3.0])
def test_the_density_of_the_matrix_is_a_power_of_its_determinant(eta):
    """With the Jacobian of all entries below the diagonal."""
    j, k = pairs(4)
    shape = beta_shape(4, eta)

    def entries(shares):  # (pair, ...) as scipy.differentiate wants it
        return np.moveaxis(_matrix(np.moveaxis(shares, 0, -1), 4)[..., j, k], -1, 0)

    constants = []
    for shares in np.random.default_rng(1).uniform(0.2, 0.8, (4, 6)):
        log_jacobian = np.linalg.slogdet(jacobian(entries, shares, initial_step=0.05).df)[1]
        log_density = beta.logpdf(shares, shape, shape).sum() - log_jacobian
        determinant = np.linalg.slogdet(_matrix(shares, 4))[1]
        constants.append(log_density - (eta - 1.0) * determinant)
    np.testing.assert_allclose(constants, constants[0], rtol=1e-6)


def test_every_correlation_has_the_marginal_distribution_of_lkj():
    """Whichever place on the vine its features have."""
    eta, n = 1.5, 4
    drawn = _drawn(np.random.default_rng(2), 4000, n, eta)
    marginal = beta(eta - 1.0 + n / 2, eta - 1.0 + n / 2, loc=-1.0, scale=2.0)
    for j, k in zip(*pairs(n), strict=True):
        assert kstest(drawn[:, j, k], marginal.cdf).pvalue > 1e-3


def test_matrices_are_distributed_as_pymc_draws_them():
    import pymc as pm

    theirs = np.asarray(pm.draw(pm.LKJCorr.dist(n=3, eta=2.0), draws=3000, random_seed=3))
    if theirs.ndim == 2:  # PyMC 5 returns what is above the diagonal
        whole = np.tile(np.eye(3), (len(theirs), 1, 1))
        above = np.triu_indices(3, 1)
        whole[:, above[0], above[1]] = whole[:, above[1], above[0]] = theirs
        theirs = whole
    elif not theirs[:, 0, 1].any():  # PyMC 6 draws their Cholesky factors
        theirs = theirs @ np.swapaxes(theirs, 1, 2)
    ours = _drawn(np.random.default_rng(4), 3000, 3, 2.0)
    for summary in (np.linalg.det, lambda m: m[:, 0, 1], lambda m: m[:, 1, 2] * m[:, 0, 2]):
        assert ks_2samp(summary(ours), summary(theirs)).pvalue > 1e-3


def test_gradient_is_that_of_the_factor():
    rng = np.random.default_rng(5)
    odds, weight = rng.normal(size=6), rng.normal(size=(4, 4))

    def value(odds):
        return np.sum(weight * factor(expit(odds), 4, np))

    root = factor(expit(odds), 4, np)
    found = pull_back(weight, np.tanh(0.5 * odds), root)
    np.testing.assert_allclose(found, approx_fprime(odds, value), rtol=1e-5, atol=1e-6)
