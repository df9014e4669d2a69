"""Run by run: linked figures of curves, trajectory and phase probabilities."""

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
            "notes": analysis.pca.notes,
            "thinned": f"{limit:,}" if thinned else "",
            "most": f"{most:,}",
        },
    )
