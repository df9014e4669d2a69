"""Where runs in progress are going: when they converge, and when phases to come begin."""

import xarray as xr

from bayesphase.reporting import cells
from bayesphase.reporting.cells import Column, Row, Table
from bayesphase.reporting.gather import Analysis
from bayesphase.reporting.sections._section import Section

_RUN = Column("run", numeric=False)


def section(analysis: Analysis) -> Section | None:
    """List what is forecast, if anything is."""
    table = analysis.forecasts
    if table is None:
        return None
    percent = f"{analysis.ci_prob:.0%} interval"
    return Section(
        "forecasts",
        "Where runs in progress are going",
        {
            "n_phases": table.sizes["state"],
            "converged": table.attrs.get("converged", ""),
            "now": _now(table, percent),
            "entries": _entries(table, percent),
        },
    )


def _now(table: xr.Dataset, percent: str) -> Table:
    """Make a row for each run: where it is, and when it converges if that is forecast."""
    columns = [
        _RUN,
        Column("last step", "of what was known of the run"),
        Column("phase now"),
        Column("its probability", "given the run up to now"),
    ]
    if has_time := "converged_step" in table:
        columns += [Column("converges at", "median step"), Column(percent)]
    lines = []
    for run in table["run"].values:
        one = table.sel(run=run)
        phase = int(one["phase_probability"].argmax("state"))
        line = [
            cells.text(run),
            cells.number(one["now"]),
            cells.phase(one["state"][phase]),
            cells.probability(one["phase_probability"][phase]),
        ]
        if has_time:
            low, middle, high = one["converged_step"].values
            line += [cells.number(middle), cells.interval(low, high)]
        lines.append(line)
    return Table("forecasts-now", "Runs in progress", columns, cells.rows(lines))


def _entries(table: xr.Dataset, percent: str) -> Table:
    """Make a row for each run and phase that it may still enter for the first time."""
    lines = [
        Row(
            [
                cells.text(run),
                cells.phase(state),
                cells.number(middle),
                cells.interval(low, high),
            ]
        )
        for run in table["run"].values
        for state in table["state"].values
        for low, middle, high in [table["entry_step"].sel(run=run, state=state).values]
        if high > float(table["now"].sel(run=run))  # not so where it is NaN
    ]
    columns = [_RUN, Column("phase"), Column("first entry", "median step"), Column(percent)]
    return Table("forecasts-entries", "Phases to come", columns, lines)
