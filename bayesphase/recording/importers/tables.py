"""Tables, wide or long: which column is what, and the values in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bayesphase.contract import VARIABLES
from bayesphase.recording.importers.log import Log, number, whole
from bayesphase.recording.importers.rows import Table, read_table

# In this order; those with the name of a trainer before those that count calls of a logger.
_STEP = (
    "train/global_step",
    "trainer/global_step",
    "global_step",
    "step",
    "iteration",
    "iter",
    "_step",
)
_RUN = ("run", "run_id", "run_name", "seed")
# These name runs in some tables, and in others all that is in a file, or each row.
_RUN_PERHAPS = ("experiment", "experiment_name", "trial", "name")
_EPOCH = ("epoch", "train/epoch")
_METRIC = ("metric", "metric_name", "variable", "name", "tag", "key")
# The published scripts of arXiv:2308.09543 write means over matrices under these names.
PUBLISHED = {
    "l1": "l1_norm",
    "l2": "l2_norm",
    "code_sparsity": "l1_l2_ratio",
    "trace": "trace",
    "spectral": "spectral_norm",
    "computational_sparsity": "trace_spectral_ratio",
    "mean_lambda": "singular_value_mean",
    "variance_lambda": "singular_value_var",
    "mean_w": "weight_mean",
    "median_w": "weight_median",
    "var_w": "weight_var",
    "mean_b": "bias_mean",
    "median_b": "bias_median",
    "var_b": "bias_var",
}
PUBLISHED_DEFINITIONS = "published code of arXiv:2308.09543"
BESSEL = "divides by n - 1, as the published code of arXiv:2308.09543 does"
_MATRIX = VARIABLES["l2_norm"]
_EXPORT = re.compile(r"(?P<run>.+?) - (?P<metric>.+?)(?P<bound>__MIN|__MAX)?")


@dataclass
class Columns:
    """Which column of a table is what; the rest are metrics."""

    step: str
    epoch: str | None = None
    counts: str = "steps"
    run: str | None = None
    run_perhaps: str | None = None
    metric: str | None = None
    value: str | None = None
    parameter: str | None = None
    published: bool = False
    export: bool = False  # charts of wandb: columns "run - metric"
    metrics: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def read_table_file(path: Path, log: Log, *, label: str, step: str | None, run: str | None) -> None:
    """Put the values of one table into the log.

    Parameters
    ----------
    path : Path
        A CSV, TSV, parquet or JSON lines file.
    log : Log
        Gets the values.
    label : str
        Label of the run where the table has no column for it.
    step, run : str, optional
        Columns; found by their names if None.

    Raises
    ------
    ValueError
        If there is no column of steps, a step is no whole number, or a line does not fit.
    """
    table = read_table(path)
    columns = find_columns(table.columns, str(path), step=step, run=run)
    if columns.run_perhaps and _tells_runs(path, columns.run_perhaps):
        columns = find_columns(table.columns, str(path), step=step, run=columns.run_perhaps)
    if columns.published:
        log.attrs["metric_definitions"] = PUBLISHED_DEFINITIONS
        log.notes |= dict.fromkeys(("singular_value_var", "weight_var", "bias_var"), BESSEL)
    log.count_in(columns.counts, str(path))
    for name in columns.ignored:
        log.skip(f"the column {name!r}", str(path))
    any_row = False
    for at, row in table.rows:
        any_row = True
        _read_row(row, columns, log, label, _where(path, table, at))
    for reason, where in table.cut:
        log.lose(reason, where)
    if not any_row:
        raise ValueError(f"{path}: no rows below the header")


def find_columns(
    columns: Sequence[str], where: str, *, step: str | None = None, run: str | None = None
) -> Columns:
    """Tell the columns of a table apart by their names.

    Raises
    ------
    ValueError
        If a column that was asked for is not there, or there is neither a step nor an epoch.
    """
    for what, name in (("step", step), ("run", run)):
        if name is not None and name not in columns:
            raise ValueError(
                f"{where}: {what} is {name!r}, the columns are {', '.join(columns)}: name one of "
                "these"
            )
    of_step, epoch = step or _first(columns, _STEP), _first(columns, _EPOCH)
    if of_step is None and epoch is None:
        raise ValueError(
            f"{where}: no column of steps among {', '.join(columns)}: name it with "
            "step=... (--step)"
        )
    found = Columns(
        step=of_step or str(epoch),
        epoch=epoch if of_step else None,
        counts="steps" if of_step else "epochs",
        run=run or _first(columns, _RUN),
        published={"l1", "code_sparsity", "spectral"} <= set(columns),
    )
    value = _first(columns, ("value",))
    if value and (metric := _first([c for c in columns if c != found.run], _METRIC)):
        found.metric, found.value = metric, value
    if found.run is None:
        others = [c for c in columns if c not in (found.step, found.metric)]
        found.run_perhaps = _first(others, _RUN_PERHAPS)
    if "parameter" in columns:
        found.parameter = "parameter"
    named = {found.step, found.epoch, found.run, found.parameter}
    found.metrics = [name for name in columns if name not in named and name]
    found.ignored = [""] if "" in columns else []  # an index that pandas wrote
    if found.metric:
        found.ignored += [c for c in found.metrics if c not in (found.metric, found.value)]
    found.export = bool(found.metrics) and all(_EXPORT.fullmatch(c) for c in found.metrics)
    return found


def _tells_runs(path: Path, column: str) -> bool:
    """Tell whether a column parts the rows of a table: none lacks it, and several share it."""
    values = [row.get(column) for _, row in read_table(path).rows]
    return not any(map(_empty, values)) and 1 < len(set(map(str, values))) < len(values)


def _read_row(row: dict[str, Any], columns: Columns, log: Log, label: str, where: str) -> None:
    values = {name: v for name in columns.metrics if not _empty(v := row.get(name))}
    if _empty(row.get(columns.step)):
        if values:
            log.skip(f"values in a row without {columns.step}", where)
        return
    step = _step(row[columns.step], columns, where)
    run = label
    if columns.run:
        if _empty(row.get(columns.run)):
            raise ValueError(f"{where}: no {columns.run}, expected the label of a run")
        run = _run_label(columns.run, row[columns.run])
    if columns.epoch and not _empty(epoch := row.get(columns.epoch)):
        log.add_any(run, step, "epoch", epoch, where)
    if columns.export:
        _read_export(values, log, step, where)
    elif columns.metric and columns.value:
        _read_long(row, columns, log, run, step, where)
    else:
        if columns.published:
            values = {PUBLISHED.get(name, name): value for name, value in values.items()}
        _read_wide(row, values, columns, log, run, step, where)


def _step(value: Any, columns: Columns, where: str) -> int:
    try:
        return whole(value, columns.step, where)
    except ValueError as error:
        if columns.counts == "steps":
            raise
        raise ValueError(
            f"{error}: it stands for the step, for there is no known column of steps; name one "
            "with step=... (--step)"
        ) from error


def _read_wide(
    row: dict[str, Any],
    values: dict[str, Any],
    columns: Columns,
    log: Log,
    run: str,
    step: int,
    where: str,
) -> None:
    place = of_run = log.place(run, step)
    parameter = row.get(columns.parameter) if columns.parameter else None
    if not _empty(parameter):
        place = log.place(run, step, str(parameter))
    for name, value in values.items():
        # what is of a run is repeated for each of its parameters
        if place == of_run or VARIABLES.get(name, _MATRIX).dims == ("run", "step"):
            log.put_any(of_run, name, value, where)
        else:
            log.by_parameter.add(name)
            log.put_any(place, name, value, where)


def _read_export(values: dict[str, Any], log: Log, step: int, where: str) -> None:
    for name, value in values.items():
        parts = _EXPORT.fullmatch(name)
        if parts is None or parts["bound"]:
            log.skip("lowest and highest of the values that a chart drew as one", where)
        else:
            log.add_any(parts["run"], step, parts["metric"], value, where)


def _read_long(
    row: dict[str, Any], columns: Columns, log: Log, run: str, step: int, where: str
) -> None:
    name = str(row.get(columns.metric or "") or columns.value)
    value = row.get(columns.value or "")
    if _empty(value):
        return
    parameter = row.get(columns.parameter) if columns.parameter else None
    found = number(value)
    if found is None or _empty(parameter):
        log.add_any(run, step, name, value, where)
    else:
        log.add(run, step, name, found, str(parameter))


def _first(columns: Sequence[str], wanted: Sequence[str]) -> str | None:
    by_name = {column.lower().replace(" ", "_"): column for column in reversed(columns)}
    return next((by_name[name] for name in wanted if name in by_name), None)


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _run_label(column: str, value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    label = str(value).strip()
    return f"seed {label}" if column.lower() == "seed" and label.isdecimal() else label


def _where(path: Path, table: Table, at: int) -> str:
    return f"{path}:{at}" if table.unit == "line" else f"{path}, {table.unit} {at}"
