"""The callback of Lightning's Trainer, in trainings of a real small module."""

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

import lightning.pytorch as pl  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

import bayesphase as bp  # noqa: E402
from bayesphase.recording.callbacks.lightning import LightningRecorder  # noqa: E402
from bayesphase.recording.metrics import matrix_metrics  # noqa: E402

# what the libraries warn of among themselves is not ours
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings(
        "ignore:.*(num_workers|resuming from|exists and is not):UserWarning"
    ),
    pytest.mark.filterwarnings("ignore:.*tensorboard.*:UserWarning"),
]


class Line(pl.LightningModule):
    """Fits a plane; logs now and then, so that old values stand beside new ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1)
        )
        self.losses: list[float] = []
        self.fail_at: int | None = None

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.global_step == self.fail_at:
            raise OSError("no more data")
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.net(x)[:, 0], y)
        self.losses.append(loss.item())
        if batch_idx % 3 == 0:
            self.log("sometimes", float(self.global_step))
        self.log("of_epoch", float(self.current_epoch), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val/loss", torch.nn.functional.mse_loss(self.net(x)[:, 0], y))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


X = torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
DATA = TensorDataset(X, X.sum(dim=1))


def example_loss(module: Any) -> Any:
    x, y = next(iter(DataLoader(DATA, batch_size=24)))  # draws a random number
    return (module.net(x)[:, 0] - y) ** 2


def fit(folder: Path, *callbacks: Any, module: Any = None, ckpt: Any = None, **options: Any) -> Any:
    module = module or Line()
    defaults: dict[str, Any] = {"max_epochs": 2, "log_every_n_steps": 4, "logger": False}
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **({"enable_checkpointing": False} | defaults | options),
    )
    torch.manual_seed(3)
    train, val = DataLoader(DATA, batch_size=4), DataLoader(DATA, batch_size=24)
    trainer.fit(module, train, val, ckpt_path=ckpt)
    return module


def test_it_is_a_public_name() -> None:
    assert bp.LightningRecorder is LightningRecorder
    assert issubclass(LightningRecorder, pl.Callback)


def test_a_training_is_recorded_and_not_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = fit(tmp_path)
    path = tmp_path / "run 3.nc"
    recorder = LightningRecorder(path, example_loss=example_loss, attrs={"lr": 0.01})
    with caplog.at_level(logging.INFO, logger="bayesphase"):
        watched = fit(tmp_path, recorder)
    for before, after in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(before, after)

    # two epochs of six steps: validation and values of the epoch after 6 and 12
    ds = bp.open_metrics(path).isel(run=0)
    assert str(ds["run"].values) == "run 3"
    assert list(ds["step"].values) == [0, 4, 6, 8, 12]
    nan = np.nan
    losses = watched.losses
    # after 6 steps a record is due to what the epoch brings; the loss of that step comes along
    expected = [nan, losses[3], losses[5], losses[7], losses[11]]
    np.testing.assert_allclose(ds["train_loss"], expected, rtol=1e-6)
    # logged in the first and the fourth batch of an epoch, that is before steps 1, 4, 7 and 10
    np.testing.assert_array_equal(ds["sometimes"], [nan, 3, nan, nan, nan])
    np.testing.assert_array_equal(ds["of_epoch"], [nan, nan, 0, nan, 1])
    assert np.isnan(ds["eval_loss"]).values.tolist() == [True, True, False, True, False]
    assert ds["example_loss"].dims == ("step", "example")
    watched.eval()
    with torch.no_grad():
        final = example_loss(watched)
    np.testing.assert_array_equal(ds["example_loss"][-1], final)
    np.testing.assert_allclose(ds["eval_loss"][-1], final.mean(), rtol=1e-6)
    assert list(ds["epoch"].values) == [0, 0, 0, 1, 1]
    for name, value in matrix_metrics(watched.net[0].weight).items():
        assert float(ds[name].sel(step=12, parameter="net.0")) == value
    assert ds.attrs["source"] == "bayesphase.LightningRecorder"
    assert 0 < ds.attrs["recording_share"] < 1
    assert "recorded run 'run 3'" in caplog.text


def test_every_so_many_optimiser_steps(tmp_path: Path) -> None:
    path, module = tmp_path / "a.nc", Line()
    recorder = LightningRecorder(path, every=2, run=7)
    fit(tmp_path, recorder, module=module, accumulate_grad_batches=2, max_epochs=3)
    ds = bp.open_metrics(path)
    # of the last batch, not the share of it that is accumulated
    np.testing.assert_allclose(
        ds["train_loss"].sel(step=[2, 4, 6], run="7"), module.losses[3:12:4], rtol=1e-6
    )
    assert list(ds["run"].values) == ["7"]
    assert list(ds["step"].values) == [0, 2, 4, 6, 8, 9]  # three batches of two an epoch
    has = ds["eval_loss"].notnull().values[0].tolist()
    assert has == [False, False, False, True, False, True]
    with pytest.raises(ValueError, match=r"every is 2.5, expected a whole number"):
        LightningRecorder(path, every=2.5)  # type: ignore[arg-type]
    with pytest.raises(FileExistsError, match="continue it with mode='a'"):
        fit(tmp_path, LightningRecorder(path))


def test_resumed_from_a_checkpoint_it_goes_on_in_the_file(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.nc", tmp_path / "resumed.nc"
    fit(tmp_path, LightningRecorder(whole, run="r"), max_epochs=3)

    def saving() -> Any:
        return ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")

    first = (LightningRecorder(path, run="r"), saving())
    fit(tmp_path, *first, enable_checkpointing=True)
    again = (LightningRecorder(path, run="r"), saving())
    with pytest.warns(UserWarning, match=r"continuing at step 7: 2 records of steps 8 to 12 are"):
        fit(
            tmp_path,
            *again,
            ckpt=tmp_path / "epoch=0.ckpt",
            enable_checkpointing=True,
            max_epochs=3,
        )
    found, expected = bp.open_metrics(path), bp.open_metrics(whole)
    assert list(found["step"].values) == list(expected["step"].values)
    xr.testing.assert_identical(
        found.sel(step=slice(0, 6)).drop_attrs(), expected.sel(step=slice(0, 6)).drop_attrs()
    )
    assert bool((found["l2_norm"].sel(step=slice(8, None)) > 0).all())


def test_only_the_first_process_records(tmp_path: Path) -> None:
    callback = LightningRecorder(tmp_path / "a.nc", every=1)
    trainer: Any = SimpleNamespace(
        global_step=0,
        current_epoch=0,
        is_global_zero=False,
        callback_metrics={},
        accumulate_grad_batches=1,
    )
    module: Any = Line()
    callback.on_train_start(trainer, module)
    trainer.global_step = 1
    callback.on_train_batch_end(trainer, module, torch.tensor(1.0), None, 0)
    callback.on_train_end(trainer, module)
    assert not list(tmp_path.iterdir())


def test_a_training_that_fails_leaves_all_records(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    code = (
        "import sys, pathlib; sys.path[:0] = sys.argv[3:]\n"
        "from test_lightning import Line, LightningRecorder, fit\n"
        "module = Line(); module.fail_at = 9\n"
        "folder, path = map(pathlib.Path, sys.argv[1:3])\n"
        "fit(folder, LightningRecorder(path, every=1), module=module)\n"
    )
    command = [sys.executable, "-c", code, tmp_path, path, Path(__file__).parent]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "OSError: no more data" in result.stderr
    ds = bp.open_metrics(path).isel(run=0)
    assert list(ds["step"].values) == list(range(10))
    assert bool(ds["train_loss"][1:].notnull().all())
    assert np.isnan(ds["eval_loss"]).values.tolist() == [True] * 6 + [False] + [True] * 3
