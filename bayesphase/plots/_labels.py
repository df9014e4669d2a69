"""Labels beside points, where they hide least."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from bayesphase.plots import _style

_ANGLES = np.deg2rad([45, 135, -45, -135, 0, 180, 90, -90])
_REACHES = (13.0, 20.0, 30.0, 44.0)  # points from the point to the label


def label_points(ax: Axes, points: np.ndarray, texts: Sequence[str], *, avoid: np.ndarray) -> None:
    """Write a label next to each point, joined to it by a thin line.

    A label goes where it covers the fewest of the points to avoid, then as near as can be; never
    over an earlier label if there is a place that is free.

    points: (label, 2) and avoid: (point, 2), in data coordinates.
    """
    size = _style.font_points("xtick.labelsize")
    dots = ax.figure.dpi / 72
    frame = ax.get_window_extent()
    corner, bounds = np.array([frame.x0, frame.y0]), np.array([frame.width, frame.height]) / dots
    crowd = (ax.transData.transform(avoid) - corner) / dots
    placed: list[tuple[np.ndarray, np.ndarray]] = []
    for point, text in zip(points, texts, strict=True):
        at = (ax.transData.transform(point) - corner) / dots
        half = np.array(_style.text_points(text, size)) / 2 + 1
        best_cost, best = np.inf, at
        for reach in _REACHES:
            for angle in _ANGLES:
                way = np.array([np.cos(angle), np.sin(angle)])
                centre = at + way * (reach + half * np.abs(way))
                low, high = centre - half, centre + half
                clashes = sum(bool((low < b).all() and (high > a).all()) for a, b in placed)
                outside = bool((low < 0).any() or (high > bounds).any())
                covered = ((crowd > low) & (crowd < high)).all(axis=1).sum()
                cost = 1e6 * (clashes + outside) + covered + reach / 100
                if cost < best_cost:
                    best_cost, best = cost, centre
        placed.append((best - half, best + half))
        ax.annotate(
            text,
            point,
            xytext=best - at,
            textcoords="offset points",
            ha="center",
            va="center",
            size=size,
            path_effects=[withStroke(linewidth=2.0, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": _style.INK, "linewidth": 0.5, "shrinkA": 0},
            zorder=6,
        )
