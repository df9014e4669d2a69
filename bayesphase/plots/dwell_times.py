"""How long each run stays in each phase, with intervals."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from bayesphase.plots import _rows, _style, _tables

_VISITED = 0.5  # expected visits under which markers are hollow
_SEVERAL = 1.5  # expected visits from which their number is written


def plot_dwell_times(
    table_or_fit: xr.Dataset | xr.DataTree,
    *,
    ci_prob: float | None = None,
    xscale: str = "linear",
    ax: Axes | None = None,
) -> Axes:
    """Draw how many steps each run spends in each phase: the median and its interval.

    Phases differ in colour, in marker and in height within the row of a run; hollow markers stand
    for phases that the run is expected to visit fewer than 0.5 times. Where a phase is visited
    several times, the expected number of visits is written beside it, as in "2.0×".

    Parameters
    ----------
    table_or_fit : Dataset or DataTree
        What `bayesphase.dwell_times` returns, dims (run, state), or a fit.
    ci_prob : float, optional
        Probability of the intervals where a fit is given, by default 0.9; a table has its own.
    xscale : {"linear", "log"}
        Scale of the steps. With "log", 0 sits at the end of a short linear piece.
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
    >>> bp.plot_dwell_times(bp.dwell_times(fit, ci_prob=0.5))  # doctest: +SKIP
    """
    table = _tables.dwell_table(table_or_fit, ci_prob=ci_prob)
    _style.require_scale(xscale)
    states = table["state"].values
    with _style.drawing_on(ax, height=_rows.height(table.sizes["run"])) as drawn:
        ends = np.unique(table[["lower", "upper"]].to_array().values)
        ends = np.unique(np.append(0.0, ends[np.isfinite(ends)]))
        _style.scale_steps(drawn, ends, xscale)
        drawn.margins(x=0.02)
        drawn.autoscale(axis="x")
        drawn.set_xlabel("optimiser steps in the phase")
        _rows.name_rows(drawn, table["run"].values, "run")
        colors = _style.phase_colors(states)
        for state, height in zip(states, _rows.heights(len(states)), strict=True):
            of_phase = table.sel(state=state)
            for row in range(table.sizes["run"]):
                total, lower, upper, visits = (
                    float(of_phase[name][row]) for name in ("total", "lower", "upper", "visits")
                )
                if not np.isfinite(total):
                    continue
                _rows.draw_interval(
                    drawn,
                    (lower, total, upper),
                    row + height,
                    marker=_style.phase_marker(int(state)),
                    color=colors[int(state)],
                    hollow=visits < _VISITED,
                )
                if visits >= _SEVERAL:
                    _rows.write_beside(drawn, f"{visits:.1f}×", upper, row + height)
        drawn.set_xlim(left=0.0)
        hollow = _rows.hollow_handle(f"fewer than {_VISITED:g} visits")
        _style.legend_above(
            drawn, [*_rows.phase_handles(states), *_rows.interval_handles(table), hollow]
        )
    return drawn
