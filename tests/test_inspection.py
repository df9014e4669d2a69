"""What `inspect` says of Datasets that have something planted in them, and of good ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import bayesphase as bp
from bayesphase.cli import app

STEPS = np.arange(0, 200, 10)


@pytest.fixture
def ds() -> xr.Dataset:
    rng = np.random.default_rng(0)
    dims = ("run", "step", "parameter")
    return xr.Dataset(
        {
            "l2_norm": (dims, rng.normal(size=(3, 20, 2))),
            "trace": (dims, rng.normal(size=(3, 20, 2)), {"units": "m"}),
            "train_loss": (dims[:2], rng.normal(size=(3, 20))),
        },
        {
            "run": ["a", "b", "c"],
            "step": STEPS,
            "parameter": ["p", "q"],
            "kind": (dims[2], ["k"] * 2),
        },
        {"source": "a test"},
    )


def rows(ds: xr.Dataset) -> list[dict[str, str]]:
    return bp.inspect(ds)["findings"].to_dataset().to_dataframe().to_dict("records")


def findings(ds: xr.Dataset) -> dict[tuple[str, str], str]:
    found = rows(ds)
    assert all(row["suggestion"] for row in found)
    return {(row["kind"], row["where"]): row["text"] for row in found}


def test_a_good_one_is_described(ds: xr.Dataset) -> None:
    before = ds.copy(deep=True)
    found = bp.inspect(ds)
    xr.testing.assert_identical(ds, before)
    assert set(findings(ds)) == {("fine", "")}
    runs = found["runs"].to_dataset()
    assert runs["checkpoints"].values.tolist() == [20] * 3
    assert runs["last_step"].values.tolist() == [190] * 3
    assert runs["typical_gap"].values.tolist() == [10] * 3
    metrics = found["metrics"].to_dataset()
    assert metrics["units"].values.tolist() == ["1", "m", "1"]
    assert metrics["long_name"].values.tolist()[0] == "Frobenius norm"
    assert metrics["values"].values.tolist() == [120, 120, 60]
    assert float(metrics["least"].sel(metric="trace")) == float(ds["trace"].min())
    assert found["parameters"]["kind"].values.tolist() == ["k", "k"]
    assert found.attrs["source"] == "a test"


def test_values_that_are_not_finite_are_counted_by_run_and_metric(ds: xr.Dataset) -> None:
    ds["l2_norm"][0, 3] = np.inf
    ds["l2_norm"][0, 4, 1] = -np.inf
    ds["trace"][1, 5, 0] = np.nan
    values = bp.inspect(ds)["values"].to_dataset()
    assert values["infinite"].values.tolist() == [[3, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert values["missing"].values.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert findings(ds) == {
        ("infinite", "run a"): "3 values are infinite: l2_norm (3)",
        ("missing", "run b"): "1 value is missing: trace (1)",
    }
    with pytest.raises(ValueError, match="infinite"):
        bp.validate_metrics(ds)
    bp.validate_metrics(ds.where(np.isfinite(ds)))  # as it suggests


def test_checkpoints_that_a_run_does_not_have_are_not_missing(ds: xr.Dataset) -> None:
    ds = ds.where((ds["run"] != "b") | (ds["step"] % 20 == 0))
    ds["l2_norm"][2, :, 1] = np.nan  # the network of this run has no such matrix
    assert int(bp.inspect(ds)["values"]["missing"].sum()) == 0
    assert set(findings(ds)) == {("fine", "")}


def test_metrics_that_tell_nothing_or_the_same(ds: xr.Dataset) -> None:
    ds["flat"] = 0 * ds["train_loss"] + 2.5
    ds["gone"] = np.nan * ds["train_loss"]
    ds["again"] = 3 - 1e-200 * ds["train_loss"] * 1e200
    ds["nearly"] = ds["l2_norm"] + 1e-5 * ds["trace"]
    ds["other"] = ds["l2_norm"] + 0.1 * ds["trace"]
    ds["partly"] = ds["train_loss"].where(ds["run"] != "a")
    ds["nonfinite_count"] = 0 * ds["train_loss"]
    assert findings(ds) == {
        ("constant", "flat"): "is 2.5 throughout: no phase can be told by it",
        ("empty", "gone"): "has no finite value at all",
        ("same", "again"): "is a multiple of train_loss but for a constant: together they count it "
        "twice",
        ("same", "nearly"): "is a multiple of l2_norm but for a constant: together they count it "
        "twice",
        ("absent", "partly"): "is not recorded in 1 of 3 runs: a",
    }


def test_accuracy_in_percent(ds: xr.Dataset) -> None:
    ds["eval_accuracy"] = 50 + 10 * ds["train_loss"].clip(-5, 5) + ds["trace"].mean("parameter")
    (row,) = rows(ds)
    assert (row["kind"], row["where"]) == ("percent", "eval_accuracy")
    assert row["text"] == f"goes up to {float(ds['eval_accuracy'].max()):g}, an accuracy up to 1"
    exec(row["suggestion"].partition("divide by 100: ")[2], {"ds": ds})
    assert set(findings(ds)) == {("fine", "")}
    ds["eval_accuracy"] *= (1 + 1e-7) / ds["eval_accuracy"].max()  # as a mean in float32 may be
    assert set(findings(ds)) == {("fine", "")}


def test_checkpoints_that_could_not_be_read(ds: xr.Dataset) -> None:
    missing = [
        {"run": "b", "step": i, "path": f"b/epoch_{i}.pth", "reason": f"cut short at {i}"}
        for i in range(6)
    ]
    ds.attrs["missing_checkpoints"] = json.dumps(missing)
    text = "6 checkpoints could not be read: b/epoch_0.pth: cut short at 0, and 5 more"
    assert findings(ds) == {("unread", ""): text}
    ds.attrs["missing_checkpoints"] = json.dumps(missing[1:2])
    text = "1 checkpoint could not be read: b/epoch_1.pth: cut short at 1"
    assert findings(ds) == {("unread", ""): text}
    ds.attrs["missing_checkpoints"] = "[]"
    assert set(findings(ds)) == {("fine", "")}


def test_the_way_to_go_on_can_be_gone(ds: xr.Dataset) -> None:
    weights, log = ds, ds[["train_loss"]]
    for seed, name in enumerate(("grad_norm", "lr", "tokens", "eval_loss")):
        noise = np.random.default_rng(seed + 1).normal(size=log["train_loss"].shape)
        log[name] = log["train_loss"].copy(data=noise)
    log["nonfinite_count"] = 0 * log["train_loss"]
    vectors = ds[["l2_norm"]].rename(l2_norm="example_loss", parameter="example").drop_vars("kind")
    vectors["nonfinite_count"] = log["nonfinite_count"]
    made = []
    for metrics in (weights, log, log[["grad_norm", "lr"]], vectors):
        (row,) = rows(metrics)
        assert row["kind"] == "fine"
        code, _, fit = row["suggestion"].removeprefix("go on: ").partition("; ")
        assert fit in ("bp.fit(x, 3)", "")
        names = {"bp": bp, "ds": metrics}
        exec(code, names)
        made.append(names)
    features = [made[i]["x"]["feature"].values.tolist() for i in range(3)]
    assert features == [["l2_norm", "trace"], ["train_loss", "eval_loss"], ["grad_norm", "lr"]]
    assert "components" in made[3]
    (row,) = rows(log[["nonfinite_count"]])
    assert row["suggestion"].startswith("go on: record metrics that change")


def test_only_what_is_there_is_pointed_to(ds: xr.Dataset) -> None:
    ds["trace"][1, 5, 0] = np.nan
    (row,) = rows(ds)
    assert row["suggestion"] == "models take them as missing"
    ds["nonfinite_count"] = 0 * ds["train_loss"]
    (row,) = rows(ds)
    assert row["suggestion"].endswith("the run may have diverged: look at ds['nonfinite_count']")


def test_runs_that_are_short_empty_or_have_gaps(ds: xr.Dataset) -> None:
    late = (ds["run"] == "a") & (ds["step"] > 60)
    hole = (ds["run"] == "b") & (ds["step"] > 40) & (ds["step"] < 100)
    found = findings(ds.where(~late & ~hole))
    assert found == {
        ("short", "run a"): "has 7 checkpoints where the median run has 15: it ends at step 60",
        ("gap", "run b"): "has no checkpoint between steps 40 and 100",
    }
    runs = bp.inspect(ds.where(~hole))["runs"].to_dataset().sel(run="b")
    assert (int(runs["largest_gap"]), int(runs["largest_gap_after"])) == (60, 40)
    found = findings(ds.where((ds["run"] != "c") | (ds["step"] == 10)))
    assert found["few", "run c"] == "has 1 checkpoint: a model needs two"
    found = findings(ds.where(ds["run"] != "c"))
    assert found["few", "run c"] == "has 0 checkpoints: a model needs two"


def test_a_grid_that_grows_coarser_has_no_gap(ds: xr.Dataset) -> None:
    log = ds.isel(step=slice(12)).assign_coords(step=[0, *(2 ** np.arange(11))])
    assert ("fine", "") in findings(log)
    then_linear = ds.isel(step=slice(10)).assign_coords(
        step=[1, 10, 100, 1000, 2000, 3000, 4000, 5000, 6000, 7000]
    )
    assert ("fine", "") in findings(then_linear)


def test_one_step_and_nothing_but_nan(ds: xr.Dataset) -> None:
    assert {kind for kind, _ in findings(ds.isel(step=[0]))} == {"few"}
    found = findings(np.nan * ds)
    assert {kind for kind, _ in found} == {"empty", "few"}


def test_it_reads_files_and_is_itself_saved_as_one(ds: xr.Dataset, tmp_path: Path) -> None:
    for name in ("m.nc", "m.zarr"):
        path = bp.save_metrics(ds, tmp_path / name)
        found = bp.inspect(path)
        xr.testing.assert_identical(found["runs"].to_dataset(), bp.inspect(ds)["runs"].to_dataset())
        found.to_netcdf(tmp_path / "found.nc", engine="h5netcdf")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        bp.inspect(tmp_path / "none.nc")
    with pytest.raises(TypeError, match=r"metrics are a int, expected an xarray\.Dataset"):
        bp.inspect(3)
    with pytest.raises(ValueError, match="the dim 'run' is missing"):
        bp.inspect(ds.isel(run=0, drop=True))


def invoke(*arguments: object, columns: int = 200):
    env = {"COLUMNS": str(columns)}
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)], env=env)


def test_tables_fit_the_terminal(ds: xr.Dataset, tmp_path: Path) -> None:
    names = {"l2_norm": "trace_spectral_ratio", "train_loss": "a metric with a very long name"}
    ds = ds.rename(names).assign_attrs(settings="s" * 300)
    ds["a metric with a very long name"].attrs["long_name"] = "a metric with a very long name"
    path = bp.save_metrics(ds, tmp_path / "m.nc")
    lines = {width: invoke(path, columns=width).output.splitlines() for width in (80, 140)}
    for width, printed in lines.items():
        assert max(map(len, printed)) <= width
        assert f"settings: {'s' * 197}..." in "".join(printed)
    narrow, wide = ("\n".join(printed) for printed in lines.values())
    for heading in ("checkpoints", "typical", "largest", "greatest", "missing", "infinite"):
        assert heading in narrow  # not cut
    words = [line.split() for line in lines[80]]
    assert ["trace_spectral_ratio", "1", "parameter"] in [row[:3] for row in words]
    assert ["a", "metric", "with", "a"] in [row[:4] for row in words]  # folded, and not cut
    assert "trace over spectral norm" in wide
    assert "trace over spectral norm" not in narrow
    assert wide.count("a metric with a very long name") == 1


def test_the_command_prints_it(ds: xr.Dataset, tmp_path: Path) -> None:
    ds["flat"] = 0 * ds["train_loss"] + 2.5
    ds = ds.assign_coords(run=["[red]a", "b", "c"])  # no markup
    path = bp.save_metrics(ds, tmp_path / "m.zarr")
    result = invoke(path)
    assert result.exit_code == 0, result.output
    assert "m.zarr: 3 runs, 4 metrics, 2 weight matrices" in result.output.replace("\n", "")
    rows = [line.split() for line in result.output.splitlines()]
    assert ["[red]a", "20"] in [row[:2] for row in rows]
    assert "Frobenius norm" in result.output
    assert "source: a test" in result.output
    assert "flat is 2.5 throughout: no phase can be told by it" in result.output
    assert "ds = ds.drop_vars('flat')" in result.output
    assert "matrix" not in result.output.replace("matrices", "")
    rows = [line.split() for line in invoke(path, "--parameters").output.splitlines()]
    assert "q" in [row[0] for row in rows if row]


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    result = invoke(tmp_path / "none.zarr")
    assert result.exit_code == 2
    assert "there is no file" in result.output
