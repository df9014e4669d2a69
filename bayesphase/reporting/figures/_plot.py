"""What all plots of a report have in common."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bayesphase.plots import _style

# Bokeh's names of the markers of phases
_MARKERS = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "^": "triangle",
    "v": "inverted_triangle",
    "P": "plus",
    "X": "square_x",
    "p": "square_pin",
    "h": "hex",
    "*": "star",
}
_HATCHES = (" ", "/", ".", "\\", "x", "-", "o", "|", "+", "v")


def plot(name: str, *, height: int, **settings: Any) -> Any:
    """Make an empty plot, as wide as its place, that leaves scrolling to the page."""
    from bokeh.plotting import figure

    made = figure(
        name=name,
        height=height,
        sizing_mode="stretch_width",
        min_border_right=12,
        tools="pan,box_zoom,reset",
        active_drag=None,
        toolbar_location="above",
        **settings,
    )
    made.toolbar.logo = None
    made.xgrid.grid_line_color = None
    made.axis.axis_label_text_font_style = "normal"
    made.axis.axis_label_text_font_size = "13px"
    made.axis.major_label_text_font_size = "12px"
    return made


def span(values: np.ndarray, *, log: bool = False) -> tuple[float, float]:
    """Return the ends of an axis that holds these values, with some room at each."""
    known = values[np.isfinite(values) & ((values > 0) | (not log))]
    if not known.size:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = np.log10([known.min(), known.max()]) if log else (known.min(), known.max())
    room = 0.05 * (high - low) or 0.5
    ends = (float(low - room), float(high + room))
    return (10 ** ends[0], 10 ** ends[1]) if log else ends


def plain(name: object, *, longest: int) -> str:
    """Cut a name that leaves no room for what it names; show signs of TeX as they are."""
    text = str(name)
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return cut.replace("$", "$\u200b").replace("\\", "\\\u200b")


def source(name: str, **columns: Sequence[Any]) -> Any:
    """Make a named source of columns, which are empty until the page fills them."""
    from bokeh.models import ColumnDataSource

    return ColumnDataSource(dict(columns), name=name)


def ink(glyph: Any, *properties: str) -> None:
    """Let properties of a glyph have the colour of text, in whichever theme."""
    glyph.tags = [f"ink:{name}" for name in properties]
    for name in properties:
        setattr(glyph, name, _style.INK)


def marker(state: int) -> str:
    """Return Bokeh's name of the marker of a phase."""
    return _MARKERS[_style.phase_marker(state)]


def hatch(state: int) -> str:
    """Return the pattern of a phase that is drawn as an area."""
    return _HATCHES[state % len(_HATCHES)]


def phase_points(made: Any, n_phases: int, *, size: float, **columns: Sequence[Any]) -> list[Any]:
    """Add the points of each phase; the page colours them. Returns the renderers."""
    renderers = []
    for k in range(n_phases):
        empty = source(f"{made.name}:phase:{k}", x=[], y=[], alpha=[], **columns)
        points = made.scatter(
            "x",
            "y",
            source=empty,
            marker=marker(k),
            size=size,
            line_width=0.8,
            fill_alpha="alpha",
        )
        points.nonselection_glyph = None
        points.glyph.name = f"{made.name}:glyph:{k}"
        ink(points.glyph, "line_color")
        renderers.append(points)
    return renderers


def phase_areas(made: Any, renderers: Sequence[Any]) -> None:
    """Give areas of phases their pattern; the page colours them."""
    for k, area in enumerate(renderers):
        area.nonselection_glyph = None
        area.glyph.name = f"{made.name}:glyph:{k}"
        area.glyph.hatch_pattern = hatch(k)
        area.glyph.hatch_alpha = 0.45
        area.glyph.hatch_scale = 9
        area.glyph.hatch_weight = 0.8


def legend(made: Any, items: Sequence[tuple[str, str, Any]]) -> None:
    """Put a legend above the plot: (name of the item, label, renderer) for each."""
    from bokeh.core.properties import value
    from bokeh.models.annotations import Legend, LegendItem

    box = Legend(
        items=[
            # as a value: a label that is a mere text might be taken for the name of a column
            LegendItem(name=name, label=value(label), renderers=[renderer])
            for name, label, renderer in items
        ],
        orientation="horizontal",
        ncols=len(items),  # the page makes it fewer where it is narrow
        location="left",
        border_line_color=None,
        background_fill_alpha=0,
        margin=0,
        spacing=8,
        label_standoff=4,
        label_text_font_size="12px",
        glyph_width=18,
        glyph_height=18,
    )
    box.name = f"{made.name}:legend"
    ink(box, "label_text_color")
    made.add_layout(box, "above")


def phase_items(made: Any, renderers: Sequence[Any]) -> list[tuple[str, str, Any]]:
    """Make the entries of a legend for phases."""
    return [(f"{made.name}:legend:{k}", f"phase {k}", r) for k, r in enumerate(renderers)]
