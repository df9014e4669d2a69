"""What is known of a folder of checkpoints: measured, to be measured, missing."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesphase.combine import combine_runs
from bayesphase.recording.layout import Checkpoint, find_checkpoints
from bayesphase.recording.measure import Settings, Task, fingerprint
from bayesphase.recording.records import Records
from bayesphase.recording.run_log import RunLog
from bayesphase.recording.selection import Selection
from bayesphase.recording.workers import measure_all

if TYPE_CHECKING:
    from distributed import Client


class Collection:
    """A folder of checkpoints, and what is known of them."""

    def __init__(
        self, root: Path, pattern: str | None, settings: Settings, records: Records
    ) -> None:
        self.root = root
        self.pattern = pattern
        self.settings = settings
        self.records = records
        self.missing: dict[tuple[str, int], tuple[Checkpoint, str]] = {}
        self.other: dict[str, str] = {}
        self.places: dict[str, tuple[str, int]] = {}

    def update(self, workers: int, client: Client | None, progressbar: bool) -> bool:
        """Measure what is new or has changed; return whether there was anything."""
        found, self.other = find_checkpoints(self.root, pattern=self.pattern)
        self.places = {checkpoint.path: (checkpoint.run, checkpoint.step) for checkpoint in found}
        before = set(self.missing)
        self.missing = {}
        paths: dict[tuple[str, int], list[Checkpoint]] = {}
        for checkpoint in found:
            paths.setdefault((checkpoint.run, checkpoint.step), []).append(checkpoint)
        alone = {place: here[0] for place, here in paths.items() if len(here) == 1}
        compared = self._compared(alone)
        todo = {}
        for place, here in paths.items():
            if len(here) > 1:
                names = " and ".join(c.path for c in here)
                reason = f"there is more than one checkpoint of this step: {names}"
                self.missing[place] = (here[0], reason)
            elif not self._is_known(here[0], compared[place]):
                others = {
                    n: str(self.root / c) for n, (c, files) in compared[place].items() if files
                }
                todo[Task(str(self.root / here[0].path), **others)] = here[0]
        done = 0
        for task, outcome in _with_bar(
            measure_all(list(todo), self.settings, workers=workers, client=client),
            len(todo),
            progressbar,
        ):
            checkpoint = todo[task]
            place = (checkpoint.run, checkpoint.step)
            if isinstance(outcome, Exception):
                reason = f"{type(outcome).__name__}: {outcome}"
            else:
                reason = outcome.get("reason")
            if reason and "values" in (self.records.get(*place) or {}):
                warnings.warn(
                    f"{checkpoint.path} can't be measured again ({reason}): what was measured of "
                    "it before is kept",
                    stacklevel=4,
                )
            elif isinstance(outcome, Exception):  # for now only: another try may do better
                self.missing[place] = (checkpoint, str(reason))
            else:
                done += 1
                self.records.add({**checkpoint._asdict(), "compared": compared[place], **outcome})
        return bool(done) or set(self.missing) != before

    def _compared(self, found: Mapping[tuple[str, int], Checkpoint]) -> dict[Any, dict[str, Any]]:
        """By run and step: paths and files of the checkpoints that metrics compare one with.

        The files are None of one that is gone by now: what would be compared with it is NaN.
        """
        paths = {(record["run"], record["step"]): record["path"] for record in self.records}
        paths = {p: path for p, path in paths.items() if self.places.get(path, p) == p}
        paths |= {place: checkpoint.path for place, checkpoint in found.items()}
        compared: dict[Any, dict[str, Any]] = {}
        first: dict[str, str] = {}
        before: dict[str, str] = {}
        files = cache(self._files)  # all checkpoints of a run are compared with its first
        for place, path in sorted(paths.items()):
            run = place[0]
            others = {"initial": first.setdefault(run, path), "previous": before.get(run)}
            if place in found:
                compared[place] = {
                    name: [other, files(other)]
                    for name in self.settings.references
                    if (other := others[name]) is not None
                }
            before[run] = path
        return compared

    def _files(self, path: str) -> list[list[Any]] | None:
        try:
            return fingerprint(self.root / path)
        except OSError:
            return None

    def _is_known(self, checkpoint: Checkpoint, compared: Mapping[str, Any]) -> bool:
        record = self.records.get(checkpoint.run, checkpoint.step)
        if record is None or record["path"] != checkpoint.path:
            return False
        # a checkpoint to compare with that is gone by now can't be compared with again
        if any(
            compared.get(name) != [path, files] and self._files(path) is not None
            for name, (path, files) in record["compared"].items()
        ):
            return False
        return self._files(checkpoint.path) == record["files"]

    def _is_replaced(self, record: Mapping[str, Any]) -> bool:
        """Whether a checkpoint is of another run or step by now, and has a record there."""
        place = self.places.get(record["path"])
        if place is None or place == (record["run"], record["step"]):
            return False
        now = self.records.get(*place) or {}
        return "values" not in record or (now.get("path") == record["path"] and "values" in now)

    def n_measured(self) -> int:
        """Count the checkpoints that have metrics."""
        return sum("values" in record for record in self.records)

    def dataset(self) -> xr.Dataset:
        """Put all records together."""
        runs: dict[str, list[dict[str, Any]]] = {}
        missing = [
            {"run": c.run, "step": c.step, "path": c.path, "reason": reason}
            for c, reason in self.missing.values()
        ]
        epochs = {place: c.epoch for place, (c, _) in self.missing.items()}
        for record in self.records:
            place = (record["run"], record["step"])
            if place in self.missing or self._is_replaced(record):
                continue
            epochs[place] = record["epoch"]
            if "reason" in record:
                missing.append({k: record[k] for k in ("run", "step", "path", "reason")})
            else:
                runs.setdefault(record["run"], []).append(record)
        missing += self._strangers(runs)
        missing.sort(key=lambda m: (m["run"], m["step"]))
        ignored = [{"path": p, "reason": reason} for p, reason in sorted(self.other.items())]
        if not runs:
            raise _nothing(self.root, missing, ignored)
        attrs = {
            "source": "bayesphase.collect",
            "missing_checkpoints": json.dumps(missing),
            "files_without_step": json.dumps(ignored),
        }
        selections = {
            run: self.records.selections[rows[0]["selection"]] for run, rows in runs.items()
        }
        parts = [
            _dataset(
                RunLog(
                    run,
                    None,
                    Selection.from_dict(selections[run]),
                    None,
                    attrs,
                    metrics=self.settings.metrics,
                ),
                rows,
                missing,
                epochs,
            )
            for run, rows in runs.items()
        ]
        ds = combine_runs(parts)
        if all(epoch == step for (_, step), epoch in epochs.items()):
            ds["step"].attrs = {"units": "epochs", "comment": "names have epochs, and no steps"}
        # where networks differ between runs, so do their selections: all are kept
        return ds.assign_attrs(
            {}
            if "parameter_selection" in ds.attrs
            else {"parameter_selection": json.dumps(selections)}
        )

    def _strangers(self, runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Take checkpoints out whose parameters are not those of most in their run."""
        taken = []
        for run, rows in runs.items():
            counts = Counter(row["selection"] for row in rows)
            chosen = {digest: _chosen(self.records.selections[digest]) for digest in counts}
            usual = max(
                chosen.values(), key=lambda one: sum(counts[d] for d in counts if chosen[d] == one)
            )
            strange = [row for row in rows if chosen[row["selection"]] != usual]
            for row in strange:
                rows.remove(row)
                difference = _difference(chosen[row["selection"]], usual)
                reason = f"its parameters are not those of the others in run {run!r}: {difference}"
                taken.append({k: row[k] for k in ("run", "step", "path")} | {"reason": reason})
        return taken


def _chosen(selection: dict[str, Any]) -> dict[str, Any]:
    """Return what is measured; what is left out may differ, as where tied tensors are kept once."""
    shapes = {matrix["name"]: matrix["shape"] for matrix in selection["matrices"]}
    return {"matrices": shapes, "biases": selection["biases"]}


def _difference(one: dict[str, Any], usual: dict[str, Any]) -> str:
    here, there = one["matrices"], usual["matrices"]
    for name in {**there, **here}:
        if here.get(name) != there.get(name):
            return (
                f"{name!r} has shape {here.get(name, 'none')}, expected {there.get(name, 'none')}"
            )
    return "other biases"


def _dataset(
    log: RunLog,
    records: list[dict[str, Any]],
    missing: list[dict[str, Any]],
    epochs: Mapping[tuple[str, int], int | None],
) -> xr.Dataset:
    rows: dict[int, dict[str, Any]] = {m["step"]: {} for m in missing if m["run"] == log.run}
    for record in records:
        rows[record["step"]] = {k: _array(v) for k, v in record["values"].items()}
    for step in sorted(rows):
        epoch = epochs[log.run, step]
        log.rows.append(rows[step] | {"step": step} | ({} if epoch is None else {"epoch": epoch}))
    return log.dataset()


def _array(value: Any) -> Any:
    return np.array(value) if isinstance(value, list) else value


def _nothing(root: Path, missing: list[Any], ignored: list[Any]) -> Exception:
    if missing:
        first = missing[0]
        return ValueError(
            f"none of the {len(missing)} checkpoints in {str(root)!r} could be measured; "
            f"{first['path']}: {first['reason']}"
        )
    if ignored:
        first = ignored[0]
        return FileNotFoundError(
            f"no checkpoints were found in {str(root)!r}; {first['path']}: {first['reason']}"
        )
    return FileNotFoundError(
        f"no checkpoints were found in {str(root)!r}: expected names such as step100.pt or "
        "checkpoint-100/model.safetensors, or give a pattern such as '{run}/step{step}.pt'"
    )


def _with_bar(outcomes: Iterable[Any], total: int, progressbar: bool) -> Iterable[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = ("checkpoints", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, disable=not progressbar or not total) as progress:
        yield from progress.track(outcomes, total=total)
