"""Runs on grids of their own, put side by side."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bayesphase.combine import combine_runs
from bayesphase.dataset import open_metrics, save_metrics, validate_metrics


def run(label: str, steps: list[int], parameters: str = "ab", per_epoch: int = 10) -> xr.Dataset:
    """Make one run whose values tell where they are from: the step, plus the place of a letter."""
    place = np.array([ord(p) - ord("a") for p in parameters])
    return xr.Dataset(
        {
            "l1_norm": (("run", "step", "parameter"), (np.array(steps)[:, None] + place)[None] / 1),
            "eval_loss": (("run", "step"), np.array(steps)[None] / 1),
        },
        {
            "run": [label],
            "step": steps,
            "epoch": ("step", np.array(steps) // per_epoch),
            "parameter": list(parameters),
            "kind": ("parameter", [f"kind {p}" for p in parameters]),
        },
        {"metric_definitions": "one", "seed": label, "task": "t"},
    )


def test_grids_that_differ_are_filled_with_nan_only() -> None:
    ds = combine_runs([run("x", [0, 10, 40]), run("y", [0, 20])])
    assert list(ds["run"].values) == ["x", "y"]
    assert list(ds["step"].values) == [0, 10, 20, 40]
    nan = np.nan
    np.testing.assert_array_equal(ds["eval_loss"], [[0, 10, nan, 40], [0, nan, 20, nan]])
    for part in (run("x", [0, 10, 40]), run("y", [0, 20])):
        back = ds.sel(run=part["run"], step=part["step"])
        xr.testing.assert_equal(
            back["l1_norm"].drop_vars("epoch"), part["l1_norm"].drop_vars("epoch")
        )
    validate_metrics(ds, min_steps=2)


def test_an_epoch_all_agree_on_stays_by_step_and_whole() -> None:
    ds = combine_runs([run("x", [0, 10, 40]), run("y", [0, 20])])
    assert ds["epoch"].dims == ("step",)
    assert ds["epoch"].dtype.kind == "i"
    assert list(ds["epoch"].values) == [0, 1, 2, 4]


def test_an_epoch_they_do_not_agree_on_gets_a_run(tmp_path) -> None:
    ds = combine_runs([run("x", [0, 10, 40]), run("y", [0, 20, 40], per_epoch=20)])
    assert ds["epoch"].dims == ("run", "step")
    np.testing.assert_array_equal(ds["epoch"], [[0, 1, np.nan, 4], [0, np.nan, 1, 2]])
    xr.testing.assert_identical(open_metrics(save_metrics(ds, tmp_path / "m.nc")), ds)
    again = combine_runs([ds, run("z", [0])])
    np.testing.assert_array_equal(again["epoch"].sel(run=["x", "y"]), ds["epoch"])


def test_parameters_and_variables_may_differ() -> None:
    second = run("y", [0, 20], parameters="cb").assign(
        example_loss=(("run", "step", "example"), np.ones((1, 2, 3), np.float32))
    )
    second = second.assign_coords(example=[5, 3, 4])
    ds = combine_runs([run("x", [0]), second, run("z", [0])])
    assert list(ds["parameter"].values) == ["a", "b", "c"]
    assert list(ds["kind"].values) == ["kind a", "kind b", "kind c"]
    np.testing.assert_array_equal(ds["l1_norm"].sel(run="y", step=20), [np.nan, 21, 22])
    assert ds["example_loss"].dtype == np.float32
    assert ds["example_loss"].sel(run="y").notnull().all()
    assert ds["example_loss"].sel(run=["x", "z"]).isnull().all()


def test_attributes_that_differ_are_dropped() -> None:
    ds = combine_runs([run("x", [0]), run("y", [0])])
    assert ds.attrs == {"metric_definitions": "one", "task": "t"}


def test_one_run_comes_back_as_it_was() -> None:
    ds = validate_metrics(run("x", [0, 10]))
    xr.testing.assert_identical(combine_runs([ds]), ds)


def test_the_order_of_runs_changes_only_the_order() -> None:
    parts = [run("x", [0, 30]), run("y", [10, 20]), run("z", [0])]
    one, other = combine_runs(parts), combine_runs(parts[::-1])
    xr.testing.assert_equal(other.sel(run=one["run"]), one)


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match="there are no runs to combine"):
        combine_runs([])
    with pytest.raises(ValueError, match="the run 'x' occurs more than once"):
        combine_runs([run("x", [0]), run("x", [10])])
    with pytest.raises(ValueError, match="by the definitions one and two: their metrics can't"):
        combine_runs([run("x", [0]), run("y", [0]).assign_attrs(metric_definitions="two")])
    other = run("y", [0]).assign_coords(kind=("parameter", ["kind a", "query"]))
    with pytest.raises(ValueError, match=r"'?b'? has kind kind b in one run and query in another"):
        combine_runs([run("x", [0]), other])
    with pytest.raises(TypeError, match=r"DataArray, expected an xarray.Dataset"):
        combine_runs([run("x", [0])["eval_loss"]])
    with pytest.raises(TypeError, match=r"datasets is a Dataset, .*: give a list of Datasets"):
        combine_runs(run("x", [0]))
    with pytest.raises(TypeError, match=r"datasets is a str, .*: give a list of Datasets"):
        combine_runs("x.nc")
    with pytest.raises(TypeError, match=r"datasets is a NoneType, .*: give a list of Datasets"):
        combine_runs(None)
    with pytest.raises(TypeError, match=r"the path 'x.nc', .*: open each first, with .*open_metr"):
        combine_runs([run("y", [0]), Path("x.nc")])


def test_runs_may_come_one_by_one() -> None:
    parts = [run("x", [0, 30]), run("y", [10])]
    xr.testing.assert_identical(combine_runs(ds for ds in parts), combine_runs(parts))
