"""Vectors in compiled code against NumPy."""

import numpy as np

from bayesphase.model.simd import LANES, exp, fill, kernel, larger, load, log, smaller, store, total

RNG = np.random.default_rng(1)


@kernel
def _exponentials(x, out):
    for i in range(0, x.shape[0], LANES):
        store(out, (i,), exp(load(x, (i,))))


@kernel
def _logarithms(x, out):
    for i in range(0, x.shape[0], LANES):
        store(out, (i,), log(load(x, (i,))))


@kernel
def _arithmetic(a, b, out):
    x, y = load(a, (0,)), load(b, (0,))
    store(out, (0, 0), x + y)
    store(out, (1, 0), x - y)
    store(out, (2, 0), x * y)
    store(out, (3, 0), x / y)
    store(out, (4, 0), 2.0 - x)
    store(out, (5, 0), x / 3.0)
    store(out, (6, 0), smaller(x, y))
    store(out, (7, 0), larger(x, y))
    store(out, (8, 0), fill(5.0))
    return total(x)


def test_exponentials_are_right_to_the_last_digit_or_two():
    x = np.concatenate([-500.0 * RNG.random(8000), RNG.normal(size=800), [0.0] * 8, [700.0] * 8])
    out = np.empty_like(x)
    _exponentials(x, out)
    np.testing.assert_allclose(out, np.exp(x), rtol=4e-16)
    assert (out[-16:-8] == 1.0).all()


def test_exponentials_of_very_negative_numbers_are_zero():
    x = np.array([-np.inf, -1e300, -708.0, -500.1, np.nan, -499.9, -1.0, -0.0])
    out = np.empty_like(x)
    _exponentials(x, out)
    np.testing.assert_array_equal(out[:5], [0.0, 0.0, 0.0, 0.0, np.nan])
    np.testing.assert_allclose(out[5:], np.exp(x[5:]), rtol=4e-16)


def test_logarithms_are_right_to_the_last_digit_or_two():
    x = np.concatenate(
        [10.0 ** RNG.uniform(-300, 300, 8000), 1.0 + RNG.uniform(-1e-3, 1e-3, 800), np.ones(8)]
    )
    out = np.empty_like(x)
    _logarithms(x, out)
    np.testing.assert_allclose(out, np.log(x), rtol=5e-16, atol=2e-16)
    assert (out[-8:] == 0.0).all()


def test_arithmetic_is_numpys():
    a, b = RNG.normal(size=(2, LANES))
    out = np.empty((9, LANES))
    assert abs(_arithmetic(a, b, out) - a.sum()) < 1e-14
    expected = [a + b, a - b, a * b, a / b, 2.0 - a, a / 3.0, np.minimum(a, b), np.maximum(a, b)]
    np.testing.assert_array_equal(out[:8], expected)
    np.testing.assert_array_equal(out[8], 5.0)
