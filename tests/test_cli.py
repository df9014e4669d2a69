"""The command: it does what the library does, and says what is wrong with its arguments."""

import sys
from dataclasses import fields
from pathlib import Path

import pytest
import xarray as xr
from typer.testing import CliRunner

import bayesphase.tasks
from bayesphase import open_metrics
from bayesphase.cli import app
from bayesphase.tasks.settings import TASKS, ImageCNN

TRAIN = ["train", "modular-addition", "--modulus", "7", "--epochs", "4", "--every", "2"]


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "300"})


def test_train_modular_addition(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "m.nc"
    options = ("--seeds", 2, "--examples", 5, "--example-runs", 1, "--workers", 1, "-o", path)
    result = invoke(*TRAIN, *options)
    assert result.exit_code == 0, result.output
    assert f"2 runs, 3 steps in {path}" in result.output
    assert "validation accuracy" in result.output
    ds = open_metrics(path)
    assert list(ds["run"].values) == ["seed 0", "seed 1"]
    assert ds.sizes["example"] == 5


def test_settings_are_options_and_seeds_count_up_from_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from bayesphase.tasks import seeds

    asked = {}

    def train_seeds(train: object, **arguments: object) -> xr.Dataset:
        asked.update(arguments)
        return xr.Dataset(coords={"run": ["seed 8", "seed 9"], "step": [0, 1, 2]})

    monkeypatch.setattr(seeds, "train_seeds", train_seeds)
    path = tmp_path / "m.nc"
    options = ("--data", "a folder", "--no-batch-norm", "--learning-rate", 0.25, "--tail", 3)
    result = invoke(
        *("train", "image-cnn", *options, "--seeds", 2, "--first-seed", 8, "--device", "cuda"),
        *("--examples", 5, "--example-runs", 1, "--workers", 3, "-o", path),
    )
    assert result.exit_code == 0, result.output
    assert f"2 runs, 3 steps in {path}" in result.output
    expected = ImageCNN(data="a folder", batch_norm=False, learning_rate=0.25, tail=3)
    assert asked.pop("on_checkpoint")
    assert asked == {
        **{"path": path, "seeds": range(8, 10), "settings": expected, "workers": 3},
        **{"n_examples": 5, "example_runs": 1},
    }


@pytest.mark.parametrize("task", TASKS)
def test_every_setting_of_a_task_is_an_option(task: str) -> None:
    result = invoke("train", task, "--help")
    assert result.exit_code == 0
    for field in fields(TASKS[task]):
        assert f"--{field.name.replace('_', '-')}" in result.output
    assert (TASKS[task].__doc__ or "none") in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "m.csv"], "has the suffix '.csv'"),
        (["-o", "nowhere/m.nc"], "can't write 'nowhere/m.nc': make the folder 'nowhere'"),
        (["-o", "m.nc", "--train-fraction", "1.5"], "train_fraction is 1.5, expected a share"),
        (["-o", "m.nc", "--seeds", "0"], "--seeds'"),
        ([], "Missing option"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    result = invoke(*TRAIN, *arguments)
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())
    assert message in " ".join(result.output.split())


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("training", "seeds"):
        monkeypatch.delitem(sys.modules, f"bayesphase.tasks.{name}", raising=False)
        monkeypatch.delattr(bayesphase.tasks, name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = invoke(*TRAIN, "-o", "m.nc")
    assert result.exit_code == 2
    assert "training needs PyTorch, install bayesphase[torch]" in " ".join(result.output.split())


def test_import(tmp_path: Path) -> None:
    log = tmp_path / "seed 1.csv"
    log.write_text("t,ce,note\n0,2.5,hi\n5,2.0,\n5,1.0,\n9,1")
    path = tmp_path / "m.zarr"
    result = invoke("import", log, "-o", path, "--step", "t", "--name", "ce=train_loss")
    assert result.exit_code == 0, result.output
    assert f"table: 1 runs, 2 steps, 1 metrics in {path}" in result.output
    assert "seed 1.csv:5: the last line is cut off" in result.stderr
    assert f"left out 1: note: text, not a number ({log}:2)" in result.output
    assert "train_loss: 1 values were replaced by a later one" in result.output
    assert open_metrics(path)["train_loss"].values.tolist() == [[2.5, 1.0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "-o", "m.nc"], "there is no file or folder 'nothing'"),
        (["nothing", "-o", "m.txt"], "has the suffix '.txt'"),
        (["nothing", "-o", "m.nc", "--name", "ce"], "--name is ce, expected LOGGED=VARIABLE"),
        (["a.csv", "-o", "m.nc"], "a.csv:2: 1 cells, expected 2 as in the header"),
    ],
)
def test_wrong_arguments_of_import(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("step,loss\n1\n")
    result = invoke("import", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not list(tmp_path.glob("m*"))


def test_version() -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.output == f"bayesphase {bayesphase.__version__}\n"


def test_help_names_the_options() -> None:
    result = invoke("train", "modular-addition", "--help")
    assert result.exit_code == 0
    assert "Which phases did a training run go through" in invoke("--help").output
    for option in ("--seeds", "--train-fraction", "--tail", "--example-runs", "--output"):
        assert option in result.output
