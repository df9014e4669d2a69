"""How every figure looks: the colour and the marker of a phase, and the axes that are drawn on.

Nothing here touches matplotlib's global settings: the style holds inside a context only. Lengths
that must not grow with the axes are in points (1/72 inch).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import cast

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from matplotlib.patheffects import AbstractPathEffect, Normal, Stroke
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import (
    Affine2D,
    ScaledTranslation,
    Transform,
    blended_transform_factory,
)

STEP_LABEL = "optimiser steps"
INK = "#262626"  # lines and text that belong to no phase
FAINT = "#9a9a9a"
_MARKERS = "osD^vPXph*"
_LEGEND = {
    "borderpad": 0,
    "columnspacing": 1.1,
    "handlelength": 1.6,
    "handletextpad": 0.4,
    "frameon": False,
}
_WIDTH = 7.0  # inches: two columns of a paper
_PAPER = Path(__file__).parents[1] / "style.mplstyle"


@contextmanager
def style() -> Iterator[None]:
    """Hold a context with the package's settings, those of the matplotlib style.

    The plotting functions use it for the figures they make and leave axes given to them as they
    are. ``matplotlib.pyplot.style.use("bayesphase.style")`` has the same for axes of one's own, and
    embeds fonts where ``savefig`` is called under it.

    These settings, and no others, are put back in the end: while the first figure of a session is
    made a notebook sets some of its own, without which it shows no later ones.
    """
    settings = mpl.rc_params_from_file(_PAPER, use_default_template=False)
    settings["figure.figsize"] = (width(), 3.0)
    before = {name: mpl.rcParams[name] for name in settings}
    mpl.rcParams.update(settings)
    try:
        yield
    finally:
        mpl.rcParams.update(before)


def as_it_is() -> AbstractContextManager[None]:
    """Return a context that changes nothing, for axes that were given."""
    return nullcontext()


def width() -> float:
    """Return how many inches wide a new figure is: as the user set it, by default two columns."""
    wanted = float(mpl.rcParams["figure.figsize"][0])
    return _WIDTH if wanted == mpl.rcParamsDefault["figure.figsize"][0] else wanted


def inches(ax: Axes) -> float:
    """Return how wide the figure of the axes is."""
    return float(ax.figure.canvas.figure.get_figwidth())


def is_wide() -> bool:
    """Return whether a new figure is wide enough for two columns of panels."""
    return width() >= 5.0


def new_panels(
    n_panels: int, *, height: float, narrowest: float, most: int = 4, shared: bool = False
) -> np.ndarray:
    """Return axes of a new figure, in as many columns as it is wide enough for.

    height, narrowest: inches of a panel. shared: whether all have the same scales.
    """
    wide = width()
    n_columns = int(np.clip(wide // narrowest, 1, min(most, n_panels)))
    n_rows = -(-n_panels // n_columns)
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        figsize=(wide, height * n_rows + 0.5),
        squeeze=False,
        layout="constrained",
        sharex=shared,
        sharey=shared,
    )
    for spare in grid.ravel()[n_panels:]:
        figure.delaxes(spare)
    return grid.ravel()[:n_panels]


def label_outer(panels: np.ndarray) -> None:
    """Leave labels of axes at the left and at the lowest panel of each column only."""
    n_columns = panels[0].get_subplotspec().get_gridspec().ncols
    for i, panel in enumerate(panels):
        if i % n_columns:
            panel.set_ylabel("")
        panel.tick_params(labelleft=i % n_columns == 0)
        is_lowest = i + n_columns >= len(panels)  # of its column, be it above a gap
        panel.tick_params(labelbottom=is_lowest)
        if not is_lowest:
            panel.set_xlabel("")


@contextmanager
def drawing_on(ax: Axes | None, *, height: float) -> Iterator[Axes]:
    """Yield the given axes, or those of a new figure `height` inches high in our own style."""
    if ax is not None:
        yield ax
        return
    with style():
        yield plt.figure(figsize=(width(), height), layout="constrained").add_subplot()


@contextmanager
def drawing_on_panels(
    axes: np.ndarray | None, *, n_panels: int, height: float
) -> Iterator[np.ndarray]:
    """Yield the given axes, or new ones of one size and scale, each `height` inches high."""
    if axes is not None:
        yield axes
        return
    alone = n_panels == 1
    most = 2 if n_panels <= 8 else 3
    with style():
        panels = new_panels(
            n_panels,
            height=2.3 if alone else height,
            narrowest=2.2,
            most=most,
            shared=True,
        )
        yield panels
        label_outer(panels)


def phase_colors(states: Iterable[int]) -> dict[int, str]:
    """Return the colour of each phase, dark to light in the order in which they are entered.

    They are equally spaced on viridis from state 0 to the last one, so that readers who do not see
    every colour and grey prints keep them apart and in order. The palest yellow is left out: it
    can't be seen as a line on white.
    """
    states = [int(state) for state in states]
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.9, max(max(states) + 1, 2)))
    return {state: to_hex(shades[state]) for state in states}


def phase_marker(state: int) -> str:
    """Return the marker of a phase, so that its colour is never the only cue."""
    return _MARKERS[state % len(_MARKERS)]


def phase_patches(states: Iterable[int], *, alpha: float = 1.0) -> list[Patch]:
    """Return legend handles that show the phases as areas."""
    colors = phase_colors(states)
    return [Patch(facecolor=c, alpha=alpha, label=f"phase {k}") for k, c in colors.items()]


def outline(width: float) -> list[AbstractPathEffect]:
    """Return the path effects that set a line of this width off from a ground of its colour."""
    return [Stroke(linewidth=width + 0.6, foreground=INK), Normal()]


def ink_on(color: str) -> str:
    """Return black or white, whichever can be read on `color`."""
    linear = np.array(
        [c / 12.92 if c <= 0.04 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    )
    return "white" if linear @ (0.2126, 0.7152, 0.0722) < 0.179 else "black"  # WCAG contrast


def above(ax: Axes, *, x: Transform | None = None) -> Transform:
    """Return the transform whose y counts points from the top of the axes, whatever their size.

    x is along the axes (0 to 1) unless it has a transform of its own.
    """
    points = Affine2D().scale(1 / 72) + ax.figure.dpi_scale_trans
    from_top = points + ScaledTranslation(0, 1, cast(Affine2D, ax.transAxes))
    return blended_transform_factory(x or ax.transAxes, from_top)


def settle(ax: Axes) -> None:
    """Let the layout give the axes their size, before something is placed by measure."""
    ax.figure.canvas.figure.draw_without_rendering()


def legend_above(ax: Axes, handles: Sequence[Artist], *, points: float = 5.0) -> Legend:
    """Put a legend `points` above the axes, in as few rows as their width allows."""
    settle(ax)  # long names of rows leave less of it
    return ax.legend(
        handles=list(handles),
        loc="lower left",
        bbox_to_anchor=(0, points),
        bbox_transform=above(ax),
        borderaxespad=0,
        ncols=_legend_columns(handles, axes_points(ax)[0]),
        **_LEGEND,
    )


def legend_on_top(figure: Figure, handles: Sequence[Artist]) -> Legend:
    """Put a legend on top of a figure that has a constrained layout, which makes room for it."""
    columns = _legend_columns(handles, figure.get_figwidth() * 72)
    return figure.legend(handles=list(handles), loc="outside upper left", ncols=columns, **_LEGEND)


def _legend_columns(handles: Sequence[Artist], room: float) -> int:
    """Return the largest number of columns that fits in `room` points."""
    size = font_points("legend.fontsize")
    widths = [text_points(str(h.get_label()), size)[0] + 3.2 * size for h in handles]
    for columns in range(len(widths), 1, -1):
        if sum(max(column) for column in np.array_split(widths, columns)) <= room:
            return columns
    return 1


def require_scale(xscale: str) -> None:
    """Raise ValueError unless steps can be drawn on this scale."""
    if xscale not in ("linear", "log"):
        raise ValueError(f"xscale is {xscale!r}, expected 'linear' or 'log'")


def scale_steps(ax: Axes, steps: np.ndarray, xscale: str) -> None:
    """Scale and label an axis of steps; "log" has a linear piece up to the first step past 0."""
    if xscale == "log" and steps[0] <= 0 < steps[-1]:
        ax.set_xscale("symlog", linthresh=float(steps[steps > 0][0]), linscale=0.5)
    else:
        ax.set_xscale(xscale)
    if len(steps) > 1:
        ax.set_xlim(steps[0], steps[-1])
    if xscale == "linear":
        ax.xaxis.set_major_formatter("{x:,.0f}")
        if inches(ax) < 5:
            ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.set_xlabel(STEP_LABEL)


def axes_points(ax: Axes) -> tuple[float, float]:
    """Return the present width and height of the axes in points."""
    box, dots = ax.get_window_extent(), ax.figure.dpi / 72
    return box.width / dots, box.height / dots


def along(ax: Axes, x: np.ndarray) -> np.ndarray:
    """Return how many points from the left edge of the axes each x is at present."""
    ends = np.column_stack([x, np.full(len(x), ax.get_ylim()[0])])
    return (ax.transData.transform(ends)[:, 0] - ax.get_window_extent().x0) * 72 / ax.figure.dpi


def font_points(name: str) -> float:
    """Return one of the current settings' font sizes in points; it may be a word there."""
    return FontProperties(size=mpl.rcParams[name]).get_size_in_points()


def text_points(text: str, size: float) -> tuple[float, float]:
    """Return the width and the height of a text in points, without drawing it."""
    font = FontProperties(size=size)
    lines = text.split("\n")
    widths = [text_to_path.get_text_width_height_descent(line, font, False)[0] for line in lines]
    return max(widths), 1.2 * size * len(lines)
