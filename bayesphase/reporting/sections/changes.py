"""What changes at each boundary: the edges of the training map, and the features' speeds."""

from typing import Any

import numpy as np
import xarray as xr

from bayesphase.reporting import cells, words
from bayesphase.reporting.cells import Column, Row, Table
from bayesphase.reporting.gather import Analysis, FitTables
from bayesphase.reporting.sections._section import Section

# edges that fewer runs are expected to take are left to the table of switches
LEAST_RUNS = 0.5


def section(analysis: Analysis) -> Section:
    """Say what a switch changes, of all that runs make."""
    return Section(
        "changes",
        "What changes at each boundary",
        {
            "percent": f"{analysis.ci_prob:.0%}",
            "fits": [_fit(i, tables, analysis) for i, tables in enumerate(analysis.fits)],
        },
    )


def _fit(i: int, tables: FitTables, analysis: Analysis) -> dict[str, Any]:
    edges, speeds = tables.training_map, tables.speeds
    percent = f"{analysis.ci_prob:.0%} interval"
    made: dict[str, Any] = {
        "title": tables.title,
        "notes": [*edges.notes, *speeds.notes],
        "edges": None,
        "changes": None,
        "speeds": speeds.table is not None,
    }
    if edges.table is None:
        return made
    taken = _taken(edges.table)
    made["edges"] = Table(
        f"edges-{i}",
        f"Switches that runs make, {tables.title}",
        [
            Column("from"),
            Column("to"),
            Column("runs", f"expected number of the {len(analysis.runs)} runs that make it"),
            Column(percent),
            Column("step", "median step of a run's first"),
        ],
        [
            Row(
                [
                    cells.phase(a),
                    cells.phase(b),
                    cells.number(edges.table["n_runs"][a, b]),
                    cells.interval(
                        edges.table["n_runs_lower"][a, b], edges.table["n_runs_upper"][a, b]
                    ),
                    cells.number(edges.table["step"][a, b]),
                ]
            )
            for a, b in taken
        ],
    )
    if speeds.table is not None:
        made["units"] = speeds.table["speed"].attrs["units"]
        made["changes"] = Table(
            f"changes-{i}",
            f"Speeds of features before and after, {tables.title}",
            [
                Column("from"),
                Column("to"),
                Column("feature", numeric=False),
                Column("speed before", made["units"]),
                Column("speed after", made["units"]),
                Column("change", made["units"]),
                Column(percent),
            ],
            _changes(speeds.table, taken),
        )
    return made


def _taken(edges: xr.Dataset) -> list[tuple[int, int]]:
    """List the pairs of states between which runs switch, as (state, state_next)."""
    there = np.nan_to_num(edges["n_runs"].transpose("state", "state_next").values) >= LEAST_RUNS
    return [(int(a), int(b)) for a, b in np.argwhere(there)]


def _changes(speeds: xr.Dataset, taken: list[tuple[int, int]]) -> list[Row]:
    """List what changes at each switch, the feature whose speed changes most first."""
    found = []
    for a, b in taken:
        change = speeds["speed_change"].sel(state=a, state_next=b)
        for d in np.argsort(-np.abs(change.values)):  # NaN last
            at = {"state": a, "state_next": b, "feature": d}
            ends = (speeds[f"speed_change_{end}"].isel(at) for end in ("lower", "upper"))
            found.append(
                Row(
                    [
                        cells.phase(a),
                        cells.phase(b),
                        cells.text(words.spaced(speeds["feature"].values[d])),
                        cells.number(speeds["speed"][a, d]),
                        cells.number(speeds["speed"][b, d]),
                        cells.number(change[d]),
                        cells.interval(*ends),
                    ]
                )
            )
    return found
