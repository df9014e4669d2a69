"""The contract of a metrics Dataset: what passes, what is said of what does not, round trips."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bayesphase.dataset import (
    VARIABLES,
    checkpoint_counts,
    open_metrics,
    save_metrics,
    validate_metrics,
)


def make(runs: int = 2, steps: int = 4) -> xr.Dataset:
    """Make metrics with one variable of every set of dims; the last run starts a step late."""
    rng = np.random.default_rng(0)
    coords = {
        "run": [f"seed {i}" for i in range(runs)],
        "step": np.arange(steps) * 10,
        "epoch": ("step", np.arange(steps)),
        "parameter": ["a", "b.long"],
        "layer": ("parameter", ["a", "b"]),
        "kind": ("parameter", ["linear", "query"]),
        "shape": ("parameter", ["3x4", "12x1"]),
        "example": [7, 5, 6],
    }
    ds = xr.Dataset(
        {
            "l1_norm": (("run", "step", "parameter"), rng.normal(size=(runs, steps, 2))),
            "eval_loss": (("run", "step"), rng.normal(size=(runs, steps))),
            "example_loss": (
                ("run", "step", "example"),
                rng.normal(size=(runs, steps, 3)).astype(np.float32),
            ),
            "my_metric": (("run", "step"), rng.normal(size=(runs, steps)), {"units": "bits"}),
        },
        coords,
        {"task": "none", "settings": {"a": [1, 2]}},
    )
    late = (ds["run"] == ds["run"][-1]) & (ds["step"] == 0)
    return ds.where(~late) if runs > 1 else ds


def test_valid_metrics_keep_their_values_and_get_names_and_units() -> None:
    ds = make()
    checked = validate_metrics(ds)
    xr.testing.assert_equal(checked, ds)
    assert checked["l1_norm"].attrs == {"long_name": "entrywise L1 norm", "units": "1"}
    assert checked["my_metric"].attrs == {"long_name": "my_metric", "units": "bits"}
    assert checked["step"].attrs["units"] == "optimiser steps"
    assert all({"long_name", "units"} <= set(v.attrs) for v in checked.data_vars.values())
    assert not ds["l1_norm"].attrs, "the input was changed"
    assert not ds["step"].attrs, "the input was changed"


def test_dims_are_put_in_order_and_labels_get_plain_dtypes() -> None:
    ds = make().transpose("example", "parameter", "step", "run")
    ds = ds.assign_coords(run=ds["run"].astype(object), step=ds["step"].astype(np.int32))
    checked = validate_metrics(ds)
    assert checked["l1_norm"].dims == ("run", "step", "parameter")
    assert checked["run"].dtype.kind == "U"
    assert checked["step"].dtype == np.int64
    xr.testing.assert_equal(checked, make())


def test_validation_is_idempotent() -> None:
    once = validate_metrics(make())
    xr.testing.assert_identical(validate_metrics(once), once)


def test_every_known_variable_is_named_and_has_units() -> None:
    for name, variable in VARIABLES.items():
        assert variable.dims[:2] == ("run", "step"), name
        assert variable.long_name, name
        assert variable.units, name


def test_checkpoints_are_counted_by_run() -> None:
    np.testing.assert_array_equal(checkpoint_counts(make()), [4, 3])


def with_step(values: object) -> xr.Dataset:
    return make().assign_coords(step=np.asarray(values))


ERRORS = {
    "not a Dataset": (lambda: make()["l1_norm"], TypeError, "are a DataArray, expected"),
    "path": (lambda: "m.nc", TypeError, r"are a str, .*; bayesphase.open_metrics\(path\) reads"),
    "unknown dim": (
        lambda: make().rename(parameter="tensor"),
        ValueError,
        "the dim 'tensor' is not known, the dims of metrics are run, step, parameter, example",
    ),
    "no run dim": (
        lambda: make().isel(run=0, drop=True),
        ValueError,
        r"'run' is missing, found .*step.*: add it with ds.expand_dims\(run=",
    ),
    "one run": (
        lambda: make().sel(run="seed 0"),
        ValueError,
        r"'run' is gone, one of the runs was selected: .* with a list, ds.sel\(run=\['seed 0'\]\)",
    ),
    "one step": (
        lambda: make().sel(step=10),
        ValueError,
        r"'step' is gone, one of the checkpoints was selected: .*, ds.sel\(step=\[10\]\)",
    ),
    "no step dim": (lambda: make().isel(step=0, drop=True), ValueError, "'step' is missing"),
    "no runs": (lambda: make().isel(run=[]), ValueError, "there are no runs"),
    "no checkpoints": (lambda: make().isel(step=[]), ValueError, "there are no checkpoints"),
    "no variables": (lambda: make()[["run", "step"]], ValueError, "there are no metrics"),
    "no run labels": (lambda: make().drop_vars("run"), ValueError, "'run' has no labels"),
    "no parameter labels": (
        lambda: make().drop_vars("parameter"),
        ValueError,
        "'parameter' has no labels",
    ),
    "numbered runs": (
        lambda: make().assign_coords(run=[0, 1]),
        TypeError,
        "'run' has dtype int64, expected text",
    ),
    "kind by run": (
        lambda: make().assign_coords(kind=("run", ["a", "b"])),
        ValueError,
        "'kind' has dims run, expected parameter",
    ),
    "run twice": (
        lambda: make().assign_coords(run=["x", "x"]),
        ValueError,
        "the run 'x' occurs more than once",
    ),
    "parameter twice": (
        lambda: make().assign_coords(parameter=["w", "w"]),
        ValueError,
        "the parameter 'w' occurs more than once",
    ),
    "step twice": (
        lambda: with_step([0, 10, 10, 20]),
        ValueError,
        "step 10 occurs more than once",
    ),
    "steps unsorted": (
        lambda: with_step([0, 20, 10, 30]),
        ValueError,
        r"20 is followed by 10; sort with ds.sortby\('step'\)",
    ),
    "fractional steps": (
        lambda: with_step([0.0, 0.5, 1.0, 1.5]),
        TypeError,
        "step has dtype float64, expected whole optimiser steps",
    ),
    "steps as text": (
        lambda: with_step(["a", "b", "c", "d"]),
        TypeError,
        "step has dtype <U1, expected whole",
    ),
    "epoch by parameter": (
        lambda: make().assign_coords(epoch=("parameter", [0, 1])),
        ValueError,
        "'epoch' has dims parameter, expected step or run, step",
    ),
    "text for numbers": (
        lambda: make().assign(eval_loss=make()["eval_loss"].astype(str)),
        TypeError,
        "eval_loss has dtype <U32, expected numbers",
    ),
    "objects for numbers": (
        lambda: make().assign(eval_loss=make()["eval_loss"].astype(object)),
        TypeError,
        "eval_loss has dtype object",
    ),
    "truth for numbers": (
        lambda: make().assign(eval_loss=make()["eval_loss"] > 0),
        TypeError,
        "eval_loss has dtype bool",
    ),
    "known name, other dims": (
        lambda: make().assign(l1_norm=make()["l1_norm"].mean("parameter")),
        ValueError,
        "l1_norm has dims run, step, expected run, step, parameter: give it",
    ),
    "own metric without run": (
        lambda: make().assign(my_metric=make()["my_metric"].mean("run")),
        ValueError,
        "my_metric has dims step, expected run, step",
    ),
    "infinite": (
        lambda: make().assign(eval_loss=make()["eval_loss"] / 0),
        ValueError,
        "eval_loss has 7 infinite values: what could not be computed is NaN",
    ),
    "all NaN": (
        lambda: make().assign(eval_loss=make()["eval_loss"] * np.nan),
        ValueError,
        "eval_loss is NaN at every checkpoint of every run",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_is_wrong_is_said(case: str) -> None:
    make_wrong, error, message = ERRORS[case]
    with pytest.raises(error, match=message):
        validate_metrics(make_wrong())


def test_too_few_checkpoints_names_the_run() -> None:
    validate_metrics(make(), min_steps=3)
    with pytest.raises(ValueError, match="run seed 1 has 3 checkpoints, at least 4 are needed"):
        validate_metrics(make(), min_steps=4)
    with pytest.raises(ValueError, match="run seed 0 has 1 checkpoint, at least 2 are needed"):
        validate_metrics(make(steps=1, runs=1), min_steps=2)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_round_trip_loses_nothing(tmp_path: Path, suffix: str) -> None:
    ds = validate_metrics(make())
    assert save_metrics(ds, tmp_path / f"m{suffix}") == tmp_path / f"m{suffix}"
    again = open_metrics(tmp_path / f"m{suffix}")
    xr.testing.assert_identical(again, ds)
    for name in ds.variables:
        assert again[name].dtype == ds[name].dtype, name
    assert [p.name for p in tmp_path.iterdir()] == [f"m{suffix}"], "something was left behind"


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_saving_over_an_older_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    save_metrics(make(), path)
    opened = open_metrics(path)
    save_metrics(opened.isel(run=[0]), path)
    assert open_metrics(path).sizes["run"] == 1


def test_metrics_that_are_all_nan_can_be_saved_and_opened(tmp_path: Path) -> None:
    ds = make().assign(eval_loss=make()["eval_loss"] * np.nan)
    assert open_metrics(save_metrics(ds, tmp_path / "m.nc"))["eval_loss"].isnull().all()


def test_nothing_is_written_of_metrics_that_break_the_contract(tmp_path: Path) -> None:
    path = save_metrics(make(), tmp_path / "m.nc")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="20 is followed by 10"):
        save_metrics(with_step([0, 20, 10, 30]), path)
    assert path.read_bytes() == before


KILLED_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
from bayesphase import dataset, _storage
path = Path(sys.argv[1])
def write(target):  # dies half way through
    target.write_bytes(path.read_bytes()[:1000])
    os.kill(os.getpid(), signal.SIGKILL)
_storage.write_atomically(path, write)
"""


def test_a_process_killed_while_saving_leaves_the_older_file(tmp_path: Path) -> None:
    path = save_metrics(make(), tmp_path / "m.nc")
    child = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, str(path)],
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert child.returncode == -signal.SIGKILL
    xr.testing.assert_equal(open_metrics(path), make())


def test_files_that_hold_no_metrics(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.nc"):
        open_metrics(tmp_path / "nowhere.nc")
    for name in ("m.csv", "."):
        with pytest.raises(
            ValueError, match=r"has the suffix .*, expected the path of what bayesph"
        ):
            open_metrics(tmp_path / name)
    paths = [save_metrics(make(), tmp_path / "m.nc")]
    with pytest.raises(
        TypeError, match=r"path is a list, expected one path; .* by bp.combine_runs"
    ):
        open_metrics(paths)
    with pytest.raises(ValueError, match=r"has the suffix '.pt'"):
        save_metrics(make(), tmp_path / "m.pt")

    whole = save_metrics(make(), tmp_path / "m.nc").read_bytes()
    (tmp_path / "half.nc").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.nc").write_text("step,loss\n1,2\n")
    (tmp_path / "empty.nc").write_bytes(b"")
    for name in ("half", "text", "empty"):
        with pytest.raises(ValueError, match=rf"{name}\.nc' can't be read as netCDF"):
            open_metrics(tmp_path / f"{name}.nc")

    other = xr.Dataset({"temperature": ("time", [1.0, 2.0])})
    other.to_netcdf(tmp_path / "weather.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"weather.nc' does not hold metrics: the dim 'time'"):
        open_metrics(tmp_path / "weather.nc")
    tree = xr.DataTree.from_dict({"/posterior": other})
    tree.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="does not hold metrics: it has the groups posterior"):
        open_metrics(tmp_path / "fit.nc")
