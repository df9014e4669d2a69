"""Statistics of the observed data among those of data that the model makes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from bayesphase.plots import _style, _tables

_MADE = "#b5b5b5"
_ROW = 0.19  # inches
_UNLIKELY = 0.025


def plot_predictive_checks(
    table_or_fit: xr.Dataset | xr.DataTree,
    *,
    statistic: str | Sequence[str] | None = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
) -> np.ndarray:
    """Draw each statistic of the observed data among those of data that the model makes.

    In a row, the grey histogram is of the data that the model makes, and the mark is the observed
    statistic: its median over the draws, and its interval, since it depends on what a draw takes
    the phases to be. On the right is the probability that the model makes data with a larger
    one, in bold where it, or that of a smaller one, is at most 0.025.

    Parameters
    ----------
    table_or_fit : Dataset or DataTree
        What `bayesphase.predictive_checks` returns, or a fit.
    statistic : str or sequence of str, optional
        The statistics to draw, a panel each; all by default.
    ax : Axes or array of Axes, optional
        One for each statistic that is drawn.

    Returns
    -------
    ndarray of Axes
        Dims (statistic).

    Raises
    ------
    TypeError
        If it is neither a fit nor a table.
    ValueError
        If the table lacks a variable or has other dims, a statistic is unknown, or the number of
        axes is not that of the statistics.

    Examples
    --------
    >>> checks = bp.predictive_checks(fit, random_seed=1)  # doctest: +SKIP
    >>> bp.plot_predictive_checks(checks, statistic="largest_residual")  # doctest: +SKIP
    """
    table = _tables.check_table(table_or_fit)
    there = xr.DataArray(list(dict.fromkeys(table["statistic"].values.tolist())), dims="statistic")
    names = _tables.choose("statistic", statistic, there)
    parts = [table.isel(check=np.flatnonzero(table["statistic"].values == n)) for n in names]
    if ax is not None:
        panels = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
        if len(panels) != len(names):
            raise ValueError(f"ax holds {len(panels)} axes, expected one for each of {names}")
        for panel, part in zip(panels, parts, strict=True):
            _draw(panel, part)
        return panels
    with _style.style():
        panels = _new_panels([part.sizes["check"] for part in parts])
        for panel, part in zip(panels, parts, strict=True):
            _draw(panel, part)
        _style.legend_on_top(panels[0].figure, _handles(table.attrs.get("ci_prob")))
    return panels


def _new_panels(n_rows: list[int]) -> np.ndarray:
    """Make panels of as many rows as are wanted, two side by side."""
    n_columns = min(2 if _style.is_wide() else 1, len(n_rows))
    heights = [max(n_rows[i : i + n_columns]) for i in range(0, len(n_rows), n_columns)]
    inches = [_ROW * rows + 0.55 for rows in heights]
    figure = plt.figure(figsize=(_style.width(), sum(inches) + 0.3), layout="constrained")
    grid = figure.add_gridspec(len(heights), n_columns, height_ratios=inches)
    return np.array(
        [figure.add_subplot(grid[divmod(i, n_columns)]) for i in range(len(n_rows))], dtype=object
    )


def _draw(ax: Axes, part: xr.Dataset) -> None:
    n = part.sizes["check"]
    for row in range(n):
        check = part.isel(check=row)
        made = check["replicated"].values
        _draw_histogram(ax, made[np.isfinite(made)], row)
        low, middle, high = (
            float(check[f"observed_{end}"]) for end in ("lower", "median", "upper")
        )
        marks: dict[str, Any] = {"color": _style.INK, "zorder": 3}
        ax.plot([low, high], [row, row], linewidth=1.4, **marks)
        ax.plot([middle], [row], marker="D", markersize=3.6, markeredgecolor="white", **marks)
        p = float(check["p_value"])
        is_odd = min(p, 1.0 - p) <= _UNLIKELY
        ax.annotate(
            _in_words(p),
            (1.0, row),
            xycoords=ax.get_yaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            size=0.85 * _style.font_points("xtick.labelsize"),
            weight="bold" if is_odd else "normal",
            annotation_clip=False,
        )
    ax.set_ylim(n - 0.35, -0.75)
    ax.set_yticks(range(n), [str(of).replace("_", " ") or "all runs" for of in part["of"].values])
    ax.tick_params(axis="y", length=0)
    units = str(part["units"].values[0])
    if units == "optimiser steps":
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set_xlabel(str(part["description"].values[0]) + ("" if units == "1" else f" ({units})"))


def _draw_histogram(ax: Axes, made: np.ndarray, row: int) -> None:
    """Draw a histogram that stands on its row, 0.7 of it high."""
    if not made.size:
        return
    if np.ptp(made) == 0:
        ax.plot([made[0]] * 2, [row, row - 0.7], color=_MADE, linewidth=1.5)
        return
    counts, edges = np.histogram(made, bins="sturges")
    ax.stairs(row - 0.7 * counts / counts.max(), edges, baseline=row, fill=True, color=_MADE)


def _in_words(p: float) -> str:
    if not np.isfinite(p):
        return "p unknown"
    if p < 0.01:
        return "p < 0.01"
    return "p > 0.99" if p > 0.99 else f"p = {p:.2f}"


def _handles(ci_prob: float | None) -> list[Patch | Line2D]:
    interval = "" if ci_prob is None else f" and {ci_prob:.0%} interval"
    observed = Line2D(
        [], [], color=_style.INK, linewidth=1.4, marker="D", markersize=3.6, markeredgecolor="white"
    )
    observed.set_label(f"observed, median{interval}")
    return [Patch(facecolor=_MADE, label="data that the model makes"), observed]
