"""The graph of phases: which leads to which, how probably, and in how many runs."""

import textwrap
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

from bayesphase.plots import _style, _tables
from bayesphase.plots._graph import Edge, Layout

_LARGEST = 7.0  # points, of the text where there is room
_MARGIN = 0.6  # em around the graph
_LEAST, _WIDEST = 5.0, 12.0 * 72 - 8  # a figure is made wider for text of so many points
_CORNER = [Path.CURVE4] * 3
_CODES = [Path.MOVETO, Path.LINETO, *_CORNER, Path.LINETO, *_CORNER, Path.LINETO]
# by how much more of text a layout without room between boxes has to have
_WORTH = 1.25
_DRIVERS = ("log_odds", "gradient")
_CENTRED: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 1.1}


def plot_training_map(
    map_or_fit: xr.Dataset | xr.DataTree,
    *,
    ci_prob: float | None = None,
    min_runs: float = 0.5,
    min_probability: float = 0.0,
    n_features: int = 3,
    driver: str = "log_odds",
    ax: Axes | None = None,
) -> Axes:
    """Draw the phases as a graph, left to right in the order in which they are first entered.

    The box of a phase tells the probability of staying in it from one checkpoint to the next, with
    its interval, and the dwell which that implies: 1 / (1 - stay) checkpoints (ckpts). The label
    of an edge tells how many runs take it at least once, one number if that is certain, else its
    interval; the step at which they first do, with its interval; and the features that drive the
    switch, the strongest first, by how much each changes, with its interval. An edge is the wider
    the more runs are expected to take it. Switches back run below the boxes.

    Parameters
    ----------
    map_or_fit : Dataset or DataTree
        What `bayesphase.training_map` returns, dims (state, state_next), or a fit. Its attribute
        ``n_fitted_runs``, if there, tells how many runs there are in all.
    ci_prob : float, optional
        Probability of the intervals where a fit is given, by default 0.9; a table has its own.
    min_runs : float, default 0.5
        Edges that fewer runs are expected to take are left out: the prior gives each edge some
        probability.
    min_probability : float, default 0
        Edges with a smaller transition probability are left out.
    n_features : int, default 3
        How many features a label names at most, of those that have a value; none for a table
        without drivers.
    driver : {"log_odds", "gradient"}
        What makes a feature a strong one: the evidence that it gives for the switch, of which no
        negative one counts, or the magnitude of the paper's gradient.
    ax : Axes, optional
        The text is shrunk until it fits their present size.

    Returns
    -------
    Axes
        Without frame or ticks.

    Raises
    ------
    TypeError
        If it is neither a fit nor a table.
    ValueError
        If the table lacks a variable or has other dims, `ci_prob` is not that of the table,
        `n_features` is negative, or `driver` is unknown.

    Examples
    --------
    >>> edges = bp.training_map(fit, ci_prob=0.5)  # doctest: +SKIP
    >>> bp.plot_training_map(edges, min_runs=1, n_features=2)  # doctest: +SKIP
    """
    if driver not in _DRIVERS:
        raise ValueError(f"driver must be one of {list(_DRIVERS)}, got {driver!r}")
    if n_features < 0:
        raise ValueError(f"n_features must not be negative, got {n_features}")
    table = _tables.map_table(map_or_fit, ci_prob=ci_prob)
    n_runs = table.attrs.get("n_fitted_runs")
    states = [int(state) for state in table["state"].values]
    texts = [_box_text(table.isel(state=i, state_next=i), k) for i, k in enumerate(states)]
    taken = (table["n_runs"] >= min_runs) & (table["probability"] >= min_probability)
    most = float(table["n_runs"].where(taken).max())
    edges = []
    for i, j in np.argwhere(taken.values).tolist():
        if i != j:
            cell = table.isel(state=i, state_next=j)
            head = (_runs(cell, n_runs), _steps(cell))
            below = _features(cell, driver, n_features)
            edges.append(Edge(i, j, head, below, weight=float(cell["n_runs"]) / most))
    layouts = [Layout(texts, edges, compact=compact) for compact in (False, True)]
    own = _style.width() * 72 - 8  # points that a figure of ours has from left to right
    width = max(own, min(_WIDEST, _LEAST * _extent(layouts[1])[0]))
    preferred = _choose(layouts, width, np.inf)
    height = _extent(preferred)[1] * _text_size(preferred, width, np.inf)
    with _style.drawing_on(ax, height=(height + 26) / 72) as drawn:  # the key has a line
        drawn.set_axis_off()
        if ax is None:
            if width > own:
                drawn.figure.canvas.figure.set_figwidth((width + 8) / 72)
            key = _key(table, edges)
            lines = int(np.ceil(_style.text_points(key, 6.5)[0] * 1.06 / width))
            key = textwrap.fill(key, -(-len(key) // lines) + 4)
            drawn.set_title(key, loc="left", size=6.5, color=_style.INK)
        _style.settle(drawn)
        room = _style.axes_points(drawn)
        layout = _choose(layouts, *room)
        _draw(drawn, layout, _text_size(layout, *room), list(_style.phase_colors(states).values()))
    return drawn


def _draw(ax: Axes, layout: Layout, size: float, colors: list[str]) -> None:
    """Draw a layout with text of `size` points, in the middle of the axes."""
    width, height = (points / size for points in _style.axes_points(ax))
    x, y = (layout.left + layout.right) / 2, (layout.bottom + layout.top) / 2
    ax.set_xlim(x - width / 2, x + width / 2)
    ax.set_ylim(y - height / 2, y + height / 2)
    for curve in layout.curves:
        arrow = FancyArrowPatch(
            path=Path(curve.vertices, _CODES[: len(curve.vertices)]),
            arrowstyle="-|>",
            mutation_scale=0.9 * size,
            linewidth=(0.08 + 0.3 * curve.weight) * size,
            color="#555555",
            shrinkA=0,
            shrinkB=0,
            joinstyle="miter",
            zorder=2,
        )
        ax.add_patch(arrow)
    for box, color in zip(layout.boxes, colors, strict=True):
        corner = (box.x - layout.box_width / 2, box.y - layout.box_height / 2)
        ax.add_patch(
            FancyBboxPatch(
                corner,
                layout.box_width,
                layout.box_height,
                boxstyle="round,pad=0,rounding_size=0.5",
                facecolor=color,
                edgecolor=_style.INK,
                linewidth=0.6,
                zorder=3,
            )
        )
        ax.text(box.x, box.y, box.text, size=size, color=_style.ink_on(color), **_CENTRED, zorder=4)
    halo = [withStroke(linewidth=0.4 * size, foreground="white")]  # an arc may pass behind
    for label in layout.labels:
        ax.text(label.x, label.y, label.text, size=size, path_effects=halo, **_CENTRED, zorder=5)


def _extent(layout: Layout) -> tuple[float, float]:
    return (
        layout.right - layout.left + 2 * _MARGIN,
        layout.top - layout.bottom + 2 * _MARGIN,
    )


def _choose(layouts: list[Layout], width: float, height: float) -> Layout:
    """Return the wide layout of the two where it can be read nearly as well as the compact one."""
    wide, compact = (_text_size(layout, width, height) for layout in layouts)
    return layouts[0 if wide >= max(_LEAST, compact / _WORTH) or wide >= compact else 1]


def _text_size(layout: Layout, width: float, height: float) -> float:
    """Return the size of text in points with which a layout fits into so many points."""
    needed = _extent(layout)
    return min(_LARGEST, width / needed[0], height / needed[1])


def _key(table: xr.Dataset, edges: list[Edge]) -> str:
    """Say what labels are."""
    units = table["change"].attrs.get("units", "") if "change" in table else ""
    drivers = f", features that drive the switch and their change{f' ({units})' if units else ''}"
    drivers *= any(edge.below for edge in edges)
    interval = f"; {table.attrs['ci_prob']:.0%} intervals" if "ci_prob" in table.attrs else ""
    return f"At arrows: runs that switch so, when they first do{drivers}{interval}."


def _runs(cell: xr.Dataset, n_runs: int | None) -> str:
    fewest, largest = float(cell["n_runs_lower"]), float(cell["n_runs_upper"])
    count = f"{fewest:.0f}" if fewest == largest else f"{fewest:.0f}–{largest:.0f}"
    of_all = "" if n_runs is None else f" of {n_runs}"
    noun = "run" if (n_runs or largest) == 1 else "runs"
    return f"{count}{of_all} {noun}"


def _steps(cell: xr.Dataset) -> str:
    middle, lower, upper = (float(cell[f"step{end}"]) for end in ("", "_lower", "_upper"))
    return f"step {middle:,.0f}" + ("" if lower == upper else f" [{lower:,.0f}, {upper:,.0f}]")


def _features(cell: xr.Dataset, driver: str, n_features: int) -> tuple[str, ...]:
    """Name the strongest drivers of a switch with their changes."""
    if driver not in cell:
        return ()
    strength = cell[driver].values
    if driver == "gradient":
        strength = np.abs(strength)
    order = np.argsort(-strength)  # those without a value come last
    chosen = [d for d in order if strength[d] > 0][:n_features]
    lines = []
    for one in (cell.isel(feature=d) for d in chosen):
        ends = [float(one[f"change{end}"]) for end in ("", "_lower", "_upper")]
        change, lower, upper = _signed(ends)
        name = str(one["feature"].item()).replace("_", " ")
        lines.append(f"{name} {change} [{lower}, {upper}]")
    return tuple(lines)


def _signed(ends: list[float]) -> list[str]:
    """Write a number and its interval with two digits of the width of that, and their signs."""
    width = ends[2] - ends[1] or abs(ends[0]) or 1.0
    digits = int(np.clip(1 - np.floor(np.log10(width)), 0, 9))
    return [f"{end:+.{digits}f}".replace("-", "−") for end in ends]


def _box_text(cell: xr.Dataset, state: int) -> str:
    stay, interval = _with_interval(cell)
    leave = 1 - float(cell["probability"])
    dwell = f"≈ {1 / leave:,.0f} ckpts" if leave > 0 else "never left"
    return f"phase {state}\nstay {stay}\n{interval}\n{dwell}"


def _with_interval(cell: xr.Dataset) -> tuple[str, str]:
    """Write a probability and its interval with digits enough to tell it from 0 and 1."""
    value, lower, upper = (float(cell[name]) for name in ("probability", "lower", "upper"))
    digits = 2 if 0.01 <= value <= 0.99 and upper - lower >= 0.02 else 3
    return _probability(value, digits), f"[{lower:.{digits}f}, {upper:.{digits}f}]"


def _probability(value: float, digits: int) -> str:
    least = 10.0**-digits
    if 0 < value < least / 2:
        return f"<{least:.{digits}f}"
    if 1 - least / 2 < value < 1:
        return f">{1 - least:.{digits}f}"
    return f"{value:.{digits}f}"
