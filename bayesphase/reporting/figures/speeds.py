"""How fast each feature moves in each phase."""

from typing import Any

import numpy as np

from bayesphase.reporting import words
from bayesphase.reporting.figures import _plot
from bayesphase.reporting.gather import Analysis

_ROW = 30  # pixels for a feature
_LONGEST = 24  # letters of a name beside its row


def speeds(analysis: Analysis, n_phases: int) -> Any:
    """Plot the size of the speeds on a log axis; hollow points are of features that fall."""
    from bokeh.models import FixedTicker

    tables = [t.speeds.table for t in analysis.fits if t.speeds.table is not None]
    table = tables[0]
    sizes = np.abs(np.concatenate([table["speed"].values.ravel() for table in tables]))
    names = [words.spaced(name) for name in table["feature"].values]
    made = _plot.plot(
        "speeds",
        height=_ROW * len(names) + 130,
        x_axis_type="log",
        x_range=_plot.span(sizes, log=True),
        x_axis_label=f"size of the speed, {table['speed'].attrs['units']}",
        y_range=(len(names) - 0.4, -0.6),
    )
    made.yaxis.ticker = FixedTicker(ticks=list(range(len(names))))
    made.yaxis.major_label_overrides = {
        i: _plot.plain(name, longest=_LONGEST) for i, name in enumerate(names)
    }
    ends = _plot.source("speeds:intervals", x0=[], x1=[], y=[])
    whiskers = made.segment("x0", "y", "x1", "y", source=ends, line_width=1.5)
    _plot.ink(whiskers.glyph, "line_color")
    points = _plot.phase_points(made, n_phases, size=9)
    _plot.legend(made, _plot.phase_items(made, points))
    return made
