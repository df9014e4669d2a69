"""Nothing that a file contains is run; what is refused is named, and the others are measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

import hostile  # noqa: E402

from bayesphase import collect, open_metrics  # noqa: E402

MEASURE = """
import json, resource, sys
from bayesphase import collect
import torch, numpy, safetensors.torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ds = collect(sys.argv[1], output=sys.argv[2], progressbar=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_every_hostile_file_is_refused_and_the_good_ones_are_measured(tmp_path: Path) -> None:
    sentinel, root = tmp_path / "sentinel", tmp_path / "runs"
    root.mkdir()
    cases = hostile.cases(sentinel)
    assert len(cases) >= 25
    reasons = {}
    for number, (name, (write, reason)) in enumerate(cases.items()):
        path = root / f"step{number}{Path(name).suffix}"
        write(path)
        reasons[path.name] = (name, reason)
    for step in (1000, 2000):
        torch.save(hostile.weights(), root / f"step{step}.pt")
    (root / "step3000.pt").symlink_to(root / "step3000.pt")
    torch.save(hostile.weights(), root / "step4000.pt")
    hostile.save_file(hostile.weights(), root / "step4000.safetensors")
    output = tmp_path / "m.nc"
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(root), str(output)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert not sentinel.exists()
    assert int(result.stdout) < 300_000, "kB of memory, where all files have less than 20 MB"
    ds = open_metrics(output)
    missing = {m["path"]: m["reason"] for m in json.loads(ds.attrs["missing_checkpoints"])}
    twice = missing.pop("step4000.pt")
    assert "step4000.pt and step4000.safetensors" in twice
    assert set(missing) == set(reasons)
    wrong = {
        name: missing[path]
        for path, (name, reason) in reasons.items()
        if reason not in missing[path]
    }
    assert not wrong
    assert json.loads(ds.attrs["files_without_step"])[0]["path"] == "step3000.pt"
    measured = ds["l2_norm"].notnull().all("parameter")[0]
    assert list(ds["step"].values[measured.values]) == [1000, 2000]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_cut_at_any_tenth_is_missing(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"step10{suffix}"
    if suffix == ".pt":
        torch.save(hostile.weights(), whole)
    else:
        hostile.save_file(hostile.weights(), whole)
    data = whole.read_bytes()
    for tenth in range(10):
        (tmp_path / f"step{tenth}{suffix}").write_bytes(data[: len(data) * tenth // 10])
    ds = collect(tmp_path, progressbar=False)
    assert len(json.loads(ds.attrs["missing_checkpoints"])) == 10
    assert list(np.flatnonzero(ds["weight_mean"].notnull()[0])) == [10]


def test_weights_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    for step, value in enumerate((0.0, float("nan"), float("inf"))):
        state = hostile.weights()
        state["0.weight"][1, 2] = value
        torch.save(state, tmp_path / f"step{step}.pt")
    ds = collect(tmp_path, progressbar=False)
    assert ds["nonfinite_count"].values.tolist() == [[0, 1, 1]]
    assert ds["l2_norm"].isnull().sum("step").values.tolist() == [[2, 0]]
    assert json.loads(ds.attrs["missing_checkpoints"]) == []


def test_empty_and_0_d_tensors_are_left_out_with_their_reason(tmp_path: Path) -> None:
    state = hostile.weights()
    state |= {"a.weight": torch.zeros(0, 3), "scale": torch.tensor(2.0), "n": torch.tensor(3)}
    torch.save(state, tmp_path / "step1.pt")
    ds = collect(tmp_path, progressbar=False)
    left_out = json.loads(ds.attrs["parameter_selection"])["left_out"]
    assert left_out["a.weight"] == "it has no entries"
    assert left_out["scale"] == "neither a matrix nor a bias"
    assert left_out["n"] == "of dtype torch.int64"
    assert list(ds["parameter"].values) == ["0", "2"]


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    torch.save(hostile.weights(), tmp_path / "step1.pt")
    torch.save(hostile.weights(), tmp_path / "step2.pt")
    (tmp_path / "step1.pt").chmod(0)
    ds = collect(tmp_path, progressbar=False)
    assert "PermissionError" in json.loads(ds.attrs["missing_checkpoints"])[0]["reason"]


def test_nothing_good_at_all(tmp_path: Path) -> None:
    (tmp_path / "step1.pt").touch()
    with pytest.raises(
        ValueError, match=r"none of the 1 checkpoints .*step1.pt: the file is empty"
    ):
        collect(tmp_path, progressbar=False)
