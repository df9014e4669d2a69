"""Where the boundaries are: every switch of every run, first entries, and time spent."""

from typing import Any

import xarray as xr

from bayesphase.reporting import cells
from bayesphase.reporting.cells import Column, Row, Table
from bayesphase.reporting.gather import Analysis, FitTables
from bayesphase.reporting.sections._section import Section

_RUN = Column("run", numeric=False)


def section(analysis: Analysis) -> Section:
    """List the boundaries of each fit, by run."""
    return Section(
        "boundaries",
        "Where the boundaries are",
        {
            "percent": f"{analysis.ci_prob:.0%}",
            "fits": [_fit(i, tables, analysis) for i, tables in enumerate(analysis.fits)],
        },
    )


def _fit(i: int, tables: FitTables, analysis: Analysis) -> dict[str, Any]:
    percent = f"{analysis.ci_prob:.0%} interval"
    first = Column("first entry", "median step of the checkpoint at which the phase is entered")
    total = Column("steps spent", "median")
    return {
        "title": tables.title,
        "switches": Table(
            f"switches-{i}",
            f"Every switch, {tables.title}",
            [
                _RUN,
                Column("from"),
                Column("to"),
                Column("step", "median step of the first checkpoint in the next phase"),
                Column(percent),
                Column("probability", "of the whole sequence of phases of the run"),
            ],
            _switches(tables.switches),
        ),
        "entries": Table(
            f"entries-{i}",
            f"First entries and time spent, {tables.title}",
            [
                _RUN,
                Column("phase"),
                Column("visited", "probability that the run visits the phase"),
                first,
                Column(percent),
                total,
                Column(percent),
                Column("visits", "expected number of separate visits"),
            ],
            _entries(tables),
        ),
    }


def _switches(table: xr.Dataset) -> list[Row]:
    found = []
    for r, run in enumerate(map(str, table["run"].values)):
        probability = cells.probability(table["probability"][r])
        of_run = table.isel(run=r).dropna("switch", subset=["step"])
        for s in range(of_run.sizes["switch"]):
            line = [
                cells.phase(of_run["state_from"][s]),
                cells.phase(of_run["state_to"][s]),
                cells.number(of_run["step"][s]),
                cells.interval(of_run["lower"][s], of_run["upper"][s]),
            ]
            found.append(Row([cells.text(run), *line, probability], run))
        if not of_run.sizes["switch"]:
            line = [cells.text("no switch"), *[cells.text("")] * 3]
            found.append(Row([cells.text(run), *line, probability], run))
    return found


def _entries(tables: FitTables) -> list[Row]:
    entry, spent = tables.boundaries, tables.dwell_times
    return [
        Row(
            [
                cells.text(run),
                cells.phase(state),
                cells.probability(entry["visited"][r, k]),
                cells.number(entry["first_step"][r, k]),
                cells.interval(entry["lower"][r, k], entry["upper"][r, k]),
                cells.number(spent["total"][r, k]),
                cells.interval(spent["lower"][r, k], spent["upper"][r, k]),
                cells.number(spent["visits"][r, k]),
            ],
            run,
        )
        for r, run in enumerate(map(str, entry["run"].values))
        for k, state in enumerate(entry["state"].values)
    ]
