"""Can it be believed? What `diagnose` says of each fit, in words and numbers."""

from typing import Any

from bayesphase.reporting import cells
from bayesphase.reporting.cells import Column, Table
from bayesphase.reporting.gather import Analysis, FitTables
from bayesphase.reporting.sections._section import Section

_SINGLE = (
    "n_divergences",
    "share_ambiguous",
    "n_restarts",
    "n_best_restarts",
    "gap_to_next_mode",
    "residual_autocorrelation",
)


def section(analysis: Analysis) -> Section:
    """Say of each fit whether it can be believed."""
    return Section(
        "believed",
        "Can it be believed?",
        {"fits": [_fit(i, tables) for i, tables in enumerate(analysis.fits)]},
    )


def _fit(i: int, tables: FitTables) -> dict[str, Any]:
    table, notes = tables.diagnosis
    if table is None:
        return {"title": tables.title, "notes": notes, "believable": None}
    convergence = Table(
        f"convergence-{i}",
        f"Convergence, {tables.title}",
        [
            Column("quantity", numeric=False),
            Column("R-hat", "rank-normalised split R-hat; 1 where chains agree"),
            Column("bulk ESS", "effective sample size of the middle, in draws"),
            Column("tail ESS", "effective sample size of the tails, in draws"),
            Column("depends on names of phases", numeric=False),
        ],
        cells.rows(
            (
                cells.text(str(quantity).replace("_", " ")),
                *(cells.number(table[name][q]) for name in ("r_hat", "ess_bulk", "ess_tail")),
                cells.text("no" if table["label_invariant"][q] else "yes"),
            )
            for q, quantity in enumerate(table["quantity"].values)
        ),
    )
    numbers = [(_long_name(table, name), cells.number(table[name])) for name in _SINGLE]
    return {
        "title": tables.title,
        "notes": notes,
        "believable": bool(table.attrs["believable"]),
        "verdict": table.attrs["verdict"],
        "convergence": convergence,
        "numbers": [(name, cell.text) for name, cell in numbers if cell.text],
    }


def _long_name(table: Any, name: str) -> str:
    attrs = table[name].attrs
    units = attrs.get("units", "1")
    return attrs["long_name"] + ("" if units == "1" else f" ({units})")
