"""Which files below a path are logs, of which format, and of which run."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bayesphase.recording.importers import mlflow, published, tensorboard, trainer_state
from bayesphase.recording.importers.log import natural

TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
FORMATS = ("table", "lightning", "wandb", "trainer_state", "tensorboard", "mlflow", "published")


def format_of(path: Path) -> str | None:
    """Name the format of a file by its name, None if it is no log that is known."""
    if path.name == trainer_state.FILE:
        return "trainer_state"
    if tensorboard.MARK in path.name:
        return "tensorboard"
    if published.NAME.fullmatch(path.name):
        return "published"
    if path.name == "metrics.csv":
        return "lightning"
    return "table" if path.suffix.lower() in TABLES else None


def files_by_format(root: Path) -> dict[str, list[Path]]:
    """Find all logs below a folder, by format, in the order of the numbers in their names.

    Links to folders are not followed. MLflow's files are found by the folders they are in, and
    nothing else is looked for below those.
    """
    runs = mlflow.run_folders(root)
    found = {"mlflow": runs} if runs else {}
    of_mlflow = set(runs)
    if root in of_mlflow:
        return found
    for folder, below, names in os.walk(root):
        below[:] = [n for n in below if not n.startswith(".") and Path(folder, n) not in of_mlflow]
        for name in names:
            path = Path(folder, name)
            if not name.startswith(".") and (kind := format_of(path)):
                found.setdefault(kind, []).append(path)
    return {kind: sorted(paths, key=lambda p: natural(str(p))) for kind, paths in found.items()}


def label_of(folder: Path, root: Path) -> str:
    """Label a run by its folder: the way to it from `root`, or its own name if that is `root`."""
    folder, root = folder.absolute(), root.absolute()
    if folder == root or root not in folder.parents:
        return folder.name
    return folder.relative_to(root).as_posix()


def label_of_file(path: Path, root: Path) -> str:
    """Label a run by its file: ``metrics.csv`` says nothing, its folder does."""
    if re.fullmatch(r"(metrics|history|log|logs|results|trainer_log)", path.stem):
        return label_of(path.absolute().parent, root)
    if path.absolute().parent == root.absolute() or not root.is_dir():
        return path.stem
    return f"{label_of(path.absolute().parent, root)}/{path.stem}"
