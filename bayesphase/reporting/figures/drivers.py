"""Which features speak for a switch, and which against it."""

from typing import Any

from bayesphase.reporting.figures import _plot
from bayesphase.reporting.gather import Analysis

_ROW = 24  # pixels for a feature
# by the sign of the change of the feature: what its marker is called, and the marker
_MARKERS = {
    "rises": ("higher after", "triangle"),
    "falls": ("lower after", "inverted_triangle"),
    "unsure": ("unsure", "circle"),
}


def drivers(analysis: Analysis) -> Any:
    """Plot a row for each feature; the page fills in those of a switch, the strongest on top."""
    from bokeh.models import FixedTicker, Range1d

    n_features = analysis.features.sizes["feature"]
    made = _plot.plot(
        "drivers",
        height=_ROW * n_features + 130,
        x_axis_label="evidence for the switch, nats per checkpoint",
        x_range=Range1d(name="drivers:range"),
        y_range=(n_features - 0.4, -0.6),
    )
    made.yaxis[0].name = "drivers:features"
    made.yaxis.ticker = FixedTicker(ticks=list(range(n_features)))
    zero = made.vspan(x=[0.0], line_width=1)
    _plot.ink(zero.glyph, "line_color")
    ends = _plot.source("drivers:intervals", x0=[], x1=[], y=[])
    whiskers = made.segment("x0", "y", "x1", "y", source=ends, line_width=1.5)
    _plot.ink(whiskers.glyph, "line_color")
    items = []
    for name, (label, marker) in _MARKERS.items():
        points = made.scatter(
            "x", "y", source=_plot.source(f"drivers:{name}", x=[], y=[]), marker=marker, size=11
        )
        _plot.ink(points.glyph, "line_color", "fill_color")
        items.append((f"drivers:item:{name}", label, points))
    _plot.legend(made, items)
    return made
