"""The Gaussian kernels against the general ones, which are tested against enumeration."""

import numpy as np
import pytest
from test_rows import grid

from bayesphase.model import gaussian
from bayesphase.model.decoding import sample_paths
from bayesphase.model.emissions import Gaussian
from bayesphase.model.forward_backward import forward_backward
from bayesphase.model.leave_one_out import leave_one_out
from bayesphase.model.rows import rows_of

KINDS = [
    {"shape": (1, 40, 3)},
    {"shape": (3, 30, 2), "ragged": True},
    {"shape": (11, 25, 5), "ragged": True, "missing": 0.3},
    {"shape": (8, 30, 1), "missing": 0.2},
]


def problem(*, shape, ragged=False, missing=0.0, n_states=3, rare=0.1, seed=1):
    """Rows, their parameters and potentials, and the log-emission that the emission class gives."""
    rng = np.random.default_rng(seed)
    values = 5.0 + 2.0 * rng.normal(size=shape)
    values[rng.random(shape) < missing] = np.nan
    if ragged:
        for run in range(shape[0]):
            values[run, shape[1] - run :] = np.nan
    rows = rows_of(grid(values))
    mean, scale = rng.normal(size=(n_states, shape[2])), rng.uniform(0.5, 2, (n_states, shape[2]))
    transition = rng.dirichlet(np.ones(n_states), n_states)
    transition[0, 1] = rare
    potentials = np.log(transition)[None], np.log(rng.dirichlet(np.ones(n_states)))
    natural = {"mean": rows.location + rows.spread * mean, "scale": rows.spread * scale}
    log_emission = Gaussian().log_density(rows.values, rows, natural, np)
    unit = rows.observed @ np.log(rows.spread)  # the kernels' density is of the scaled features
    return rows, (mean, scale, *potentials), log_emission + unit[:, None]


@pytest.mark.parametrize("rare", [0.1, 1e-150])
@pytest.mark.parametrize("kind", KINDS)
def test_expectations_are_those_of_the_general_kernels(kind, rare):
    rows, parameters, log_emission = problem(**kind, rare=rare)
    expected = gaussian.expect(gaussian.arrange(rows), *parameters)
    smoothed = forward_backward(log_emission, *parameters[2:], rows.layout)
    close = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(expected.log_likelihood, smoothed.log_likelihood, **close)
    weights = smoothed.state_probs.T
    np.testing.assert_allclose(expected.counts, weights @ rows.observed, **close)
    np.testing.assert_allclose(expected.sums, weights @ rows.scaled, **close)
    np.testing.assert_allclose(expected.squares, weights @ rows.scaled**2, **close)
    first_states = smoothed.state_probs[rows.layout.starts].sum(axis=0)
    np.testing.assert_allclose(expected.first_states, first_states, **close)
    transitions = smoothed.expected_transitions.sum(axis=0)
    np.testing.assert_allclose(expected.transitions, transitions, **close)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_known_states(kind):
    rows, _, _ = problem(**kind)
    weights = np.random.default_rng(2).dirichlet(np.ones(3), len(rows.values))
    added = gaussian.sum_up(rows, weights)
    np.testing.assert_allclose(added.counts, weights.T @ rows.observed)
    np.testing.assert_allclose(added.sums, weights.T @ rows.scaled, atol=1e-12)
    np.testing.assert_allclose(added.squares, weights.T @ rows.scaled**2)
    np.testing.assert_allclose(added.first_states, weights[rows.layout.starts].sum(axis=0))


@pytest.mark.parametrize("rare", [0.1, 1e-150])
@pytest.mark.parametrize("kind", KINDS)
def test_paths_and_densities_are_those_of_the_general_kernels(kind, rare):
    rows, parameters, log_emission = problem(**kind, rare=rare)
    data = gaussian.arrange(rows)
    states = np.empty(len(rows.values), np.int8)
    log_likelihood = np.empty(len(rows.layout.starts))
    uniforms = np.random.default_rng(3).random(len(rows.values))
    gaussian.draw_paths(data, *parameters, uniforms, states, log_likelihood)
    general = sample_paths(log_emission, *parameters[2:], rows.layout, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(states, general[0])
    np.testing.assert_allclose(log_likelihood, general[1], rtol=1e-10)
    out = np.empty(len(rows.values))
    gaussian.leave_one_out(data, *parameters, out)
    expected = leave_one_out(log_emission, *parameters[2:], rows.layout)
    np.testing.assert_allclose(out, expected, rtol=1e-8, atol=1e-9)
