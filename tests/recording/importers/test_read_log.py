"""Logs by folder and file: MLflow, the Trainers, the published code; and which format is which."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayesphase import aggregate, read_log
from bayesphase.dataset import validate_metrics


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# --- MLflow


def mlflow_run(folder: Path, name: str | None, metrics: dict[str, str]) -> Path:
    write(folder / "meta.yaml", "run_id: x\n")
    for metric, lines in metrics.items():
        write(folder / "metrics" / metric, lines)
    if name:
        write(folder / "tags" / "mlflow.runName", name)
    return folder


def test_a_store_of_mlflow(tmp_path: Path) -> None:
    store = tmp_path / "mlruns"
    write(store / "1" / "meta.yaml", "experiment_id: 1\n")
    for i, name in enumerate(("b", "a", "a")):
        mlflow_run(
            store / "1" / f"{i}0f",
            name,
            {
                "loss": f"1700 {i}.5 0\n1701 {i} 100\n1702 nan 200\n",
                "val/acc": "1700 0.25 100\n1701 0.5 100 set digest\n",
            },
        )
    mlflow_run(store / "1" / "30f", None, {"old": "1700 7\n"})
    write(store / "1" / "models" / "m-1" / "metrics" / "loss", "1 99 0\n")
    write(store / "1" / "models" / "m-1" / "meta.yaml", "x")
    write(store / "1" / "00f" / "artifacts" / "table.csv", "step,x\n1,2\n")
    with pytest.warns(UserWarning, match="eval_accuracy: 3 values were told more than once"):
        ds = read_log(store)
    assert ds.attrs["log_format"] == "mlflow"
    assert list(ds["run"].values) == ["30f", "a (10f)", "a (20f)", "b"]
    assert list(ds["step"].values) == [0, 100, 200]
    np.testing.assert_array_equal(ds["loss"].sel(run="b"), [0.5, 0, np.nan])
    assert ds["eval_accuracy"].sel(step=100).values.tolist()[1:] == [0.5, 0.5, 0.5]
    assert float(ds["old"].sel(run="30f", step=0)) == 7
    assert json.loads(ds.attrs["duplicates"])["eval_accuracy"] == {"count": 3, "differing": 3}
    for path in (store / "1", store / "1" / "00f"):
        with pytest.warns(UserWarning, match="eval_accuracy: . values? w.* told more than once"):
            ds = read_log(path)
        np.testing.assert_array_equal(ds["loss"].sel(run="b"), [0.5, 0, np.nan])


def test_broken_files_of_mlflow(tmp_path: Path) -> None:
    run = mlflow_run(tmp_path / "r", "r", {"loss": "1 2 3\noops\n4 5 6\n"})
    with pytest.raises(ValueError, match=r"loss:2: 'oops', expected 'timestamp value step'"):
        read_log(run)
    write(run / "metrics" / "acc", "1 0.5 3\n2 0.")
    write(run / "metrics" / "lr", "1 0.5 half\n")
    with pytest.warns(UserWarning, match="and 2 more"):
        ds = read_log(run)
    assert set(ds.data_vars) == {"loss", "acc"}
    write(run / "metrics" / "acc", "1 0.5 3\n2 0")
    with pytest.warns(UserWarning, match="not all of the log could be read"):
        assert read_log(run)["acc"].values.tolist() == [[0.5]]


# --- Hugging Face


def state(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"global_step": entries[-1]["step"], "log_history": list(entries)}


ENTRIES = (
    {"step": 10, "epoch": 0.5, "loss": 2.0, "learning_rate": 1e-3, "grad_norm": math.inf},
    {"step": 10, "epoch": 0.5, "eval_loss": 1.5, "eval_accuracy": 0.5, "eval_runtime": 3.0},
    {"step": 20, "epoch": 1.0, "loss": 1.0, "learning_rate": 0},
    {"step": 20, "epoch": 1.0, "train_runtime": 60.0, "train_loss": 1.5, "total_flos": 10**30},
)


def test_trainer_state(tmp_path: Path) -> None:
    path = write(tmp_path / "my run" / "checkpoint-20" / "trainer_state.json", state(*ENTRIES))
    ds = read_log(path)
    assert list(ds["run"].values) == ["my run"]
    np.testing.assert_array_equal(ds["train_loss"], [[2, 1]])
    np.testing.assert_array_equal(ds["eval_loss"], [[1.5, np.nan]])
    np.testing.assert_array_equal(ds["overall_train_loss"], [[np.nan, 1.5]])
    np.testing.assert_array_equal(ds["epoch"], [0.5, 1])
    assert ds["eval_runtime"].attrs["units"] == "s"
    assert json.loads(ds.attrs["nonfinite"])["grad_norm"]["inf"]["count"] == 1


def test_the_latest_state_of_each_run(tmp_path: Path) -> None:
    for seed in (1, 2):
        for step in (9, 10, 100):
            entries = [{"step": s, "loss": float(s)} for s in (9, 10, 100) if s <= step]
            write(
                tmp_path / f"s{seed}" / f"checkpoint-{step}" / "trainer_state.json", state(*entries)
            )
    # of the end of a training that went on since, and of the end
    write(tmp_path / "s1" / "trainer_state.json", state({"step": 9, "loss": 1}))
    write(tmp_path / "s2" / "trainer_state.json", state({"step": 100, "loss": 1}))
    ds = read_log(tmp_path)
    np.testing.assert_array_equal(ds["train_loss"], [[9, 10, 100], [np.nan, np.nan, 1]])
    skipped = json.loads(ds.attrs["skipped"])
    assert [(s["what"], s["count"]) for s in skipped] == [("an earlier state of the same run", 6)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"trainer_state.json:1: no JSON"),
        ('{"log_history": [{"step": 1,\n', r"trainer_state.json:2: no JSON"),
        ("[]", r"no list 'log_history', expected the state that a Trainer saves"),
        ({"log_history": 3}, r"no list 'log_history'"),
        (state({"step": "x", "loss": 1}), r"log_history\[0\]: step is 'x', expected a whole"),
        ({"log_history": [3, {"loss": 1}]}, r"left out: an entry without a step"),
    ],
)
def test_broken_states(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_log(write(tmp_path / "trainer_state.json", content))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_state_that_a_trainer_saved(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(2))

        def forward(self, x: Any, labels: Any) -> Any:
            return {"loss": ((x @ self.w - labels) ** 2).mean(), "logits": x @ self.w}

    rows = [{"x": torch.tensor([1.0, i / 8]), "labels": torch.tensor(float(i))} for i in range(8)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=6,
        logging_steps=2,
        save_steps=3,
        eval_strategy="steps",
        eval_steps=3,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(Model(), arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    ds = read_log(tmp_path / "run")
    assert list(ds["run"].values) == ["run"]
    assert list(ds["step"].values) == [2, 3, 4, 6]
    history = {e["step"]: e["loss"] for e in trainer.state.log_history if "loss" in e}
    found = ds["train_loss"].sel(run="run").dropna("step")
    assert dict(zip(found["step"].values.tolist(), found.values.tolist(), strict=True)) == history
    assert int(ds["eval_loss"].notnull().sum()) == 2


# --- Lightning


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
def test_metrics_that_lightning_wrote(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pl = pytest.importorskip("lightning.pytorch")
    import torch
    from lightning.pytorch.loggers import CSVLogger
    from torch.utils.data import DataLoader, TensorDataset

    class Line(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(1, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = ((self.net(batch[0]) - 1) ** 2).mean()
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            self.log("count", float(self.global_step))
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", float(self.global_step))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    loader = DataLoader(TensorDataset(torch.arange(12.0)[:, None]), batch_size=2)
    for _ in range(2):
        pl.Trainer(
            logger=CSVLogger(tmp_path),
            max_epochs=2,
            log_every_n_steps=2,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        ).fit(Line(), loader, loader)
    ds = read_log(tmp_path)
    assert ds.attrs["log_format"] == "lightning"
    assert list(ds["run"].values) == [f"lightning_logs/version_{i}" for i in (0, 1)]
    # Lightning counts the steps before a batch: row 1 was logged with the second one
    assert list(ds["step"].values) == [1, 3, 5, 7, 9, 11]
    np.testing.assert_array_equal(ds["count"], [[1, 3, 5, 7, 9, 11]] * 2)
    np.testing.assert_array_equal(ds["eval_loss"].isel(run=0).dropna("step"), [6, 12])
    assert list(ds["eval_loss"].isel(run=0).dropna("step")["step"].values) == [5, 11]
    np.testing.assert_array_equal(ds["epoch"], [0, 0, 0, 1, 1, 1])
    assert {"train_loss_step", "train_loss_epoch"} <= set(ds.data_vars)
    one = read_log(tmp_path / "lightning_logs" / "version_1" / "metrics.csv")
    assert list(one["run"].values) == ["version_1"]


# --- The published code


def matrix(base: float) -> dict[str, Any]:
    names = ("l1", "l2", "trace", "spectral", "code_sparsity", "computational_sparsity")
    values = {name: base + i for i, name in enumerate(names)}
    more = {"mean_singular_value": base + 6, "var_singular_value": base + 7}
    return values | more | {"singular_values": [1.0, 0.5]}


def published(base: float) -> dict[str, Any]:
    moments = {"mean": base, "var": base + 1, "median": base + 2}
    heads = [matrix(base), matrix(base + 100)]
    return {
        "k": [{"0": heads}, {"1": heads}],
        "ffn_in": [{"0": matrix(base + 200)}, {"1": None}],
        "w_all": moments,
        "b_all": moments,
        "train_loss": base,
        "eval_accuracy": {"accuracy": base / 1000},
        "note": "hello",
    }


def test_files_of_the_published_code(tmp_path: Path) -> None:
    for seed in (0, 1):
        for epoch in (100, 20, 3):
            write(tmp_path / f"seed{seed}" / f"epoch{epoch}.json", published(epoch + seed))
    ds = read_log(tmp_path)
    assert ds.attrs["log_format"] == "published"
    assert list(ds["run"].values) == ["seed0", "seed1"]
    assert list(ds["step"].values) == [3, 20, 100]
    assert ds["step"].attrs["units"] == "epochs"
    names = ["0.k.0", "0.k.1", "1.k.0", "1.k.1", "0.ffn_in", "1.ffn_in"]
    assert list(ds["parameter"].values) == names
    assert list(ds["kind"].values) == ["k"] * 4 + ["ffn_in"] * 2
    assert list(ds["layer"].values) == ["0", "0", "1", "1", "0", "1"]
    first = ds.isel(run=0, step=0)
    assert first["l1_norm"].values[:5].tolist() == [3, 103, 3, 103, 203]
    assert np.isnan(first["l1_norm"].values[5])
    assert float(first["singular_value_var"][1]) == 110
    assert float(first["trace_spectral_ratio"][1]) == 108
    assert float(first["weight_var"]) == 4
    assert float(first["eval_accuracy"]) == 0.003
    assert float(aggregate(ds.isel(parameter=slice(2)))["l2_norm"][0, 0]) == 54
    validate_metrics(ds, min_steps=2)
    assert json.loads(ds.attrs["nonfinite"])["l1_norm"]["nan"]["count"] == 6
    skipped = {s["what"]: s["count"] for s in json.loads(ds.attrs["skipped"])}
    assert skipped == {
        "singular_values: only their mean and variance are kept": 30,
        "note: text, not a number": 6,
    }


def test_other_names_and_forms_of_the_published_code(tmp_path: Path) -> None:
    conv = {"l1": 1.0, "l2": 2.0, "code_sparsity": 0.5}
    for name in ("step20.json", "stats_step40", "stats_60_losses"):
        write(tmp_path / name, {"w": [conv, matrix(5.0), {"fc": 3}]})
    ds = read_log(tmp_path)
    assert list(ds["step"].values) == [20, 40, 60]
    assert ds["step"].attrs["units"] == "optimiser steps"
    assert list(ds["parameter"].values) == ["0.w", "1.w"]
    assert np.isnan(ds["trace"].values[0, 0, 0])
    assert json.loads(ds.attrs["skipped"])[-1]["what"] == "w: a int, not the metrics of a matrix"
    write(tmp_path / "step50.json", "[1]")
    with pytest.warns(UserWarning, match="step50.json: a JSON list, expected an object"):
        assert read_log(tmp_path).sizes["step"] == 3


# --- Formats


def test_formats_that_are_mixed_or_unknown(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        read_log(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"no logs below this folder, looked for .csv, .tsv"):
        read_log(tmp_path)
    write(tmp_path / "a" / "checkpoint-1" / "trainer_state.json", state({"step": 1, "loss": 2}))
    write(tmp_path / "a" / "table.csv", "step,loss\n1,5\n")
    with pytest.raises(
        ValueError, match=r"several formats, .*(table|trainer_state) \(1\).*format="
    ):
        read_log(tmp_path)
    assert read_log(tmp_path, format="trainer_state")["train_loss"].values.tolist() == [[2]]
    assert read_log(tmp_path, format="table")["loss"].values.tolist() == [[5]]
    with pytest.raises(ValueError, match="no logs below this folder of format 'mlflow'"):
        read_log(tmp_path, format="mlflow")
    with pytest.raises(ValueError, match="format is 'neptune', expected one of table, lightning"):
        read_log(tmp_path, format="neptune")
    with pytest.raises(ValueError, match=r"'t' is to be a column, but .* is no table"):
        read_log(tmp_path, format="trainer_state", step="t")
    one = write(tmp_path / "loss", "1 2 3\n")
    with pytest.raises(ValueError, match="MLflow are read by the folder of their run"):
        read_log(one, format="mlflow")
    odd = write(tmp_path / "log.txt", "step,loss\n1,5\n")
    with pytest.raises(ValueError, match="no log that is known by this name, say what it is with"):
        read_log(odd)
    assert read_log(odd, format="table")["loss"].values.tolist() == [[5]]


def test_links_in_a_circle_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "a" / "t.csv", "step,loss\n1,5\n")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert list(read_log(tmp_path)["run"].values) == ["a/t"]
