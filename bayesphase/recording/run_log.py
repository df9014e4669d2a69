"""The values recorded of one run, and the file they are kept in."""

from __future__ import annotations

import json
import os
import re
import time
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesphase.contract import COORDS, VARIABLES
from bayesphase.dataset import check_structure, open_metrics, save_metrics
from bayesphase.recording.measured import Metric
from bayesphase.recording.metrics import DEFINITIONS
from bayesphase.recording.parameters import Selection

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

GIVEN = ("train_loss", "eval_loss", "train_accuracy", "eval_accuracy")
"""Variables of the contract that are not measured here, but given."""

_WRITE_SHARE = 0.05  # of the time, at most, goes into writing the file again


class RunLog:
    """The rows of one run, and their file. Holds no network, so that it may outlive one."""

    def __init__(
        self,
        run: str,
        path: str | os.PathLike[str] | None,
        selection: Selection,
        examples: ArrayLike | None,
        attrs: dict[str, Any],
        *,
        metrics: Sequence[Metric] = (),
    ) -> None:
        self.run = run
        self.path = None if path is None else _checked_path(path)
        self.selection = selection
        self.examples = None if examples is None else np.asarray(examples)
        self.attrs = attrs
        self.metrics = {metric.name for metric in metrics}
        self.about = {metric.name: metric.attrs for metric in metrics}
        self.rows: list[dict[str, Any]] = []
        self.continued = False
        self.unwritten = 0
        self.next_write = 0.0
        self.warm = False

    def prepare(self, mode: str) -> None:
        """See to a file that is already there."""
        if self.path is None or not self.path.exists() or mode == "w":
            return
        if mode == "x":
            raise FileExistsError(
                f"{self.path} exists: continue it with mode='a', or replace it with mode='w'"
            )
        before = open_metrics(self.path)
        if list(before["run"].values) != [self.run]:
            raise ValueError(
                f"{self.path} holds the runs {', '.join(before['run'].values)}, expected "
                f"{self.run!r} alone: give another path, or run=..."
            )
        if before.attrs.get("parameter_selection") != self.selection.to_json():
            raise ValueError(
                f"{self.path} was recorded from other parameters or another network: give another "
                "path, or the selection it was made with"
            )
        self.rows = _rows(before)
        self.about = {str(name): v.attrs for name, v in before.data_vars.items()} | self.about
        if "example" in before.coords:
            self.examples = before["example"].values
        self.continued = True

    def checked_row(
        self,
        step: int,
        epoch: float | None,
        example_loss: ArrayLike | None,
        values: dict[str, float | None],
    ) -> dict[str, Any]:
        """Return the values that were given as a row, or say what is wrong with them."""
        if isinstance(step, bool) or not isinstance(step, int | np.integer):
            raise TypeError(f"step is {step!r}, expected a whole number of optimiser steps")
        repeats = bool(self.rows) and step <= self.rows[-1]["step"]
        if repeats and not self.continued:
            raise ValueError(
                f"step {step} comes after step {self.rows[-1]['step']}: steps must go up; count "
                "optimiser steps, not the batches of an epoch, and record each step once"
            )
        for name in values:
            _check_name(name, self.metrics)
        row: dict[str, Any] = {"step": int(step)} | ({} if epoch is None else {"epoch": epoch})
        row |= {name: _number(name, value) for name, value in values.items() if value is not None}
        if example_loss is not None:
            row["example_loss"] = self._examples(example_loss)
        if repeats:
            self._drop_from(step)
        self.continued = False
        return row

    def _drop_from(self, step: int) -> None:
        dropped = [row["step"] for row in self.rows if row["step"] >= step]
        warnings.warn(
            f"continuing at step {step}: {len(dropped)} records of steps {dropped[0]} to "
            f"{dropped[-1]} are replaced",
            stacklevel=4,
        )
        self.rows = [row for row in self.rows if row["step"] < step]

    def _examples(self, example_loss: ArrayLike) -> np.ndarray:
        if hasattr(example_loss, "detach"):
            example_loss = example_loss.detach().cpu()
        losses = np.asarray(example_loss)
        losses = losses.astype(np.result_type(losses.dtype, np.float32), copy=True)
        if self.examples is None:
            self.examples = np.arange(losses.size)
        if losses.shape != self.examples.shape or losses.ndim != 1:
            raise ValueError(
                f"example_loss has shape {losses.shape}, expected ({self.examples.size},): one "
                "loss for each example, and the same examples at every step"
            )
        losses[~np.isfinite(losses)] = np.nan
        return losses

    def append(self, row: dict[str, Any]) -> None:
        """Keep a row, and write the file if that is due."""
        self.rows.append(row)
        self._write_if_due()

    def amend(self, values: dict[str, Any]) -> None:
        """Put more values into the last row, and write the file if that is due."""
        if not self.rows:
            raise ValueError("nothing was recorded yet: call record(step) first")
        for name in values:
            _check_name(name, self.metrics)
        row = self.rows[-1]
        row |= {name: _number(name, value) for name, value in values.items() if value is not None}
        self._write_if_due()

    def rewind(self, step: int) -> None:
        """Drop the rows after a step, saying so."""
        if self.rows and self.rows[-1]["step"] > step:
            self._drop_from(step + 1)

    def _write_if_due(self) -> None:
        self.unwritten += 1
        start = time.perf_counter()
        if self.path is None or start < self.next_write:
            return
        try:
            self.flush()
        except OSError as error:  # a full disk must not end a training of days
            warnings.warn(
                f"could not write {self.path} ({error}); the records are kept in memory, and "
                "writing is tried again at the next one",
                stacklevel=4,
            )
        now = time.perf_counter()
        if self.warm:  # the first write also loads libraries, and says nothing of the next
            self.next_write = now + (now - start) / _WRITE_SHARE
        self.warm = True

    def flush(self) -> None:
        """Write the file if there is one and it lacks a row."""
        if self.path is not None and self.unwritten:
            save_metrics(self.dataset(), self.path)
            self.unwritten = 0

    def dataset(self) -> xr.Dataset:
        """Return the rows as a metrics Dataset of one run."""
        if not self.rows:
            raise ValueError("nothing was recorded yet: call record(step) first")
        matrices = self.selection.matrices
        columns = {
            "parameter": [m.name for m in matrices],
            "layer": ("parameter", [m.layer for m in matrices]),
            "kind": ("parameter", [m.kind for m in matrices]),
            "shape": ("parameter", ["x".join(map(str, m.shape)) for m in matrices]),
        }
        coords: dict[str, Any] = {"run": [self.run], "step": self._series("step"), **columns}
        names = dict.fromkeys(name for row in self.rows for name in row)
        if "epoch" in names:
            coords["epoch"] = ("step", self._series("epoch"))
        variables = {}
        for name in names:
            if name in ("step", "epoch"):
                continue
            series = self._series(name)[None]
            of_matrices = ("run", "step", "parameter")[: series.ndim]
            dims = VARIABLES[name].dims if name in VARIABLES else of_matrices
            variables[name] = (dims, series, self.about.get(name, {}))
        if "example_loss" in variables:
            coords["example"] = self.examples
        about = {
            "metric_definitions": DEFINITIONS,
            "parameter_selection": self.selection.to_json(),
            "source": "bayesphase.Recorder",
            "software": _software(),
        }
        return check_structure(xr.Dataset(variables, coords, about | self.attrs))

    def _series(self, name: str) -> np.ndarray:
        """Stack a value over all rows, NaN where a row has none; shape (step, ...)."""
        given = next(np.asarray(row[name]) for row in self.rows if name in row)
        nan = np.full(given.shape, np.nan, dtype=given.dtype if given.dtype.kind == "f" else float)
        return np.stack([np.asarray(row.get(name, nan)) for row in self.rows])


def _checked_path(path: str | os.PathLike[str]) -> Path:
    """Say now, not after the first hours of training, that a file can't be written there."""
    path = Path(path)
    if path.suffix != ".nc":  # Zarr can neither be replaced in one step nor written at exit
        raise ValueError(
            f"{str(path)!r} has the suffix {path.suffix!r}, a recorder writes '.nc': rename it; "
            "bayesphase.save_metrics turns it into '.zarr' later"
        )
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"can't write {str(path)!r}: make the folder {str(path.absolute().parent)!r}"
        )
    return path


def _software() -> str:
    import torch

    import bayesphase

    packages = {"bayesphase": bayesphase, "numpy": np, "torch": torch, "xarray": xr}
    return json.dumps({name: str(module.__version__) for name, module in packages.items()})


def _check_name(name: str, metrics: Collection[str]) -> None:
    if (name in VARIABLES and name not in GIVEN) or name in COORDS or name in metrics:
        raise ValueError(
            f"{name} is what the recorder itself calls something: give your value another name"
        )
    # Files and trees are addressed by paths: what these names mean there is another thing.
    if "/" in name or not name.strip(". "):
        better = re.sub(r"[/. ]+", "_", name).strip("_")
        raise ValueError(
            f"the name {name!r} can't stand in a file, where '/' and '.' are parts of a path: "
            f"record the value as {better or 'my_metric'!r}"
        )


def _number(name: str, value: Any) -> float:
    try:
        number = float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is {value!r}, expected one number") from error
    return number if np.isfinite(number) else float("nan")


def _rows(ds: xr.Dataset) -> list[dict[str, Any]]:
    """Take a Dataset of one run apart, into the rows it was made from."""
    rows = []
    for i, step in enumerate(ds["step"].values):
        row = {str(name): v.values[0, i] for name, v in ds.data_vars.items()} | {"step": int(step)}
        if "epoch" in ds.coords:
            row["epoch"] = ds["epoch"].values[i]
        rows.append(row)
    return rows
