"""The callback of the Hugging Face Trainer, in trainings of a real small BERT."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import bayesphase as bp  # noqa: E402
from bayesphase.recording.callbacks.huggingface import HFRecorder  # noqa: E402
from bayesphase.recording.metrics import matrix_metrics  # noqa: E402

# what the libraries warn of among themselves is not ours
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Sequences(torch.utils.data.Dataset):
    """Eight tokens each, labelled by whether the first is above the middle."""

    def __init__(self, n: int) -> None:
        tokens = torch.Generator().manual_seed(n)
        self.tokens = torch.randint(0, 20, (n, 8), generator=tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"input_ids": self.tokens[i], "labels": (self.tokens[i, 0] >= 10).long()}


EVAL = Sequences(12)


def example_loss(model: Any) -> Any:
    labels = torch.stack([EVAL[i]["labels"] for i in range(len(EVAL))])
    torch.rand(3)  # what a DataLoader does, too: it must not change the training
    return torch.nn.functional.cross_entropy(
        model(input_ids=EVAL.tokens).logits, labels, reduction="none"
    )


def trainer(folder: Path, *callbacks: Any, steps: int = 12, **arguments: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
    )
    options: dict[str, Any] = {
        "logging_steps": 4,
        "eval_strategy": "steps",
        "eval_steps": 6,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.01,
        "seed": 5,
    }
    args = transformers.TrainingArguments(
        output_dir=str(folder / "out"), max_steps=steps, **(options | arguments)
    )
    return transformers.Trainer(
        transformers.BertForSequenceClassification(config),
        args,
        train_dataset=Sequences(40),
        eval_dataset=EVAL,
        compute_metrics=lambda p: {"accuracy": (p.predictions.argmax(-1) == p.label_ids).mean()},
        callbacks=list(callbacks),
    )


def test_it_is_a_public_name() -> None:
    assert bp.HFRecorder is HFRecorder
    assert issubclass(HFRecorder, transformers.TrainerCallback)


def test_a_training_is_recorded_and_not_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = trainer(tmp_path / "plain")
    plain.train()
    path = tmp_path / "run 3.nc"
    watched = trainer(
        tmp_path / "watched", HFRecorder(path, example_loss=example_loss, attrs={"lr": 0.01})
    )
    with caplog.at_level(logging.INFO, logger="bayesphase"):
        watched.train()
    for before, after in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(before, after)

    ds = bp.open_metrics(path)
    assert list(ds["run"].values) == ["run 3"]
    assert list(ds["step"].values) == [0, 4, 6, 8, 12]
    assert list(ds["epoch"].values) == [0, 0.4, 0.6, 0.8, 1.2]
    history = watched.state.log_history
    for name, logged in {
        "train_loss": "loss",
        "eval_loss": "eval_loss",
        "eval_accuracy": "eval_accuracy",
        "learning_rate": "learning_rate",
        "grad_norm": "grad_norm",
    }.items():
        expected = {e["step"]: e[logged] for e in history if logged in e}
        found = ds[name][0].dropna("step")
        assert dict(zip(found["step"].values.tolist(), found.values.tolist(), strict=True)) == (
            expected
        )
        assert len(expected) in (2, 3)
    assert "overall_train_loss" not in ds
    weight = watched.model.bert.encoder.layer[0].intermediate.dense.weight
    last = ds.isel(run=0, step=-1).sel(parameter="bert.encoder.layer.0.intermediate.dense")
    for name, value in matrix_metrics(weight).items():
        assert float(last[name]) == value
    watched.model.eval()
    with torch.no_grad():
        expected = example_loss(watched.model).numpy()
    np.testing.assert_array_equal(ds["example_loss"][0, -1], expected)
    assert ds.attrs["source"] == "bayesphase.HFRecorder"
    assert ds.attrs["lr"] == 0.01
    assert 0 < ds.attrs["recording_share"] < 1
    line = next(r.getMessage() for r in caplog.records if r.name == "bayesphase")
    assert "recorded run 'run 3'" in line
    # the line is written after the file is, so its share has the last write in it too
    logged = re.search(r"([\d.e+]+) % of the time", line)
    assert logged is not None
    assert 0 < float(logged[1]) <= 100
    assert abs(float(logged[1]) / 100 - ds.attrs["recording_share"]) < 0.25


def test_every_so_many_steps(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    trainer(tmp_path, HFRecorder(path, every=5, run=7), gradient_accumulation_steps=2).train()
    ds = bp.open_metrics(path)
    assert list(ds["step"].values) == [0, 5, 10, 12]
    assert list(ds["run"].values) == ["7"]
    # the Trainer logs at 4, 8 and 12, evaluates at 6 and 12
    for name in ("train_loss", "eval_loss"):
        assert np.isnan(ds[name][0]).values.tolist() == [True, True, True, False]
    with pytest.raises(ValueError, match="every is 0, expected a whole number"):
        HFRecorder(path, every=0)
    with pytest.raises(FileExistsError, match="continue it with mode='a'"):
        trainer(tmp_path, HFRecorder(path)).train()


@pytest.mark.filterwarnings("ignore:.*lr_scheduler:UserWarning")
def test_resumed_from_a_checkpoint_it_goes_on_in_the_file(tmp_path: Path) -> None:
    save = {"save_strategy": "steps", "save_steps": 4, "save_total_limit": 5}
    whole, path = tmp_path / "whole.nc", tmp_path / "resumed.nc"
    trainer(tmp_path / "a", HFRecorder(whole, run="r"), **save).train()
    trainer(tmp_path / "b", HFRecorder(path, run="r"), **save).train()  # gets to the end
    again = trainer(tmp_path / "b", HFRecorder(path, run="r"), **save)
    with pytest.warns(UserWarning, match="continuing at step 5: 3 records of steps 6 to 12 are"):
        again.train(resume_from_checkpoint=str(tmp_path / "b" / "out" / "checkpoint-4"))
    expected, found = bp.open_metrics(whole), bp.open_metrics(path)
    speeds = [n for n in found if "runtime" in str(n) or "per_second" in str(n)]
    xr.testing.assert_allclose(
        found.drop_vars(speeds), expected.drop_vars(speeds), rtol=1e-6, check_dim_order=True
    )


def test_only_the_first_process_records(tmp_path: Path) -> None:
    callback = HFRecorder(tmp_path / "a.nc")
    state = SimpleNamespace(global_step=0, epoch=0.0, is_world_process_zero=False)
    model = torch.nn.Linear(2, 2)
    callback.on_train_begin(None, state, None, model=model)
    callback.on_log(None, state, None, logs={"loss": 1.0})
    callback.on_train_end(None, state, None)
    assert not list(tmp_path.iterdir())


def test_parameters_that_are_spread_over_processes_are_refused(tmp_path: Path) -> None:
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = torch.nn.Linear(2, 2)
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        state = SimpleNamespace(global_step=0, epoch=0.0, is_world_process_zero=False)
        with pytest.raises(ValueError, match="'weight' is spread over processes"):
            HFRecorder(tmp_path / "a.nc").on_train_begin(None, state, None, model=model)
    finally:
        destroy_process_group()


def in_a_process(tmp_path: Path, path: Path, wait: bool) -> subprocess.Popen[str]:
    """Train in a process of its own, with a failure or a pause after step 9."""
    code = (
        "import sys, time, pathlib; sys.path[:0] = sys.argv[3:]\n"
        "import transformers\n"
        "from test_huggingface import HFRecorder, trainer\n"
        "class Stop(transformers.TrainerCallback):\n"
        "    def on_step_begin(self, args, state, control, **kwargs):\n"
        "        if state.global_step == 9:\n"
        f"            {'print(9, flush=True); time.sleep(60)' if wait else 'raise OSError(5)'}\n"
        "folder, path = map(pathlib.Path, sys.argv[1:3])\n"
        "trainer(folder, HFRecorder(path, every=1), Stop()).train()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, tmp_path, path, Path(__file__).parent],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_training_that_fails_leaves_all_records(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    _, errors = in_a_process(tmp_path, path, wait=False).communicate(timeout=120)
    assert "OSError: 5" in errors
    ds = bp.open_metrics(path)
    assert list(ds["step"].values) == list(range(10))
    assert float(ds["train_loss"].sel(run="a", step=8)) > 0


def test_a_training_that_is_killed_leaves_a_readable_file(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    process = in_a_process(tmp_path, path, wait=True)
    while process.stdout is not None and not process.stdout.readline().startswith("9"):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    ds = bp.open_metrics(path)
    steps = ds["step"].values.tolist()
    assert steps == list(range(len(steps)))
    assert len(steps) >= 2
