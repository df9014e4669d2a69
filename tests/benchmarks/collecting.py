"""What the metrics of one checkpoint cost: BERT base, against a loop over `torch.linalg.svdvals`.

The tensors have the shapes of BERT base (110M parameters; embeddings and norms do not count, which
leaves 86M), with query, key and value split into 12 heads each as the selection does, and whole; on
one core, on all, and on a GPU where PyTorch sees one.
Then a folder of checkpoints of one layer each is collected with one worker up to one per core (and
on the GPU), and one of fewer checkpoints, for the time to start and for the memory that these take;
beside that, reading the same files where they are not in memory.

"init" is normal with deviation 0.02, "trained" has columns of uneven size and 16 strong directions,
as training leaves them. Errors are relative to the loop in float64, the largest over all matrices
and all metrics. Rates are of the float32 weights.
"""

import os
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tests.benchmarks.alone import ONE_THREAD, alone
from tests.benchmarks.report import Settings, complain, duration, show

_TARGET = 5.0  # times as quick as the loop in float32
_ACCURACY = 1e-4
_FEW, _MANY = 16, 48
_LAYERS, _HIDDEN, _INNER, _HEADS = 12, 768, 3072, 12
_LOOPS = ("svdvals loop, float32", "svdvals loop, float64")
_OURS = ("bayesphase, rtol=1e-4", "bayesphase, default rtol")


def run(settings: Settings) -> list[str]:
    """Print one table per kind of weights, layout, and number of threads."""
    if find_spec("torch") is None:
        return [complain("torch is not installed")]
    failures = []
    for kind in ("init", "trained"):
        for heads in (True, False):
            for threads, device in _places():
                where = f"{threads} thread{'' if threads == 1 else 's'}"
                title = (
                    f"BERT base, {kind}, {'by head' if heads else 'whole matrices'}, "
                    f"{where if device == 'cpu' else _gpu()}"
                )
                result = alone(
                    "collecting:measure",
                    limit=60.0 * settings.minutes,
                    environment=ONE_THREAD if threads == 1 else {},
                    kind=kind,
                    heads=heads,
                    threads=threads,
                    device=device,
                )
                failures += [f"{title}: {failure}" for failure in _show(title, result)]
    _show_folders(settings)
    return failures


def _places() -> list[tuple[int, str]]:
    """List numbers of threads and devices."""
    cores = [(threads, "cpu") for threads in sorted({1, os.cpu_count() or 1})]
    return cores + [(1, "cuda")] * bool(_gpu())


@cache
def _gpu() -> str:
    """Name the GPU, if there is one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def _show_folders(settings: Settings) -> None:
    """Print how quick more checkpoints are by workers, and how much memory they take."""
    cores = os.cpu_count() or 1
    n_workers = sorted({2**i for i in range(cores.bit_length())} | {cores})
    cases = [(n, "cpu") for n in n_workers] + [(1, "cuda")] * bool(_gpu())
    rows, alone_takes = [], float("nan")
    with tempfile.TemporaryDirectory() as temporary:
        folders = {n: Path(temporary, f"{n}") for n in (_FEW, _MANY)}
        for n, folder in folders.items():
            _write(folder, n)
        n_bytes = {
            n: sum(file.stat().st_size for file in folder.iterdir())
            for n, folder in folders.items()
        }
        for workers, device in cases:
            few, many = (
                alone(
                    "collecting:measure_folder",
                    limit=60.0 * settings.minutes,
                    folder=str(folder),
                    workers=workers,
                    device=device,
                )
                for folder in folders.values()
            )
            # without what it takes to start
            added = many["seconds"] - few["seconds"]
            if workers == 1 and device == "cpu":
                alone_takes = added
            rate = (n_bytes[_MANY] - n_bytes[_FEW]) / added / 1e6
            rows.append(
                (
                    f"{workers}" if device == "cpu" else "1, GPU",
                    *(duration(one["seconds"]) for one in (few, many)),
                    rate,
                    alone_takes / added,
                    *(one["peak"] for one in (few, many)),
                )
            )
        seconds = _read(folders[_MANY])
        rate = n_bytes[_MANY] / seconds / 1e6
        rows.append(("files only read", "", duration(seconds), rate, "", None, None))
    show(
        f"collect, {_FEW} and {_MANY} checkpoints of one layer of BERT base (28 MB each)",
        ["workers", f"{_FEW}", f"{_MANY}", "MB/s", "one worker / this", "peak MB", "peak MB"],
        rows,
        f"Rates are of the {_MANY - _FEW} more: workers take time to start.",
    )


def _read(folder: Path) -> float:
    """Read all files once, in seconds, after they were dropped from memory where that works."""
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = perf_counter()
    for file in folder.iterdir():
        file.read_bytes()
    return perf_counter() - start


def _write(folder: Path, n: int) -> None:
    """Write checkpoints with safetensors; each is a little larger than the one before."""
    from safetensors.torch import save_file

    folder.mkdir()
    weights = _bert("init", heads=False)[:6]
    for step in range(n):
        tensors = {f"{i}.weight": w * (1.0 + 0.01 * step) for i, w in enumerate(weights)}
        save_file(tensors, folder / f"step{step}.safetensors")


def measure_folder(*, folder: str, workers: int, device: str) -> dict[str, float | None]:
    """Collect a folder; runs in a process of its own."""
    import resource

    import torch

    from bayesphase import collect

    torch.linalg.svdvals(torch.eye(2, device=device))  # libraries are loaded
    start = perf_counter()
    collect(folder, workers=workers, device=device, progressbar=False)
    seconds = perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    return {"seconds": seconds, "peak": peak if workers == 1 else None}


def _show(title: str, result: dict[str, Any]) -> list[str]:
    rows, n_bytes = result["rows"], result["bytes"]
    fast = rows[_OURS[0]]["seconds"]
    show(
        title,
        ["", "time", "MB/s", f"{_OURS[0]} = 1", "largest relative error"],
        [
            (
                name,
                duration(row["seconds"]),
                n_bytes / row["seconds"] / 1e6,
                row["seconds"] / fast,
                row["error"],
            )
            for name, row in rows.items()
        ],
        f"float32 loop / {_OURS[0]} = {rows[_LOOPS[0]]['seconds'] / fast:.1f} (target {_TARGET:g})",
    )
    return [
        complain(f"{name} is off by {rows[name]['error']:.1e}")
        for name in _OURS
        if not rows[name]["error"] < _ACCURACY
    ]


def measure(
    *, kind: str, heads: bool, threads: int, device: str, rounds: int = 2
) -> dict[str, Any]:
    """Time each way in turns, the best of some rounds; runs in a process of its own."""
    import torch

    from bayesphase.recording.metrics import matrices_metrics

    torch.set_num_threads(threads)
    weights = [w.to(device) for w in _bert(kind, heads)]
    ways: dict[str, Callable[[list[Any]], dict[str, np.ndarray]]] = {
        _LOOPS[0]: lambda w: _loop(w, torch.float32),
        _LOOPS[1]: lambda w: _loop(w, torch.float64),
        _OURS[0]: lambda w: matrices_metrics(w, rtol=1e-4),
        _OURS[1]: matrices_metrics,
    }
    values, seconds = {}, dict.fromkeys(ways, float("inf"))
    for way in ways.values():
        way(weights[-3:])  # libraries are loaded
    for _ in range(rounds):
        for name, way in ways.items():
            start = perf_counter()
            values[name] = way(weights)
            seconds[name] = min(seconds[name], perf_counter() - start)
    right = values[_LOOPS[1]]
    rows = {
        name: {
            "seconds": seconds[name],
            "error": max(float(np.abs(v / right[m] - 1.0).max()) for m, v in values[name].items()),
        }
        for name in ways
    }
    return {"rows": rows, "bytes": sum(w.numel() * 4 for w in weights)}


def _loop(weights: list[Any], dtype: Any) -> dict[str, np.ndarray]:
    """Compute the eight metrics as one would write them down."""
    import torch

    from bayesphase.recording.metrics import MATRIX_METRICS

    rows = []
    for weight in weights:
        w = weight.to(dtype)
        s = torch.linalg.svdvals(w)
        l1, l2, trace, top = w.abs().sum(), torch.linalg.vector_norm(w), w.diagonal().sum(), s[0]
        s = s.where(s >= 1e-5, 0.0)
        mean, var = s.mean(), s.var(correction=0)
        rows.append([float(x) for x in (l1, l2, l1 / l2, trace, top, trace / top, mean, var)])
    return dict(zip(MATRIX_METRICS, np.array(rows).T, strict=True))


def _bert(kind: str, heads: bool) -> list[Any]:
    """Weight matrices of the encoder and the pooler, float32, in the network's order."""
    import torch

    generator = torch.Generator().manual_seed(1)

    def draw(rows: int, columns: int) -> Any:
        w = 0.02 * torch.randn(rows, columns, generator=generator)
        if kind == "trained":
            w *= torch.exp(0.3 * torch.randn(columns, generator=generator))
            left, right = (torch.randn(n, 16, generator=generator) for n in (rows, columns))
            strength = 6.0 / torch.arange(1.0, 17.0)
            w += (left * strength / rows**0.5) @ (right / columns**0.5).T
        return w

    weights = []
    for _ in range(_LAYERS):
        for _ in ("query", "key", "value"):
            w = draw(_HIDDEN, _HIDDEN)
            weights += w.split(_HIDDEN // _HEADS) if heads else [w]
        weights += [draw(_HIDDEN, _HIDDEN), draw(_INNER, _HIDDEN), draw(_HIDDEN, _INNER)]
    return [*weights, draw(_HIDDEN, _HIDDEN)]
