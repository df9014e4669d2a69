"""The figures of one run: curves, trajectory and phase probabilities of the same checkpoints."""

from typing import Any

import xarray as xr

from bayesphase.plots import _curves, _style
from bayesphase.reporting.figures import _plot

MARK = "#d81b60"  # what is pointed at: no phase's colour, seen on both themes
_DASHES: tuple[list[int], ...] = ([], [7, 3], [2, 2], [8, 3, 2, 3])  # of curves
_LONGEST = 24  # letters of a name in a legend or on an axis


def curves(name: str, of_panel: xr.DataArray, steps: Any, n_phases: int) -> Any:
    """Plot curves of one panel, dims (curve, run, step), against steps."""
    from bokeh.core.properties import value

    log = name != "accuracy" and _curves.span_decades(of_panel)
    made = _plot.plot(
        name,
        height=280,
        x_range=steps,
        y_range=_plot.span(of_panel.values, log=log),  # one for all runs, to compare them
        y_axis_type="log" if log else "linear",
        x_axis_label=_style.STEP_LABEL,
        y_axis_label=_plot.plain(of_panel.attrs["label"], longest=_LONGEST),
    )
    _steps_axis(made)
    _boundaries(made)
    items = []
    for c, label in enumerate(of_panel["curve"].values.tolist()):
        whole = _plot.source(f"{name}:curve:{c}", x=[], y=[])
        line = made.line("x", "y", source=whole, line_dash=_DASHES[c], line_width=4)
        _plot.ink(line.glyph, "line_color")
        items.append((f"{name}:legend:curve:{c}", _plot.plain(label, longest=_LONGEST), line))
        for k in range(n_phases):  # each in the colour of its phase, on an edge of ink
            pieces = _plot.source(f"{name}:pieces:{c}:{k}", xs=[], ys=[])
            dash = value(_DASHES[c])
            colored = made.multi_line("xs", "ys", source=pieces, line_dash=dash, line_width=2.5)
            colored.glyph.name = f"{name}:line:{c}:{k}"
    points = _plot.phase_points(made, n_phases, size=8)
    _mark(made)
    _plot.legend(made, [*items, *_plot.phase_items(made, points)])
    return made


def pca(table: xr.Dataset, n_phases: int) -> Any:
    """Plot the way through the first two principal components."""
    shares = table["explained_variance_ratio"].values
    labels = [f"PC{i + 1} ({share:.0%} of the variance)" for i, share in enumerate(shares[:2])]
    x, y = (table["scores"].isel(component=i).values for i in (0, 1))
    made = _plot.plot(
        "pca",
        height=380,
        x_range=_plot.span(x),
        y_range=_plot.span(y),
        x_axis_label=labels[0],
        y_axis_label=labels[1],
    )
    others = made.multi_line(
        "xs", "ys", source=_plot.source("pca:others", xs=[], ys=[]), line_width=0.6, line_alpha=0.25
    )
    _plot.ink(others.glyph, "line_color")
    way = made.line("x", "y", source=_plot.source("pca:way", x=[], y=[]), line_width=0.7)
    _plot.ink(way.glyph, "line_color")
    points = _plot.phase_points(made, n_phases, size=6)
    ends = made.scatter(
        "x",
        "y",
        marker="marker",
        source=_plot.source("pca:ends", x=[], y=[], marker=[]),
        size=13,
        fill_alpha=0,
        line_width=2,
    )
    _plot.ink(ends.glyph, "line_color")
    around = made.multi_line(
        "xs", "ys", source=_plot.source("pca:around", xs=[], ys=[]), line_width=7, line_alpha=0.3
    )
    _plot.ink(around.glyph, "line_color")
    turns = made.scatter(
        "x",
        "y",
        source=_plot.source("pca:turns", x=[], y=[]),
        marker="circle",
        size=17,
        fill_alpha=0,
        line_width=1.5,
    )
    _plot.ink(turns.glyph, "line_color")
    _mark(made, line=False)
    _plot.legend(made, [*_plot.phase_items(made, points), ("pca:item:turns", "turn", turns)])
    return made


def probability(steps: Any, n_phases: int) -> Any:
    """Plot the probabilities of the phases, stacked up to 1."""
    made = _plot.plot(
        "probability",
        height=220,
        x_range=steps,
        y_range=(0, 1),
        x_axis_label=_style.STEP_LABEL,
        y_axis_label="probability",
    )
    _steps_axis(made)
    areas = [
        made.varea(
            "x",
            "y1",
            "y2",
            source=_plot.source(f"probability:phase:{k}", x=[], y1=[], y2=[]),
        )
        for k in range(n_phases)
    ]
    _plot.phase_areas(made, areas)
    _boundaries(made)
    _mark(made)
    _plot.legend(made, _plot.phase_items(made, areas))
    return made


def _steps_axis(made: Any) -> None:
    from bokeh.models import NumeralTickFormatter

    made.xaxis.formatter = NumeralTickFormatter(format="0,0")


def _boundaries(made: Any) -> None:
    """Mark the switches of the run, and their intervals."""
    name = made.name
    strips = made.vstrip(
        x0="x0",
        x1="x1",
        source=_plot.source(f"{name}:intervals", x0=[], x1=[]),
        fill_alpha=0.16,
        line_color=None,
        hatch_pattern=None,
    )
    _plot.ink(strips.glyph, "fill_color")
    spans = made.vspan(
        x="x",
        source=_plot.source(f"{name}:switches", x=[]),
        line_dash=[4, 3],
        line_width=1,
        line_alpha=0.8,
    )
    _plot.ink(spans.glyph, "line_color")


def _mark(made: Any, *, line: bool = True) -> None:
    """Make room for the mark of the checkpoint that is pointed at."""
    name = made.name
    if line:
        made.vspan(x="x", source=_plot.source(f"{name}:cursor", x=[]), line_color=MARK)
    made.scatter(
        "x",
        "y",
        source=_plot.source(f"{name}:mark", x=[], y=[]),
        marker="circle",
        size=14,
        fill_alpha=0,
        line_color=MARK,
        line_width=3,
    )
