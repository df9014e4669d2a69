"""Tables that tools and people write: wide, long, with holes, and broken ones."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bayesphase import combine_runs, features, inspect, open_metrics, read_log, save_metrics
from bayesphase.dataset import validate_metrics


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def attr(ds: xr.Dataset, name: str):
    return json.loads(ds.attrs[name])


WIDE = """step,epoch,run,train_loss,val_acc,lr
0,0,seed 10,2.5,,0.1
100,1,seed 10,1.5,0.25,0.1
100,1,seed 2,1.25,0.5,0.1
50,0.5,seed 2,2,,0.1
"""
LONG = """run\tstep\tmetric\tvalue\tepoch
seed 10\t0\ttrain_loss\t2.5\t0
seed 10\t0\tlr\t0.1\t0
seed 10\t100\ttrain_loss\t1.5\t1
seed 10\t100\tlr\t0.1\t1
seed 10\t100\tval_acc\t0.25\t1
seed 2\t100\ttrain_loss\t1.25\t1
seed 2\t100\tlr\t0.1\t1
seed 2\t100\tval_acc\t0.5\t1
seed 2\t50\ttrain_loss\t2\t0.5
seed 2\t50\tlr\t0.1\t0.5
"""


def wide() -> xr.Dataset:
    nan = math.nan
    return xr.Dataset(
        {
            "train_loss": (("run", "step"), [[nan, 2, 1.25], [2.5, nan, 1.5]]),
            "eval_accuracy": (("run", "step"), [[nan, nan, 0.5], [nan, nan, 0.25]]),
            "lr": (("run", "step"), [[nan, 0.1, 0.1], [0.1, nan, 0.1]]),
        },
        {
            "run": ["seed 2", "seed 10"],
            "step": [0, 50, 100],
            "epoch": ("step", [0, 0.5, 1]),
        },
    )


def parquet(path: Path) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import csv
    from pyarrow import parquet as pq

    table = csv.read_csv(pa.py_buffer(WIDE.encode()))
    pq.write_table(table, path)
    return path


def json_lines(path: Path) -> Path:
    header, *rows = [line.split(",") for line in WIDE.splitlines()]
    objects = [
        {n: c if n == "run" else float(c) for n, c in zip(header, row, strict=True) if c}
        for row in rows
    ]
    if path.suffix == ".json":
        return write(path, json.dumps(objects))
    return write(path, "\n".join(map(json.dumps, objects)))


@pytest.mark.parametrize(
    "make",
    [
        lambda d: write(d / "a.csv", WIDE),
        lambda d: write(d / "a.csv", "\ufeff" + WIDE.replace("\n", "\r\n")),
        lambda d: write(d / "a.csv", WIDE.replace(",", ";").rstrip()),
        lambda d: write(d / "a.csv", WIDE.replace(",", ",  ").replace("seed", '"seed"')),
        lambda d: write(d / "a.tsv", LONG),
        lambda d: parquet(d / "a.parquet"),
        lambda d: json_lines(d / "a.jsonl"),
        lambda d: json_lines(d / "a.json"),
    ],
    ids=["csv", "windows", "semicolons", "spaces", "long", "parquet", "jsonl", "json"],
)
def test_all_forms_of_a_table_give_the_same(make, tmp_path: Path, request) -> None:
    path = make(tmp_path)
    if request.node.callspec.id == "spaces":
        write(path, path.read_text().replace('"seed"', "seed"))
    ds = read_log(path)
    xr.testing.assert_equal(ds, wide())
    xr.testing.assert_identical(validate_metrics(ds), ds)
    assert ds["eval_accuracy"].attrs == {
        "logged_as": "val_acc",
        "long_name": "validation accuracy",
        "units": "1",
    }
    assert ds.attrs["source"] == "bayesphase.read_log"
    assert ds.attrs["log_format"] == "table"
    assert ds.attrs["log_path"] == str(path)
    assert (attr(ds, "skipped"), attr(ds, "duplicates"), attr(ds, "nonfinite")) == ([], {}, {})
    for name in ("b.nc", "b.zarr"):
        xr.testing.assert_identical(open_metrics(save_metrics(ds, tmp_path / name)), ds)


def test_columns_and_names_can_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "t,model,step,ce,a/b\n3,x,9,1,2\n4,y,9,3,4\n")
    ds = read_log(path, step="t", run="model", names={"ce": "train_loss"})
    assert list(ds["step"].values) == [3, 4]
    assert list(ds["run"].values) == ["x", "y"]
    assert set(ds.data_vars) == {"train_loss", "logged_step", "a_b"}
    np.testing.assert_array_equal(ds["train_loss"], [[1, np.nan], [np.nan, 3]])
    assert ds["a_b"].attrs == {"logged_as": "a/b", "long_name": "a/b", "units": "unknown"}
    with pytest.raises(ValueError, match=r"step is 'steps', the columns are t, model, step, ce"):
        read_log(path, step="steps")
    with pytest.raises(ValueError, match=r"names has 'cee', .* did you mean 'ce'"):
        read_log(path, step="t", run="model", names={"cee": "train_loss"})
    with pytest.raises(ValueError, match="one variable to several"):
        read_log(path, names={"ce": "train_loss", "a/b": "train_loss"})
    for variable in ("", "a/b", "layer", "."):
        with pytest.raises(ValueError, match=f"names gives '{variable}', which can't be the name"):
            read_log(path, step="t", run="model", names={"ce": variable})


def test_names_that_meet_stay_apart(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        "step,val_loss,eval_loss,val/loss,a/b,a_b,kind,example_loss\n" + "1," * 7 + "1\n",
    )
    ds = read_log(path)
    logged = {str(n): v.attrs.get("logged_as", str(n)) for n, v in ds.data_vars.items()}
    assert logged == {
        "val_loss": "val_loss",
        "eval_loss": "eval_loss",
        "val_loss_2": "val/loss",
        "a_b": "a_b",
        "a_b_2": "a/b",
        "logged_kind": "kind",
        "logged_example_loss": "example_loss",
    }


def test_each_file_of_a_folder_is_a_run(tmp_path: Path) -> None:
    for seed in (2, 10, 1):
        write(tmp_path / f"seed {seed}.csv", f"iteration,loss\n0,{seed}\n")
        write(tmp_path / "more" / f"seed {seed}" / "history.csv", f"iteration,loss\n0,{seed}\n")
    write(tmp_path / ".hidden.csv", "nothing")
    write(tmp_path / "notes.txt", "nothing")
    ds = read_log(tmp_path)
    names = ["more/seed 1", "more/seed 2", "more/seed 10", "seed 1", "seed 2", "seed 10"]
    assert list(ds["run"].values) == names
    assert ds["loss"].values.ravel().tolist() == [1, 2, 10, 1, 2, 10]
    assert ds.attrs["log_files"] == 6


def test_the_last_of_several_values_counts(tmp_path: Path) -> None:
    text = "step,loss,acc\n5,1,0.5\n5,2,\n0,3,0.1\n5,4,0.5\n"
    said = (
        "loss: 2 values were told more than once and differ; if the file holds several runs, name "
        "their column: run=... (--run)"
    )
    with pytest.warns(UserWarning, match=re.escape(said)):
        ds = read_log(write(tmp_path / "a.csv", text))
    found = inspect(ds)["findings"].to_dataset()
    assert found["kind"].values.tolist() == ["repeated"]
    assert f"{found['text'].item()}; {found['suggestion'].item()}" == said
    assert ds["loss"].values.tolist() == [[3, 4]]
    assert ds["acc"].values.tolist() == [[0.1, 0.5]]
    assert attr(ds, "duplicates") == {
        "loss": {"count": 2, "differing": 2},
        "acc": {"count": 1, "differing": 0},
    }
    assert "the last one in the log is kept" in ds.attrs["duplicates_rule"]


@pytest.mark.parametrize("column", ["Experiment Name", "experiment", "trial", "Trial", "name"])
def test_runs_by_another_name_are_not_merged(column: str, tmp_path: Path) -> None:
    rows = "1,0,3\n1,10,2\n2,0,5\n2,10,4\n"
    ds = read_log(write(tmp_path / "a.csv", f"{column},step,loss\n{rows}"))
    assert list(ds["run"].values) == ["1", "2"]
    assert ds["loss"].values.tolist() == [[3, 2], [5, 4]]
    assert set(ds.data_vars) == {"loss"}


def test_a_column_that_may_name_runs_does_so_only_where_it_parts_rows(tmp_path: Path) -> None:
    for seed in (1, 2):  # the same in all files
        write(tmp_path / f"{seed}.csv", f"experiment,step,loss\ngrokking,0,{seed}\ngrokking,5,0\n")
    assert list(read_log(tmp_path)["run"].values) == ["1", "2"]
    each_row = write(tmp_path / "b.csv", "name,step,loss\nckpt 0,0,3\nckpt 5,5,2\n")
    assert list(read_log(each_row)["run"].values) == ["b"]
    holes = write(tmp_path / "c.csv", "trial,step,loss\n1,0,3\n1,5,2\n,10,1\n2,15,1\n")
    assert list(read_log(holes)["run"].values) == ["c"]
    metric = write(tmp_path / "d.csv", "name,step,value\nx,0,3\nx,5,2\ny,0,3\ny,5,1\n")
    ds = read_log(metric)
    assert (list(ds["run"].values), set(ds.data_vars)) == (["d"], {"x", "y"})


def test_steps_beside_fractional_epochs(tmp_path: Path) -> None:
    for column in ("Global Step", "global_step", "Train/Global Step"):
        path = write(tmp_path / "a.csv", f"{column},Epoch,loss\n0,0,3\n25,0.05,2\n")
        ds = read_log(path)
        assert list(ds["step"].values) == [0, 25]
        assert list(ds["epoch"].values) == [0, 0.05]
    path = write(tmp_path / "a.csv", "updates,Epoch,loss\n0,0,3\n25,0.05,2\n")
    with pytest.raises(
        ValueError, match=r"a.csv:3: Epoch is '0.05', .* no known column of steps; "
    ):
        read_log(path)
    assert list(read_log(path, step="updates")["step"].values) == [0, 25]  # as it says


def test_what_is_not_finite_is_missing_and_counted(tmp_path: Path) -> None:
    text = "step,loss\n1,NaN\n2,inf\n3,-Infinity\n4,1e400\n5,\n6,1\n" + "7,nan\n" * 2
    ds = read_log(write(tmp_path / "a.csv", text))
    assert np.isnan(ds["loss"].values).tolist() == [[True] * 4 + [False, True]]
    assert list(ds["step"].values) == [1, 2, 3, 4, 6, 7]  # step 5 has nothing at all
    found = attr(ds, "nonfinite")["loss"]
    assert {value: entry["count"] for value, entry in found.items()} == {
        "nan": 2,
        "inf": 2,
        "-inf": 1,
    }
    assert found["inf"]["where"] == [{"run": "a", "step": 2}, {"run": "a", "step": 4}]
    lines = '{"step": 1, "loss": NaN}\n{"step": 2, "loss": -Infinity}\n{"step": 3, "loss": 1%s}\n'
    ds = read_log(write(tmp_path / "b.jsonl", lines % ("0" * 400)))
    assert np.isnan(ds["loss"].values).all()
    assert set(attr(ds, "nonfinite")["loss"]) == {"nan", "-inf", "inf"}


def test_what_is_no_number_is_listed(tmp_path: Path) -> None:
    text = "step,loss,note,flag\n1,0.5,hello,True\n,0.25,,\n2,1_000,,\n3,oops,x,\n"
    path = write(tmp_path / "a.csv", text)
    ds = read_log(path)
    assert ds["loss"].values.tolist() == [[0.5]]
    assert attr(ds, "skipped") == [
        {"what": "note: text, not a number", "count": 2, "where": [f"{path}:2", f"{path}:5"]},
        {"what": "flag: text, not a number", "count": 1, "where": [f"{path}:2"]},
        {"what": "values in a row without step", "count": 1, "where": [f"{path}:3"]},
        {"what": "loss: text, not a number", "count": 2, "where": [f"{path}:4", f"{path}:5"]},
    ]


def test_columns_that_are_not_read_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ",step,tag,value,wall time\n0,1,loss,0.5,17\n1,2,loss,,18\n")
    ds = read_log(path)
    assert ds["loss"].values.tolist() == [[0.5]]
    assert [s["what"] for s in attr(ds, "skipped")] == ["the column ''", "the column 'wall time'"]


def test_more_is_left_out_than_can_be_listed(tmp_path: Path) -> None:
    names = [f"text {i}" for i in range(300)]
    rows = "".join(f"{i},1{',x' * 300}\n" for i in range(20))
    ds = read_log(write(tmp_path / "a.csv", ",".join(["step", "loss", *names]) + "\n" + rows))
    skipped = attr(ds, "skipped")
    assert sum(entry["count"] for entry in skipped) == 6000
    assert skipped[-1] == {
        "what": "other things",
        "count": 4000,
        "where": skipped[-1]["where"],
    }
    assert max(len(entry["where"]) for entry in skipped) == 5


def test_where_only_epochs_are_logged_steps_are_epochs(tmp_path: Path) -> None:
    ds = read_log(write(tmp_path / "a.csv", "epoch,loss\n2,1\n1,2\n"))
    assert list(ds["step"].values) == [1, 2]
    assert list(ds["epoch"].values) == [1, 2]
    assert ds["step"].attrs["units"] == "epochs"
    write(tmp_path / "b.csv", "step,loss\n2,1\n")
    with pytest.warns(UserWarning, match=r"b.csv: counts steps, and a file before it counts epoch"):
        assert list(read_log(tmp_path)["run"].values) == ["a"]


def test_runs_that_disagree_on_the_epoch_have_their_own(tmp_path: Path) -> None:
    ds = read_log(write(tmp_path / "a.csv", "seed,step,epoch,loss\n0,10,1,3\n1,10,2,4\n1,20,4,5\n"))
    assert list(ds["run"].values) == ["seed 0", "seed 1"]
    np.testing.assert_array_equal(ds["epoch"], [[1, np.nan], [2, 4]])


def test_metrics_of_matrices(tmp_path: Path) -> None:
    long = (
        "run,step,parameter,metric,value\na,0,w1,l2_norm,3\na,0,w2,l2_norm,4\na,0,,train_loss,1\n"
    )
    ds = read_log(write(tmp_path / "a.csv", long))
    assert ds["l2_norm"].sel(run="a", step=0).to_series().to_dict() == {"w1": 3, "w2": 4}
    assert ds["train_loss"].dims == ("run", "step")
    frame = ds.drop_vars("train_loss").to_dataframe().reset_index().to_csv(index=False)
    wide = read_log(write(tmp_path / "wide.csv", frame))
    xr.testing.assert_equal(wide, ds.drop_vars("train_loss"))
    both = ds.isel(parameter=[0, 1]).to_dataframe().reset_index().to_csv(index=False)
    both = read_log(write(tmp_path / "both.csv", both))
    assert both["train_loss"].values.tolist() == [[1]]
    assert attr(both, "duplicates") == {"train_loss": {"count": 1, "differing": 0}}
    one = read_log(
        write(tmp_path / "b.csv", "step,l2_norm,weight_mean\n0,3,0.1\n1,4,0.3\n2,6,0.2\n")
    )
    assert one["l2_norm"].dims == ("run", "step", "parameter")
    assert list(one["parameter"].values) == ["all"]
    assert features(one).sizes == {"run": 1, "step": 3, "feature": 2}


def test_charts_exported_from_wandb(tmp_path: Path) -> None:
    text = (
        '"Step","calm-bird-1 - eval/loss","calm-bird-1 - eval/loss__MIN",'
        '"calm-bird-1 - eval/loss__MAX","old - sea-2 - eval/loss","old - sea-2 - eval/loss__MIN"\n'
        '"10","0.5","0.4","0.6","",""\n"20","0.25","0.2","0.3","1","1"\n'
    )
    ds = read_log(write(tmp_path / "wandb_export.csv", text))
    assert list(ds["run"].values) == ["calm-bird-1", "old"]
    ds = read_log(write(tmp_path / "w.csv", text.replace("old - ", "")))
    np.testing.assert_array_equal(ds["eval_loss"], [[0.5, 0.25], [np.nan, 1]])
    assert list(ds["run"].values) == ["calm-bird-1", "sea-2"]
    assert attr(ds, "skipped")[0]["count"] == 5


def test_history_of_wandb(tmp_path: Path) -> None:
    rows = [
        {
            "_step": 0,
            "_runtime": 1.5,
            "_timestamp": 1.7e9,
            "train/loss": 2.0,
            "train/global_step": 50,
        },
        {
            "_step": 1,
            "_runtime": 2.5,
            "_timestamp": 1.7e9,
            "eval/loss": 1.0,
            "train/global_step": 50,
        },
        {
            "_step": 2,
            "gradients/w": {"_type": "histogram", "bins": [1, 2]},
            "train/global_step": 100,
        },
        {"_step": 3, "_runtime": 9, "train/loss": "NaN", "ok": True, "train/global_step": 100},
    ]
    path = write(tmp_path / "run-a.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    ds = read_log(path, format="wandb")
    assert ds.attrs["log_format"] == "wandb"
    assert list(ds["step"].values) == [50, 100]
    np.testing.assert_array_equal(ds["train_loss"], [[2, np.nan]])
    np.testing.assert_array_equal(ds["eval_loss"], [[1, np.nan]])
    np.testing.assert_array_equal(ds["_runtime"], [[2.5, 9]])
    assert ds["_runtime"].attrs["units"] == "s"
    assert {s["what"] for s in attr(ds, "skipped")} == {
        "gradients/w: a dict, not a number",
        "ok: true or false, not a number",
    }
    by_call = read_log(path, step="_step")
    assert list(by_call["step"].values) == [0, 1, 2, 3]


def test_tables_of_the_published_code(tmp_path: Path) -> None:
    header = (
        ",l1,l2,trace,spectral,code_sparsity,computational_sparsity,mean_lambda,variance_lambda,"
        "mean_w,median_w,var_w,mean_b,median_b,var_b,step,train_loss,eval_accuracy\n"
    )
    for seed in (0, 1):
        rows = "".join(
            f"{i}," + ",".join(str(100 * seed + 10 * i + j) for j in range(14)) + f",{s},0.5,0.1\n"
            for i, s in enumerate((100, 0, 20))
        )
        write(tmp_path / f"lr0.001_adamw_seed{seed}_scaling1.0.csv", header + rows)
    ds = read_log(tmp_path)
    assert list(ds["run"].values) == [f"lr0.001_adamw_seed{seed}_scaling1.0" for seed in (0, 1)]
    assert list(ds["step"].values) == [0, 20, 100]
    assert ds["l1_norm"].values[..., 0].tolist() == [[10, 20, 0], [110, 120, 100]]
    assert ds["bias_var"].values.tolist() == [[23, 33, 13], [123, 133, 113]]
    assert "divides by n - 1" in ds["singular_value_var"].attrs["comment"]
    assert features(ds).sizes == {"run": 2, "step": 3, "feature": 14}
    # they are not defined as ours are: putting them side by side is refused
    ours = ds.assign_attrs(metric_definitions="bayesphase-metrics/1").assign_coords(run=["a", "b"])
    with pytest.raises(ValueError, match=r"published code of arXiv:2308.09543"):
        combine_runs([ds, ours])


BROKEN = {
    "empty": ("a.csv", "", r"a.csv:1: expected a line with the names of columns, found nothing"),
    "commas": ("a.csv", ",,\n", "a.csv:1: expected a line with the names of columns"),
    "blank": ("a.csv", "\n\n", "a.csv:1: expected a line with the names of columns"),
    "header": ("a.csv", "step,loss\n", "a.csv: no rows below the header"),
    "no step": ("a.csv", "loss,acc\n1,2\n", "a.csv: no column of steps among loss, acc"),
    "twice": ("a.csv", "step,loss,loss\n1,2,3\n", "a.csv:1: the column 'loss' occurs more than"),
    "long row": ("a.csv", "step,loss\n1,2\n2,3,4\n", r"a.csv:3: 3 cells, expected 2 as in"),
    "short row": ("a.csv", "step,a,b\n1,2\n2,3,4\n", r"a.csv:2: 2 cells, expected 3 as in"),
    "short end": ("a.csv", "step,a,b\n1,2,3\n2,3\n", r"a.csv:3: 2 cells, expected 3 as in"),
    "text step": ("a.csv", "step,a\n1,2\nx,3\n", r"a.csv:3: step is 'x', expected a whole number"),
    "half step": ("a.csv", "step,a\n1.5,2\n", r"a.csv:2: step is '1.5', expected a whole number"),
    "nan step": ("a.csv", "step,a\nnan,2\n", r"a.csv:2: step is 'nan', expected a whole number"),
    "huge step": ("a.csv", "step,a\n1e30,2\n", r"a.csv:2: step is '1e30', expected a number below"),
    "no run": ("a.csv", "step,run,a\n1,,2\n", r"a.csv:2: no run, expected the label"),
    "text only": ("a.csv", "step,a\n1,x\n", r"a.csv: no numbers in it; left out: a: text, not a"),
    "binary": ("a.csv", b"step,a\n1,\xff\xfe\n", r"a.csv:2: no text in UTF-8 \(inv"),
    "huge cell": ("a.csv", "step,a\n1," + "9" * 200_000 + "\n", r"a.csv:2: field larger than"),
    "no json": ("a.jsonl", '{"step": 1, "a": 2}\n{"st\n{}\n', r"a.jsonl:2: no JSON"),
    "no object": ("a.jsonl", "[1, 2]\n", r"a.jsonl:1: a list, expected an object"),
    "deep": ("a.jsonl", "[" * 100_000 + "\n", r"a.jsonl:1: no JSON"),
    "empty json": ("a.jsonl", "", r"a.jsonl: no rows in it"),
    "no list": ("a.json", '{"a": 1}', r"a.json: a JSON dict, expected a list of rows"),
    "json line": ("a.json", '[\n{"step": 1,\n]', r"a.json:3: no JSON"),
    "no parquet": ("a.parquet", "PAR1 or not", r"a.parquet: no parquet file that can be read"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_by_name_and_line(case: str, tmp_path: Path) -> None:
    name, text, message = BROKEN[case]
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        read_log(tmp_path / name)


def test_a_last_line_that_is_cut_off_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "step,a,b\n1,2,3\n2,3")
    with pytest.warns(UserWarning, match=r"a.csv:3: the last line is cut off"):
        ds = read_log(path)
    assert list(ds["step"].values) == [1]
    assert attr(ds, "skipped")[0]["where"] == [f"{path}:3"]
    path = write(tmp_path / "a.jsonl", '{"step": 1, "a": 2}\n{"step": 2, "a')
    with pytest.warns(UserWarning, match=r"a.jsonl:2: the last line is cut off"):
        assert read_log(path)["a"].values.tolist() == [[2]]


def test_a_parquet_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = parquet(tmp_path / "a.parquet").read_bytes()
    for tenth in range(10):
        (tmp_path / "b.parquet").write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(ValueError, match=r"b.parquet: no parquet file that can be read"):
            read_log(tmp_path / "b.parquet")


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.parquet", "x")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"parquet needs pyarrow, install bayesphase\[logs\]"):
        read_log(tmp_path / "a.parquet")


def test_a_broken_file_among_good_ones_is_left_out_with_its_reason(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "step,loss\n1,2\n")
    write(tmp_path / "b.csv", "step,loss\n1,5\nx,6\n7,8\n")
    write(tmp_path / "c.csv", "")
    with pytest.warns(UserWarning, match=r"b.csv:3: step is 'x'.*, and 1 more; all that was left"):
        ds = read_log(tmp_path)
    assert ds["loss"].to_series().to_dict() == {("a", 1): 2.0, ("b", 1): 5.0}
    assert [s["where"] for s in attr(ds, "skipped")] == [
        [str(tmp_path / "b.csv")],
        [str(tmp_path / "c.csv")],
    ]
