"""The values found in logs, with what was left out of them, on their way to a Dataset."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

# So many things that were left out are told apart, and so many places named of each.
_REASONS = 100
PLACES = 5
# Formats in which a column can say which run a row is of.
TABLE_FORMATS = ("table", "lightning", "wandb")

Place = tuple[str, int, str | None]
"""A run, a step, and a parameter or None."""


class Log:
    """Values of runs by name, run and step; the last one wins where there are several."""

    def __init__(self) -> None:
        self.places: dict[Place, int] = {}
        self.values: dict[str, dict[int, float]] = {}  # by name and place
        self.by_parameter: set[str] = set()
        self.epochs: dict[tuple[str, int], float] = {}
        self.parameters: dict[str, dict[str, str]] = {}
        self.notes: dict[str, str] = {}
        self.attrs: dict[str, Any] = {}
        self.unit: str | None = None
        self.files = 0
        self.repeats: dict[str, list[int]] = {}
        self.skipped: dict[str, list[str]] = {}
        self.skips: Counter[str] = Counter()
        self._lost: list[str] = []

    def place(self, run: str, step: int, parameter: str | None = None) -> int:
        """Give the run, step and parameter that values belong to a number."""
        return self.places.setdefault((run, step, parameter), len(self.places))

    def put(self, place: int, name: str, value: float) -> None:
        """Keep one value; ``nan`` and ``inf`` are values that were logged and could not be used."""
        of_name = self.values.setdefault(name, {})
        if place in of_name:
            before = of_name[place]
            repeats = self.repeats.setdefault(name, [0, 0])
            repeats[0] += 1
            repeats[1] += not (before == value or (before != before and value != value))
        of_name[place] = value

    def put_any(self, place: int, name: str, value: Any, where: str) -> None:
        """Keep a value if it is a number, else note where something else stood."""
        found = number(value)
        if found is None:
            self.skip(f"{name}: {_kind(value)}, not a number", where)
        else:
            self.put(place, name, found)

    def add(
        self, run: str, step: int, name: str, value: float, parameter: str | None = None
    ) -> None:
        """Keep one value of a run at a step, and of a parameter if it is a metric of matrices."""
        if name == "epoch" and parameter is None:
            self.add_epoch(run, step, value)
            return
        if parameter is not None:
            self.by_parameter.add(name)
        self.put(self.place(run, step, parameter), name, value)

    def add_any(self, run: str, step: int, name: str, value: Any, where: str) -> None:
        """Keep a value if it is a number, else note where something else stood."""
        found = number(value)
        if found is None:
            self.skip(f"{name}: {_kind(value)}, not a number", where)
        else:
            self.add(run, step, name, found)

    def add_epoch(self, run: str, step: int, value: float) -> None:
        """Keep the epoch that a step lies in."""
        if math.isfinite(value):
            self.epochs[run, step] = value

    def count_in(self, unit: str, where: str) -> None:
        """Say what steps count, "steps" or "epochs".

        Raises
        ------
        ValueError
            If another file counts something else.
        """
        if self.unit not in (None, unit):
            raise ValueError(f"{where}: counts {unit}, and a file before it counts {self.unit}")
        self.unit = unit

    def skip(self, reason: str, where: str) -> None:
        """Note something that does not belong into the Dataset."""
        if reason not in self.skips and len(self.skips) >= _REASONS:
            reason = "other things"
        self.skips[reason] += 1
        if len(places := self.skipped.setdefault(reason, [])) < PLACES:
            places.append(where)

    def lose(self, reason: str, where: str) -> None:
        """Note something that should have been read and could not be; there will be a warning."""
        self.skip(reason, where)
        self._lost.append(f"{where}: {reason}")

    def each_file(self, paths: Iterable[Path], read: Callable[[Path], None]) -> None:
        """Read one file after another: one that is broken is left out from where it is broken.

        Raises
        ------
        ValueError
            If there is only one file, and it is broken.
        """
        paths = list(paths)
        for path in paths:
            self.files += 1
            try:
                read(path)
            except (ValueError, OSError) as error:
                if len(paths) == 1:
                    raise
                self.lose(f"not read to its end ({error})", str(path))

    def warn(self) -> None:
        """Warn if something was lost."""
        if self._lost:
            more = f", and {len(self._lost) - 1} more" if len(self._lost) > 1 else ""
            warnings.warn(
                f"not all of the log could be read: {self._lost[0]}{more}; all that was left out "
                "is in the attribute 'skipped'",
                stacklevel=3,
            )


def told_twice(attrs: Mapping[Any, Any], variables: Sequence[str]) -> tuple[str, str] | None:
    """Say which values a log had several of that differ, and what may be the matter.

    Parameters
    ----------
    attrs : mapping
        Attributes of the Dataset.
    variables : sequence of str
        Those to tell of.

    Returns
    -------
    (str, str) or None
        What there is, and what to do; None if there is nothing of the kind.
    """
    repeats = json.loads(attrs.get("duplicates", "{}"))
    differ = {name: n for name in variables if (n := repeats.get(name, {}).get("differing"))}
    # calls of a logger, and the time of each, differ where it logs a step in several calls
    differ = {name: n for name, n in differ.items() if not name.startswith("_")}
    if not differ:
        return None
    name, n = next(iter(differ.items()))
    text = f"{name}: {n} values were told more than once and differ"
    if n == 1:
        text = f"{name}: 1 value was told more than once and differs"
    if others := len(differ) - 1:
        text += f", as do those of {others} more metric{'s' if others > 1 else ''}"
    advice = "the last one in the log was kept"
    if attrs.get("log_format") in TABLE_FORMATS:
        advice = "if the file holds several runs, name their column: run=... (--run)"
    return text, advice


def number(value: Any) -> float | None:
    """Return the number that a cell or a JSON value is, or None where it is something else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if "_" in value:  # Python reads 1_000, no log writes it
            return None
        try:
            return float(value)
        except ValueError:
            return None
    if isinstance(value, int | float | Decimal | np.integer | np.floating):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return None


def whole(value: Any, what: str, where: str) -> int:
    """Return a step as an integer.

    Raises
    ------
    ValueError
        If it is no whole number, or does not fit into 64 bits.
    """
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,19}\s*", value):
        value = int(value)
    exact = isinstance(value, int) and not isinstance(value, bool)
    found = value if exact else number(value)
    if found is None or not math.isfinite(found) or found != int(found):
        raise ValueError(f"{where}: {what} is {value!r}, expected a whole number")
    if abs(found) >= 2**63:
        raise ValueError(f"{where}: {what} is {value!r}, expected a number below 2**63")
    return int(found)


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key that orders the numbers in a text as numbers: "seed 2" before "seed 10"."""
    parts = re.findall(r"\d+|\D+", text)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]


def _kind(value: Any) -> str:
    return {str: "text", bool: "true or false", type(None): "nothing"}.get(
        type(value), f"a {type(value).__name__}"
    )
