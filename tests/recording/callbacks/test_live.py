"""What callbacks share: which logged values are kept, and evaluating without a trace."""

import contextlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bayesphase import open_metrics  # noqa: E402
from bayesphase.recording.callbacks.live import LiveRecording, recordable, undisturbed  # noqa: E402


def live(path: Path, **options: Any) -> LiveRecording:
    defaults = dict.fromkeys(("run", "selection", "example_loss", "examples", "attrs"))
    return LiveRecording(path, **(defaults | {"mode": "x", "source": "test"} | options))


def test_logged_values_get_names_that_a_recorder_takes() -> None:
    values = {
        "val/acc": torch.tensor(0.5),
        "loss": np.float32(2),
        "l1_norm": 3,
        "nonfinite_count": 4,
        "epoch": 5,
        "a/b": 6,
        "text": "x",
        "vector": torch.ones(2),
        "none": None,
        "flag": True,
    }
    assert recordable(values) == {
        "eval_accuracy": 0.5,
        "loss": 2,
        "logged_l1_norm": 3,
        "logged_nonfinite_count": 4,
        "logged_epoch": 5,
        "a_b": 6,
    }


def test_evaluating_leaves_no_trace() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(2, 2))
    model[1].eval()  # frozen on purpose
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with contextlib.suppress(KeyError), undisturbed(model):
        torch.rand(100)
        assert not model.training
        assert not model[0].training
        assert not model(torch.ones(2)).requires_grad
        raise KeyError
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in model] == [True, False]


def test_the_time_that_recording_takes_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter(range(100_000))
    monkeypatch.setattr(
        "bayesphase.recording.callbacks.live.time.perf_counter", lambda: next(clock)
    )
    recording = live(tmp_path / "a.nc")
    recording.start(torch.nn.Linear(2, 2), 0, keeps_file=True)
    for step in (0, 1):
        recording.record(step, epoch=None, values={"train_loss": 1.0})
    with caplog.at_level(logging.INFO, logger="bayesphase"):
        recording.finish()
    ds = open_metrics(tmp_path / "a.nc")
    assert 0.3 < ds.attrs["recording_share"] < 1
    assert "recorded run 'a'" in caplog.text
    assert not recording.running
    recording.finish()
    recording.flush()
    recording.record(2, epoch=None, values={})


def test_a_full_disk_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    recording = live(tmp_path / "a.nc")
    recording.start(torch.nn.Linear(2, 2), 0, keeps_file=True)
    monkeypatch.setattr("bayesphase.recording.run_log.save_metrics", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        recording.record(0, epoch=None, values={})
    with pytest.warns(UserWarning, match="No space left on device"):
        recording.flush()
    monkeypatch.undo()
    recording.record(1, epoch=None, values={})
    recording.finish()
    assert list(open_metrics(tmp_path / "a.nc")["step"].values) == [0, 1]


def test_a_training_that_begins_again_in_the_same_file(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    for i in range(2):
        recording = live(tmp_path / "a.nc", mode="a")
        if i:
            with pytest.warns(UserWarning, match="2 records of steps 0 to 1 are replaced"):
                recording.start(model, 0, keeps_file=True)
        else:
            recording.start(model, 0, keeps_file=True)
        for step in (0, 1):
            recording.record(step, epoch=None, values={"train_loss": 10.0 * i + step})
        recording.finish()
    assert open_metrics(tmp_path / "a.nc")["train_loss"].values.tolist() == [[10, 11]]
