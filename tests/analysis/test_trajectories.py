from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from synthetic import fit_from_paths, synthetic_fit

from bayesphase.analysis.trajectories import training_map


@pytest.fixture
def by_hand():
    """Two draws of three runs; the second run lacks step 10."""
    return fit_from_paths(
        [
            [[0, 1, 1, 2], [0, -1, 1, 1], [0, 0, 2, 2]],
            [[0, 1, 0, 1], [0, -1, 0, 1], [0, 0, 0, 0]],
        ],
        steps=[0, 10, 100, 1000],
        n_states=3,
        transition_probs=np.array([np.full((3, 3), 1 / 3), np.eye(3)])[None],
    )


def test_training_map_by_hand(by_hand):
    result = training_map(by_hand)
    by_run = {name for name, v in result.data_vars.items() if v.dims[0] == "run"}
    assert all(v.dims[-2:] == ("state", "state_next") for v in result.data_vars.values())
    assert by_run == {"run_probability", "run_step", "run_step_lower", "run_step_upper"}
    stay = np.nan
    np.testing.assert_array_equal(
        result["n_runs"], [[stay, 2, 0.5], [0.5, stay, 0.5], [0, 0, stay]]
    )
    # First arrivals in 1 from 0: 10 and 100 in one draw, 10 and 1000 in the other.
    np.testing.assert_array_equal(
        result["step"], [[stay, 10, 100], [100, stay, 1000], [np.nan, np.nan, stay]]
    )
    # With the runs by themselves: the second arrives at 100 or 1000, the third once, at 100.
    np.testing.assert_array_equal(result["run_step"][:, 0, 1], [10, 100, np.nan])
    np.testing.assert_array_equal(result["run_step_lower"][:, 0, 1], [10, 100, np.nan])
    np.testing.assert_array_equal(result["run_step_upper"][:, 0, 1], [10, 1000, np.nan])
    np.testing.assert_array_equal(result["run_probability"][:, 0, 1], [1, 1, 0])
    np.testing.assert_array_equal(result["run_probability"][:, 0, 2], [0, 0, 0.5])
    assert result["step_lower"][0, 1] == 10
    assert result["step_upper"][0, 1] == 1000
    np.testing.assert_array_equal(
        result["n_runs_lower"], [[stay, 2, 0], [0, stay, 0], [0, 0, stay]]
    )
    np.testing.assert_array_equal(
        result["n_runs_upper"], [[stay, 2, 1], [1, stay, 1], [0, 0, stay]]
    )


def test_transition_probabilities_are_summed_up_over_draws(by_hand):
    result = training_map(by_hand, ci_prob=0.5)
    np.testing.assert_allclose(result["probability"].sum("state_next"), 1)
    np.testing.assert_allclose(np.diag(result["probability"]), 2 / 3)
    np.testing.assert_allclose(np.diag(result["lower"]), 1 / 3 + 1 / 6)
    np.testing.assert_allclose(np.diag(result["upper"]), 1 - 1 / 6)


def test_training_map_agrees_with_loops_over_paths():
    fit = synthetic_fit(missing=0.2, n_states=4, jitter=8.0, random_seed=3)
    state, steps = fit["paths"]["state"].values, fit["paths"]["step"].values
    taken = np.zeros((*state.shape[:2], 4, 4))
    arrivals = {}
    for c, d, r in np.ndindex(state.shape[:3]):
        seen = [(k, t) for k, t in zip(state[c, d, r], steps, strict=True) if k >= 0]
        edges = set()
        for (k, _), (j, t) in pairwise(seen):
            if k != j and (k, j) not in edges:
                edges.add((k, j))
                arrivals.setdefault((k, j), []).append(t)
        for edge in edges:
            taken[c, d, *edge] += 1
    result = training_map(fit)
    for k, j in np.ndindex(4, 4):
        if k != j:
            assert result["n_runs"].values[k, j] == pytest.approx(taken[..., k, j].mean())
            expected = np.quantile(arrivals.get((k, j), [np.nan]), 0.5, method="inverted_cdf")
            np.testing.assert_equal(result["step"].values[k, j], expected)
    assert len(arrivals) >= 3


def test_order_of_runs_does_not_matter():
    fit = synthetic_fit(missing=0.1)
    shuffled = fit.copy()
    shuffled["paths"] = xr.DataTree(fit["paths"].to_dataset().isel(run=[2, 0, 1]))
    back = training_map(shuffled).sel(run=fit["paths"]["run"])
    xr.testing.assert_identical(back, training_map(fit))


def test_one_state_makes_a_map_without_edges():
    result = training_map(synthetic_fit(n_states=1, n_runs=1))
    assert result.sizes == {"run": 1, "state": 1, "state_next": 1}
    assert float(result["probability"].squeeze()) == 1
    assert result["step"].isnull().all()


def test_the_number_of_runs_is_told(by_hand):
    assert training_map(by_hand, ci_prob=0.5).attrs == {"ci_prob": 0.5, "n_fitted_runs": 3}


def test_quantities_are_named(by_hand):
    for table in (training_map(by_hand), training_map(known(by_hand))):
        assert all({"long_name", "units"} <= set(v.attrs) for v in table.values())


def known(fit):
    """Say what the model of a fit made by hand was, so that it has densities."""
    fit.attrs |= {"n_states": 3, "emission": "gaussian", "transition": "sticky"}
    return fit


def test_drivers_are_summed_up_over_draws_and_runs(by_hand):
    """Means are the numbers of the states and scales 0.5, so a change of level is all there is."""
    values = np.array([[0.0, 1.0, 1.0, 2.0], [0.0, np.nan, 1.0, 1.0], [0.0, 0.0, 2.0, 2.0]])
    posterior = by_hand["posterior"].to_dataset()
    posterior["mean"][:] = np.arange(3.0)[:, None]
    by_hand["posterior"] = xr.DataTree(posterior)
    by_hand["observed_data/features"][:] = values[..., None]
    table = training_map(known(by_hand), ci_prob=0.5, window=1).isel(feature=0)
    # all that go from 0 to 1 arrive at a value of 1: (1 - 0)² / 2 / 0.25 nats
    assert table["log_odds"][0, 1] == table["log_odds_lower"][0, 1] == pytest.approx(2.0)
    # 0 to 2, in the first draw alone, and 1 to 2
    assert table["log_odds"][0, 2] == pytest.approx(8.0)
    assert table["log_odds"][1, 2] == pytest.approx(2.0)
    assert table["change"][0, 2] == 2.0
    # in the second draw, run 1 has been at 0 and 1 before
    changes = [1.0, 1.0, 1.0, 1.0 - 0.5]
    expected = np.quantile(changes, [0.5, 0.25, 0.75])
    found = [table[name][0, 1] for name in ("change", "change_lower", "change_upper")]
    np.testing.assert_allclose(found, expected)
    assert np.isnan(table["change"].values[[0, 2, 2], [0, 0, 1]]).all()
    assert table.attrs["window"] == 1


def test_drivers_come_from_no_more_draws_than_asked_for(by_hand):
    one = training_map(known(by_hand), draws=1)
    assert one["n_runs"][0, 2] == 0.5  # all else is of all draws
    assert one["change"].notnull().sum() < training_map(by_hand)["change"].notnull().sum()
    assert "change" not in training_map(fit_from_paths([[[0, 1, 1]]], n_states=2))


def test_errors(by_hand):
    with pytest.raises(ValueError, match="ci_prob must be a number between 0 and 1"):
        training_map(by_hand, ci_prob=95)
    for name, bad in (("window", 0), ("draws", 0), ("cores", -1)):
        with pytest.raises(ValueError, match=name):
            training_map(known(by_hand), **{name: bad})
    with pytest.raises(TypeError, match=r"expected the DataTree .* got dict"):
        training_map({"3": by_hand})
    del by_hand["posterior"]
    with pytest.raises(ValueError, match="no variable 'transition_probs' in a group 'posterior'"):
        training_map(by_hand)
