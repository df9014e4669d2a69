"""Read the logs of other tools: one call for all formats."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import xarray as xr

from bayesphase.recording.importers import mlflow
from bayesphase.recording.importers.build import build_dataset
from bayesphase.recording.importers.find import (
    FORMATS,
    TABLES,
    files_by_format,
    format_of,
    label_of,
    label_of_file,
)
from bayesphase.recording.importers.log import TABLE_FORMATS, Log, told_twice
from bayesphase.recording.importers.published import read_checkpoint_file
from bayesphase.recording.importers.tables import read_table_file
from bayesphase.recording.importers.tensorboard import read_event_file
from bayesphase.recording.importers.trainer_state import (
    latest_states,
    read_trainer_state,
    run_folder,
)


def read_log(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    step: str | None = None,
    run: str | None = None,
    names: Mapping[str, str] | None = None,
) -> xr.Dataset:
    r"""Read what other tools logged of one run or many.

    ===============  =============================================================================
    format           what is read
    ===============  =============================================================================
    "table"          CSV, TSV, parquet, JSON lines; a row for each step ("wide"), or for each value,
                     in columns such as ``metric`` and ``value`` ("long")
    "lightning"      ``metrics.csv`` of Lightning's CSVLogger
    "wandb"          histories of Weights & Biases as CSV or JSON lines (best from
                     ``run.scan_history()``: ``run.history()`` is a sample), and charts as CSV
    "trainer_state"  ``trainer_state.json`` of the Trainer of Hugging Face; in a folder, the latest
                     of each run
    "tensorboard"    event files; needs the extra ``bayesphase[logs]``, as parquet does
    "mlflow"         a file store: ``mlruns``, an experiment or a run
    "published"      a file of metrics for each checkpoint, such as ``epoch20.json``, as the code of
                     arXiv:2308.09543 writes; its CSV files are tables
    ===============  =============================================================================

    Of several values for one step the last one in the log is kept. Values that are not finite
    become NaN. How many there were of each, and everything else that was left out (text,
    histograms, rows without a step), is in the attributes ``duplicates``, ``nonfinite`` and
    ``skipped``, as JSON. Times at which values were logged are not read.

    Names that say what the contract has become its variables (``val/acc`` is `eval_accuracy`), and
    the others stay, with ``_`` for what a file can't hold; the attribute ``logged_as`` has the
    original one. A metric of weight matrices that was logged as one number has the one
    ``parameter`` "all". Where a log counts epochs only, so does ``step``.

    Parameters
    ----------
    path : path-like
        A file, or a folder of them. Runs are labelled by a column, or by the file or its folder.
    format : str, optional
        One of the above; found by the names of the files if None.
    step, run : str, optional
        Columns of a table; by default one named as steps and runs usually are: ``step``,
        ``global_step``, ``iteration``, ``_step``; ``run``, ``run_id``, ``run_name``, ``seed``, and
        ``experiment``, ``experiment_name``, ``trial`` or ``name`` where it tells the rows of a file
        apart. Case does not count, nor does a space for a ``_``.
    names : dict of str to str, optional
        Variables for logged names, such as ``{"ce": "train_loss"}``.

    Returns
    -------
    Dataset
        Metrics with dims (run, step[, parameter]).

    Warns
    -----
    UserWarning
        If one of several files, or the end of a file, could not be read, or values of one step
        differ.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If no log, or logs of several formats, are found; if the only file can't be read, with the
        line; if a column or a name is not there.
    ImportError
        If a package is missing that reads this format.

    Examples
    --------
    >>> import tempfile, pathlib, bayesphase as bp
    >>> path = pathlib.Path(tempfile.mkdtemp(), "seed 3.csv")
    >>> _ = path.write_text("step,val/loss\n0,2.5\n100,1.25\n")
    >>> bp.read_log(path)["eval_loss"].sel(run="seed 3").values
    array([2.5 , 1.25])
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"there is no file or folder {str(root)!r}")
    if format is not None and format not in FORMATS:
        raise ValueError(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
    kind, files = _of_folder(root, format) if root.is_dir() else _of_file(root, format)
    if kind not in TABLE_FORMATS and (column := step or run):
        raise ValueError(f"{column!r} is to be a column, but {root} is no table (it is {kind})")
    log = Log()
    _READ[kind](files, root, log, step, run)
    ds = build_dataset(log, {"log_format": kind, "log_path": str(root)}, names or {})
    log.warn()
    if said := told_twice(ds.attrs, list(map(str, ds.data_vars))):
        warnings.warn("; ".join(said), stacklevel=2)
    return ds


def _of_file(path: Path, format: str | None) -> tuple[str, list[Path]]:
    found = format or format_of(path) or ("table" if path.suffix.lower() == ".json" else None)
    if found is None:
        raise ValueError(
            f"{path}: no log that is known by this name, say what it is with format=, one of "
            f"{', '.join(FORMATS)}"
        )
    if found == "mlflow":
        raise ValueError(f"{path}: values of MLflow are read by the folder of their run, give that")
    return found, [path]


def _of_folder(root: Path, format: str | None) -> tuple[str, list[Path]]:
    found = files_by_format(root)
    if format in TABLE_FORMATS:
        tables = [path for kind in ("table", "lightning") for path in found.get(kind, [])]
        found = {format: tables} if tables else {}
    elif format is not None:
        found = {kind: files for kind, files in found.items() if kind == format}
    if not found:
        raise ValueError(
            f"{root}: no logs below this folder{f' of format {format!r}' if format else ''}, "
            f"looked for {', '.join(TABLES)}, trainer_state.json, event files, MLflow's metrics, "
            "and files such as epoch20.json"
        )
    if len(found) > 1:
        counts = ", ".join(f"{kind} ({len(files)})" for kind, files in found.items())
        raise ValueError(f"{root}: logs of several formats, {counts}: choose one with format=")
    return next(iter(found.items()))


def _read_tables(
    files: list[Path], root: Path, log: Log, step: str | None, run: str | None
) -> None:
    log.each_file(
        files,
        lambda file: read_table_file(
            file, log, label=label_of_file(file, root), step=step, run=run
        ),
    )


def _read_states(files: list[Path], root: Path, log: Log, *_: object) -> None:
    log.each_file(
        latest_states(files, log),
        lambda file: read_trainer_state(file, log, label=label_of(run_folder(file), root)),
    )


def _read_events(files: list[Path], root: Path, log: Log, *_: object) -> None:
    log.each_file(
        files, lambda file: read_event_file(file, log, label=label_of(file.absolute().parent, root))
    )


def _read_published(files: list[Path], root: Path, log: Log, *_: object) -> None:
    log.each_file(
        files,
        lambda file: read_checkpoint_file(file, log, label=label_of(file.absolute().parent, root)),
    )


def _read_mlflow(files: list[Path], root: Path, log: Log, *_: object) -> None:
    labels = mlflow.run_labels(files)
    owners = {file: run for run in files for file in mlflow.metric_files(run)}
    log.each_file(
        owners,
        lambda file: mlflow.read_metric_file(
            file, log, run=owners[file], label=labels[owners[file]]
        ),
    )


_READ: dict[str, Callable[..., None]] = {
    **dict.fromkeys(TABLE_FORMATS, _read_tables),
    "trainer_state": _read_states,
    "tensorboard": _read_events,
    "published": _read_published,
    "mlflow": _read_mlflow,
}
