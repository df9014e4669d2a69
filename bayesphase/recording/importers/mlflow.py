"""Metric files of MLflow's file store: ``<run>/metrics/<name>``, each line a logged value."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bayesphase.recording.importers.log import Log, number, whole

_RUN_NAME = Path("tags", "mlflow.runName")
_MARKS = ("meta.yaml", "params", "tags", "artifacts")


def run_folders(root: Path) -> list[Path]:
    """Find the folders of runs in a store, an experiment, or a run itself."""
    found = []
    for folder, below, files in os.walk(root):
        if "metrics" in below and any(mark in (*below, *files) for mark in _MARKS):
            found.append(Path(folder))
            below.clear()  # what is below is the run's own: metrics, artifacts
        else:  # the metrics of a logged model repeat those of its run
            below[:] = [name for name in below if name not in ("models", ".trash")]
    return sorted(found)


def metric_files(run: Path) -> list[Path]:
    """List the metric files of a run; a name with slashes is a file in folders."""
    found = [Path(folder, f) for folder, _, files in os.walk(run / "metrics") for f in files]
    return sorted(found)


def run_labels(runs: list[Path]) -> dict[Path, str]:
    """Label runs by the name that MLflow shows; by name and id where two share a name."""
    names = {run: _name(run) for run in runs}
    given = list(names.values())
    return {
        run: name if given.count(name) == 1 else f"{name} ({run.name})"
        for run, name in names.items()
    }


def read_metric_file(path: Path, log: Log, *, run: Path, label: str) -> None:
    """Put one metric file into the log.

    Raises
    ------
    ValueError
        If a line is not "timestamp value step"; old stores leave out the step, which is 0 then,
        and new ones add a data set.
    """
    name = path.relative_to(run / "metrics").as_posix()
    for at, line, whole_line in _numbered(path):
        where = f"{path}:{at}"
        fields = line.split()
        if not whole_line:  # MLflow ends each; two fields may be the beginning of three
            log.lose("the last line is cut off", where)
            return
        value = number(fields[1]) if len(fields) in (2, 3, 5) else None
        if value is None:
            raise ValueError(f"{where}: {line[:80]!r}, expected 'timestamp value step'")
        step = whole(fields[2], "step", where) if len(fields) > 2 else 0
        log.add(label, step, name, value)


def _numbered(path: Path) -> Iterator[tuple[int, str, bool]]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for at, line in enumerate(lines, 1):
        if line.strip():
            yield at, line.strip(), line.endswith("\n")


def _name(run: Path) -> str:
    try:
        return (run / _RUN_NAME).read_text(encoding="utf-8").strip() or run.absolute().name
    except (OSError, UnicodeDecodeError):
        return run.absolute().name
