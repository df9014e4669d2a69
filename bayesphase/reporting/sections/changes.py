"""What changes at each boundary: the edges of the training map, and the features' speeds."""

from typing import Any

import numpy as np
import xarray as xr

from bayesphase.reporting import cells, words
from bayesphase.reporting.cells import Column, Row, Table
from bayesphase.reporting.gather import Analysis, FitTables
from bayesphase.reporting.sections._section import Section


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
        "drivers": None,
        "changes": None,
        "speeds": speeds.table is not None,
    }
    if edges.table is None:
        return made
    taken = tables.edges
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
    if "log_odds" in edges.table:
        made["drivers"] = Table(
            f"drivers-{i}",
            f"What drives the switches, {tables.title}",
            [
                Column("from"),
                Column("to"),
                Column("feature", numeric=False),
                Column("evidence", "for the next phase over the last, nats per checkpoint"),
                Column(percent),
                Column("change", "from the visit before to that after, in feature units"),
                Column(percent),
                Column("pull", "on log p(next phase) at its first checkpoint, per feature unit"),
                Column(percent),
            ],
            _drivers(edges.table, taken),
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


def _drivers(edges: xr.Dataset, taken: list[tuple[int, int]]) -> list[Row]:
    """List what features have to do with each switch, the one that speaks most for it first."""
    found = []
    for a, b in taken:
        edge = edges.isel(state=a, state_next=b)
        for d in np.argsort(-edge["log_odds"].values):  # NaN last
            line = [cells.phase(a), cells.phase(b)]
            line.append(cells.text(words.spaced(edge["feature"].values[d])))
            for name in ("log_odds", "change", "gradient"):
                ends = (edge[f"{name}_{end}"][d] for end in ("lower", "upper"))
                line += [cells.number(edge[name][d]), cells.interval(*ends)]
            found.append(Row(line))
    return found


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
