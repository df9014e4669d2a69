"""Tables on the terminal."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

console = Console(width=None if Console().is_terminal else 150)


class Settings(NamedTuple):
    """What can be chosen on the command line; each section has its own default sizes."""

    sizes: tuple[str, ...] | None = None
    draws: int | None = None
    tune: int | None = None
    chains: int = 4
    max_states: int = 8
    minutes: float = 10.0
    seconds: float = 2.0
    compiled: bool = False
    seed: int = 1


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], note: str = "") -> None:
    """Print a table: the first column is text, the others are figures."""
    table = Table()
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(text(cell) for cell in row))
    console.print(title, style="bold", highlight=False, markup=False)
    console.print(table)
    console.print(f"{note}\n" if note else "", highlight=False, markup=False)


def text(cell: Any) -> str:
    """Write a number with three digits that count; nothing for None."""
    if cell is None:
        return ""
    if not isinstance(cell, float):
        return str(cell)
    if not math.isfinite(cell):
        return str(cell)
    if cell == 0 or 1e-3 <= abs(cell) < 1e4:
        digits = 2 if cell == 0 else max(0, 2 - math.floor(math.log10(abs(cell))))
        return f"{cell:.{digits}f}"
    return f"{cell:.2e}"


def duration(seconds: float | None) -> str:
    """Write a time in the unit that suits it."""
    if seconds is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{text(seconds / size)} {unit}"
    return f"{text(seconds / 1e-6)} us"


def complain(about: str) -> str:
    """Print something that must not go unseen, and return it for the end."""
    console.print(about, style="bold red", markup=False, highlight=False)
    return about
