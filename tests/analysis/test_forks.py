"""Forks, skipped states and runs that fall back, on paths that are known."""

from itertools import pairwise

import numpy as np
import pytest
from synthetic import fit_from_paths, synthetic_fit

from bayesphase.analysis.forks import forks


def path(*visits, n=60):
    """Lay out visits (state, checkpoints) and the last state up to the end."""
    states = np.concatenate([np.full(length, k) for k, length in visits])
    return np.pad(states, (0, n - len(states)), mode="edge")


@pytest.fixture
def planted():
    """Ten draws: c and d go over state 1, a and b do not; in one draw b does, too.

    d falls back from 3 to 0 for 8 checkpoints, at 30 in most draws; e stops in state 2.
    """
    draws = []
    for draw in range(10):
        a = path((0, 10), (2, 10), (3, 10))
        b = path((0, 10), (1, 3), (2, 10), (3, 5)) if draw == 0 else path((0, 12), (2, 9), (3, 5))
        c = path((0, 9), (1, 10), (2, 10), (3, 5))
        d = path((0, 5), (1, 5), (2, 10), (3, 10 + (draw < 3)), (0, 8), (3, 5))
        e = np.where(np.arange(60) < 40, path((0, 10), (2, 40)), -1)
        draws.append([a, b, c, d, e])
    return fit_from_paths(np.array(draws), n_states=5, runs=list("abcde"))


def test_forks_and_skipped_states_are_found(planted):
    table = forks(planted)
    assert table["forked"] == 1.0
    assert table["sequence"].values.tolist() == ["0-2-3", "0-2-3", "0-1-2-3", "0-1-2-3", "0-2"]
    np.testing.assert_allclose(table["sequence_probability"], [1, 0.9, 1, 1, 1])
    np.testing.assert_allclose(table["visited"].sel(state=1), [0, 0.1, 1, 1, 0])
    # e has not got to 3, where a goes by the same way, and nobody to 4
    np.testing.assert_allclose(table["optional"], [0, 1, 0, 0, 0])
    np.testing.assert_allclose(table["skipped"].sel(state=1), [1, 0.9, 0, 0, 1])
    together = table["together"].to_pandas()
    assert together.loc["a", "b"] == together.loc["b", "a"] == pytest.approx(0.9)
    assert together.loc["b", "c"] == pytest.approx(0.1)
    assert together.loc["a", "e"] == 1.0  # as far as e went
    assert table["trajectory"].values.tolist() == [0, 0, 1, 1, 0]


def test_a_run_that_stops_early_is_on_no_way_of_its_own():
    state = [path((0, 20), (1, 20), (2, 20)), path((0, 20), (1, 40)), path((0, 60))]
    table = forks(fit_from_paths(np.array([state])))
    assert table["forked"] == 0.0
    assert (table["trajectory"] == 0).all()
    assert (table["optional"] == 0).all()
    assert "skipped" not in table.attrs["verdict"]


def test_ends_that_runs_do_not_share_are_skipped():
    """A run without checkpoints skips nothing, and one in state 0 may still go either way."""
    ends = [path((0, 20), (1, 40)), path((0, 20), (2, 40)), path((0, 60)), np.full(60, -1)]
    skipped = forks(fit_from_paths(np.array([ends])))["skipped"]
    np.testing.assert_array_equal(skipped, [[0, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 0]])


def test_a_brief_visit_between_does_not_hide_a_fall():
    between = path((0, 10), (1, 10), (2, 10), (1, 3), (0, 40), n=73)
    brief_first = path((1, 3), (0, 20), (1, 20), (2, 30), n=73)  # 1 was not entered before 0
    in_two = path((0, 20), (1, 20), (0, 10), (1, 2), (0, 8), (2, 13), n=73)
    table = forks(fit_from_paths(np.array([[between, brief_first, in_two]])))
    np.testing.assert_array_equal(table["falls_back"], [1, 0, 1])
    assert (table["fall_from"][0], table["fall_to"][0], table["fall_step"][0]) == (2, 0, 330)
    assert table["fall_duration"][2] == 200  # what is brief does not cut the stay


def test_the_probability_of_a_fork_is_that_of_any():
    """Two uncertain runs that are on a way of their own in different draws: 2 of 4, not 1."""
    main, other = path((0, 20), (1, 20), (2, 20)), path((0, 20), (2, 40))
    draws = [[other, main, main], [main, other, main], [main, main, main], [main, main, main]]
    table = forks(fit_from_paths(np.array(draws)))
    assert table["forked"] == 0.5
    assert (table["trajectory"] == 0).all()


def test_a_run_that_falls_back_is_named_with_its_step(planted):
    table = forks(planted)
    np.testing.assert_array_equal(table["falls_back"], [0, 0, 0, 1, 0])
    d = table.sel(run="d")
    found = [float(d[f"fall_{name}"]) for name in ("step", "lower", "upper", "duration")]
    assert found == [300, 300, 310, 80]
    assert (int(d["fall_from"]), int(d["fall_to"])) == (3, 0)
    assert table["fall_step"].sel(run="a").isnull()
    assert table["fall_from"].sel(run="a") == -1
    assert (
        "d falls back from state 3 to 0 at step 300 [300, 310], for 80 steps (probability 1.00)."
        in table.attrs["verdict"]
    )
    assert "Runs part ways (probability 1.00), in 2 groups." in table.attrs["verdict"]
    assert "State 1 is skipped by a, b, e." in table.attrs["verdict"]


def test_an_unsure_boundary_is_no_fall():
    flickers = path((0, 20), (1, 2), (0, 10), (1, 20))
    falls = path((0, 20), (1, 6), (0, 10), (1, 20))
    fit = fit_from_paths(np.array([[flickers, falls]]))
    assert forks(fit)["falls_back"].values.tolist() == [0, 1]
    assert forks(fit, least=2)["falls_back"].values.tolist() == [1, 1]
    assert forks(fit, least=7)["falls_back"].values.tolist() == [0, 0]


def test_going_on_to_a_state_with_a_smaller_number_is_no_fall():
    """What is early is said by when the run entered it, not by its number."""
    assert forks(fit_from_paths(np.array([[path((1, 20), (0, 20), (2, 20))]])))["falls_back"] == 0
    back = fit_from_paths(np.array([[path((1, 20), (0, 20), (1, 20))]]))
    assert forks(back)["falls_back"] == 1
    assert forks(back)["fall_to"] == 1


def test_the_longest_fall_counts():
    two = path((0, 10), (1, 10), (0, 6), (1, 10), (0, 9), (1, 10))
    table = forks(fit_from_paths(np.array([[two]])))
    assert (table["fall_step"].item(), table["fall_duration"].item()) == (360, 90)


def test_falls_agree_with_loops_over_paths():
    fit = synthetic_fit(n_states=3, jitter=6.0, missing=0.1, random_seed=5)
    state = fit["paths"]["state"]
    rng = np.random.default_rng(6)
    noisy = np.where(state >= 0, rng.permuted(np.maximum(state.values, 0), axis=-1), -1)
    again = fit_from_paths(noisy, n_states=3)
    steps, count = state["step"].values, np.zeros((3, 2))
    for c, d, r in np.ndindex(noisy.shape[:3]):
        there = noisy[c, d, r] >= 0
        seen, at = noisy[c, d, r][there], steps[there]
        cuts = [0, *(np.flatnonzero(np.diff(seen)) + 1), len(seen)]
        stays = [(seen[a], at[a]) for a, b in pairwise(cuts) if b - a >= 2]
        entered = {}
        for k, begin in stays:
            entered.setdefault(k, begin)
        falls = [begin for (j, _), (k, begin) in pairwise(stays) if entered[k] < entered[j]]
        count[r] += bool(falls), 1
    found = forks(again, least=2)["falls_back"]
    np.testing.assert_allclose(found, count[:, 0] / count[:, 1])
    assert 0 < found.min() < found.max() < 1


def test_a_single_run_and_a_run_without_checkpoints():
    table = forks(fit_from_paths(np.array([[path((0, 60))]])))
    assert table["trajectory"].values.tolist() == [0]
    assert table["forked"] == 0
    gone = forks(fit_from_paths(np.array([[path((0, 30), (1, 30)), np.full(60, -1)]])))
    assert gone["sequence"].values.tolist() == ["0-1", ""]
    assert gone["falls_back"].values.tolist() == [0, 0]


def test_quantities_are_named_and_errors(planted):
    table = forks(planted, ci_prob=0.5)
    assert all({"long_name", "units"} <= set(v.attrs) for v in table.data_vars.values())
    assert (table.attrs["ci_prob"], table.attrs["least"]) == (0.5, 5)
    with pytest.raises(ValueError, match="ci_prob must be"):
        forks(planted, ci_prob=0)
    with pytest.raises(ValueError, match="least"):
        forks(planted, least=0)
    with pytest.raises(TypeError, match="expected the DataTree"):
        forks(table)
