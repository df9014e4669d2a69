"""The values found in logs, with what was left out of them, on their way to a Dataset."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesphase.collect.importers.naming import units_of, variable_names
from bayesphase.dataset import PARAMETER_COORDS, VARIABLES, check_structure

ALL = "all"
"""The parameter of a metric of matrices that was logged as one number for all of them."""

# So many things that were left out are told apart, and so many places named of each.
_REASONS = 100
_PLACES = 5


class Log:
    """Values of runs by name, run and step; the last one wins where there are several."""

    def __init__(self) -> None:
        self.values: dict[str, dict[tuple[str, int, str | None], float]] = {}
        self.epochs: dict[tuple[str, int], float] = {}
        self.parameters: dict[str, dict[str, str]] = {}
        self.notes: dict[str, str] = {}
        self.attrs: dict[str, Any] = {}
        self._unit: str | None = None
        self.files = 0
        self._repeats: dict[str, list[int]] = {}
        self._skipped: dict[str, list[str]] = {}
        self._skips: Counter[str] = Counter()
        self._lost: list[str] = []

    def add(
        self, run: str, step: int, name: str, value: float, parameter: str | None = None
    ) -> None:
        """Keep one value; ``nan`` and ``inf`` are values that were logged and could not be used."""
        if name == "epoch" and parameter is None:
            if math.isfinite(value):
                self.epochs[run, step] = value
            return
        of_name = self.values.setdefault(name, {})
        key = (run, step, parameter)
        if key in of_name:
            before = of_name[key]
            repeats = self._repeats.setdefault(name, [0, 0])
            repeats[0] += 1
            repeats[1] += not (before == value or (before != before and value != value))
        of_name[key] = value

    def count_in(self, unit: str, where: str) -> None:
        """Say what steps count, "steps" or "epochs".

        Raises
        ------
        ValueError
            If another file counts something else.
        """
        if self._unit not in (None, unit):
            raise ValueError(f"{where}: counts {unit}, and a file before it counts {self._unit}")
        self._unit = unit

    def add_any(self, run: str, step: int, name: str, value: Any, where: str) -> None:
        """Keep a value if it is a number, else note where something else stood."""
        found = number(value)
        if found is None:
            self.skip(f"{name}: {_kind(value)}, not a number", where)
        else:
            self.add(run, step, name, found)

    def skip(self, reason: str, where: str) -> None:
        """Note something that does not belong into the Dataset."""
        if reason not in self._skips and len(self._skips) >= _REASONS:
            reason = "other things"
        self._skips[reason] += 1
        if len(places := self._skipped.setdefault(reason, [])) < _PLACES:
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

    def dataset(self, source: Mapping[str, Any], names: Mapping[str, str]) -> xr.Dataset:
        """Return all values as metrics with dims (run, step[, parameter]).

        Raises
        ------
        ValueError
            If there is not one value, or `names` has a name that was not logged.
        """
        if not self.values:
            raise ValueError(f"{source['log_path']}: no numbers in it{self._why_not()}")
        keys = {key for of_name in self.values.values() for key in of_name}
        runs = sorted({run for run, _, _ in keys}, key=natural)
        steps = sorted({step for _, step, _ in keys})
        at_run = {run: i for i, run in enumerate(runs)}
        at_step = {step: i for i, step in enumerate(steps)}
        found = variable_names(list(self.values), names)
        parameters = self._all_parameters(found)
        at_parameter = {name: i for i, name in enumerate(parameters)}
        variables, bad = {}, {}
        for name, of_name in self.values.items():
            variable = found[name]
            shape = [len(runs), len(steps)]
            by_parameter = _has_parameter(variable, of_name)
            array = np.full(shape + [len(parameters)] * by_parameter, np.nan)
            for (run, step, parameter), value in of_name.items():
                at = (at_run[run], at_step[step])
                array[at + ((at_parameter[parameter or ALL],) if by_parameter else ())] = value
            bad[variable] = _nonfinite(of_name)
            array[np.isinf(array)] = np.nan
            dims = ("run", "step", "parameter")[: array.ndim]
            variables[variable] = (dims, array, self._attrs_of(name, variable))
        coords: dict[str, Any] = {"run": runs, "step": steps}
        if parameters:
            coords["parameter"] = parameters
            for column in PARAMETER_COORDS:
                cells = [self.parameters.get(name, {}).get(column, "") for name in parameters]
                if any(cells):
                    coords[column] = ("parameter", cells)
        ds = xr.Dataset(variables, coords, attrs=self._attrs(source, found, bad))
        ds = self._with_epochs(ds, runs, steps)
        self._warn()
        return check_structure(ds)

    def _why_not(self) -> str:
        reasons = [f"{reason} ({places[0]})" for reason, places in self._skipped.items()]
        return f"; left out: {', '.join(reasons[:3])}" if reasons else ""

    def _all_parameters(self, found: Mapping[str, str]) -> list[str]:
        names = dict.fromkeys(self.parameters)
        for name, of_name in self.values.items():
            if _has_parameter(found[name], of_name):
                names |= dict.fromkeys(parameter or ALL for _, _, parameter in of_name)
        return list(names)

    def _attrs_of(self, name: str, variable: str) -> dict[str, str]:
        attrs = {"logged_as": name} if name != variable else {}
        if variable not in VARIABLES:
            attrs |= {"long_name": name, "units": units_of(name)}
        if note := self.notes.get(variable):
            attrs["comment"] = note
        return attrs

    def _attrs(
        self, source: Mapping[str, Any], found: Mapping[str, str], bad: Mapping[str, Any]
    ) -> dict[str, Any]:
        skipped = [
            {"what": reason, "count": self._skips[reason], "where": places}
            for reason, places in self._skipped.items()
        ]
        repeats = {found[n]: {"count": c, "differing": d} for n, (c, d) in self._repeats.items()}
        return {
            "source": "bayesphase.read_log",
            **source,
            "log_files": self.files,
            "skipped": json.dumps(skipped),
            "duplicates": json.dumps(repeats),
            "duplicates_rule": "of several values for one step, the last one in the log is kept",
            "nonfinite": json.dumps({name: entries for name, entries in bad.items() if entries}),
            **self.attrs,
        }

    def _with_epochs(self, ds: xr.Dataset, runs: list[str], steps: list[int]) -> xr.Dataset:
        if self._unit == "epochs":
            ds["step"].attrs = {"units": "epochs", "comment": "the log has epochs, and no steps"}
            return ds.assign_coords(epoch=("step", np.array(steps, dtype=float)))
        if not self.epochs:
            return ds
        epoch = np.array([[self.epochs.get((r, s), np.nan) for s in steps] for r in runs])
        known = np.where(np.isnan(epoch), -np.inf, epoch).max(axis=0)
        known = np.where(np.isinf(known), np.nan, known)
        if np.all(np.isnan(epoch) | (epoch == known)):
            return ds.assign_coords(epoch=("step", known))
        return ds.assign_coords(epoch=(("run", "step"), epoch))

    def _warn(self) -> None:
        if self._lost:
            more = f", and {len(self._lost) - 1} more" if len(self._lost) > 1 else ""
            warnings.warn(
                f"not all of the log could be read: {self._lost[0]}{more}; all that was left out "
                "is in the attribute 'skipped'",
                stacklevel=4,
            )


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


def _has_parameter(variable: str, of_name: Mapping[tuple[str, int, str | None], float]) -> bool:
    if variable in VARIABLES:
        return "parameter" in VARIABLES[variable].dims
    return any(parameter is not None for _, _, parameter in of_name)


def _nonfinite(of_name: Mapping[tuple[str, int, str | None], float]) -> dict[str, Any]:
    """Sum up the values that are NaN in the Dataset because they were logged as no number."""
    found: dict[str, dict[str, Any]] = {}
    for (run, step, _), value in of_name.items():
        if not math.isfinite(value):
            entry = found.setdefault(str(value), {"count": 0, "where": []})
            entry["count"] += 1
            if len(entry["where"]) < _PLACES:
                entry["where"].append({"run": run, "step": step})
    return found
