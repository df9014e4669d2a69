"""Which model predicts best, and by how much."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bayesphase.plots import _rows, _style

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("elpd", "elpd_diff", "dse", "weight", "warning")


def plot_comparison(table: "pd.DataFrame", *, ax: Axes | None = None) -> Axes:
    """Draw how much worse than the best each model predicts, with its standard error and weight.

    A row is a model, the best on top. The mark is its expected log predictive density less that of
    the best, the line two standard errors of this difference to either side; hollow marks stand
    for estimates that are unreliable. Where a standard error is not known, as of one run alone, the
    mark has no line, but "± ?" beside it. On the right is the weight of each model. Where
    differences span orders of magnitude, the scale is logarithmic past the smallest.

    Parameters
    ----------
    table : DataFrame
        What `bayesphase.compare` returns. `arviz_plots.plot_compare` takes it, too.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        If `table` is no DataFrame.
    ValueError
        If it lacks a column or has no row.

    Examples
    --------
    >>> bp.plot_comparison(bp.compare(fits))  # doctest: +SKIP
    """
    table = _require_comparison(table)
    difference, error = (table[name].to_numpy(float) for name in ("elpd_diff", "dse"))
    unknown = ~np.isfinite(error)
    error = np.where(unknown, 0.0, error)
    unknown[0] = False  # the best differs from itself by 0, however many units there are
    with _style.drawing_on(ax, height=_rows.height(len(table))) as drawn:
        _rows.name_rows(drawn, table.index, "model")
        drawn.axvline(0.0, color=_style.FAINT, linewidth=0.6, zorder=0)
        spans = np.abs(difference[difference < 0])
        if len(spans) > 1 and spans.max() >= 100 * spans.min():
            _rows.scale_values(drawn, linear=spans.min(), largest=spans.max())
        else:
            drawn.locator_params(axis="x", nbins=4 if _style.inches(drawn) < 5 else 8)
            drawn.xaxis.set_major_formatter("{x:,.0f}")
        if unknown.any():
            drawn.margins(x=0.12)  # room for the question mark of a model close to the best
        for row, (middle, width) in enumerate(zip(difference, 2 * error, strict=True)):
            _rows.draw_interval(
                drawn,
                (middle - width, middle, middle + width),
                row,
                marker="o",
                color=_style.INK,
                hollow=bool(table["warning"].iloc[row]),
            )
            if unknown[row]:
                _rows.write_beside(drawn, "± ?", middle, row)
            drawn.annotate(
                f"{table['weight'].iloc[row]:.2f}",
                (1.0, row),
                xycoords=drawn.get_yaxis_transform(),
                xytext=(4, 0),
                textcoords="offset points",
                va="center_baseline",
                size=_style.font_points("ytick.labelsize"),
                annotation_clip=False,
            )
        drawn.annotate(
            "weight",
            (1.0, 1.0),
            xycoords="axes fraction",
            xytext=(4, 3),
            textcoords="offset points",
            size=_style.font_points("ytick.labelsize"),
            annotation_clip=False,
        )
        _rows.label_values(drawn, "log predictive density less that of the best", "nats")
        mark = Line2D([], [], color=_style.INK, marker="o", markersize=4.5, linewidth=1.2)
        mark.set_label("± 2 standard errors")
        _style.legend_above(drawn, [mark, _rows.hollow_handle("unreliable estimate")])
    return drawn


def _require_comparison(table: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"got a {type(table).__name__}, expected the DataFrame that bayesphase.compare returns"
        )
    if lacking := [name for name in _COLUMNS if name not in table]:
        raise ValueError(
            f"the table has no column {lacking[0]!r}, only {list(table.columns)}: pass what "
            f"bayesphase.compare returns"
        )
    if table.empty:
        raise ValueError("the table has no row: there is nothing to draw")
    return table.sort_values("elpd", ascending=False, kind="stable")
