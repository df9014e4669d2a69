"""From one checkpoint to its metrics: what a worker process does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bayesphase.recording.definitions import choose_metrics
from bayesphase.recording.files import Refused, Weights
from bayesphase.recording.folders import files_of, open_checkpoint
from bayesphase.recording.measured import Metric
from bayesphase.recording.metrics import (
    DEFINITIONS,
    count_nonfinite,
    matrices_metrics,
    pooled_metrics,
)
from bayesphase.recording.rule import Entry, Rule, entries_of_shapes
from bayesphase.recording.selection import Matrix, Selection

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Settings:
    """What decides about the numbers, all of it."""

    rule: Rule
    key: str | None = None
    device: str = "cpu"
    metrics: tuple[Metric, ...] = choose_metrics()

    @property
    def references(self) -> list[str]:
        """What metrics compare a checkpoint with: "initial", the first of its run, "previous"."""
        asked = {reference for metric in self.metrics for reference in metric.references}
        return sorted(asked - {"gradient"})  # which no checkpoint has

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it, with the version of the metrics' definitions."""
        return {
            "metric_definitions": DEFINITIONS,
            "rule": asdict(self.rule),
            "key": self.key,
            "device": self.device,
            "metrics": {metric.name: metric.attrs for metric in self.metrics},
        }


class Task(NamedTuple):
    """A checkpoint to measure, and those that its metrics compare it with; all paths."""

    path: str
    initial: str | None = None
    previous: str | None = None


def fingerprint(path: Path) -> list[list[Any]]:
    """List names, sizes and times of change of a checkpoint's files: they tell whether it changed.

    A file's `config.json`, where the numbers of heads are, is one of them.
    """
    files = [*files_of(path)]
    beside = path.parent / "config.json"
    if not path.is_dir() and beside.is_file():
        files.append(beside)
    return [[f.name, (stat := f.stat()).st_size, stat.st_mtime_ns] for f in files]


def measure(task: Task, settings: Settings) -> dict[str, Any]:
    """Measure one checkpoint, in one thread: the numbers then do not depend on who does it.

    Parameters
    ----------
    task : Task
        A checkpoint to compare with that can't be read counts as unknown.
    settings : Settings

    Returns
    -------
    dict
        ``{"files": ..., "selection": ..., "values": ...}``, or ``{"files": ..., "reason": ...}`` of
        one that is refused; as JSON can hold it.

    Raises
    ------
    OSError
        If the checkpoint can't be read now, or changes while it is: it is worth another try.
    """
    import torch

    path = Path(task.path)
    before = fingerprint(path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        weights, heads = open_checkpoint(path, key=settings.key)
        entries = entries_of_shapes(weights.tensors, tied=weights.tied, heads=heads)
        selection = _select(settings.rule, entries)
        values = _values(weights, selection, task, settings)
        result: dict[str, Any] = {"selection": asdict(selection), "values": values}
    except Refused as error:
        result = {"reason": str(error)}
    finally:
        torch.set_num_threads(threads)
    if fingerprint(path) != before:
        raise OSError(f"{path} changed while it was read")
    return {"files": before, **result}


def _select(rule: Rule, entries: list[Entry]) -> Selection:
    try:
        return rule.select(entries, what="the checkpoint")
    except ValueError as error:  # nothing is left, or heads do not fit
        raise Refused(str(error)) from error


class _Reader:
    """Reads the tensors of a checkpoint; the last one is kept, for its heads follow each other."""

    def __init__(self, weights: Weights, device: str) -> None:
        self.weights = weights
        self.device = device
        self.last: tuple[str, Tensor] | None = None

    def tensor(self, name: str) -> Tensor:
        if self.last is None or self.last[0] != name:
            self.last = None  # before the next one takes memory
            try:
                self.last = name, self.weights.read(name).to(self.device)
            except (RuntimeError, NotImplementedError) as error:
                raise Refused(f"{name!r} can't be read ({error})") from error
        return self.last[1]

    def matrix(self, matrix: Matrix) -> Tensor:
        return matrix.read(self.tensor(matrix.source))


def _values(
    weights: Weights, selection: Selection, task: Task, settings: Settings
) -> dict[str, Any]:
    """Compute all metrics, with one tensor of each checkpoint in memory at a time."""
    reader = _Reader(weights, settings.device)
    others = {
        name: other
        for name in settings.references
        if (path := getattr(task, name)) and (other := _reference(path, weights, settings))
    }

    columns: dict[str, list[float]] = {}
    nonfinite = 0
    # the heads of a tensor together, which is quicker
    for _, heads in groupby(selection.matrices, key=lambda matrix: matrix.source):
        here = [*heads]
        weight = [reader.matrix(matrix) for matrix in here]
        nonfinite += count_nonfinite(weight)
        compared = {name: [other.matrix(m) for m in here] for name, other in others.items()}
        measured = matrices_metrics(
            weight,
            metrics=settings.metrics,
            initial=compared.get("initial"),
            previous=compared.get("previous"),
        )
        for name, column in measured.items():
            columns.setdefault(name, []).extend(column.tolist())
    values: dict[str, Any] = dict(columns)
    values |= pooled_metrics((reader.matrix(m) for m in selection.matrices), prefix="weight")
    values |= pooled_metrics((reader.tensor(name) for name in selection.biases), prefix="bias")
    nonfinite += count_nonfinite(reader.tensor(name) for name in selection.biases)
    return values | {"nonfinite_count": float(nonfinite)}


def _reference(path: str, weights: Weights, settings: Settings) -> _Reader | None:
    """Open a checkpoint that another one is compared with, if it has tensors of the same shapes."""
    try:
        other, _ = open_checkpoint(Path(path), key=settings.key)
    except (OSError, Refused):
        return None  # it is listed as missing, with its reason, where it is measured itself
    shapes, there = ({n: shape for n, (shape, _) in w.tensors.items()} for w in (weights, other))
    return _Reader(other, settings.device) if shapes == there else None
