"""Recording live: what is measured, what a crash leaves, how a run is continued."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bayesphase import Recorder, open_metrics  # noqa: E402
from bayesphase.contract import VARIABLES  # noqa: E402
from bayesphase.dataset import validate_metrics  # noqa: E402
from bayesphase.recording import run_log  # noqa: E402
from bayesphase.recording.metrics import MATRIX_METRICS, matrix_metrics  # noqa: E402
from bayesphase.recording.parameters import select_parameters  # noqa: E402


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3))


def test_everything_the_contract_names_is_there(model: nn.Module) -> None:
    recorder = Recorder(model, run="a", attrs={"lr": 0.1})
    weights = []
    for step in (0, 5, 20):
        weights.append(model[2].weight.detach().clone())
        recorder.record(
            step,
            epoch=step // 5,
            train_loss=1.0 / (step + 1),
            eval_loss=torch.tensor(2.0, requires_grad=True),
            train_accuracy=0.5,
            eval_accuracy=0.25,
            example_loss=torch.arange(3.0, requires_grad=True),
            my_score=step,
        )
        with torch.no_grad():
            model[2].weight.mul_(2)
    ds = recorder.dataset()
    assert set(ds.data_vars) == {*VARIABLES, "my_score"}
    xr.testing.assert_identical(validate_metrics(ds), ds)
    assert list(ds["run"].values) == ["a"]
    assert list(ds["step"].values) == [0, 5, 20]
    assert list(ds["epoch"].values) == [0, 1, 4]
    assert list(ds["parameter"].values) == ["0", "2"]
    assert list(ds["shape"].values) == ["4x5", "3x4"]
    for i, weight in enumerate(weights):
        expected = matrix_metrics(weight)
        found = {name: float(ds[name][0, i, 1]) for name in MATRIX_METRICS}
        assert found == expected
    pooled = torch.cat([model[0].weight.flatten(), weights[2].flatten()]).double()
    assert float(ds["weight_median"][0, 2]) == pytest.approx(float(np.median(pooled.detach())))
    assert ds["example_loss"].dtype == np.float32
    np.testing.assert_array_equal(ds["example_loss"][0], [[0, 1, 2]] * 3)
    assert ds["eval_loss"].values.tolist() == [[2.0, 2.0, 2.0]]


def test_the_attributes_tell_how_it_was_measured(model: nn.Module) -> None:
    recorder = Recorder(model, attrs={"lr": 0.1})
    recorder.record(0)
    attrs = recorder.dataset().attrs
    assert attrs["lr"] == 0.1
    assert attrs["metric_definitions"] == "bayesphase-metrics/1"
    assert json.loads(attrs["parameter_selection"])["left_out"] == {
        "1.weight": "norm layer",
        "1.bias": "norm layer",
    }
    assert json.loads(attrs["software"])["torch"] == torch.__version__


def test_what_was_not_given_is_nan_or_absent(model: nn.Module) -> None:
    recorder = Recorder(model)
    recorder.record(0, eval_loss=1.0, train_loss=None)
    recorder.record(1, train_accuracy=0.5, example_loss=[1.0, 2.0])
    ds = recorder.dataset()
    assert "train_loss" not in ds
    np.testing.assert_array_equal(ds["eval_loss"], [[1, np.nan]])
    np.testing.assert_array_equal(ds["example_loss"][0], [[np.nan, np.nan], [1, 2]])


def test_a_run_that_diverges_goes_on_with_nan_and_a_count(model: nn.Module) -> None:
    recorder = Recorder(model)
    recorder.record(0, eval_loss=1.0)
    with torch.no_grad():
        model[0].weight[0, :2] = math.nan
        model[2].bias[0] = math.inf
    recorder.record(1, eval_loss=math.inf, example_loss=[1.0, math.inf])
    ds = recorder.dataset()
    np.testing.assert_array_equal(ds["nonfinite_count"], [[0, 3]])
    np.testing.assert_array_equal(ds["l1_norm"].isnull()[0], [[False, False], [True, False]])
    assert ds["weight_mean"].isnull().values.tolist() == [[False, True]]
    assert ds["bias_mean"].isnull().values.tolist() == [[False, True]]
    np.testing.assert_array_equal(ds["eval_loss"], [[1, np.nan]])
    np.testing.assert_array_equal(ds["example_loss"][0, 1], [1, np.nan])


def test_recording_changes_neither_the_network_nor_the_random_numbers(model: nn.Module) -> None:
    before = [p.detach().clone() for p in model.parameters()]
    state = torch.get_rng_state()
    Recorder(model).record(0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_a_selection_of_ones_own_and_labels_of_examples(model: nn.Module) -> None:
    selection = select_parameters(model, exclude=["0.*"])
    recorder = Recorder(model, selection=selection, examples=[40, 30])
    recorder.record(0, example_loss=[1.0, 2.0])
    ds = recorder.dataset()
    assert list(ds["parameter"].values) == ["2"]
    assert list(ds["example"].values) == [40, 30]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r.record(10), ValueError, "step 10 comes after step 10: steps must go up"),
        (lambda r: r.record(9), ValueError, "step 9 comes after step 10"),
        (lambda r: r.record(11.0), TypeError, "step is 11.0, expected a whole number"),
        (lambda r: r.record(True), TypeError, "step is True, expected a whole number"),
        (lambda r: r.record(11, eval_loss="low"), TypeError, "eval_loss is 'low', expected one"),
        (lambda r: r.record(11, eval_loss=[1, 2]), TypeError, r"eval_loss is \[1, 2\], expected"),
        (lambda r: r.record(11, l1_norm=3.0), ValueError, "l1_norm is what the recorder itself"),
        (
            lambda r: r.record(11, **{"val/loss": 3.0}),
            ValueError,
            "'val/loss' can't stand in a file, .*: record the value as 'val_loss'",
        ),
        (
            lambda r: r.record(11, **{"val/loss": None}),
            ValueError,
            "record the value as 'val_loss'",
        ),
        (lambda r: r.record(11, **{"": 3.0}), ValueError, "the name '' can't stand in a file"),
        (lambda r: r.record(11, **{"..": 3.0}), ValueError, r"the name '\.\.' can't stand"),
        (lambda r: r.record(11, kind=3.0), ValueError, "kind is what the recorder itself"),
        (
            lambda r: r.record(11, example_loss=[1.0]),
            ValueError,
            r"example_loss has shape \(1,\), expected \(2,\)",
        ),
        (
            lambda r: r.record(11, example_loss=np.ones((2, 1))),
            ValueError,
            r"example_loss has shape \(2, 1\), expected \(2,\)",
        ),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_lost(
    model: nn.Module, call, error: type[Exception], message: str
) -> None:
    recorder = Recorder(model)
    recorder.record(10, example_loss=[1.0, 2.0])
    before = recorder.dataset()
    with pytest.raises(error, match=message):
        call(recorder)
    xr.testing.assert_identical(recorder.dataset(), before)
    recorder.record(11, example_loss=[1.0, 2.0])


@pytest.mark.parametrize("run", [3, np.int64(3), np.str_("3")])
def test_a_number_is_a_label_too(model: nn.Module, tmp_path: Path, run: object) -> None:
    with Recorder(model, run=run, path=tmp_path / "m.nc") as recorder:
        recorder.record(0)
    with Recorder(model, run=run, path=tmp_path / "m.nc", mode="a") as recorder:
        recorder.record(1)
    assert list(open_metrics(tmp_path / "m.nc")["run"].values) == ["3"]
    assert open_metrics(tmp_path / "m.nc").sizes["step"] == 2


def test_errors_at_the_start(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing was recorded yet"):
        Recorder(model).dataset()
    with pytest.raises(TypeError, match=r"the network is of type int, expected a torch.nn.Module"):
        Recorder(1)
    with pytest.raises(
        TypeError, match=r"the network is of type OrderedDict, expected a torch.nn.Module"
    ):
        Recorder(model.state_dict(), selection=select_parameters(model))
    for run in (1.0, True, None, ["a"]):
        with pytest.raises(TypeError, match=rf"run is {re.escape(repr(run))}, expected the label"):
            Recorder(model, run=run)
    with pytest.raises(ValueError, match="mode is 'r', expected 'x'"):
        Recorder(model, mode="r")
    with pytest.raises(ValueError, match=r"has the suffix '.zarr', a recorder writes '.nc'"):
        Recorder(model, path=tmp_path / "m.zarr")
    with pytest.raises(FileNotFoundError, match=r"m.nc': make the folder '.*nowhere'"):
        Recorder(model, path=tmp_path / "nowhere" / "m.nc")


def test_the_file_is_complete_after_the_block(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "m.nc"
    with Recorder(model, path=path) as recorder:
        for step in range(30):
            recorder.record(step, eval_loss=step)
    xr.testing.assert_identical(open_metrics(path), recorder.dataset())
    assert open_metrics(path).sizes["step"] == 30


def test_the_file_is_complete_after_an_exception(model: nn.Module, tmp_path: Path) -> None:
    def train() -> None:
        with Recorder(model, path=tmp_path / "m.nc") as recorder:
            for step in range(30):
                recorder.record(step)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        train()
    assert open_metrics(tmp_path / "m.nc").sizes["step"] == 30


def test_the_file_is_complete_when_the_recorder_is_dropped(
    model: nn.Module, tmp_path: Path
) -> None:
    recorder = Recorder(model, path=tmp_path / "m.nc")
    for step in range(30):
        recorder.record(step)
    del recorder
    assert open_metrics(tmp_path / "m.nc").sizes["step"] == 30


CHILD = """
import sys, time
from torch import nn
from bayesphase import Recorder
recorder = Recorder(nn.Linear(3, 3), run="child", path=sys.argv[1])
for step in range(int(sys.argv[2])):
    recorder.record(step, eval_loss=step)
    print(step, flush=True)
    time.sleep(float(sys.argv[3]))
"""


def child(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def test_the_file_is_complete_when_a_script_just_ends(tmp_path: Path) -> None:
    with child(tmp_path / "m.nc", 50, 0) as process:
        process.communicate()
    assert process.returncode == 0
    assert open_metrics(tmp_path / "m.nc").sizes["step"] == 50


def test_a_training_that_is_killed_leaves_its_records(tmp_path: Path) -> None:
    with child(tmp_path / "m.nc", 1000, 0.02) as process:
        recorded = [int(line) for line, _ in zip(process.stdout, range(60), strict=False)]
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    ds = open_metrics(tmp_path / "m.nc")
    np.testing.assert_array_equal(ds["eval_loss"][0], ds["step"])
    assert ds.sizes["step"] > 1, "nothing was written after the first record"
    assert len(recorded) == 60


def test_every_record_is_in_the_file_at_once_where_writing_takes_little_of_the_time(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(run_log.time, "perf_counter", lambda: now)  # writing takes no time
    recorder = Recorder(model, path=tmp_path / "m.nc")
    for step in range(3):
        recorder.record(step)
        assert open_metrics(tmp_path / "m.nc").sizes["step"] == step + 1


def test_the_file_is_written_seldom_where_writing_takes_long(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, written = 0.0, []

    def slow(ds: xr.Dataset, _: Path) -> None:
        nonlocal now
        now += 1.0
        written.append(ds.sizes["step"])

    monkeypatch.setattr(run_log.time, "perf_counter", lambda: now)
    monkeypatch.setattr(run_log, "save_metrics", slow)
    recorder = Recorder(model, path=tmp_path / "m.nc")
    for step in range(100):
        now += 1.0  # as long as a write takes
        recorder.record(step)
    assert written == [1, 2, 22, 42, 62, 82]  # after the first, one in twenty seconds: 5 %
    recorder.flush()
    assert written[-1] == 100


def test_a_disk_that_is_full_does_not_end_the_training(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    recorder = Recorder(model, path=tmp_path / "m.nc")
    with monkeypatch.context() as patched:
        patched.setattr(run_log, "save_metrics", full)
        with pytest.warns(UserWarning, match=r"could not write .*m.nc \(no space left on device\)"):
            recorder.record(0)
        with pytest.raises(OSError, match="no space left"):
            recorder.flush()
    recorder.record(1)
    recorder.flush()
    assert list(open_metrics(tmp_path / "m.nc")["step"].values) == [0, 1]


def recorded(model: nn.Module, path: Path) -> xr.Dataset:
    with Recorder(model, run="a", path=path) as recorder:
        for step in (0, 10, 20, 30):
            recorder.record(step, epoch=step / 10, eval_loss=step, example_loss=[1.0, 2.0])
    return recorder.dataset()


def test_a_file_that_exists_is_not_lost_by_mistake(model: nn.Module, tmp_path: Path) -> None:
    before = recorded(model, tmp_path / "m.nc")
    with pytest.raises(FileExistsError, match="continue it with mode='a', or replace it with"):
        Recorder(model, run="a", path=tmp_path / "m.nc")
    xr.testing.assert_identical(open_metrics(tmp_path / "m.nc"), before)
    with Recorder(model, run="b", path=tmp_path / "m.nc", mode="w") as recorder:
        recorder.record(5)
    assert list(open_metrics(tmp_path / "m.nc")["run"].values) == ["b"]


def test_a_run_is_continued(model: nn.Module, tmp_path: Path) -> None:
    before = recorded(model, tmp_path / "m.nc")
    with Recorder(model, run="a", path=tmp_path / "m.nc", mode="a") as recorder:
        recorder.record(40, epoch=4.0, eval_loss=40, example_loss=[3.0, 4.0])
    ds = open_metrics(tmp_path / "m.nc")
    xr.testing.assert_identical(ds.isel(step=slice(4)), before)
    assert ds["eval_loss"].sel(step=40).values == [40]
    with pytest.raises(ValueError, match="step 40 comes after step 40"):
        recorder.record(40)


def test_a_run_continued_from_an_earlier_checkpoint_replaces_what_came_after(
    model: nn.Module, tmp_path: Path
) -> None:
    recorded(model, tmp_path / "m.nc")
    with Recorder(model, run="a", path=tmp_path / "m.nc", mode="a") as recorder:
        with pytest.warns(UserWarning, match="at step 15: 2 records of steps 20 to 30 are repl"):
            recorder.record(15, eval_loss=-1)
        recorder.record(20, eval_loss=-2)
    ds = open_metrics(tmp_path / "m.nc")
    assert list(ds["step"].values) == [0, 10, 15, 20]
    np.testing.assert_array_equal(ds["eval_loss"], [[0, 10, -1, -2]])


def test_only_the_same_run_of_the_same_network_is_continued(
    model: nn.Module, tmp_path: Path
) -> None:
    recorded(model, tmp_path / "m.nc")
    with pytest.raises(ValueError, match="holds the runs a, expected 'b' alone"):
        Recorder(model, run="b", path=tmp_path / "m.nc", mode="a")
    with pytest.raises(ValueError, match="recorded from other parameters or another network"):
        Recorder(nn.Linear(2, 2), run="a", path=tmp_path / "m.nc", mode="a")


def test_a_wide_selection_can_be_saved(tmp_path: Path) -> None:
    # HDF5 keeps small attributes in a header of 64 KiB; the record of 800 layers is larger.
    model = nn.Sequential(*[nn.Linear(1, 1) for _ in range(800)])
    with Recorder(model, path=tmp_path / "m.nc") as recorder:
        recorder.record(0)
    assert len(recorder.dataset().attrs["parameter_selection"]) > 2**16
    xr.testing.assert_identical(open_metrics(tmp_path / "m.nc"), recorder.dataset())


def test_values_that_come_later_join_the_last_record(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "run.nc"
    recorder = Recorder(model, path=path)
    assert recorder.last_step is None
    with pytest.raises(ValueError, match="nothing was recorded yet"):
        recorder.amend(eval_loss=1.0)
    recorder.record(0, train_loss=3.0)
    recorder.record(5, train_loss=2.0)
    recorder.amend(eval_loss=torch.tensor(1.0), train_loss=2.5, none=None)
    assert recorder.last_step == 5
    recorder.attrs["lr"] = 0.1
    recorder.flush()
    ds = open_metrics(path)
    np.testing.assert_array_equal(ds["train_loss"], [[3, 2.5]])
    np.testing.assert_array_equal(ds["eval_loss"], [[np.nan, 1]])
    assert ds.attrs["lr"] == 0.1
    assert "none" not in ds
    with pytest.raises(ValueError, match="l1_norm is what the recorder itself calls something"):
        recorder.amend(l1_norm=1.0)
    with pytest.raises(TypeError, match="acc is 'high', expected one number"):
        recorder.amend(eval_loss=7.0, acc="high")  # type: ignore[arg-type]
    np.testing.assert_array_equal(recorder.dataset()["eval_loss"], [[np.nan, 1]])


def test_records_after_a_checkpoint_can_be_dropped(model: nn.Module) -> None:
    recorder = Recorder(model)
    for step in (0, 5, 10, 15):
        recorder.record(step)
    recorder.rewind(15)
    with pytest.warns(UserWarning, match="2 records of steps 10 to 15 are replaced"):
        recorder.rewind(7)
    recorder.record(8)
    assert list(recorder.dataset()["step"].values) == [0, 5, 8]
