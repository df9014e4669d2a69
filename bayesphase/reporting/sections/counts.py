"""How many phases? The answers of `state_counts`, `compare` and `visited_counts`, side by side."""

from typing import Any

import xarray as xr

from bayesphase.reporting import cells
from bayesphase.reporting.cells import Column, Table
from bayesphase.reporting.gather import Analysis, FitTables
from bayesphase.reporting.sections._section import Section

_PHASES = Column("phases", "number of phases of the model")


def section(analysis: Analysis) -> Section:
    """Say how many phases there are, and by which question."""
    counts, comparison = analysis.counts, analysis.comparison
    return Section(
        "counts",
        "How many phases?",
        {
            "several": len(analysis.fits) > 1,
            "counts": None if counts.table is None else _counts(counts.table),
            "believable": counts.table is not None and bool(counts.table.attrs["believable"]),
            "verdict": "" if counts.table is None else counts.table.attrs["verdict"],
            "figure": counts.table is not None,
            "comparison": None if comparison.table is None else _comparison(comparison.table),
            "notes": [*counts.notes, *comparison.notes],
            "visited": [_visited(i, tables) for i, tables in enumerate(analysis.fits)],
        },
    )


def _counts(table: xr.Dataset) -> Table:
    """Make a row for every number of phases, and variant, that anything is known of."""
    variants = [str(v) for v in table["variant"].values] if "variant" in table.dims else [""]
    columns = [
        Column("probability", "posterior, all numbers taken for equally probable before"),
        Column("its error", "Monte Carlo standard error"),
        Column("log evidence", "log marginal likelihood, nats"),
        Column("under wider priors", "probability under priors that say half as much"),
        Column("visited", "probability that runs visit so many, in the fit with the most"),
    ]
    lines = []
    for v, variant in enumerate(variants):
        row = table.isel(variant=v) if "variant" in table.dims else table
        lines += [
            [
                *([cells.text(variant)] if any(variants) else []),
                cells.number(k),
                cells.probability(row["probability"][i]),
                cells.number(row["mcse"][i]),
                cells.number(row["log_evidence"][i]),
                cells.probability(row["probability_wider"][i]),
                cells.probability(row["visited_probability"][i]),
            ]
            for i, k in enumerate(row["n_states"].values)
        ]
    named = [Column("variant", numeric=False)] if any(variants) else []
    return Table(
        "state-counts", "Numbers of phases", [*named, _PHASES, *columns], cells.rows(lines)
    )


def _comparison(table: Any) -> Table:
    columns = [
        Column("fit", numeric=False),
        Column("elpd", "expected log predictive density of a new run, nats"),
        Column("below the best", "nats"),
        Column("error of that", "standard error, nats"),
        Column("stacking weight", "share in the mixture that predicts best"),
        Column("reliable", "whether importance sampling can be trusted", numeric=False),
    ]
    lines = [
        [
            cells.text(name),
            *(cells.number(row[column]) for column in ("elpd", "elpd_diff", "dse")),
            cells.probability(row["weight"]),
            cells.text("no" if row["warning"] else "yes"),
        ]
        for name, row in table.iterrows()
    ]
    return Table("comparison", "Prediction of runs that are left out", columns, cells.rows(lines))


def _visited(i: int, tables: FitTables) -> dict[str, Any]:
    table, notes = tables.visited
    if table is None:
        return {"title": tables.title, "notes": notes, "table": None}
    columns = [
        _PHASES,
        Column("probability", "that all runs together visit so many"),
        Column("its error", "Monte Carlo standard error"),
    ]
    lines = (
        [cells.number(k), cells.probability(p), cells.number(error)]
        for k, p, error in zip(
            table["n_states"].values,
            table["probability"].values,
            table["mcse"].values,
            strict=True,
        )
    )
    caption = f"Phases visited, {tables.title}"
    return {
        "title": tables.title,
        # the verdict has the warnings, too
        "notes": (table.attrs["verdict"],),
        "table": Table(f"visited-{i}", caption, columns, cells.rows(lines)),
    }
