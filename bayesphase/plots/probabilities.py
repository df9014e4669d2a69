"""The probability of each phase over the steps, one row for each run."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from bayesphase.plots import _style, _tables

_FILLED = 0.82  # of a row: the rest keeps runs apart


def plot_phase_probabilities(
    fit_or_table: xr.DataTree | xr.DataArray, *, xscale: str = "linear", ax: Axes | None = None
) -> Axes:
    """Draw the phase probabilities of all runs as areas stacked up to 1, a row for each run.

    Where a phase is sure its colour fills the row; a slope from one colour to the next is a
    boundary whose place is uncertain. A checkpoint's probabilities hold until the run's next one,
    and a row ends at the run's last.

    Parameters
    ----------
    fit_or_table : DataTree or DataArray
        A fit, or what `bayesphase.phase_probabilities` returns: dims (run, step, state).
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
        If the table has other dims, or `xscale` is another.

    Examples
    --------
    >>> bp.plot_phase_probabilities(fit, xscale="log")  # doctest: +SKIP
    """
    table = _tables.probability_table(fit_or_table)
    _style.require_scale(xscale)
    runs, states = table["run"].values, table["state"].values
    with _style.drawing_on(ax, height=float(np.clip(0.24 * len(runs) + 0.9, 1.6, 9))) as drawn:
        _style.scale_steps(drawn, table["step"].values, xscale)
        drawn.set_ylim(len(runs) - 0.5, -0.5)
        drawn.set_yticks(range(len(runs)), [str(run) for run in runs])
        drawn.tick_params(axis="y", length=0)
        drawn.spines["left"].set_visible(False)
        drawn.set_ylabel("run")
        for row in range(len(runs)):
            _draw_run(drawn, table.isel(run=row), row)
        _style.legend_above(drawn, _style.phase_patches(states))
        _style.settle(drawn)
        for row in range(len(runs)):
            _name_phases(drawn, table.isel(run=row), row)
    return drawn


def _draw_run(ax: Axes, probability: xr.DataArray, row: int) -> None:
    known = probability.dropna("step", how="all")
    # Rows count downwards, so that the first run is on top; probabilities stack upwards.
    tops = row + _FILLED * (0.5 - known.transpose("state", "step").values.cumsum(axis=0))
    floors = np.vstack([np.full_like(tops[:1], row + _FILLED / 2), tops[:-1]])
    colors = _style.phase_colors(known["state"].values).values()
    for floor, top, color in zip(floors, tops, colors, strict=True):
        ax.fill_between(known["step"].values, floor, top, step="post", facecolor=color, linewidth=0)


def _name_phases(ax: Axes, probability: xr.DataArray, row: int) -> None:
    """Write the number of a phase where it is the likeliest for long enough to hold it."""
    known = probability.dropna("step", how="all")
    if not known.sizes["step"]:
        return
    steps = known["step"].values
    colors = _style.phase_colors(known["state"].values)
    size = 0.9 * _style.font_points("ytick.labelsize")
    width, row_height = _style.axes_points(ax)[0], _style.axes_points(ax)[1] / len(ax.get_yticks())
    if row_height * _FILLED < size:
        return
    modal = known["state"].values[known.argmax("state").values]
    for state, first, last in _tables.blocks(modal):
        left, right = _style.along(ax, steps[[first, min(last + 1, len(steps) - 1)]])
        if right - left > 2 * _style.text_points(str(state), size)[0]:
            ax.text(
                (left + right) / 2 / width,
                row,
                str(state),
                transform=ax.get_yaxis_transform(),
                ha="center",
                va="center_baseline",
                size=size,
                color=_style.ink_on(colors[state]),
            )
