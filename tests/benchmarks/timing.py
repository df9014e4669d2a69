"""Timings that can be compared: taken in turns, so that a drift of the machine hits all alike."""

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter
from typing import Any

_BURST = 0.02  # seconds of calls in a row, as a sampler makes them: caches are warm
_MOST_VISITS = 200


def interleaved(
    calls: Mapping[str, Callable[[], Any]], *, seconds: float
) -> dict[str, dict[str, float]]:
    """Time every call in short bursts, one after the other, round and round.

    Parameters
    ----------
    calls : mapping of str to callable
    seconds : float
        About how long to go on for each call; five rounds are made at least.

    Returns
    -------
    dict
        By name: median and minimum over the rounds, seconds per call.
    """
    counts = {}
    for name, call in calls.items():
        call()
        start = perf_counter()
        call()
        counts[name] = max(1, int(_BURST / max(perf_counter() - start, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = perf_counter() + seconds * len(calls)
    while min(map(len, times.values())) < 5 or perf_counter() < end:
        for name, call in calls.items():
            times[name].append(_burst(call, counts[name]))
        if len(times[name]) >= _MOST_VISITS:
            break
    return {name: {"median": median(seen), "min": min(seen)} for name, seen in times.items()}


def _burst(call: Callable[[], Any], count: int) -> float:
    call()  # brings back what the others have driven out of the caches
    start = perf_counter()
    for _ in range(count):
        call()
    return (perf_counter() - start) / count


def quickest(calls: Mapping[str, Callable[[], Any]]) -> str:
    """Name the call that is quickest, by a short trial."""
    times = interleaved(calls, seconds=0.1)
    return min(times, key=lambda name: times[name]["median"])
