"""When each phase begins in each run, with intervals."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from bayesphase.plots import _rows, _style, _tables


def plot_boundaries(
    table_or_fit: xr.Dataset | xr.DataTree,
    *,
    ci_prob: float | None = None,
    xscale: str = "linear",
    ax: Axes | None = None,
) -> Axes:
    """Draw when each phase begins in each run: the median first step and its interval.

    Phases differ in colour, in marker and in height within the row of a run. The less probable it
    is that a run visits a phase at all, the fainter it is drawn, and hollow below 0.5; the interval
    is about the draws that visit it. A return to a phase is not in this figure: `plot_phases` draws
    every switch.

    Parameters
    ----------
    table_or_fit : Dataset or DataTree
        What `bayesphase.boundaries` returns, dims (run, state), or a fit.
    ci_prob : float, optional
        Probability of the intervals where a fit is given, by default 0.9; a table has its own.
    xscale : {"linear", "log"}
        Scale of the steps. With "log", step 0 sits at the end of a short linear piece.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        If it is neither a fit nor a table.
    ValueError
        If the table lacks a variable or has other dims, if `ci_prob` is not that of the table, or
        if `xscale` is another.

    Examples
    --------
    >>> bp.plot_boundaries(bp.boundaries(fit, ci_prob=0.5), xscale="log")  # doctest: +SKIP
    """
    table = _tables.boundary_table(table_or_fit, ci_prob=ci_prob)
    _style.require_scale(xscale)
    runs, states = table["run"].values, table["state"].values
    colors = _style.phase_colors(states)
    with _style.drawing_on(ax, height=_rows.height(len(runs))) as drawn:
        ends = np.unique(table[["lower", "upper"]].to_array().values)
        _style.scale_steps(drawn, ends[np.isfinite(ends)], xscale)
        drawn.margins(x=0.02)
        drawn.autoscale(axis="x")
        _rows.name_rows(drawn, runs, "run")
        for state, height in zip(states, _rows.heights(len(states)), strict=True):
            _draw_phase(drawn, table.sel(state=state), height, colors[int(state)])
        hollow = _rows.hollow_handle(f"visited with p < {_rows.LIKELY:g}")
        _style.legend_above(
            drawn, [*_rows.phase_handles(states), *_rows.interval_handles(table), hollow]
        )
    return drawn


def _draw_phase(ax: Axes, phase: xr.Dataset, height: float, color: str) -> None:
    marker = _style.phase_marker(int(phase["state"]))
    for row in range(phase.sizes["run"]):
        lower, step, upper, visited = (
            float(phase[name][row]) for name in ("lower", "first_step", "upper", "visited")
        )
        if not np.isfinite(step):
            continue
        _rows.draw_interval(
            ax,
            (lower, step, upper),
            row + height,
            marker=marker,
            color=color,
            hollow=visited < _rows.LIKELY,
            alpha=0.3 + 0.7 * visited,
        )
