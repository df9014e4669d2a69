"""Transition matrices from rates: the kernel and the Op around it."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from exact import few_examples
from hypothesis import given
from hypothesis import strategies as st
from pytensor.compile.mode import Mode
from scipy.linalg import expm, expm_frechet

from bayesphase.model.exponential import derivative, matrices
from bayesphase.model.exponential_op import transition_matrices

GAPS = np.array([0.5, 1.0, 37.0, 4000.0])


def random_rates(rng, n_states, size=0.01):
    return size * rng.gamma(0.5, size=(n_states, n_states))


def generator(rates):
    off = rates * ~np.eye(len(rates), dtype=bool)
    return off - np.diag(off.sum(axis=1))


@pytest.mark.parametrize("n_states", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [1e-6, 0.01, 3.0])
def test_equals_the_exponential_of_the_generator(n_states, size):
    rng = np.random.default_rng(n_states)
    rates = random_rates(rng, n_states, size)
    expected = np.stack([expm(generator(rates) * gap) for gap in GAPS])
    np.testing.assert_allclose(matrices(rates, GAPS), expected, rtol=1e-9, atol=1e-12)


def test_two_states_have_a_closed_form():
    a, b, gap = 0.03, 0.002, 50.0
    decay = np.exp(-(a + b) * gap)
    expected = np.array([[b + a * decay, a - a * decay], [b - b * decay, a + b * decay]]) / (a + b)
    found = matrices(np.array([[0.0, a], [b, 0.0]]), np.array([gap]))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_small_probabilities_have_all_their_digits():
    """Two jumps at tiny rates: the second-order term alone, far below the rounding of 1."""
    rates = np.zeros((3, 3))
    rates[0, 1], rates[1, 2] = 1e-13, 3e-12
    found = matrices(rates, np.array([1.0]))[0]
    assert found[0, 2] == pytest.approx(0.5 * 3e-25, rel=1e-10, abs=0)
    assert found[1, 0] == 0


@few_examples
@given(
    seed=st.integers(0, 2**32),
    n_states=st.integers(1, 5),
    gaps=st.tuples(st.floats(1e-3, 1e4), st.floats(1e-3, 1e4)),
)
def test_gaps_add_up(seed, n_states, gaps):
    """The semigroup: what happens over two gaps is what happens over one and then the other."""
    rates = random_rates(np.random.default_rng(seed), n_states)
    one, other, both = matrices(rates, np.array([*gaps, sum(gaps)]))
    np.testing.assert_allclose(one @ other, both, atol=1e-11)
    np.testing.assert_allclose(both.sum(axis=1), 1.0, atol=1e-11)
    assert (both >= 0).all()


@pytest.mark.parametrize("n_states", [2, 3, 5])
def test_derivative_is_that_of_frechet(n_states):
    rng = np.random.default_rng(n_states)
    rates = random_rates(rng, n_states)
    weights = rng.normal(size=(len(GAPS), n_states, n_states))
    expected = sum(
        gap * expm_frechet(generator(rates).T * gap, weight, compute_expm=False)
        for gap, weight in zip(GAPS, weights, strict=True)
    )
    np.testing.assert_allclose(
        derivative(rates, GAPS, weights), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max()
    )


@pytest.mark.parametrize("linker", ["py", "numba"])
def test_op_and_its_gradient(linker):
    """Also at a generator without a full set of eigenvectors."""
    rates = pt.dmatrix("rates")
    weights = np.random.default_rng(1).normal(size=(len(GAPS), 3, 3))
    found = transition_matrices(rates, GAPS)
    cost = (found * weights).sum()
    mode = Mode(linker=linker, optimizer="fast_compile" if linker == "py" else "fast_run")
    compute = pytensor.function([rates], [found, found.shape, pt.grad(cost, rates)], mode=mode)
    chain = np.array([[0.0, 0.01, 0.0], [0.0, 0.0, 0.01], [0.0, 0.0, 0.0]])
    for point in (random_rates(np.random.default_rng(2), 3), chain):
        value, shape, gradient = compute(point)
        np.testing.assert_array_equal(value, matrices(point, GAPS))
        np.testing.assert_array_equal(shape, (4, 3, 3))
        numeric = np.zeros((3, 3))
        for i in range(3):
            for j in range(3):
                step = np.zeros((3, 3))
                step[i, j] = 1e-6
                up, down = (np.sum(weights * matrices(point + s, GAPS)) for s in (step, -step))
                numeric[i, j] = (up - down) / 2e-6
        np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-4 * np.abs(numeric).max())
