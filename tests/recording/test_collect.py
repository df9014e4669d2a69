"""A folder becomes a Dataset: the values are those of the definitions, and no work is lost."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from bayesphase import Recorder, collect, open_metrics  # noqa: E402
from bayesphase.cli import app  # noqa: E402
from bayesphase.dataset import validate_metrics  # noqa: E402
from bayesphase.recording import collection as collection_module  # noqa: E402
from bayesphase.recording import workers as workers_module  # noqa: E402


def network(seed: int = 0, width: int = 6) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, width), nn.LayerNorm(width), nn.Linear(width, 4))


def checkpoint(path: Path, step: int = 0, *, seed: int = 0, width: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = network(seed, width).state_dict()
    state = {name: tensor * (1 + step / 10) for name, tensor in state.items()}
    temporary = path.with_name("writing")
    save_file(state, temporary) if path.suffix == ".safetensors" else torch.save(state, temporary)
    temporary.rename(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for step in (0, 9, 10, 100):
        checkpoint(root / "a" / f"step{step}.pt", step)
        checkpoint(root / "b" / f"step{step + 1}.safetensors", step, seed=1)
    (root / "b" / "step50.pt").touch()
    return root


def quietly(path: Path, **settings: object) -> xr.Dataset:
    return collect(path, progressbar=False, **settings)


def test_the_values_are_those_that_a_recorder_measures(folder: Path) -> None:
    ds = quietly(folder)
    validate_metrics(ds, min_steps=4)
    assert list(ds["run"].values) == ["a", "b"]
    assert list(ds["step"].values) == [0, 1, 9, 10, 11, 50, 100, 101]
    model = network()
    recorder = Recorder(model, run="a")
    sound = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in (0, 9, 10, 100):
        model.load_state_dict({name: tensor * (1 + step / 10) for name, tensor in sound.items()})
        recorder.record(step)
    expected = recorder.dataset()
    found = ds.sel(run=["a"], step=[0, 9, 10, 100])
    assert set(found.data_vars) == set(expected.data_vars)
    for name in expected.data_vars:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)
    (missing,) = json.loads(ds.attrs["missing_checkpoints"])
    assert missing == {"run": "b", "step": 50, "path": "b/step50.pt", "reason": "the file is empty"}


def test_every_way_to_share_the_work_gives_the_same_bits(folder: Path) -> None:
    xr.testing.assert_identical(quietly(folder, workers=2), quietly(folder))


def test_what_was_measured_is_not_measured_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "m.zarr"
    asked: list[str] = []
    measure_all = collection_module.measure_all

    def counted(tasks, *args, **kwargs):
        asked.extend(Path(task.path).name for task in tasks)
        return measure_all(tasks, *args, **kwargs)

    monkeypatch.setattr(collection_module, "measure_all", counted)
    first = quietly(folder, output=output)
    assert len(asked) == 9
    xr.testing.assert_identical(open_metrics(output), first)
    asked.clear()
    xr.testing.assert_identical(quietly(folder, output=output), first)
    assert asked == []
    checkpoint(folder / "a" / "step200.pt", 200)
    checkpoint(folder / "b" / "step50.pt", 50, seed=1)  # now it is whole
    grown = quietly(folder, output=output)
    assert sorted(asked) == ["step200.pt", "step50.pt"]
    xr.testing.assert_identical(grown, quietly(folder))
    xr.testing.assert_identical(open_metrics(output), grown)


def test_records_that_are_not_in_the_output_get_into_it(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.nc"
    quietly(folder, output=output)
    before = output.read_bytes()
    checkpoint(folder / "a" / "step200.pt", 200)
    grown = quietly(folder, output=output)
    output.write_bytes(before)  # as if it had been killed after the last record
    quietly(folder, output=output)
    xr.testing.assert_identical(open_metrics(output), grown)


def test_records_outlive_checkpoints(folder: Path, tmp_path: Path) -> None:
    first = quietly(folder, output=tmp_path / "m.nc")
    (folder / "a" / "step9.pt").unlink()
    xr.testing.assert_identical(quietly(folder, output=tmp_path / "m.nc"), first)


def test_what_was_measured_is_kept_if_it_can_not_be_read_again(
    folder: Path, tmp_path: Path
) -> None:
    first = quietly(folder, output=tmp_path / "m.nc")
    (folder / "a" / "step9.pt").write_bytes(b"PK broken")
    with pytest.warns(UserWarning, match=r"a/step9.pt can't be measured again .it is not a whole"):
        again = quietly(folder, output=tmp_path / "m.nc")
    xr.testing.assert_identical(again, first)


def test_distances_when_old_checkpoints_are_deleted(tmp_path: Path) -> None:
    """What is gone is not taken for another: distances from it are NaN, none is from elsewhere."""
    root, names = tmp_path / "runs", ["distance_from_initial", "distance_from_previous"]
    for step in (0, 10):
        checkpoint(root / f"step{step}.pt", step)
    quietly(root, output=tmp_path / "m.nc", metrics=names)
    (root / "step0.pt").unlink()
    checkpoint(root / "step20.pt", 20)
    ds = quietly(root, output=tmp_path / "m.nc", metrics=names).isel(run=0, parameter=0)
    norm = float(network().state_dict()["0.weight"].norm())
    np.testing.assert_allclose(ds["distance_from_initial"] / norm, [0, 1, np.nan], rtol=1e-6)
    np.testing.assert_allclose(ds["distance_from_previous"] / norm, [np.nan, 1, 1], rtol=1e-6)


def test_a_function_that_fails_is_no_fault_of_the_checkpoint(tmp_path: Path) -> None:
    checkpoint(tmp_path / "runs" / "step0.pt")
    checkpoint(tmp_path / "runs" / "step1.pt", 1)
    mends = []

    def fragile(m) -> float:
        if not mends:
            raise ValueError("not yet")
        return 1.0

    with pytest.raises(ValueError, match="not yet"):
        quietly(tmp_path / "runs", output=tmp_path / "m.nc", metrics=[fragile])
    mends.append("mended")
    ds = quietly(tmp_path / "runs", output=tmp_path / "m.nc", metrics=[fragile])
    assert (ds["fragile"] == 1.0).all()


def test_tied_tensors_may_be_kept_once_or_twice(tmp_path: Path) -> None:
    state = network().state_dict()
    tied = {**state, "again.weight": state["0.weight"]}
    (tmp_path / "runs").mkdir()
    torch.save(tied, tmp_path / "runs" / "step0.pt")
    torch.save(state, tmp_path / "runs" / "step1.pt")
    ds = quietly(tmp_path / "runs")
    assert json.loads(ds.attrs["missing_checkpoints"]) == []
    assert ds["l2_norm"].notnull().all()


def test_steps_that_are_epochs_say_so(tmp_path: Path) -> None:
    for epoch in (1, 2):
        checkpoint(tmp_path / "runs" / f"epoch{epoch}.pt", epoch)
    assert quietly(tmp_path / "runs")["step"].attrs["units"] == "epochs"


def test_a_run_that_gets_another_name_is_there_once(tmp_path: Path) -> None:
    root, output = tmp_path / "runs", tmp_path / "m.nc"
    for step in (0, 10):
        checkpoint(root / "a" / f"model_step{step}.pt", step)
    first = quietly(root, output=output)
    assert first["run"].values.tolist() == ["a"]
    checkpoint(root / "a" / "weights_step10.pt", 10, seed=1)
    grown = quietly(root, output=output)
    assert grown["run"].values.tolist() == ["a/model", "a/weights"]
    xr.testing.assert_identical(grown, quietly(root))
    (root / "a" / "weights_step10.pt").unlink()  # its record stays, and the old name counts again
    again = quietly(root, output=output)
    assert again["run"].values.tolist() == ["a", "a/weights"]
    xr.testing.assert_equal(again.sel(run=["a"], drop=True), first)


def test_a_record_under_an_old_name_counts_until_there_is_a_new_one(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    for step in (0, 10):
        checkpoint(root / "a" / f"model_step{step}.pt", step)
    first = quietly(root, output=tmp_path / "m.nc")
    checkpoint(root / "a" / "weights_step10.pt", 10, seed=1)
    (root / "a" / "model_step10.pt").write_bytes(b"PK broken")
    ds = quietly(root, output=tmp_path / "m.nc")
    assert ds["run"].values.tolist() == ["a", "a/model", "a/weights"]
    xr.testing.assert_equal(
        ds["l2_norm"].sel(run="a", step=10), first["l2_norm"].sel(run="a", step=10)
    )
    (missing,) = json.loads(ds.attrs["missing_checkpoints"])
    assert missing["path"] == "a/model_step10.pt"


def test_nothing_is_compared_with_what_is_of_another_run_by_now(tmp_path: Path) -> None:
    root, names = tmp_path / "runs", ["distance_from_initial", "distance_from_previous"]
    for step in (0, 10):
        checkpoint(root / "a" / f"model_step{step}.pt", step)
    quietly(root, output=tmp_path / "m.nc", metrics=names)
    checkpoint(root / "a" / "step5.pt", 5)
    grown = quietly(root, output=tmp_path / "m.nc", metrics=names)
    assert grown["run"].values.tolist() == ["a", "a/model"]
    xr.testing.assert_identical(grown, quietly(root, metrics=names))


def test_other_settings_are_not_mixed_in(folder: Path, tmp_path: Path) -> None:
    quietly(folder, output=tmp_path / "m.nc")
    changed = (
        r"other settings: exclude was \[\], now it is \['2.weight'\]. Write to another file, or"
    )
    with pytest.raises(ValueError, match=changed):
        quietly(folder, output=tmp_path / "m.nc", exclude=["2.weight"])
    changed = (
        r"now without l1_norm, .*_var; metrics are now also with distance_from_initial\. Write"
    )
    with pytest.raises(ValueError, match=changed) as caught:
        quietly(folder, output=tmp_path / "m.nc", metrics=["trace", "distance_from_initial"])
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_a_record_that_was_cut_short_is_measured_again(folder: Path, tmp_path: Path) -> None:
    first = quietly(folder, output=tmp_path / "m.nc")
    log = tmp_path / "m.nc.records.jsonl"
    data = log.read_bytes()
    for cut in range(0, len(data), 2999):
        log.write_bytes(data[:cut])
        xr.testing.assert_identical(quietly(folder, output=tmp_path / "m.nc"), first)
    log.write_bytes(data[:2000] + b"\n" + data[2000:])
    with pytest.raises(ValueError, match=r"records.jsonl, line \d+, is damaged"):
        quietly(folder, output=tmp_path / "m.nc")


def test_a_checkpoint_of_another_network_is_missing(folder: Path) -> None:
    checkpoint(folder / "a" / "step5.pt", width=7)
    ds = quietly(folder)
    reasons = {m["path"]: m["reason"] for m in json.loads(ds.attrs["missing_checkpoints"])}
    assert "'0' has shape [7, 8], expected [6, 8]" in reasons["a/step5.pt"]
    assert bool(ds["l2_norm"].sel(run="a", step=5).isnull().all())


def test_two_files_of_one_step_are_both_named(folder: Path) -> None:
    checkpoint(folder / "a" / "step009.pt")
    reasons = {
        m["step"]: m["reason"] for m in json.loads(quietly(folder).attrs["missing_checkpoints"])
    }
    assert "a/step009.pt and a/step9.pt" in reasons[9]


def test_epochs_stand_beside_steps(tmp_path: Path) -> None:
    for epoch in (1, 2):
        checkpoint(tmp_path / f"epoch={epoch}-step={epoch * 30}.ckpt")
    ds = quietly(tmp_path)
    assert ds["epoch"].values.tolist() == [1, 2]
    assert ds["step"].values.tolist() == [30, 60]


# the training deletes its old checkpoints, and may do so just as one is looked at
@pytest.mark.filterwarnings("ignore:.*can't be measured again")
def test_watching_follows_a_run(tmp_path: Path) -> None:
    root, output = tmp_path / "runs", tmp_path / "m.nc"
    root.mkdir()
    log = tmp_path / "m.nc.records.jsonl"

    def train() -> None:
        for step in range(5):
            time.sleep(0.15)
            checkpoint(root / f"step{step}.safetensors", step)
            if step > 2:  # as trainers do that keep the last few
                while f'"step": {step - 3},' not in log.read_text():
                    time.sleep(0.02)
                (root / f"step{step - 3}.safetensors").unlink()

    training = threading.Thread(target=train)
    training.start()
    ds = quietly(root, output=output, watch=0.02, patience=3)
    training.join()
    assert ds["step"].values.tolist() == [0, 1, 2, 3, 4]
    assert json.loads(ds.attrs["missing_checkpoints"]) == []
    xr.testing.assert_identical(open_metrics(output), ds)


KILLED = """
import sys
from bayesphase import collect
collect(sys.argv[1], output=sys.argv[2], progressbar=False)
"""


def kill_at_random(root: Path, tmp_path: Path, kills: int) -> None:
    """Start, kill at a random moment, look that nothing is lost; at last let it end."""
    for run in "ab":
        for step in range(60):
            checkpoint(root / run / f"step{step}.pt", step, width=90)
    expected, output = quietly(root), tmp_path / "killed.nc"
    log, command = Path(f"{output}.records.jsonl"), [sys.executable, "-c", KILLED, root, output]
    before, rng = b"", random.Random(1)
    for _ in range(kills):
        process = subprocess.Popen([str(c) for c in command], stderr=subprocess.DEVNULL)
        while not (log.exists() and log.stat().st_size > len(before)) and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 1.0 / kills))
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = log.read_bytes()
        whole = now[: now.rfind(b"\n") + 1]
        assert now.startswith(before)
        assert len(whole.splitlines()) > len(before.splitlines()) or process.returncode == 0
        assert not output.exists() or open_metrics(output).identical(expected)
        before = whole
    xr.testing.assert_identical(quietly(root, output=output), expected)
    records = [json.loads(line) for line in log.read_bytes().splitlines()[2:]]
    assert len({(r["run"], r["step"]) for r in records}) == len(records) == 120


def test_killed_at_3_moments(tmp_path: Path) -> None:
    kill_at_random(tmp_path / "runs", tmp_path, 3)


@pytest.mark.slow
def test_killed_at_20_moments(tmp_path: Path) -> None:
    kill_at_random(tmp_path / "runs", tmp_path, 20)


def test_metrics_by_name_are_those_that_a_recorder_measures(folder: Path, tmp_path: Path) -> None:
    names = ["stable_rank", "distance_from_initial", "distance_from_previous"]
    output = tmp_path / "m.zarr"
    found = quietly(folder, metrics=names, output=output).sel(run=["a"])
    model = network()
    recorder = Recorder(model, run="a", metrics=names)
    sound = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in (0, 9, 10, 100):
        model.load_state_dict({name: tensor * (1 + step / 10) for name, tensor in sound.items()})
        recorder.record(step)
    expected = recorder.dataset()
    found = found.sel(step=expected["step"])
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9)
        assert found[name].attrs == expected[name].attrs
    assert not set(found.data_vars) ^ set(expected.data_vars)
    # one that comes in between changes what the next is compared with; one that goes does not
    checkpoint(folder / "a" / "step50.pt", 50)
    (folder / "a" / "step0.pt").unlink()
    distance = quietly(folder, metrics=names, output=output)["distance_from_previous"].sel(run="a")
    weights = [float(sound[f"{i}.weight"].norm()) for i in (0, 2)]
    for step, before in ((9, 0), (10, 9), (50, 10), (100, 50)):
        moved = np.array(weights) * (step - before) / 10
        np.testing.assert_allclose(distance.sel(step=step), moved, rtol=1e-6)


def test_a_metric_of_your_own_is_measured_by_workers_too(folder: Path) -> None:
    def largest_entry(m) -> float:
        return float(m.weight.abs().max())

    ds = quietly(folder, metrics=[largest_entry], workers=2)
    expected = [float(network().state_dict()[f"{i}.weight"].abs().max()) for i in (0, 2)]
    np.testing.assert_allclose(ds["largest_entry"].sel(run="a", step=0), expected)
    with pytest.raises(ValueError, match="'gradient_norm' is a metric of gradients"):
        quietly(folder, metrics=["gradient_norm"])


def test_a_process_that_dies_takes_no_other_checkpoint_along(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "measure", dies_at_step_10)
    ds = quietly(folder, workers=2)
    reasons = {m["path"]: m["reason"] for m in json.loads(ds.attrs["missing_checkpoints"])}
    assert set(reasons) == {"a/step10.pt", "b/step50.pt"}
    assert "TerminatedWorkerError" in reasons["a/step10.pt"]


def dies_at_step_10(task, settings):
    from bayesphase.recording.measure import measure

    if task.path.endswith("step10.pt"):
        os.kill(os.getpid(), signal.SIGKILL)
    return measure(task, settings)


def test_on_a_cluster_whose_workers_are_killed(folder: Path) -> None:
    distributed = pytest.importorskip("distributed")
    for step in range(200, 260):
        checkpoint(folder / "a" / f"step{step}.pt", step)
    expected = quietly(folder)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = list(client.run(os.getpid).values())
        threading.Timer(0.3, os.kill, (pids[0], signal.SIGKILL)).start()
        xr.testing.assert_identical(quietly(folder, client=client), expected)


def test_the_command(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.zarr"
    options = ["--workers", "1", "--pattern", "{run}/step{step}.*", "--exclude", "2.*"]
    result = CliRunner().invoke(app, ["collect", str(folder), "-o", str(output), *options])
    assert result.exit_code == 0, result.output
    assert "missing: b/step50.pt: the file is empty" in result.output
    assert f"2 runs, 8 steps in {output}" in result.output
    assert open_metrics(output)["parameter"].values.tolist() == ["0"]
    result = CliRunner().invoke(
        app, ["collect", str(tmp_path / "no"), "-o", str(output)], env={"COLUMNS": "300"}
    )
    assert result.exit_code == 2
    assert "there is no folder" in result.output


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"workers": 0}, ValueError, "workers is 0"),
        ({"watch": -1.0}, ValueError, "watch is -1.0"),
        ({"n_heads": 0}, ValueError, "n_heads is 0"),
        ({"include": "x"}, TypeError, "include is 'x', expected a list"),
        ({"device": "abacus"}, ValueError, "device is 'abacus', which is not there"),
        ({"client": 3}, TypeError, "client must be a distributed.Client"),
        ({"pattern": "x"}, ValueError, "has no {step}"),
        ({"output": "m.csv"}, ValueError, "has the suffix '.csv'"),
    ],
)
def test_wrong_arguments(folder: Path, settings: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        quietly(folder, **settings)


def test_a_missing_library_is_no_fault_of_a_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ModuleNotFoundError, match="safetensors"):
        quietly(folder)


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        quietly(tmp_path / "no")
    with pytest.raises(FileNotFoundError, match="no checkpoints were found"):
        quietly(tmp_path)
    checkpoint(tmp_path / "best.pt")
    with pytest.raises(NotADirectoryError, match=r"best.pt' is a file"):
        quietly(tmp_path / "best.pt")
    with pytest.raises(FileNotFoundError, match=r"best.pt: no step is in its name"):
        quietly(tmp_path)
