"""Where runs in progress are going: when they converge, and when phases to come begin."""

import numpy as np
import xarray as xr

from bayesphase.reporting import cells, words
from bayesphase.reporting.cells import Column, Row, Table
from bayesphase.reporting.figures import fans
from bayesphase.reporting.gather import Analysis
from bayesphase.reporting.sections._section import Section

_RUN = Column("run", numeric=False)


def section(analysis: Analysis) -> Section | None:
    """List what is forecast, if anything is."""
    table = analysis.forecasts
    if table is None:
        return None
    percent = f"{analysis.ci_prob:.0%} interval"
    metric, runs = fans.metric_of(analysis), table["run"].values.tolist()
    return Section(
        "forecasts",
        "Where runs in progress are going",
        {
            "n_phases": table.sizes["state"],
            "converged": table.attrs.get("converged", ""),
            "intervals": f"{analysis.ci_prob:.0%} intervals",
            "inner": table.sizes["quantile"] > 3,
            "fans": runs[: fans.MOST] if metric else [],
            "more": max(len(runs) - fans.MOST, 0) if metric else 0,
            "metric": words.spaced(metric),
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
            low, middle, high = _ends(one["converged_step"])
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
                cells.probability(table["entry_probability"].sel(run=run, state=state)),
                cells.number(middle),
                cells.interval(low, high),
            ]
        )
        for run in table["run"].values
        for state in table["state"].values
        for low, middle, high in [_ends(table["entry_step"].sel(run=run, state=state))]
        if high > float(table["now"].sel(run=run))  # not so where it is NaN
    ]
    columns = [
        _RUN,
        Column("phase"),
        Column("probability", "that the run enters the phase at all"),
        Column("first entry", "median step, if it does"),
        Column(percent),
    ]
    return Table("forecasts-entries", "Phases to come", columns, lines)


def _ends(quantiles: xr.DataArray) -> np.ndarray:
    """Return an interval and its median, whole steps: lower end, median, upper end."""
    return np.round(quantiles.values[[0, quantiles.size // 2, -1]])
