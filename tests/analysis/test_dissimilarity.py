import numpy as np
import pytest
import xarray as xr
from scipy.stats import wasserstein_distance
from synthetic import fit_from_paths, synthetic_fit

from bayesphase.analysis.dissimilarity import dissimilarity


@pytest.fixture
def by_hand():
    """Runs of ten equal steps; the last checkpoint adds no time. The third run is uncertain."""
    first = [0] * 5 + [1] * 5 + [1]
    second = [0] * 5 + [2] * 5 + [2]
    draws = [[first, second, first], [first, second, second]]
    return fit_from_paths(np.array(draws))


def test_distances_by_hand(by_hand):
    table = dissimilarity(by_hand, ci_prob=0.5)
    np.testing.assert_allclose(table["share"].isel(run=0), [0.5, 0.5, 0.0])
    distance = table["distance"].values
    assert distance[0, 1] == distance[1, 0] == 0.5
    assert np.diagonal(distance).tolist() == [0, 0, 0]
    # the third is as the first in one draw, and half of its time away in the other
    np.testing.assert_allclose(distance[0, 2], 0.25)
    np.testing.assert_allclose(table["distance_lower"][0, 2], 0.125)
    np.testing.assert_allclose(table["distance_upper"][0, 2], 0.375)
    # in either draw two pairs of three are half of their time apart: runs are never surely alike
    expected = [table[f"expected{end}"].item() for end in ("", "_lower", "_upper")]
    np.testing.assert_allclose(expected, 1 / 3)
    np.testing.assert_allclose(table["run_distance"], [0.375, 0.375, 0.25])


def test_by_order_it_is_scipys_distance_of_the_numbers_of_states():
    fit = synthetic_fit(n_states=4, missing=0.0, jitter=4.0, random_seed=2, n_draws=3)
    table = dissimilarity(fit, ground="order")
    state = fit["paths"]["state"].values.reshape(-1, *fit["paths"]["state"].shape[2:])
    expected = [wasserstein_distance(one[0, :-1], one[2, :-1]) for one in state]
    assert table["distance"][0, 2].item() == pytest.approx(np.median(expected))


def test_names_of_states_matter_to_the_order_only(by_hand):
    renamed = fit_from_paths(np.array([1, 0, 2])[by_hand["paths"]["state"].values])
    for ground, same in (("discrete", True), ("order", False)):
        distances = [dissimilarity(f, ground=ground)["expected"] for f in (by_hand, renamed)]
        assert bool(np.isclose(*distances)) is same


def test_checkpoints_count_by_the_time_that_they_stand_for():
    uneven = fit_from_paths(
        np.array([[[0, 0, 1, 1], [0, 1, 1, 1], [0, -1, -1, 1]]]), steps=[0, 10, 20, 1000]
    )
    share = dissimilarity(uneven)["share"].sel(state=0)
    np.testing.assert_allclose(share, [0.02, 0.01, 1.0])


def test_an_outlier_is_far_from_all():
    usual = np.tile([0] * 10 + [1] * 21, (5, 1))
    odd = np.array([[0] * 10 + [2] * 21])
    table = dissimilarity(fit_from_paths(np.concatenate([usual, odd])[None]))
    assert table["run_distance"].argmax("run") == 5
    np.testing.assert_allclose(table["run_distance"], [2 / 15] * 5 + [2 / 3])
    assert table["rank"].values[5] in (0, 5)
    assert sorted(table["rank"].values) == list(range(6))


def test_a_run_of_one_checkpoint_has_no_distance():
    table = dissimilarity(fit_from_paths(np.array([[[0, 0, 1], [0, 1, 1], [0, -1, -1]]])))
    assert table["distance"].isel(run=2, run_other=[0, 1]).isnull().all()
    assert sorted(table["rank"].values) == [0, 1, 2]
    # the first two have shares (1, 0) and (1/2, 1/2)
    np.testing.assert_allclose(table["run_distance"], [0.5, 0.5, np.nan])
    np.testing.assert_allclose(table["expected"], 0.5)


def test_quantities_are_named_and_errors(by_hand):
    table = dissimilarity(by_hand)
    assert all({"long_name", "units"} <= set(v.attrs) for v in table.data_vars.values())
    assert table.attrs == {"ground": "discrete", "ci_prob": 0.9}
    with pytest.raises(ValueError, match=r"ground must be one of .*, got 'index'"):
        dissimilarity(by_hand, ground="index")
    with pytest.raises(ValueError, match="between runs, but the fit has 1"):
        dissimilarity(synthetic_fit(n_runs=1))
    with pytest.raises(ValueError, match="ci_prob must be"):
        dissimilarity(by_hand, ci_prob=2)
    with pytest.raises(TypeError, match="expected the DataTree"):
        dissimilarity(xr.Dataset())
