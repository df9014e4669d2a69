"""Event files, written by TensorBoard's own writers, whole and broken."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorboard")

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from bayesphase import read_log


def write(folder: Path, *values: tuple[int, str, float], suffix: str = "") -> Path:
    writer = EventFileWriter(str(folder), filename_suffix=suffix)
    for step, tag, value in values:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        writer.add_event(Event(step=step, wall_time=step, summary=summary))
    writer.close()
    return max(folder.glob("*tfevents*"), key=lambda path: path.name)


def test_scalars_of_several_runs(tmp_path: Path) -> None:
    write(tmp_path / "seed 2", (0, "Loss/train", 2.0), (5, "Loss/train", 1.0), (5, "lr", math.nan))
    write(tmp_path / "seed 10", (5, "Loss/train", 0.5), (5, "val/acc", 0.25), (5, "epoch", 1))
    ds = read_log(tmp_path)
    assert ds.attrs["log_format"] == "tensorboard"
    assert list(ds["run"].values) == ["seed 2", "seed 10"]
    np.testing.assert_array_equal(ds["train_loss"], [[2, 1], [np.nan, 0.5]])
    np.testing.assert_array_equal(ds["eval_accuracy"], [[np.nan] * 2, [np.nan, 0.25]])
    assert json.loads(ds.attrs["nonfinite"]) == {
        "lr": {"nan": {"count": 1, "where": [{"run": "seed 2", "step": 5}]}}
    }
    np.testing.assert_array_equal(ds["epoch"], [np.nan, 1])


def test_a_file_alone_and_one_that_goes_on_in_another(tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    first = write(folder, (0, "loss", 4.0), (1, "loss", 3.0), (2, "loss", 2.5), suffix=".1")
    assert list(read_log(first)["run"].values) == ["my run"]
    write(folder, (1, "loss", 3.0), (2, "loss", 2.0), (3, "loss", 1.0), suffix=".2")
    with pytest.warns(UserWarning, match="loss: 1 value was told more .*; the last one in the log"):
        ds = read_log(folder)
    assert ds["loss"].values.tolist() == [[4, 3, 2, 1]]
    assert json.loads(ds.attrs["duplicates"]) == {"loss": {"count": 2, "differing": 1}}


def test_what_pytorch_writes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(3):
            writer.add_scalar("train/loss", 1 / (step + 1), step)
            writer.add_scalar("new", step, step, new_style=True)
            writer.add_histogram("weights", torch.arange(5.0), step)
        writer.add_text("note", "hello")
        writer.add_scalars("both", {"a": 1.0, "b": 2.0}, 2)
    ds = read_log(tmp_path)
    assert list(ds["run"].values) == ["both_a", "both_b", tmp_path.name]
    run = ds.sel(run=tmp_path.name)
    np.testing.assert_allclose(run["train_loss"], [1, 1 / 2, 1 / 3], rtol=1e-6)
    np.testing.assert_array_equal(run["new"], [0, 1, 2])
    assert ds["both"].sel(step=2).dropna("run").values.tolist() == [1, 2]
    skipped = {s["what"]: s["count"] for s in json.loads(ds.attrs["skipped"])}
    assert skipped == {"histo, no scalar": 3, "text, no scalar": 1}


def test_a_file_that_is_cut_anywhere_gives_what_comes_before(tmp_path: Path) -> None:
    path = write(tmp_path / "whole", *((step, "loss", float(step)) for step in range(20)))
    data = path.read_bytes()
    broken = tmp_path / "run" / path.name
    broken.parent.mkdir()
    counts = []
    for tenth in range(10):
        broken.write_bytes(data[: len(data) * tenth // 10 + 3])
        if tenth < 2:  # no more than the version of the format
            with pytest.raises(ValueError, match=r"no (event of TensorBoard|numbers) in it"):
                read_log(broken)
            continue
        with pytest.warns(UserWarning, match=r"cut off or broken after \d+ events"):
            ds = read_log(broken)
        assert ds["loss"].values.ravel().tolist() == list(range(ds.sizes["step"]))
        counts.append(ds.sizes["step"])
    assert counts == sorted(counts)
    assert len(counts) == 8
    assert counts[-1] in (17, 18, 19)


def test_a_record_that_was_changed_ends_the_reading(tmp_path: Path) -> None:
    path = write(tmp_path, *((step, "loss", 1.0) for step in range(20)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="cut off or broken after"):
        assert 0 < read_log(path).sizes["step"] < 20


@pytest.mark.parametrize(
    "data",
    [b"", b"hello, these are no events at all", b"\xff" * 8 + b"\0" * 4],
    ids=["empty", "text", "petabytes"],
)
def test_no_events(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1.host"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"tfevents.1.host: no event of TensorBoard in it"):
        read_log(path)


def test_without_tensorboard_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, (0, "loss", 1.0))
    module = "tensorboard.backend.event_processing.event_file_loader"
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ImportError, match=r"need tensorboard, install bayesphase\[logs\]"):
        read_log(path)
