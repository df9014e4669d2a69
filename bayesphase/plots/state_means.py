"""What features are like in each phase, with intervals."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from bayesphase.plots import _rows, _style, _tables


def plot_state_means(
    table_or_fit: xr.Dataset | xr.DataTree,
    *,
    feature: str | Sequence[str] | None = None,
    ci_prob: float | None = None,
    xscale: str = "linear",
    ax: Axes | None = None,
) -> Axes:
    """Draw the mean level, or the mean speed, of each feature in each phase, with its interval.

    A row is a feature; phases differ in colour, in marker and in height within the row. Whether it
    is a level or a speed depends on the family, see `bayesphase.state_means`; a feature whose
    speed is 0 stands still.

    Parameters
    ----------
    table_or_fit : Dataset or DataTree
        What `bayesphase.state_means` returns, dims (state, feature), or a fit.
    feature : str or sequence of str, optional
        The features to draw; all by default.
    ci_prob : float, optional
        Probability of the intervals where a fit is given, by default 0.9; a table has its own.
    xscale : {"linear", "log"}
        With "log" the scale is linear about 0, up to the smallest mean whose interval is on one
        side of it, and logarithmic past that: for speeds that differ by orders of magnitude.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        If it is neither a fit nor a table.
    ValueError
        If the table lacks a variable or has other dims, a feature is unknown, `ci_prob` is not that
        of the table, or `xscale` is another.

    Examples
    --------
    >>> bp.plot_state_means(fit, feature=["l2_norm", "trace"])  # doctest: +SKIP
    """
    table = _tables.mean_table(table_or_fit, ci_prob=ci_prob)
    _style.require_scale(xscale)
    names = _tables.choose("feature", feature, table["feature"])
    table = table.sel(feature=names)
    states = table["state"].values
    colors = _style.phase_colors(states)
    with _style.drawing_on(ax, height=_rows.height(len(names))) as drawn:
        _rows.name_rows(drawn, [str(name).replace("_", " ") for name in names], "feature")
        drawn.axvline(0.0, color=_style.FAINT, linewidth=0.6, zorder=0)
        is_sure = table["lower"].values * table["upper"].values > 0
        if xscale == "log" and is_sure.any():
            sizes = np.abs(table["mean"].values[is_sure])
            _rows.scale_values(drawn, linear=sizes.min(), largest=sizes.max())
        for state, height in zip(states, _rows.heights(len(states)), strict=True):
            of_phase = table.sel(state=state)
            ends = of_phase[["lower", "mean", "upper"]].to_array().values.T
            for row in np.flatnonzero(np.isfinite(ends).all(axis=1)).tolist():
                _rows.draw_interval(
                    drawn,
                    ends[row].tolist(),
                    row + height,
                    marker=_style.phase_marker(int(state)),
                    color=colors[int(state)],
                )
        units = str(table["mean"].attrs.get("units", "1"))
        # a standardized feature has the unit 1
        units = units.removeprefix("1 ") if units != "1" else ""
        _rows.label_values(drawn, f"mean {table.attrs.get('quantity', 'level')}", units)
        _style.legend_above(drawn, [*_rows.phase_handles(states), *_rows.interval_handles(table)])
    return drawn
