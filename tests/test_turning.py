"""Turning points of paths whose corners are known, and none of paths that have none."""

from functools import partial

import numpy as np
import pytest
import xarray as xr

import bayesphase as bp


def table(*paths, step=None):
    points = np.stack([np.asarray(path, float) for path in paths])
    return xr.Dataset(
        {"scores": (("run", "step", "component"), points, {"units": "nats"})},
        coords={
            "run": [f"seed {i}" for i in range(len(points))],
            "step": 10 * np.arange(points.shape[1]) if step is None else step,
            "component": np.arange(1, points.shape[2] + 1),
        },
    )


def bent(angles, corners, *, n=200, noise=0.0, rng=None):
    """A path of unit speed that turns by so many degrees at such times (in checkpoints)."""
    time = np.arange(n, dtype=float)
    heading = np.deg2rad(np.cumsum([0.0, *angles]))
    ends = np.array([0.0, *corners, np.inf])
    spent = np.clip(time[:, None] - ends[:-1], 0, np.diff(ends))
    path = spent @ np.stack([np.cos(heading), np.sin(heading)], axis=1) / n
    return path + (0 if rng is None else noise * rng.normal(size=path.shape))


# seeded, where a test says nothing else
turning_points = partial(bp.turning_points, random_seed=0)


def found(turns, run=0):
    return turns["step"].isel(run=run).dropna("turn").values.tolist()


def test_corners_are_where_they_were_planted():
    turns = turning_points(table(bent([90, -60], [60, 140]), bent([120], [100])))
    assert found(turns, 0) == [600, 1400]
    assert found(turns, 1) == [1000]
    np.testing.assert_allclose(turns["angle"].isel(run=0), [90, 60], atol=1e-6)
    assert (turns["stability"].isel(turn=0) > 0.9).all()
    assert turns["lower"].isel(run=0, turn=0) <= 590
    assert turns["upper"].isel(run=0, turn=0) >= 610
    assert turns["extent"].attrs["units"] == "nats"
    assert turns["leg"].values == pytest.approx(0.03 * turns["extent"].values)
    assert all({"long_name", "units"} <= set(v.attrs) for v in turns.data_vars.values())


@pytest.mark.parametrize("angle", [60, 120, 180])
@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_intervals_hold_corners_between_checkpoints(angle, noise):
    rng = np.random.default_rng(angle)
    times = rng.uniform(60, 140, 8)
    turns = turning_points(
        table(*(bent([angle], [t], noise=noise, rng=rng) for t in times)), n_resamples=40
    )
    assert turns.sizes["turn"] == 1
    step = 10 * xr.DataArray(times, dims="run")
    inside = (turns["lower"] <= step) & (step <= turns["upper"])
    assert inside.sum() >= 7


def smooth_paths():
    t = np.linspace(0, 1, 200)[:, None]
    return {
        "line": t * [1, 0.5],
        "circle": np.c_[np.cos(6 * t), np.sin(6 * t)],
        "ellipse": np.c_[2 * np.cos(6 * t), np.sin(6 * t)],
        "decay": np.c_[np.exp(-5 * t), t],
        "cosines": np.c_[np.cos(np.pi * t), np.cos(2 * np.pi * t)],  # of a random walk
    }


@pytest.mark.parametrize("noise", [0.0, 0.003, 0.01, 0.1])
@pytest.mark.parametrize("name", smooth_paths())
def test_bends_and_noise_are_no_corners(name, noise):
    rng = np.random.default_rng(3)
    path = smooth_paths()[name]
    size = noise * np.ptp(path, axis=0).max()
    turns = turning_points(table(*(path + size * rng.normal(size=path.shape) for _ in range(5))))
    assert turns.sizes["turn"] == 0


def test_nothing_is_told_of_noise_alone():
    rng = np.random.default_rng(0)
    turns = turning_points(table(*rng.normal(size=(5, 200, 2))))
    assert turns.sizes["turn"] == 0
    assert turns["leg"].isnull().all()
    np.testing.assert_allclose(turns["noise"], 2**0.5, rtol=0.25)


@pytest.mark.parametrize("n_components", [2, 10])
def test_a_path_that_wanders_everywhere_has_hardly_any_turning_points(n_components):
    rng = np.random.default_rng(1)
    walks = rng.normal(size=(20, 300, n_components)).cumsum(axis=1)
    turns = turning_points(table(*walks), n_resamples=30)
    assert turns["step"].notnull().any("turn").mean() <= 0.05


def test_longer_legs_see_corners_in_more_noise():
    rng = np.random.default_rng(8)
    noisy = table(bent([90], [100], noise=0.012, rng=rng))
    assert turning_points(noisy)["leg"].isnull().all()
    turns = turning_points(noisy, scale=0.3)
    assert turns.sizes["turn"] == 1
    assert turns["lower"] <= 1000 <= turns["upper"]


def test_components_of_a_random_walk_of_many_examples_have_none():
    rng = np.random.default_rng(2)
    walks = xr.DataArray(
        rng.normal(size=(2, 120, 150)).cumsum(axis=1),
        dims=("run", "step", "example"),
        coords={"run": ["a", "b"], "step": np.arange(120), "example": np.arange(150)},
    )
    for run in walks["run"].values:
        own = bp.pca(walks.sel(run=[run]), n_components=5)
        assert turning_points(own).sizes["turn"] == 0


def test_only_the_way_counts_not_time_place_size_or_axes():
    rng = np.random.default_rng(4)
    path = bent([80], [90])
    rotation = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    late = np.sort(rng.integers(0, 10**6, 200))
    late[90] = late[89] + 1 if late[90] == late[89] else late[90]
    late = np.unique(late)
    plain = turning_points(table(path))
    other = turning_points(table(1e6 * path @ rotation - 7, step=10 * np.arange(200)))
    assert found(other) == found(plain) == [900]
    np.testing.assert_allclose(other["angle"], plain["angle"])
    if len(late) == 200:
        assert found(turning_points(table(path, step=late))) == [late[90]]


def test_checkpoints_that_are_missing_are_left_out():
    path = bent([90], [100])
    path[[3, 50, 150]] = np.nan
    nothing = np.full_like(path, np.nan)
    one = nothing.copy()
    one[7] = 1.0
    turns = turning_points(table(path, nothing, one))
    assert found(turns, 0) == [1000]
    assert found(turns, 1) == found(turns, 2) == []


def test_the_same_seed_gives_the_same_interval():
    rng = np.random.default_rng(5)
    noisy = table(bent([90], [100], noise=0.003, rng=rng))
    once, again, other = (turning_points(noisy, random_seed=seed) for seed in (1, 1, 2))
    xr.testing.assert_identical(once, again)
    assert not other.equals(once)


def test_a_corner_that_one_checkpoint_makes_is_not_stable():
    path = bent([], [])
    path[100, 1] += 0.1
    turns = turning_points(table(path), min_stability=0.01)
    assert (turns["stability"] < 0.75).all()  # the share of resamples that keep it is two thirds
    assert turning_points(table(path), min_stability=0.8).sizes["turn"] == 0


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"scale": 0.0}, ValueError, "scale must be a number between 0 and 0.5, got 0.0"),
        ({"scale": True}, ValueError, "scale must be a number"),
        ({"min_angle": 200}, ValueError, "min_angle must be a number between 0 and 180, got 200"),
        ({"min_stability": -1}, ValueError, "min_stability must be a number between 0 and 1"),
        ({"ci_prob": 1}, ValueError, "ci_prob must be a number between 0 and 1, got 1"),
        ({"n_resamples": 0}, ValueError, "n_resamples must be at least 1, got 0"),
        ({"n_resamples": 2.5}, TypeError, "n_resamples must be an integer, got 2.5"),
        ({"random_seed": -1}, ValueError, "random_seed must be at least 0, got -1"),
        ({"random_seed": "a"}, TypeError, "random_seed must be an integer, got 'a'"),
    ],
)
def test_arguments(given, error, message):
    with pytest.raises(error, match=message):
        turning_points(table(bent([90], [100])), **given)


def test_what_is_no_table():
    good = table(bent([90], [100]))
    with pytest.raises(TypeError, match="pca_table is a DataArray, expected the Dataset"):
        turning_points(good["scores"])
    with pytest.raises(ValueError, match="no variable 'scores', only \\[\\]"):
        turning_points(good.drop_vars("scores"))
    with pytest.raises(ValueError, match="must have dims \\(run, step, component\\)"):
        turning_points(good.isel(run=0))
    with pytest.raises(ValueError, match="infinite"):
        turning_points(good.where(good["step"] != 10, np.inf))


def test_shipped_runs_turn_where_their_validation_loss_begins_to_fall():
    from pathlib import Path

    data = Path(__file__).parents[1] / "data" / "modular_addition_80_20.nc"
    metrics = bp.open_metrics(data)
    turns = turning_points(bp.pca(metrics["example_loss"], n_components=5))
    highest = metrics["step"].values[metrics["eval_loss"].values.argmax(axis=1)]
    assert turns["step"].isel(turn=0).values.tolist() == highest.tolist() == [125, 150, 125]
    assert found(turns, 0) == [125]
