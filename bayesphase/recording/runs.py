"""From a folder of checkpoints to a metrics Dataset: resumable, in parallel, following a run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from bayesphase._storage import require_writable
from bayesphase.dataset import save_metrics
from bayesphase.recording.collection import Collection
from bayesphase.recording.definitions import choose_metrics
from bayesphase.recording.measure import Settings
from bayesphase.recording.measured import Measured, Metric
from bayesphase.recording.records import Records
from bayesphase.recording.rule import Rule

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
    folder = Collection(root, pattern, settings, Records(log, place | settings.to_dict()))

    def look(first: bool = False) -> bool:
        news = folder.update(workers, client, progressbar)
        # at first in any case: what was killed may have kept records that are not in the output
        if news or first:
            write()
        return news

    def write() -> None:
        if output is not None and folder.n_measured():
            save_metrics(folder.dataset(), output)

    look(first=True)
    if watch is not None:
        _keep_looking(look, watch, patience)
        write()  # it may have been interrupted in the middle of a look
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
