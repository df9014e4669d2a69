import numpy as np
import pytest
import xarray as xr

from bayesphase.model.rows import check_n_states, rows_of


def grid(values, **coords):
    values = np.asarray(values)
    labels = {
        "run": [f"r{i}" for i in range(values.shape[0])],
        "step": 10 * np.arange(values.shape[1]),
        "feature": [f"f{i}" for i in range(values.shape[2])],
    }
    return xr.DataArray(values, dims=("run", "step", "feature"), coords={**labels, **coords})


GOOD = np.random.default_rng(0).normal(size=(2, 5, 3))


def test_rows_leave_out_checkpoints_without_features():
    values = GOOD.copy()
    values[0, 1] = values[1, 3:] = np.nan
    values[0, 2, 1] = np.nan
    rows = rows_of(grid(values))
    np.testing.assert_array_equal(rows.run, [0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(rows.step, [0, 2, 3, 4, 0, 1, 2])
    np.testing.assert_array_equal(rows.layout.starts, [0, 4])
    np.testing.assert_array_equal(rows.layout.lengths, [4, 3])
    np.testing.assert_array_equal(rows.layout.gap_index, np.zeros(7))
    expected = values[rows.run, rows.step]
    np.testing.assert_array_equal(np.where(rows.observed, rows.values, np.nan), expected)
    assert not rows.complete
    np.testing.assert_allclose(rows.location, np.nanmean(expected, axis=0))
    np.testing.assert_allclose(rows.spread, np.nanstd(expected, axis=0))


def test_the_unit_of_time_is_the_median_gap_within_runs_or_what_the_features_say():
    values = np.full((2, 8, 1), np.nan)
    values[0, ::2] = values[1, 1::2] = 1.0
    x = grid(values, step=[0, 1, 100, 101, 200, 201, 300, 301])
    assert rows_of(x).step_unit == 100.0  # not the step from one run's grid to the other's
    assert rows_of(x.assign_attrs(step_unit=50)).step_unit == 50.0


def test_columns_go_back_to_the_grid():
    values = GOOD.copy()
    values[0, 1] = np.nan
    rows = rows_of(grid(values))
    back = rows.to_grid(np.arange(2 * 9).reshape(2, 9), (2, 5), -1)
    np.testing.assert_array_equal(back[1], [[9, -1, 10, 11, 12], [13, 14, 15, 16, 17]])
    assert rows_of(grid(GOOD)).complete


def test_order_of_dims_does_not_matter():
    one, other = rows_of(grid(GOOD)), rows_of(grid(GOOD).transpose("feature", "run", "step"))
    np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("constant", [0.0, 1e-20, 1.0 / 3, 1e6 / 7])
def test_a_constant_feature_has_spread_one(constant):
    values = GOOD.copy()
    values[..., 1] = constant
    spread = rows_of(grid(values)).spread
    assert spread[1] == 1.0
    assert (spread[[0, 2]] != 1.0).all()


@pytest.mark.parametrize("unit", [1e-100, 1e-15, 1e15])
def test_spread_follows_the_unit_of_a_feature(unit):
    """A feature that moves on a tiny scale is not a constant one."""
    np.testing.assert_allclose(
        rows_of(grid(GOOD * unit)).spread, unit * rows_of(grid(GOOD)).spread, rtol=1e-12
    )


def infinite():
    values = GOOD.copy()
    values[1, 3, 2] = -np.inf
    return values


def missing(run=slice(None), step=slice(None), feature=slice(None)):
    values = GOOD.copy()
    values[run, step, feature] = np.nan
    return values


BAD = {
    "array": (lambda: GOOD, TypeError, r"must be an xarray.DataArray .* got ndarray"),
    "dataset": (lambda: grid(GOOD).to_dataset(name="x"), TypeError, "got Dataset"),
    "dims": (
        lambda: grid(GOOD).rename(run="seed"),
        ValueError,
        r"dims \(run, step, feature\), got \('seed', 'step', 'feature'\)",
    ),
    "too few dims": (lambda: grid(GOOD).isel(run=0), ValueError, r"got \('step', 'feature'\)"),
    "strings": (lambda: grid(GOOD.astype(str)), TypeError, "must hold real numbers, got dtype <U"),
    "objects": (lambda: grid(GOOD.astype(object)), TypeError, "got dtype object"),
    "complex": (lambda: grid(GOOD + 0j), TypeError, "got dtype complex128"),
    "booleans": (lambda: grid(GOOD > 0), TypeError, "got dtype bool"),
    "no runs": (lambda: grid(GOOD[:0]), ValueError, "has no run: its dim 'run' has length 0"),
    "no steps": (lambda: grid(GOOD[:, :0]), ValueError, "has no step"),
    "no features": (lambda: grid(GOOD[..., :0]), ValueError, "has no feature"),
    "no labels": (lambda: grid(GOOD).drop_vars("feature"), ValueError, "no coordinate 'feature'"),
    "same run twice": (
        lambda: grid(GOOD, run=["a", "a"]),
        ValueError,
        r"run labels that occur twice: \['a'\]",
    ),
    "same feature twice": (
        lambda: grid(GOOD, feature=["x", "y", "x"]),
        ValueError,
        r"feature labels that occur twice: \['x'\]",
    ),
    "same step twice": (
        lambda: grid(GOOD, step=[0, 1, 1, 2, 3]),
        ValueError,
        "step 1 occurs twice; steps must increase",
    ),
    "unsorted steps": (
        lambda: grid(GOOD, step=[0, 30, 20, 40, 50]),
        ValueError,
        "steps must increase, but 20 follows 30; sort by step",
    ),
    "step names": (lambda: grid(GOOD, step=list("abcde")), TypeError, "steps must be numbers"),
    "undefined step": (
        lambda: grid(GOOD, step=[0, 1, np.nan, 3, 4]),
        ValueError,
        "steps must increase, but nan follows 1",
    ),
    "infinite": (
        lambda: grid(infinite()),
        ValueError,
        "feature 'f2' is infinite in run 'r1' at step 30; use NaN",
    ),
    "feature of NaN": (
        lambda: grid(missing(feature=1)),
        ValueError,
        "feature 'f1' is NaN everywhere; leave it out",
    ),
    "one checkpoint": (
        lambda: grid(GOOD[:, :1]),
        ValueError,
        r"run 'r0' has 1 checkpoint\(s\) with a feature, but a sequence needs at least 2",
    ),
    "one checkpoint in a run": (
        lambda: grid(missing(run=1, step=slice(1, None))),
        ValueError,
        r"run 'r1' has 1 checkpoint",
    ),
    "empty run": (lambda: grid(missing(run=1)), ValueError, r"run 'r1' has 0 checkpoint"),
}


@pytest.mark.parametrize(("make", "error", "message"), BAD.values(), ids=BAD)
def test_features_that_can_not_be_used(make, error, message):
    with pytest.raises(error, match=message):
        rows_of(make())


@pytest.mark.parametrize("n_states", [1, 10, np.int64(3)])
def test_numbers_of_states_that_fit(n_states):
    checked = check_n_states(n_states, rows_of(grid(GOOD)))
    assert checked == n_states
    assert type(checked) is int


@pytest.mark.parametrize("n_states", [2.0, "2", True, np.bool_(True), None, np.float64(2)])
def test_n_states_must_be_an_integer(n_states):
    with pytest.raises(TypeError, match="n_states must be an integer, got "):
        check_n_states(n_states, rows_of(grid(GOOD)))


@pytest.mark.parametrize("n_states", [0, -1, 11, 10**9])
def test_n_states_must_fit_the_data(n_states):
    with pytest.raises(ValueError, match=rf"between 1 and 10 \(there are 10 .* got {n_states}$"):
        check_n_states(n_states, rows_of(grid(GOOD)))


def test_states_must_fit_their_integer_type():
    many = rows_of(grid(np.random.default_rng(1).normal(size=(1, 200, 1))))
    with pytest.raises(ValueError, match="between 1 and 127"):
        check_n_states(128, many)
