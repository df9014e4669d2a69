"""The figures of a report, as Bokeh plots without numbers: the page fills in those of a run.

Every part that changes has a name, such as ``loss:phase:0``: the source of the points of phase 0
among the curves of losses. What has the colour of text is tagged, to follow the theme of the page.
"""

from typing import Any

from bayesphase.reporting.drawn import curve_panels
from bayesphase.reporting.figures import counts, drivers, fans, forecasts, linked, overview, speeds
from bayesphase.reporting.gather import Analysis


def figures(analysis: Analysis) -> dict[str, Any]:
    """Make all plots, by the name of the place on the page that they are for."""
    from bokeh.models import Range1d

    n_phases = max(len(tables.states) for tables in analysis.fits)
    steps = Range1d(name="steps")
    made = {
        name: linked.curves(name, of_panel, steps, n_phases)
        for name, of_panel in curve_panels(analysis).items()
    }
    if analysis.pca.table is not None:
        made["pca"] = linked.pca(analysis.pca.table, n_phases)
    made["probability"] = linked.probability(steps, n_phases)
    made["overview"] = overview.overview(analysis, n_phases)
    if any(tables.speeds.table is not None for tables in analysis.fits):
        made["speeds"] = speeds.speeds(analysis, n_phases)
    if any(tables.edges and "log_odds" in tables.training_map.table for tables in analysis.fits):
        made["drivers"] = drivers.drivers(analysis)
    if analysis.counts.table is not None:
        made["counts"] = counts.counts(analysis)
    if analysis.forecasts is not None:
        made["forecasts"] = forecasts.forecasts(analysis)
        made |= fans.fans(analysis)
    return made
