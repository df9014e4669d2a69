"""When each phase begins in each run, with intervals."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bayesphase.plots import _style, _tables

_LIKELY = 0.5  # phases that a run visits with a smaller probability have hollow markers
_SPREAD = 0.5  # of a row: over how much of it its phases are spread


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
    """
    table = _tables.boundary_table(table_or_fit, ci_prob=ci_prob)
    _style.require_scale(xscale)
    runs, states = table["run"].values, table["state"].values
    colors = _style.phase_colors(states)
    heights = np.linspace(-_SPREAD / 2, _SPREAD / 2, len(states)) if len(states) > 1 else [0.0]
    with _style.drawing_on(ax, height=float(np.clip(0.3 * len(runs) + 0.9, 1.6, 9))) as drawn:
        ends = np.unique(table[["lower", "upper"]].to_array().values)
        _style.scale_steps(drawn, ends[np.isfinite(ends)], xscale)
        drawn.margins(x=0.02)
        drawn.autoscale(axis="x")
        drawn.set_ylim(len(runs) - 0.5, -0.5)
        drawn.set_yticks(range(len(runs)), [str(run) for run in runs])
        drawn.tick_params(axis="y", length=0)
        drawn.set_ylabel("run")
        for row in range(1, len(runs)):
            drawn.axhline(row - 0.5, color="#d9d9d9", linewidth=0.5, zorder=0)
        for state, height in zip(states, heights, strict=True):
            _draw_phase(drawn, table.sel(state=state), height, colors[int(state)])
        _style.legend_above(drawn, _handles(states))
    return drawn


def _draw_phase(ax: Axes, phase: xr.Dataset, height: float, color: str) -> None:
    marker = _style.phase_marker(int(phase["state"]))
    for row in range(phase.sizes["run"]):
        lower, step, upper, visited = (
            float(phase[name][row]) for name in ("lower", "first_step", "upper", "visited")
        )
        if not np.isfinite(step):
            continue
        ax.errorbar(
            step,
            row + height,
            xerr=[[step - lower], [upper - step]],
            fmt=marker,
            color=color,
            markerfacecolor=color if visited >= _LIKELY else "white",
            markeredgecolor=_style.INK if visited >= _LIKELY else color,
            markeredgewidth=0.4 if visited >= _LIKELY else 1.0,
            markersize=4.5,
            elinewidth=1.2,
            capsize=2,
            alpha=0.3 + 0.7 * visited,
        )


def _handles(states: np.ndarray) -> list[Line2D]:
    phases = [
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
    hollow = Line2D(
        [],
        [],
        linestyle="none",
        marker="o",
        markersize=4.5,
        markerfacecolor="white",
        markeredgecolor=_style.FAINT,
        label=f"visited with p < {_LIKELY:g}",
    )
    return [*phases, hollow]
