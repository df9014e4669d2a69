"""Run by run: linked figures of curves, trajectory and phase probabilities."""

import numpy as np

from bayesphase.reporting import cells
from bayesphase.reporting.cells import Column, Row, Table
from bayesphase.reporting.drawn import checkpoints_drawn, curve_names, curve_panels
from bayesphase.reporting.gather import Analysis
from bayesphase.reporting.sections._section import Section


def section(analysis: Analysis) -> Section:
    """Make room for the linked figures, and say what is drawn in them."""
    panels = curve_panels(analysis)
    most = int(analysis.features.notnull().any("feature").sum("step").max())
    limit = checkpoints_drawn(len(analysis.runs))
    thinned = most > limit
    return Section(
        "runs",
        "Run by run",
        {
            "panels": panels,
            "losses": bool(curve_names(analysis.metrics, "loss")),
            "pca": analysis.pca.table is not None,
            "notes": [*analysis.pca.notes, *analysis.turns.notes],
            "turns": _turns(analysis),
            "components": 0
            if analysis.pca.table is None
            else analysis.pca.table.sizes["component"],
            "thinned": f"{limit:,}" if thinned else "",
            "most": f"{most:,}",
        },
    )


def _turns(analysis: Analysis) -> Table | None:
    """List where paths turn."""
    table = analysis.turns.table
    if table is None:
        return None
    percent = f"{table.attrs['ci_prob']:.0%} interval"
    columns = [
        Column("run", numeric=False),
        Column("step", "of the turning point"),
        Column(percent),
        Column("angle", "degrees by which the path turns"),
        Column(percent),
        Column("stability", "share of resamples in which it is found"),
    ]
    found = []
    for run in table["run"].values:
        of_run = table.sel(run=run).dropna("turn", subset=["step"])
        for t in range(of_run.sizes["turn"]):
            one = of_run.isel(turn=t)
            line = [cells.text(run), cells.number(one["step"])]
            line += [cells.interval(one["lower"], one["upper"])]
            line += [cells.number(np.round(one["angle"]))]
            line += [cells.interval(*(np.round(one[f"angle_{end}"]) for end in ("lower", "upper")))]
            found.append(Row([*line, cells.probability(one["stability"])], str(run)))
    return Table("turns", "Where paths turn", columns, found)
