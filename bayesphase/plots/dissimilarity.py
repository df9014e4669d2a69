"""How differently runs share out their time: a matrix of pairs, similar runs next to each other."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from bayesphase.plots import _style, _tables

# runs up to which pairs have room for numbers
_MOST_WITH_TEXT = 12


def plot_dissimilarity(
    dissimilarity_or_fit: xr.Dataset | xr.DataTree, *, ax: Axes | None = None
) -> Axes:
    """Draw the distance of every pair of runs, in an order in which similar runs are neighbours.

    Above the diagonal are the medians, and below it the intervals, for up to 12 runs; with more
    there are colours alone. The dissimilarity of all runs is written on top.

    Parameters
    ----------
    dissimilarity_or_fit : Dataset or DataTree
        What `bayesphase.dissimilarity` returns, or a fit.
    ax : Axes, optional

    Returns
    -------
    Axes
        A colour bar is beside them.

    Raises
    ------
    TypeError, ValueError
        If it is neither a fit nor such a table.

    Examples
    --------
    >>> bp.plot_dissimilarity(bp.dissimilarity(fit))  # doctest: +SKIP
    """
    table = _tables.dissimilarity_table(dissimilarity_or_fit)
    order = np.argsort(table["rank"].values)
    table = table.isel(run=order, run_other=order)
    runs = [str(run) for run in table["run"].values]
    middle, lower, upper = (table[f"distance{end}"].values for end in ("", "_lower", "_upper"))
    distance = np.where(np.eye(len(runs), dtype=bool), np.nan, middle)
    with _style.drawing_on(ax, height=min(5.5, 0.9 * _style.width())) as drawn:
        image = drawn.imshow(distance, cmap="viridis", vmin=0.0, aspect="equal")
        drawn.set_xticks(range(len(runs)), runs, rotation=90)
        drawn.set_yticks(range(len(runs)), runs)
        drawn.tick_params(length=0)
        drawn.spines[:].set_visible(False)
        drawn.figure.colorbar(
            image, ax=drawn, fraction=0.05, pad=0.03, label="distance of state shares"
        )
        drawn.set_title(_title(table, narrow=_style.inches(drawn) < 5), loc="left")
        _style.settle(drawn)
        cell = _style.axes_points(drawn)[0] / len(runs)
        if len(runs) <= _MOST_WITH_TEXT and cell >= _style.text_points("0.00", 6)[0]:
            has_room = cell >= _style.text_points("0.00–0.00", 6)[0]
            for i, j in np.argwhere(~np.isnan(distance)):
                dash = "–" if has_room else "–\n"
                text = (
                    f"{middle[i, j]:.2f}" if j > i else f"{lower[i, j]:.2f}{dash}{upper[i, j]:.2f}"
                )
                red, green, blue, _ = image.to_rgba(distance[i, j])
                ink = _style.ink_on(to_hex((red, green, blue)))
                drawn.text(j, i, text, ha="center", va="center", size=6, color=ink)
    return drawn


def _title(table: xr.Dataset, *, narrow: bool) -> str:
    middle, lower, upper = (float(table[f"expected{end}"]) for end in ("", "_lower", "_upper"))
    said = f"dissimilarity {middle:.3f} [{lower:.3f}, {upper:.3f}]"
    if "ci_prob" in table.attrs:
        said += ("\n" if narrow else "; ") + f"{table.attrs['ci_prob']:.0%} intervals"
    return said
