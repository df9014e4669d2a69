"""The posterior of the number of visited states, from paths with known answers."""

import warnings

import numpy as np
import pytest
import xarray as xr
from synthetic import fit_from_paths

from bayesphase.analysis.visited import visited_counts


def fit_of(numbers, *, n_states=4, n_steps=12, last=1):
    """Make a fit of one run whose path (chain, draw) visits so many states, `last` steps in the
    last of them."""
    numbers = np.asarray(numbers)
    state = np.zeros((*numbers.shape, 1, n_steps), int)
    for at, number in np.ndenumerate(numbers):
        others = np.arange(number - 1).repeat(3)
        state[at][0, : len(others)] = others
        state[at][0, len(others) :] = max(number - 2, 0)
        state[at][0, n_steps - last :] = number - 1
    return fit_from_paths(state, n_states=n_states)


def quietly(fit, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return visited_counts(fit, **options)


def test_by_hand():
    """Two runs: the states of both together are more than those of each."""
    state = np.array([[[0, 0, 1, 1], [0, 2, 2, -1]], [[0, 0, 0, 0], [0, 1, 1, -1]]])
    table = quietly(fit_from_paths(state, n_states=4, runs=["a", "b"]))
    np.testing.assert_allclose(table["probability"], [0, 0.5, 0.5, 0])
    np.testing.assert_allclose(table["run_probability"].sel(run="a"), [0.5, 0.5, 0, 0])
    np.testing.assert_allclose(table["run_probability"].sel(run="b"), [0, 1, 0, 0])
    np.testing.assert_allclose(table["share"], np.array([8, 4, 2, 0]) / 14)
    np.testing.assert_allclose(table["visited"], [1, 1, 0.5, 0])
    assert np.isnan(table["mcse"].values[[0, 3]]).all()
    assert "probability_by_concentration" not in table


def test_states_visited_too_briefly_do_not_count():
    fit = fit_of(np.full((2, 200), 3), last=2)
    assert quietly(fit)["probability"].sel(n_states=3) == 1
    assert quietly(fit, min_steps=2)["probability"].sel(n_states=3) == 1
    table = quietly(fit, min_steps=3)
    assert table["probability"].sel(n_states=2) == 1
    assert table["n_states"].values.tolist() == [0, 1, 2, 3, 4]
    assert quietly(fit, min_steps=13)["probability"].sel(n_states=0) == 1
    with pytest.raises(ValueError, match="min_steps must be at least 1, got 0"):
        visited_counts(fit, min_steps=0)


def test_error_is_that_of_independent_draws_and_larger_where_chains_are_slow():
    rng = np.random.default_rng(1)
    numbers = rng.choice([1, 2, 3], p=[0.2, 0.7, 0.1], size=(4, 500))
    table = quietly(fit_of(numbers))
    p = table["probability"].values
    np.testing.assert_allclose(table["mcse"][:3], np.sqrt(p * (1 - p) / 2000)[:3], rtol=0.25)
    slow = quietly(fit_of(numbers[:, :50].repeat(10, axis=1)))
    p = slow["probability"].values
    np.testing.assert_allclose(slow["mcse"][:3], np.sqrt(p * (1 - p) / 200)[:3], rtol=0.5)
    assert slow["ess"] < 0.3 * table["ess"]


def test_a_sure_answer_has_no_problems():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = visited_counts(fit_of(np.full((4, 100), 2)))
    assert table.attrs["believable"]
    assert table.attrs["verdict"] == "2 states are visited with probability 1.00."


@pytest.mark.parametrize("mixed", [False, True])
def test_chains_that_disagree_are_said_to(mixed):
    numbers = np.repeat([[2], [3]], 300, axis=0).reshape(2, 300)
    if mixed:
        numbers[:, ::7] = 1
    with pytest.warns(UserWarning, match="The chains disagree about the number .* 2, 3, by chain"):
        table = visited_counts(fit_of(numbers))
    assert not table.attrs["believable"]


def test_too_few_states_are_said_to_be():
    numbers = np.random.default_rng(2).choice([3, 4], size=(2, 500))
    with pytest.warns(UserWarning, match=r"All 4 states of the model .* Fit more states\."):
        visited_counts(fit_of(numbers))


def test_other_concentrations_by_weights_are_those_drawn_under_them():
    """Let a state be visited where its weight is not small: no data, so the prior says all."""
    rng = np.random.default_rng(3)
    n_states = 4

    def number(weights):
        return (weights > 0.05).sum(axis=-1)

    weights = rng.dirichlet(np.full(n_states, 2.0 / n_states), size=(4, 2000))
    fit = fit_of(number(weights), n_states=n_states, n_steps=20)
    posterior = fit["posterior"].to_dataset()
    posterior["state_weights"] = ("chain", "draw", "state"), weights
    fit["posterior"] = xr.DataTree(posterior)
    fit.attrs["transition_options"] = {"weight_concentration": 2.0}
    table = quietly(fit)
    by = table["probability_by_concentration"]
    np.testing.assert_allclose(by.sel(weight_concentration=2.0), table["probability"])
    for concentration in (1.0, 4.0):
        drawn = rng.dirichlet(np.full(n_states, concentration / n_states), size=40000)
        truth = [(number(drawn) == n).mean() for n in range(1, 5)]
        np.testing.assert_allclose(by.sel(weight_concentration=concentration), truth, atol=0.04)
    assert (table["pareto_k"] < 0.7).all()
    assert "weight_concentration" in table.attrs["verdict"]


def test_a_fit_is_asked_for():
    with pytest.raises(TypeError, match="expected the DataTree"):
        visited_counts(xr.Dataset())
