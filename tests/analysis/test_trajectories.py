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
    assert all(v.dims == ("state", "state_next") for v in result.data_vars.values())
    stay = np.nan
    np.testing.assert_array_equal(
        result["n_runs"], [[stay, 2, 0.5], [0.5, stay, 0.5], [0, 0, stay]]
    )
    # First arrivals in 1 from 0: 10 and 100 in one draw, 10 and 1000 in the other.
    np.testing.assert_array_equal(
        result["step"], [[stay, 10, 100], [100, stay, 1000], [np.nan, np.nan, stay]]
    )
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
    xr.testing.assert_identical(training_map(shuffled), training_map(fit))


def test_one_state_makes_a_map_without_edges():
    result = training_map(synthetic_fit(n_states=1, n_runs=1))
    assert result.sizes == {"state": 1, "state_next": 1}
    assert float(result["probability"].squeeze()) == 1
    assert result["step"].isnull().all()


def test_the_number_of_runs_is_told(by_hand):
    assert training_map(by_hand, ci_prob=0.5).attrs == {"ci_prob": 0.5, "n_fitted_runs": 3}


def test_quantities_are_named(by_hand):
    assert all({"long_name", "units"} <= set(v.attrs) for v in training_map(by_hand).values())


def test_errors(by_hand):
    with pytest.raises(ValueError, match="ci_prob must be a number between 0 and 1"):
        training_map(by_hand, ci_prob=95)
    with pytest.raises(TypeError, match=r"expected the DataTree .* got dict"):
        training_map({"3": by_hand})
    del by_hand["posterior"]
    with pytest.raises(ValueError, match="no variable 'transition_probs' in a group 'posterior'"):
        training_map(by_hand)
