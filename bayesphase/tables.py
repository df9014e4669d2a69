"""Tables on a terminal of what the library computed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 120  # columns of a terminal that has room for what a metric is


def show_inspection(
    console: Console, found: xr.DataTree, *, name: str, parameters: bool = False
) -> None:
    """Print what `inspect` found: the findings last, since they are what is to be read.

    Parameters
    ----------
    console : rich.console.Console
        Where to print.
    found : DataTree
        From `bayesphase.inspect`.
    name : str
        What was inspected.
    parameters : bool
        Whether to list the weight matrices.
    """
    runs, metrics, values = (found[part].to_dataset() for part in ("runs", "metrics", "values"))
    matrices = found["parameters"].to_dataset() if "parameters" in found.children else None
    n_matrices = "" if matrices is None else f", {matrices.sizes['parameter']} weight matrices"
    _say(
        console, f"{name}: {runs.sizes['run']} runs, {metrics.sizes['metric']} metrics{n_matrices}"
    )
    _table(
        console,
        (
            "run",
            "checkpoints",
            "first step",
            "last step",
            "typical gap",
            "largest gap",
            "after step",
        ),
        zip(runs["run"].values, *(v.values for v in runs.data_vars.values()), strict=True),
    )
    what = [
        "" if long_name == name else long_name  # a log knows no more than names
        for long_name, name in zip(
            metrics["long_name"].values, metrics["metric"].values, strict=True
        )
    ]
    columns = {
        "metric": metrics["metric"].values,
        **({"what": what} if console.width >= _WIDE and any(what) else {}),
        "units": metrics["units"].values,
        "of each": [dims.removeprefix("run, step").strip(", ") for dims in metrics["dims"].values],
        **{name: metrics[name].values for name in ("least", "greatest", "values")},
        **{kind: values[kind].sum("run").values for kind in ("missing", "infinite")},
    }
    _table(console, columns, zip(*columns.values(), strict=True))
    if parameters and matrices is not None:
        about = matrices.data_vars
        _table(
            console,
            ("matrix", *map(str, about)),
            zip(matrices["parameter"].values, *(v.values for v in about.values()), strict=True),
        )
    console.print()
    for attribute, value in found.attrs.items():
        text = str(value)
        _say(console, f"{attribute}: {text if len(text) <= 200 else f'{text[:197]}...'}")
    findings = found["findings"].to_dataset()
    console.print()
    for finding in range(findings.sizes["finding"]):
        where, text, suggestion = (
            str(findings[part].values[finding]) for part in ("where", "text", "suggestion")
        )
        _say(console, f"{where} {text}".strip(), style="bold")
        _say(console, f"  {suggestion}")


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, markup=False, highlight=False)


def _table(console: Console, headings: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Print a table: numbers stay on one line, words may go on to the next."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    narrow = console.width < _WIDE
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0 if narrow else 1, 0, 0), show_edge=False)
    cells = [list(column) for column in zip(*rows, strict=True)]
    for heading, column in zip(headings, cells, strict=False):
        numbers = all(_is_number(cell) for cell in column)
        justify: Literal["left", "right"] = "right" if numbers else "left"
        over = heading.replace(" ", "\n") if narrow else heading
        table.add_column(over, justify=justify, overflow="fold", no_wrap=numbers)
    for row in zip(*cells, strict=True):
        table.add_row(*(Text(_text(cell)) for cell in row))
    console.print()
    console.print(table)


def _is_number(cell: Any) -> bool:
    return getattr(getattr(cell, "dtype", None), "kind", " ") in "fiu"


def _text(cell: Any) -> str:
    if getattr(getattr(cell, "dtype", None), "kind", "") != "f":
        return str(cell)
    if np.isnan(cell):
        return ""
    whole = float(cell).is_integer() and abs(cell) < 1e15  # steps, which may lack some
    text = f"{cell:.0f}" if whole else f"{cell:.4g}"
    return text if whole or len(text) < 10 else f"{cell:.3g}"
