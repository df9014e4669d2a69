"""From a folder of checkpoints to a metrics Dataset: resumable, in parallel, following a run."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesphase._storage import require_writable
from bayesphase.combine import combine_runs
from bayesphase.dataset import save_metrics
from bayesphase.recording.definitions import choose_metrics
from bayesphase.recording.layout import Checkpoint, find_checkpoints
from bayesphase.recording.measure import Settings, Task, fingerprint
from bayesphase.recording.measured import Measured, Metric
from bayesphase.recording.records import Records
from bayesphase.recording.rule import Rule
from bayesphase.recording.run_log import RunLog
from bayesphase.recording.selection import Selection
from bayesphase.recording.workers import measure_all

if TYPE_CHECKING:
    from distributed import Client


def collect(
    path: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    pattern: str | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    heads: Mapping[str, tuple[int, int]] | None = None,
    kinds: Mapping[str, str] | None = None,
    n_heads: int | None = None,
    n_kv_heads: int | None = None,
    key: str | None = None,
    metrics: Sequence[str | Metric | Callable[[Measured], float]] | None = None,
    device: str = "cpu",
    workers: int = 1,
    client: Client | None = None,
    watch: float | None = None,
    patience: float | None = None,
    progressbar: bool = True,
) -> xr.Dataset:
    """Measure every checkpoint in a folder.

    Files of `torch.save` (state dicts, alone or under the usual keys, Lightning's), safetensors and
    the folders of `save_pretrained` (whole, in shards, LoRA adapters) are read; nothing that a file
    contains is run. What can't be read safely is missing in the result, with its reason in the
    attribute ``missing_checkpoints``, and does not keep the others from being measured.

    With an `output`, each checkpoint is kept in ``{output}.records.jsonl`` as soon as it is
    measured. Called again, after a crash or with new checkpoints in the folder, only the others are
    measured, and the result is the same, bit for bit. Records outlive the checkpoints, so
    that a training may delete its old ones.

    Parameters
    ----------
    path : path-like
        The folder. Runs and steps are found by names, and ordered by number.
    output : path-like, optional
        Where the metrics go, ``.nc`` or ``.zarr``; replaced if it exists.
    pattern : str, optional
        How paths in the folder are made, such as ``"{run}/step{step}.pt"``, with `{run}`, `{step}`,
        `{epoch}` and ``*``, if the usual layouts do not fit.
    include, exclude, heads, kinds, n_heads, n_kv_heads
        Which tensors count, and how attention is split: as for `select_parameters`. Numbers of
        heads are taken from a `config.json` beside the weights if they are not given.
    key : str, optional
        Where in each file the weights are, such as ``"generator/state_dict"``, if not under one of
        the usual keys.
    metrics : sequence of str, Metric or callable, optional
        What is measured of each matrix; as for `Recorder`. Distances are from the first checkpoint
        of the run and from the one before; those change, and are measured again, when checkpoints
        are added in between, but not when old ones are deleted. Change the name of a function when
        you change the function: records are told apart by names and what is said about them.
    device : str
        Where metrics are computed, such as ``"cuda"``.
    workers : int
        Processes on this machine, each with one thread and one checkpoint in memory.
    client : distributed.Client, optional
        Checkpoints are tasks on its Dask cluster, whose machines see the folder under the same
        path. What was running on a worker that dies is started again elsewhere.
    watch : float, optional
        Look for new checkpoints every so many seconds, until interrupted.
    patience : float, optional
        Stop watching after so many seconds without a new checkpoint.
    progressbar : bool
        Show how many checkpoints are done.

    Returns
    -------
    Dataset
        Metrics with dims (run, step[, parameter]). NaN where a run has no checkpoint, or none that
        could be read. Where names have epochs only, `step` is the epoch.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist, or has no checkpoints.
    NotADirectoryError
        If `path` is a file.
    TypeError, ValueError
        If an argument is not what is expected, no checkpoint could be read, the runs are of
        networks that do not fit together, or the records in ``{output}.records.jsonl`` were made
        with other settings.

    Examples
    --------
    >>> metrics = collect("checkpoints/", output="metrics.zarr")  # doctest: +SKIP
    >>> json.loads(metrics.attrs["missing_checkpoints"])  # doctest: +SKIP
    """
    root = _existing_folder(path)
    _check_device(device)
    for name, value in (("workers", workers), ("watch", watch), ("patience", patience)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} is {value!r}, expected more than 0")
    if client is not None and not hasattr(client, "get_executor"):
        raise TypeError(f"client must be a distributed.Client, got {client!r}")
    rule = Rule.of(
        include=include,
        exclude=exclude,
        heads=heads,
        kinds=kinds,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
    )
    settings = Settings(rule, key, device, _of_weights(choose_metrics(metrics)))
    log = None
    if output is not None:
        require_writable(output)
        log = Path(f"{os.fspath(output)}.records.jsonl")
    place = {"folder": str(root), "pattern": pattern}
    folder = _Folder(root, pattern, settings, Records(log, place | settings.to_dict()))

    def look(first: bool = False) -> bool:
        news = folder.update(workers, client, progressbar)
        # at first in any case: what was killed may have kept records that are not in the output
        if output is not None and folder.n_measured() and (news or first):
            save_metrics(folder.dataset(), output)
        return news

    look(first=True)
    if watch is not None:
        _keep_looking(look, watch, patience)
    return folder.dataset()


def _of_weights(metrics: tuple[Metric, ...]) -> tuple[Metric, ...]:
    for metric in metrics:
        if set(metric.references) == {"gradient"}:
            raise ValueError(
                f"{metric.name!r} is a metric of gradients, which checkpoints do not hold: leave "
                "it out, or record it while training, with bayesphase.Recorder"
            )
    return metrics


def _existing_folder(path: str | os.PathLike[str]) -> Path:
    root = Path(path).resolve()
    if not root.exists():
        raise FileNotFoundError(f"there is no folder {os.fspath(path)!r}")
    if not root.is_dir():
        raise NotADirectoryError(
            f"{os.fspath(path)!r} is a file, expected the folder that holds the checkpoints"
        )
    return root


def _keep_looking(look: Callable[[], bool], watch: float, patience: float | None) -> None:
    last_news = time.monotonic()
    try:
        while patience is None or time.monotonic() - last_news < patience:
            time.sleep(watch)
            if look():
                last_news = time.monotonic()
    except KeyboardInterrupt:  # the way to end it; what was measured is kept
        return


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device is {device!r}, which is not there: {error}") from error


class _Folder:
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

    def update(self, workers: int, client: Client | None, progressbar: bool) -> bool:
        """Measure what is new or has changed; return whether there was anything."""
        found, self.other = find_checkpoints(self.root, pattern=self.pattern)
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
                others = {name: str(self.root / c) for name, (c, _) in compared[place].items()}
                todo[Task(str(self.root / here[0].path), **others)] = here[0]
        done = 0
        for task, outcome in _with_bar(
            measure_all(list(todo), self.settings, workers=workers, client=client),
            len(todo),
            progressbar,
        ):
            checkpoint = todo[task]
            if isinstance(outcome, Exception):  # kept for now only: another try may do better
                reason = f"{type(outcome).__name__}: {outcome}"
                self.missing[checkpoint.run, checkpoint.step] = (checkpoint, reason)
            else:
                done += 1
                references = compared[checkpoint.run, checkpoint.step]
                self.records.add({**checkpoint._asdict(), "compared": references, **outcome})
        return bool(done) or set(self.missing) != before

    def _compared(self, found: Mapping[tuple[str, int], Checkpoint]) -> dict[Any, dict[str, Any]]:
        """By run and step: paths and files of the checkpoints that metrics compare one with."""
        compared: dict[Any, dict[str, Any]] = {place: {} for place in found}
        first: dict[str, Checkpoint] = {}
        before: dict[str, Checkpoint] = {}
        for place in sorted(found):
            here = found[place]
            others = {"initial": first.setdefault(here.run, here), "previous": before.get(here.run)}
            for name in self.settings.references:
                if (other := others[name]) is not None:
                    compared[place][name] = [other.path, self._files(other.path)]
            before[here.run] = here
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
            if place in self.missing:
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
            (usual, _), *_ = Counter(row["selection"] for row in rows).most_common()
            for row in [row for row in rows if row["selection"] != usual]:
                rows.remove(row)
                difference = _difference(
                    self.records.selections[row["selection"]], self.records.selections[usual]
                )
                reason = f"its parameters are not those of the others in run {run!r}: {difference}"
                taken.append({k: row[k] for k in ("run", "step", "path")} | {"reason": reason})
        return taken


def _difference(one: dict[str, Any], usual: dict[str, Any]) -> str:
    here, there = ({m["name"]: m["shape"] for m in s["matrices"]} for s in (one, usual))
    for name in {**there, **here}:
        if here.get(name) != there.get(name):
            return (
                f"{name!r} has shape {here.get(name, 'none')}, expected {there.get(name, 'none')}"
            )
    return "other biases, or others left out"


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
