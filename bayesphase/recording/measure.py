"""From one checkpoint to its metrics: what a worker process does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesphase.recording.files import Refused, Weights
from bayesphase.recording.folders import files_of, open_checkpoint
from bayesphase.recording.metrics import (
    DEFINITIONS,
    count_nonfinite,
    matrix_metrics,
    pooled_metrics,
)
from bayesphase.recording.rule import Rule, entries_of_shapes
from bayesphase.recording.selection import Selection

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Settings:
    """What decides about the numbers, all of it."""

    rule: Rule
    key: str | None = None
    device: str = "cpu"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it, with the version of the metrics' definitions."""
        return {"metric_definitions": DEFINITIONS, **asdict(self)}


def fingerprint(path: Path) -> list[list[Any]]:
    """List names, sizes and times of change of a checkpoint's files: they tell whether it changed.

    A file's `config.json`, where the numbers of heads are, is one of them.
    """
    files = [*files_of(path)]
    beside = path.parent / "config.json"
    if not path.is_dir() and beside.is_file():
        files.append(beside)
    return [[f.name, (stat := f.stat()).st_size, stat.st_mtime_ns] for f in files]


def measure(path: str, settings: Settings) -> dict[str, Any]:
    """Measure one checkpoint, in one thread: the numbers then do not depend on who does it.

    Parameters
    ----------
    path : str
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

    before = fingerprint(Path(path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        weights, heads = open_checkpoint(Path(path), key=settings.key)
        entries = entries_of_shapes(weights.tensors, tied=weights.tied, heads=heads)
        selection = settings.rule.select(entries, what="the checkpoint")
        values = _values(weights, selection, settings.device)
        result: dict[str, Any] = {"selection": asdict(selection), "values": values}
    except ValueError as error:  # of `Refused`, and of a rule that fits nothing
        result = {"reason": str(error)}
    finally:
        torch.set_num_threads(threads)
    if fingerprint(Path(path)) != before:
        raise OSError(f"{path} changed while it was read")
    return {"files": before, **result}


def _values(weights: Weights, selection: Selection, device: str) -> dict[str, Any]:
    """Compute all metrics, with one tensor in memory at a time."""

    def read(name: str) -> Tensor:
        try:
            return weights.read(name).to(device)
        except (RuntimeError, NotImplementedError) as error:
            raise Refused(f"{name!r} can't be read ({error})") from error

    def matrices() -> Iterator[Tensor]:
        source, tensor = "", None
        for matrix in selection.matrices:
            if tensor is None or matrix.source != source:
                source, tensor = matrix.source, read(matrix.source)
            yield matrix.read(tensor)

    columns: dict[str, list[float]] = {}
    nonfinite = 0
    for matrix in matrices():
        nonfinite += count_nonfinite([matrix])
        for name, value in matrix_metrics(matrix).items():
            columns.setdefault(name, []).append(value)
    values: dict[str, Any] = dict(columns)
    values |= pooled_metrics(matrices(), prefix="weight")
    values |= pooled_metrics((read(name) for name in selection.biases), prefix="bias")
    nonfinite += count_nonfinite(read(name) for name in selection.biases)
    return values | {"nonfinite_count": float(nonfinite)}
