"""Measure many checkpoints: here, in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, as_completed, wait
from typing import TYPE_CHECKING, Any

from bayesphase.recording.measure import Settings, measure

if TYPE_CHECKING:
    from distributed import Client

Outcome = dict[str, Any] | Exception
"""What `measure` returned, or the error that it or its process ended with."""

_KEEP_WORKERS = 10  # seconds that idle processes live: those of a process that was killed end, too


def measure_all(
    paths: Sequence[str], settings: Settings, *, workers: int, client: Client | None
) -> Iterator[tuple[str, Outcome]]:
    """Yield each path with its outcome, as soon as it is known."""
    if client is not None:
        yield from _on_cluster(paths, settings, client)
    elif workers > 1 and len(paths) > 1:
        yield from _in_processes(paths, settings, workers)
    else:
        for path in paths:
            yield path, _outcome(lambda path=path: measure(path, settings))  # type: ignore[misc]


def _outcome(result: Callable[[], dict[str, Any]]) -> Outcome:
    try:
        return result()
    except ModuleNotFoundError:  # no fault of the checkpoint: without the library none can be read
        raise
    except Exception as error:
        return error


def _on_cluster(
    paths: Sequence[str], settings: Settings, client: Client
) -> Iterator[tuple[str, Outcome]]:
    """Do each as a task; those of a worker that dies are done by another one."""
    submit = client.get_executor(pure=False).submit
    waiting = {submit(measure, path, settings): path for path in paths}
    try:
        for future in as_completed(list(waiting)):
            yield waiting.pop(future), _outcome(future.result)
    finally:
        for future in waiting:
            future.cancel()


def _in_processes(
    paths: Sequence[str], settings: Settings, workers: int
) -> Iterator[tuple[str, Outcome]]:
    """Do a few at a time; if a process dies, do those one by one, to tell which it was."""
    # unlike the standard library's pool, loky's needs no `if __name__ == "__main__"` in a script
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    pool = get_reusable_executor(workers, timeout=_KEEP_WORKERS)
    waiting, suspects = deque(paths), deque[str]()
    running: dict[Future[dict[str, Any]], str] = {}
    try:
        while waiting or suspects or running:
            pool = get_reusable_executor(workers, timeout=_KEEP_WORKERS)  # a new one if it broke
            if suspects and not running:
                path = suspects.popleft()
                yield path, _outcome(pool.submit(measure, path, settings).result)
                continue
            while waiting and not suspects and len(running) < 2 * workers:
                path = waiting.popleft()
                running[pool.submit(measure, path, settings)] = path
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                path, outcome = running.pop(future), _outcome(future.result)
                if isinstance(outcome, BrokenProcessPool):
                    suspects.append(path)
                else:
                    yield path, outcome
    except BaseException:
        pool.shutdown(kill_workers=True)
        raise
