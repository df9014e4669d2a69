"""Tables of a page: rows of cells, each with its text and the value that it is sorted by."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bayesphase.reporting import words


class Cell(NamedTuple):
    """What is read, and what is sorted by: a number, or None to sort by the text."""

    text: str
    value: float | None = None


class Column(NamedTuple):
    """A heading, with its units or its meaning, and whether numbers stand under it."""

    heading: str
    about: str = ""
    numeric: bool = True


class Row(NamedTuple):
    """Cells, and the name of the run they are of, if they are of one."""

    cells: Sequence[Cell]
    run: str | None = None


class Table(NamedTuple):
    """A table of the page; `id` tells it from all others, also from those of other fits."""

    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]


def text(value: Any) -> Cell:
    """Make a cell of words."""
    return Cell(str(value))


def number(value: Any) -> Cell:
    """Make a cell of a number; an empty one of NaN."""
    return Cell(words.number(value), _value(value))


def probability(value: Any) -> Cell:
    """Make a cell of a probability; an empty one of NaN."""
    return Cell(words.probability(value), _value(value))


def interval(lower: Any, upper: Any) -> Cell:
    """Make a cell of an interval, sorted by its lower end."""
    return Cell(words.interval(lower, upper), _value(lower))


def phase(state: Any) -> Cell:
    """Make a cell of the number of a phase."""
    return Cell(f"phase {int(state)}", float(state))


def rows(cells: Iterable[Sequence[Cell]], runs: Iterable[str] | None = None) -> list[Row]:
    """Make rows, each of the run that goes with it."""
    if runs is None:
        return [Row(line) for line in cells]
    return [Row(line, run) for line, run in zip(cells, runs, strict=True)]


def _value(value: Any) -> float | None:
    value = float(value)
    return value if np.isfinite(value) else None
