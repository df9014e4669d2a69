"""All runs at a glance: the most likely path of each, and its boundaries with their intervals."""

from typing import Any

from bayesphase.plots import _style
from bayesphase.reporting.figures import _plot
from bayesphase.reporting.figures.linked import MARK
from bayesphase.reporting.gather import Analysis

_ROW = 24  # pixels for a run
_LONGEST = 16  # letters of a name beside its row


def overview(analysis: Analysis, n_phases: int) -> Any:
    """Plot a row for each run."""
    from bokeh.models import FixedTicker, NumeralTickFormatter

    runs, steps = analysis.runs, analysis.features["step"].values
    made = _plot.plot(
        "overview",
        height=_ROW * len(runs) + 120,
        x_range=(float(steps[0]), float(max(steps[-1], steps[0] + 1))),
        y_range=(len(runs) - 0.4, -0.6),
        x_axis_label=_style.STEP_LABEL,
    )
    made.xaxis.formatter = NumeralTickFormatter(format="0,0")
    made.yaxis.ticker = FixedTicker(ticks=list(range(len(runs))))
    made.yaxis.major_label_overrides = {
        i: _plot.plain(run, longest=_LONGEST) for i, run in enumerate(runs)
    }
    made.ygrid.grid_line_color = None
    bars = [
        made.quad(
            left="left",
            right="right",
            top="top",
            bottom="bottom",
            source=_plot.source(f"overview:phase:{k}", left=[], right=[], top=[], bottom=[]),
            line_color=None,
        )
        for k in range(n_phases)
    ]
    _plot.phase_areas(made, bars)
    ends = _plot.source("overview:intervals", x0=[], x1=[], y=[])
    halo = made.segment("x0", "y", "x1", "y", source=ends, line_width=5, line_color="white")
    halo.glyph.line_cap = "round"
    made.segment("x0", "y", "x1", "y", source=ends, line_width=2, line_color="black")
    made.scatter(
        "x",
        "y",
        source=_plot.source("overview:switches", x=[], y=[]),
        marker="circle",
        size=7,
        fill_color="black",
        line_color="white",
    )
    chosen = made.quad(
        left="left",
        right="right",
        top="top",
        bottom="bottom",
        source=_plot.source("overview:chosen", left=[], right=[], top=[], bottom=[]),
        fill_alpha=0,
        line_width=2,
    )
    _plot.ink(chosen.glyph, "line_color")
    made.segment(
        "x",
        "y0",
        "x",
        "y1",
        source=_plot.source("overview:cursor", x=[], y0=[], y1=[]),
        line_color=MARK,
        line_width=3,
    )
    _plot.legend(made, _plot.phase_items(made, bars))
    return made
