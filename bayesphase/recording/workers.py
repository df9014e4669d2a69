"""Measure many checkpoints: here, in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, as_completed, wait
from typing import TYPE_CHECKING, Any

from bayesphase.recording.measure import Settings, Task, measure

if TYPE_CHECKING:
    from distributed import Client

Outcome = dict[str, Any] | Exception
"""What `measure` returned, or the error that it or its process ended with."""

_KEEP_WORKERS = 10  # seconds that idle processes live: those of a process that was killed end, too


def measure_all(
    tasks: Sequence[Task], settings: Settings, *, workers: int, client: Client | None
) -> Iterator[tuple[Task, Outcome]]:
    """Yield each task with its outcome, as soon as it is known."""
    if client is not None:
        yield from _on_cluster(tasks, settings, client)
    elif workers > 1 and len(tasks) > 1:
        yield from _in_processes(tasks, settings, workers)
    else:
        for task in tasks:
            yield task, _outcome(lambda task=task: measure(task, settings))  # type: ignore[misc]


def _outcome(result: Callable[[], dict[str, Any]]) -> Outcome:
    try:
        return result()
    except ModuleNotFoundError:  # no fault of the checkpoint: without the library none can be read
        raise
    except Exception as error:
        return error


def _on_cluster(
    tasks: Sequence[Task], settings: Settings, client: Client
) -> Iterator[tuple[Task, Outcome]]:
    """Do each as a task; those of a worker that dies are done by another one."""
    submit = client.get_executor(pure=False).submit
    waiting = {submit(measure, task, settings): task for task in tasks}
    try:
        for future in as_completed(list(waiting)):
            yield waiting.pop(future), _outcome(future.result)
    finally:
        for future in waiting:
            future.cancel()


def _in_processes(
    tasks: Sequence[Task], settings: Settings, workers: int
) -> Iterator[tuple[Task, Outcome]]:
    """Do a few at a time; if a process dies, do those one by one, to tell which it was."""
    # unlike the standard library's pool, loky's needs no `if __name__ == "__main__"` in a script
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    pool = get_reusable_executor(workers, timeout=_KEEP_WORKERS)
    waiting, suspects = deque(tasks), deque[Task]()
    running: dict[Future[dict[str, Any]], Task] = {}
    try:
        while waiting or suspects or running:
            pool = get_reusable_executor(workers, timeout=_KEEP_WORKERS)  # a new one if it broke
            if suspects and not running:
                task = suspects.popleft()
                yield task, _outcome(pool.submit(measure, task, settings).result)
                continue
            while waiting and not suspects and len(running) < 2 * workers:
                task = waiting.popleft()
                running[pool.submit(measure, task, settings)] = task
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task, outcome = running.pop(future), _outcome(future.result)
                if isinstance(outcome, BrokenProcessPool):
                    suspects.append(task)
                else:
                    yield task, outcome
    except BaseException:
        pool.shutdown(kill_workers=True)
        raise
