"""How probable each number of visited states is, for all runs together and for each."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bayesphase.plots import _style, _tables

_WIDTH = 0.72  # of a bar: the rest keeps numbers apart


def plot_visited_counts(fit_or_table: xr.DataTree | xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the posterior of the number of visited states: bars for all runs, dots for each.

    Whiskers are two Monte Carlo standard errors to either side. Where the table has other
    concentrations, a dash to the left of each bar is the probability under the smallest, and one to
    the right that under the largest.

    Parameters
    ----------
    fit_or_table : DataTree or Dataset
        A fit, or what `bayesphase.visited_counts` returns.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, ValueError
        If it is neither a fit nor such a table.

    Examples
    --------
    >>> fit = bp.fit(x, 8, transition="sticky_hdp", random_seed=1)  # doctest: +SKIP
    >>> bp.plot_visited_counts(bp.visited_counts(fit))  # doctest: +SKIP
    """
    table = _tables.visited_table(fit_or_table)
    numbers = table["n_states"].values
    probability, error = table["probability"].values, table["mcse"].fillna(0.0).values
    with _style.drawing_on(ax, height=2.6) as drawn:
        drawn.bar(numbers, probability, _WIDTH, color=_style.FAINT, label="all runs together")
        known = error > 0
        drawn.errorbar(
            numbers[known],
            probability[known],
            2 * error[known],
            fmt="none",
            ecolor=_style.INK,
            elinewidth=0.8,
            capsize=2,
        )
        by_run = table["run_probability"].transpose("run", "n_states").values
        # runs side by side within the bar, so that none hides another
        place = np.linspace(-0.5, 0.5, len(by_run) + 2)[1:-1] * 0.8 * _WIDTH
        for offset, each in zip(place, by_run, strict=True):
            drawn.plot(numbers + offset, each, "o", ms=3, mfc="white", mec=_style.INK, mew=0.7)
        handles = [
            drawn.patches[0],
            Line2D([], [], ls="", marker="o", ms=3, mfc="white", mec=_style.INK, mew=0.7),
        ]
        handles[0].set_label("all runs together")
        handles[1].set_label("each run")
        if "probability_by_concentration" in table:
            handles.append(_draw_concentrations(drawn, table))
        drawn.set_xticks(numbers)
        drawn.set_xlim(numbers[0] - 0.6, numbers[-1] + 0.6)
        drawn.set_ylim(0, 1.05)
        drawn.set_xlabel("number of states visited")
        drawn.set_ylabel("posterior probability")
        _style.legend_above(drawn, handles)
    return drawn


def _draw_concentrations(ax: Axes, table: xr.Dataset) -> Line2D:
    by = table["probability_by_concentration"]
    numbers, others = table["n_states"].values, by["weight_concentration"].values
    for other, side in ((others.min(), -1), (others.max(), 1)):
        at = numbers + side * _WIDTH / 2
        values = by.sel(weight_concentration=other).values
        ax.hlines(values, at - 0.05, at + 0.05, color=_style.INK, linewidth=1.4)
    label = f"weight concentration {others.min():g} (left), {others.max():g} (right)"
    return Line2D([], [], color=_style.INK, lw=1.4, label=label)
