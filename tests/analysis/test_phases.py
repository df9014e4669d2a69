import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from synthetic import fit_from_paths, synthetic_fit

from bayesphase.analysis.phases import (
    boundaries,
    dwell_times,
    first_entry,
    most_likely_path,
    phase_probabilities,
    switches,
    visited_states,
)

TABLES = (
    phase_probabilities,
    first_entry,
    boundaries,
    switches,
    dwell_times,
    visited_states,
    most_likely_path,
)
N_STATES = 3


@pytest.fixture
def by_hand():
    """Four draws of two runs on uneven steps; the second run has no checkpoint at step 10."""
    return fit_from_paths(
        [
            [[0, 0, 1, 1, 1], [0, -1, 0, 0, 0]],
            [[0, 1, 1, 0, 1], [0, -1, 0, 1, 1]],
            [[0, 0, 0, 1, 1], [0, -1, 0, 0, 1]],
            [[0, 0, 0, 0, 1], [1, -1, 0, 0, 0]],
        ],
        steps=[0, 10, 100, 1000, 5000],
        n_states=N_STATES,
    )


@st.composite
def fits(draw):
    """Any paths at all, with missing checkpoints, even runs that have none."""
    n_runs, n_steps = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    shape = (2, draw(st.integers(1, 4)), n_runs, n_steps)
    state = draw(hnp.arrays(np.int8, shape, elements=st.integers(0, N_STATES - 1)))
    lost = draw(hnp.arrays(bool, (n_runs, n_steps)))
    gaps = draw(hnp.arrays(np.int64, n_steps, elements=st.integers(1, 1000)))
    return fit_from_paths(np.where(lost, -1, state), steps=gaps.cumsum(), n_states=N_STATES)


def test_phase_probabilities_by_hand(by_hand):
    result = phase_probabilities(by_hand)
    assert result.dims == ("run", "step", "state")
    assert result.name == "phase_probability"
    expected = [
        [[1, 0, 0], [0.75, 0.25, 0], [0.5, 0.5, 0], [0.5, 0.5, 0], [0, 1, 0]],
        [[0.75, 0.25, 0], [np.nan] * 3, [1, 0, 0], [0.75, 0.25, 0], [0.5, 0.5, 0]],
    ]
    np.testing.assert_array_equal(result, expected)


def test_first_entry_by_hand(by_hand):
    result = first_entry(by_hand)
    assert result.dims == ("chain", "draw", "run", "state")
    np.testing.assert_array_equal(
        result[0, :, :, 1], [[100, np.nan], [10, 1000], [1000, 5000], [5000, 0]]
    )
    assert (result[0, :, 0, 0] == 0).all()
    assert result[0, 3, 1, 0] == 100
    assert result[..., 2].isnull().all()


def test_boundaries_by_hand(by_hand):
    result = boundaries(by_hand, ci_prob=0.5)
    assert result["first_step"].dims == ("run", "state")
    # Entries into state 1 are 10, 100, 1000, 5000 in the first run, 0, 1000, 5000 in the second.
    assert result["first_step"].values[:, 1].tolist() == [100, 1000]
    assert result["lower"].values[:, 1].tolist() == [10, 0]
    assert result["upper"].values[:, 1].tolist() == [1000, 5000]
    np.testing.assert_array_equal(result["visited"], [[1, 1, 0], [1, 0.75, 0]])
    assert np.isnan(result["first_step"].values[:, 2]).all()
    assert result.attrs == {"ci_prob": 0.5, "units": "optimiser steps"}


def test_dwell_times_by_hand(by_hand):
    result = dwell_times(by_hand, ci_prob=0.4)
    # Time in state 1: run 0 has 4900, 990 + 0, 4000 and 0 steps, run 1 has 0, 4000, 0 and 100.
    assert result["total"].values[:, 1].tolist() == [990, 0]
    assert result["upper"].values[:, 1].tolist() == [4000, 100]
    assert result["lower"].values[:, 1].tolist() == [990, 0]
    np.testing.assert_array_equal(result["visits"], [[1.25, 1.25, 0], [1, 0.75, 0]])
    assert (result["total"].values[:, 2] == 0).all()


def test_visited_states_by_hand(by_hand):
    result = visited_states(by_hand)
    assert result.dims == ("run", "n_states")
    assert result["n_states"].values.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(result, [[0, 1, 0], [0.25, 0.75, 0]])


def test_most_likely_path_is_the_one_of_the_fit(by_hand):
    result = most_likely_path(by_hand)
    assert result.dtype == np.int8
    np.testing.assert_array_equal(result, by_hand["paths"]["most_likely"])
    assert result.values[1, 1] == -1


@given(fits())
@settings(deadline=None, max_examples=40)
def test_probabilities_sum_to_1_where_there_is_a_checkpoint(fit):
    present = fit["paths"]["most_likely"] >= 0
    total = phase_probabilities(fit).sum("state", skipna=False)
    np.testing.assert_allclose(total, xr.where(present, 1.0, np.nan))
    total = visited_states(fit).sum("n_states", skipna=False)
    np.testing.assert_allclose(total, xr.where(present.any("step"), 1.0, np.nan))


@given(fits(), st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=40)
def test_boundaries_are_ordered_checkpoints_of_visited_states(fit, ci_prob):
    table = boundaries(fit, ci_prob=ci_prob)
    visited = table["visited"].fillna(0) > 0
    present = fit["paths"]["most_likely"].values >= 0
    for name in ("first_step", "lower", "upper"):
        assert (table[name].notnull() == visited).all()
        for r, row in enumerate(table[name].values):
            assert set(row[~np.isnan(row)]) <= set(table_steps(fit)[present[r]])
    assert (table["lower"] <= table["upper"]).where(visited, True).all()
    assert (table["lower"] <= table["first_step"]).where(visited, True).all()
    assert (table["first_step"] <= table["upper"]).where(visited, True).all()


@given(fits())
@settings(deadline=None, max_examples=40)
def test_tables_agree_with_loops_over_paths(fit):
    state, steps = fit["paths"]["state"].values, table_steps(fit)
    entry, dwell = first_entry(fit).values, np.zeros((*state.shape[:3], N_STATES))
    visits = np.zeros_like(dwell)
    for c, d, r in np.ndindex(state.shape[:3]):
        seen = [(k, t) for k, t in zip(state[c, d, r], steps, strict=True) if k >= 0]
        for k in range(N_STATES):
            first = [t for j, t in seen if j == k]
            np.testing.assert_equal(entry[c, d, r, k], first[0] if first else np.nan)
        for i, (k, t) in enumerate(seen):
            dwell[c, d, r, k] += seen[i + 1][1] - t if i + 1 < len(seen) else 0
            visits[c, d, r, k] += i == 0 or seen[i - 1][0] != k
    table = dwell_times(fit)
    present = (fit["paths"]["most_likely"].values >= 0).any(axis=1)[:, None]
    expected = np.quantile(dwell, 0.5, axis=(0, 1), method="inverted_cdf")
    np.testing.assert_array_equal(table["total"], np.where(present, expected, np.nan))
    np.testing.assert_allclose(table["visits"], np.where(present, visits.mean(axis=(0, 1)), np.nan))


@given(fits(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_order_of_runs_and_draws_does_not_matter(fit, random):
    runs = list(range(fit["paths"].sizes["run"]))
    draws = list(range(fit["paths"].sizes["draw"]))
    random.shuffle(runs)
    random.shuffle(draws)
    paths = fit["paths"].to_dataset()
    shuffled = fit.copy()
    shuffled["paths"] = xr.DataTree(paths.isel(run=runs, draw=draws))
    for table in (phase_probabilities, boundaries, dwell_times, visited_states):
        xr.testing.assert_allclose(table(shuffled), table(fit).isel(run=runs), rtol=1e-12)


def test_tables_name_their_quantities_and_keep_the_epoch():
    fit = synthetic_fit(missing=0.1)
    epoch = ("step", fit["paths"]["step"].values / 100)
    fit["paths"] = xr.DataTree(fit["paths"].to_dataset().assign_coords(epoch=epoch))
    for table in TABLES:
        result = table(fit)
        for array in result.data_vars.values() if isinstance(result, xr.Dataset) else [result]:
            assert {"long_name", "units"} <= set(array.attrs), (table, array.name)
        assert ("epoch" in result.coords) == ("step" in result.dims)
    assert boundaries(fit)["first_step"].attrs["units"] == "optimiser steps"


@pytest.mark.parametrize("table", TABLES)
def test_only_fits_are_taken(table):
    with pytest.raises(TypeError, match=r"expected the DataTree .* got Dataset"):
        table(xr.Dataset())
    with pytest.raises(
        ValueError, match=r"no variable 'state' in a group 'paths'.*\['posterior'\]"
    ):
        table(xr.DataTree.from_dict({"posterior": xr.Dataset()}))
    fit = synthetic_fit(n_draws=2)
    fit["paths"] = xr.DataTree(fit["paths"].to_dataset().isel(run=0))
    with pytest.raises(ValueError, match="'paths/state' must have dims"):
        table(fit)


@pytest.mark.parametrize("table", [boundaries, dwell_times])
@pytest.mark.parametrize("ci_prob", [0, 1, 90, -0.1, np.nan, True, "0.9"])
def test_ci_prob_is_checked(by_hand, table, ci_prob):
    with pytest.raises(ValueError, match="ci_prob must be a number between 0 and 1"):
        table(by_hand, ci_prob=ci_prob)


def test_most_likely_path_has_to_be_there(by_hand):
    by_hand["paths"] = xr.DataTree(by_hand["paths"].to_dataset().drop_vars("most_likely"))
    with pytest.raises(ValueError, match=r"no variable 'most_likely'.*\['state'\]"):
        most_likely_path(by_hand)


def table_steps(fit):
    return fit["paths"]["step"].values


def test_switches_are_those_of_the_most_frequent_sequence():
    # three of four draws go 0, 1, 0; one never comes back
    returns = [np.repeat([0, 1, 0], [3, n, 7 - n]) for n in (2, 3, 5)]
    stays = np.repeat([0, 1], [4, 6])
    fit = fit_from_paths(np.array([[path] for path in [*returns, stays]]), steps=10 * np.arange(10))
    table = switches(fit, ci_prob=0.9)
    assert dict(table.sizes) == {"run": 1, "switch": 2}
    assert table["probability"].values.tolist() == [0.75]
    assert table["state_from"].values.tolist() == [[0, 1]]
    assert table["state_to"].values.tolist() == [[1, 0]]
    assert table["step"].values.tolist() == [[30, 60]]
    assert table["lower"].values.tolist() == [[30, 50]]
    assert table["upper"].values.tolist() == [[30, 80]]
    # the return is in no table of first entries
    assert boundaries(fit)["first_step"].values.tolist() == [[0, 30]]


def test_runs_with_fewer_switches_are_filled_up():
    paths = np.array([[[0, 1, 2, 2], [0, 0, 0, 0], [-1, -1, -1, -1]]] * 2)
    table = switches(fit_from_paths(paths, steps=np.arange(4)))
    assert table["state_to"].values.tolist() == [[1, 2], [-1, -1], [-1, -1]]
    assert np.isnan(table["step"].values[1:]).all()
    np.testing.assert_array_equal(table["probability"], [1.0, 1.0, np.nan])
