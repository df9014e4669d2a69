"""Figures with a row for each run or feature, and in it an interval for each phase."""

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bayesphase.plots import _style

LIKELY = 0.5  # what is less probable has a hollow marker
_SPREAD = 0.5  # of a row: over how much of it its phases are spread


def height(n_rows: int, *, row: float = 0.3) -> float:
    """Return how many inches high a figure of so many rows is."""
    return float(np.clip(row * n_rows + 0.9, 1.6, 9))


def heights(n: int) -> np.ndarray:
    """Return where in a row each of `n` intervals goes, the first on top."""
    return np.linspace(-_SPREAD / 2, _SPREAD / 2, n) if n > 1 else np.zeros(1)


def name_rows(ax: Axes, names: Iterable[object], label: str) -> None:
    """Make a row for each name, the first on top, with thin lines between them."""
    texts = [str(name) for name in names]
    ax.set_ylim(len(texts) - 0.5, -0.5)
    ax.set_yticks(range(len(texts)), texts)
    ax.tick_params(axis="y", length=0)
    ax.set_ylabel(label)
    for row in range(1, len(texts)):
        ax.axhline(row - 0.5, color="#d9d9d9", linewidth=0.5, zorder=0)


def draw_interval(
    ax: Axes,
    ends: Sequence[float],
    y: float,
    *,
    marker: str,
    color: str,
    hollow: bool = False,
    alpha: float = 1.0,
) -> None:
    """Draw lower end, middle and upper end of an interval."""
    lower, middle, upper = ends
    ax.errorbar(
        middle,
        y,
        xerr=[[middle - lower], [upper - middle]],
        fmt=marker,
        color=color,
        markerfacecolor="white" if hollow else color,
        markeredgecolor=color if hollow else _style.INK,
        markeredgewidth=1.0 if hollow else 0.4,
        markersize=4.5,
        elinewidth=1.2,
        capsize=2,
        alpha=alpha,
        clip_on=False,
    )


def label_values(ax: Axes, what: str, units: str) -> None:
    """Label the axis of values, in two lines where one would be too long."""
    if not units:
        ax.set_xlabel(what)
        return
    long = f"{what} ({units})"
    room = 0.75 * _style.inches(ax) * 72
    is_short = _style.text_points(long, _style.font_points("axes.labelsize"))[0] <= room
    ax.set_xlabel(long if is_short else f"{what}\n({units})")


def scale_values(ax: Axes, *, linear: float, largest: float) -> None:
    """Scale an axis of values by logarithms on both sides of a linear piece about 0.

    linear: largest value on that. largest: of the values, whatever their sign.
    """
    ax.set_xscale("symlog", linthresh=linear, linscale=0.5)
    # none near 0, where matplotlib's own are on top of each other
    first, last = int(np.ceil(np.log10(linear))), int(np.floor(np.log10(largest)))
    every = 1 if _style.inches(ax) >= 5 else max(1, (last - first + 1) // 2)
    powers = np.arange(last, first, -every) if last > first else np.array([first])
    ticks = 10.0 ** powers[::-1]
    ax.set_xticks(np.concatenate([-ticks[::-1], [0.0], ticks]))


def write_beside(ax: Axes, text: str, x: float, y: float) -> None:
    """Write a small text to the right of a point."""
    ax.annotate(
        text,
        (x, y),
        xytext=(5, 0),
        textcoords="offset points",
        va="center_baseline",
        size=0.85 * _style.font_points("xtick.labelsize"),
        annotation_clip=False,
    )


def phase_handles(states: Iterable[int]) -> list[Line2D]:
    """Return legend handles of the phases as markers with an interval."""
    return [
        Line2D(
            [],
            [],
            color=color,
            marker=_style.phase_marker(state),
            markeredgecolor=_style.INK,
            markeredgewidth=0.4,
            markersize=4.5,
            linewidth=1.2,
            label=f"phase {state}",
        )
        for state, color in _style.phase_colors(states).items()
    ]


def hollow_handle(label: str) -> Line2D:
    """Return the legend handle of hollow markers."""
    return Line2D(
        [],
        [],
        linestyle="none",
        marker="o",
        markersize=4.5,
        markerfacecolor="white",
        markeredgecolor=_style.FAINT,
        label=label,
    )


def interval_handles(table: xr.Dataset) -> list[Line2D]:
    """Return a legend handle of how probable the intervals of a table are, where it says so."""
    if "ci_prob" not in table.attrs:
        return []
    label = f"{table.attrs['ci_prob']:.0%} interval"
    return [
        Line2D([], [], color=_style.FAINT, linewidth=1.2, marker="|", markersize=4, label=label)
    ]
