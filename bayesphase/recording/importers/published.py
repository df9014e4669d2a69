"""Files of one checkpoint each, as the published code of arXiv:2308.09543 writes them.

``epoch20.json``, ``step20.json``, ``stats_step20`` or ``stats_20_losses`` hold the metrics of each
weight matrix, in lists by kind (``w``, or ``k``, ``q``, ``v``, ``in_proj``, ...). An entry is
``{layer: metrics}``, ``{layer: [metrics of each head]}``, or the metrics themselves. ``w_all`` and
``b_all`` are the moments of all weights and of all biases, pooled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bayesphase.recording.importers.log import Log, number
from bayesphase.recording.importers.rows import read_json
from bayesphase.recording.importers.tables import BESSEL, PUBLISHED, PUBLISHED_DEFINITIONS

NAME = re.compile(
    r"(?:stats_)?(?P<unit>epoch|step)(?P<at>\d+)(?:\.json)?|stats_(?P<only>\d+)_losses"
)
_MATRIX = {name: PUBLISHED[name] for name in ("l1", "l2", "code_sparsity", "trace", "spectral")} | {
    "computational_sparsity": "trace_spectral_ratio",
    "mean_singular_value": "singular_value_mean",
    "var_singular_value": "singular_value_var",
}
_POOLED = {"w_all": "weight", "b_all": "bias"}


def read_checkpoint_file(path: Path, log: Log, *, label: str) -> None:
    """Put the metrics in one file into the log; the step is the number in its name.

    Raises
    ------
    ValueError
        If the name has no such number, or the file is no JSON object.
    """
    found = NAME.fullmatch(path.name)
    if not found:
        raise ValueError(f"{path}: the name has no step, expected one such as step20.json")
    step = int(found["at"] or found["only"])
    data = read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: a JSON {type(data).__name__}, expected an object")
    log.attrs["metric_definitions"] = PUBLISHED_DEFINITIONS
    log.notes |= dict.fromkeys(("singular_value_var", "weight_var", "bias_var"), BESSEL)
    log.count_in("epochs" if found["unit"] == "epoch" else "steps", str(path))
    for key, value in data.items():
        if key in _POOLED and isinstance(value, dict):
            for moment, of_all in value.items():
                log.add_any(label, step, f"{_POOLED[key]}_{moment}", of_all, f"{path}, {key}")
        elif isinstance(value, list):
            for layer, head, metrics in _matrices(value):
                _read_matrix(log, label, step, (key, layer, head), metrics, f"{path}, {key}")
        elif isinstance(value, dict) and len(value) == 1:  # {"accuracy": 0.5}
            log.add_any(label, step, key, next(iter(value.values())), f"{path}, {key}")
        else:
            log.add_any(label, step, key, value, f"{path}, {key}")


def _matrices(entries: list[Any]) -> Iterator[tuple[str, str | None, Any]]:
    """Yield the layer, the head and the metrics of each matrix of one kind."""
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or "l1" in entry:
            yield str(i), None, entry
            continue
        for layer, metrics in entry.items():
            if isinstance(metrics, list):
                yield from ((layer, str(head), of_head) for head, of_head in enumerate(metrics))
            else:
                yield layer, None, metrics


def _read_matrix(
    log: Log, run: str, step: int, at: tuple[str, str, str | None], metrics: Any, where: str
) -> None:
    kind, layer, head = at
    parameter = f"{layer}.{kind}" + ("" if head is None else f".{head}")
    if metrics is None:  # what is written for a matrix with weights that are not finite
        metrics = dict.fromkeys(_MATRIX, math.nan)
    if not isinstance(metrics, dict):
        log.skip(f"{kind}: a {type(metrics).__name__}, not the metrics of a matrix", where)
        return
    log.parameters.setdefault(parameter, {"layer": layer, "kind": kind})
    for name, value in metrics.items():
        found = number(value)
        if name == "singular_values":
            log.skip("singular_values: only their mean and variance are kept", where)
        elif name not in _MATRIX or found is None:
            log.skip(f"{name} of a matrix: {value!r:.40}, not a number of a known metric", where)
        else:
            log.add(run, step, _MATRIX[name], found, parameter)
