"""Train a task from several seeds at once, each in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Protocol

import xarray as xr

from bayesphase.combine import combine_runs
from bayesphase.dataset import open_metrics, save_metrics


class Train(Protocol):
    """A function that trains one seed; it must be importable, as it crosses to other processes."""

    def __call__(
        self,
        seed: int,
        *,
        settings: Any,
        n_examples: int,
        on_checkpoint: Callable[[float, float], None],
    ) -> xr.Dataset:
        """Return the metrics of one run, with dims (run, step[, parameter | example])."""


def train_seeds(
    train: Train,
    *,
    path: str | os.PathLike[str],
    seeds: Sequence[int],
    settings: Any,
    workers: int = 2,
    n_examples: int = 0,
    example_runs: int = 0,
    on_checkpoint: Callable[[int, float, float], None] | None = None,
) -> xr.Dataset:
    """Train several seeds in parallel and save their metrics together.

    Each seed that is done is kept in a folder beside `path`, ``{path}.parts``, until all are done.
    If training is interrupted, calling this again with the same arguments trains the others only.

    Parameters
    ----------
    train : callable
        Called as ``train(seed, settings=..., n_examples=..., on_checkpoint=...)``.
    path : path-like
        Where the metrics go, ``.nc`` or ``.zarr``.
    seeds : sequence of int
        One run each.
    settings : dataclass instance
        Handed to `train`, which puts it as JSON into the attribute `settings` of its metrics.
    workers : int
        Processes at a time, each with one thread.
    n_examples, example_runs : int
        Keep the losses of so many validation examples, for so many of the first seeds.
    on_checkpoint : callable, optional
        Called in this process with the seed, the epoch and the validation accuracy.

    Returns
    -------
    Dataset
        What was saved, with dims (run, step[, parameter | example]), runs in the order of `seeds`.

    Raises
    ------
    ValueError
        If the parts of an interrupted training were made with other settings.
    FileNotFoundError
        If the folder to write in does not exist.
    """
    path = Path(path)
    parts = path.with_name(path.name + ".parts")
    parts.mkdir(exist_ok=True)
    examples = {seed: n_examples * (i < example_runs) for i, seed in enumerate(seeds)}
    files = {seed: parts / f"seed-{seed}-examples-{n}.nc" for seed, n in examples.items()}
    missing = [seed for seed, file in files.items() if not file.exists()]
    _check_settings([file for file in files.values() if file.exists()], settings)
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool,
    ):
        news = manager.Queue()
        jobs = [
            pool.submit(_train_one, train, seed, settings, examples[seed], files[seed], news)
            for seed in missing
        ]
        _wait(jobs, news, on_checkpoint)
    ds = combine_runs([open_metrics(file) for file in files.values()])
    save_metrics(ds, path)
    shutil.rmtree(parts)
    return ds


def _check_settings(files: list[Path], settings: Any) -> None:
    wanted = json.dumps(asdict(settings))
    for file in files:
        found = open_metrics(file).attrs.get("settings")
        if found != wanted:
            raise ValueError(
                f"{file} is left from a training with the settings {found}, now they are {wanted}: "
                f"delete the folder {file.parent}, or train with the same settings"
            )


def _start_worker() -> None:
    import torch

    # One thread each: the processes share the cores among them.
    torch.set_num_threads(1)
    # Ctrl-C reaches every process of the terminal; these have nothing to say about it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _train_one(
    train: Train, seed: int, settings: Any, n_examples: int, file: Path, news: Queue
) -> None:
    def tell(epoch: float, accuracy: float) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():  # it was killed: nobody waits for this
            os._exit(1)
        news.put((seed, epoch, accuracy))

    ds = train(seed, settings=settings, n_examples=n_examples, on_checkpoint=tell)
    save_metrics(ds, file)


def _wait(
    jobs: list[Future], news: Queue, on_checkpoint: Callable[[int, float, float], None] | None
) -> None:
    waiting = set(jobs)
    try:
        while waiting:
            done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            while True:
                try:
                    seed, epoch, accuracy = news.get_nowait()
                except Empty:
                    break
                if on_checkpoint:
                    on_checkpoint(seed, epoch, accuracy)
            for job in done:
                job.result()
    except BaseException:
        for job in waiting:
            job.cancel()
        raise
