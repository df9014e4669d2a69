"""How alike the directions are in which runs move."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from bayesphase.plots import _style, _tables


def plot_subspace_overlap(table: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the overlap of the principal components of each run with those of each other.

    A cell is the root mean square inner product of two runs, from 0 to 1; the last column that of
    a run with the joint components. Cells are light where subspaces are the same. What random
    subspaces would have is written above.

    Parameters
    ----------
    table : Dataset
        What `bayesphase.subspace_overlap` returns.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        If `table` is no Dataset.
    ValueError
        If it lacks a variable or has other dims.

    Examples
    --------
    >>> overlap = bp.subspace_overlap(metrics["example_loss"])  # doctest: +SKIP
    >>> bp.plot_subspace_overlap(overlap)  # doctest: +SKIP
    """
    table = _tables.overlap_table(table)
    values = np.column_stack([table["rmsip"].values, table["rmsip_joint"].values])
    runs = [str(run) for run in table["run"].values]
    with _style.drawing_on(ax, height=float(np.clip(0.3 * len(runs) + 1.3, 2.0, 7.0))) as drawn:
        # the darkest and the palest part are left out, so that numbers can be read on all cells
        image = drawn.pcolormesh(
            np.arange(len(runs) + 2) - 0.5,
            np.arange(len(runs) + 1) - 0.5,
            np.ma.masked_invalid(values),
            cmap="cividis",
            vmin=0,
            vmax=1,
            edgecolors="white",
            linewidth=0.5,
        )
        drawn.set_xlim(-0.5, len(runs) + 0.5)
        drawn.set_ylim(len(runs) - 0.5, -0.5)
        drawn.set_xticks(range(len(runs) + 1), [*runs, "all runs"], rotation=90)
        drawn.set_yticks(range(len(runs)), runs)
        drawn.tick_params(length=0)
        for side in ("left", "bottom"):
            drawn.spines[side].set_visible(False)
        drawn.set_xlabel("components of run")
        drawn.set_ylabel("run")
        _write_values(drawn, values, image)
        drawn.figure.colorbar(image, ax=drawn, label="overlap (RMSIP)", shrink=0.9)
        drawn.set_title(
            f"{table.attrs.get('n_components', '?')} components; random subspaces: "
            f"{float(table['rmsip_random']):.2f}",
            loc="left",
        )
    return drawn


def _write_values(ax: Axes, values: np.ndarray, image: object) -> None:
    """Write the numbers into cells that can hold them."""
    _style.settle(ax)
    size = 0.85 * _style.font_points("xtick.labelsize")
    cell = _style.axes_points(ax)[0] / values.shape[1]
    if cell < 1.1 * _style.text_points("0.00", size)[0]:
        return
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = image.cmap(image.norm(value))  # type: ignore[attr-defined]
            ink = _style.ink_on(color[:3])
            ax.text(
                column, row, f"{value:.2f}", size=size, color=ink, ha="center", va="center_baseline"
            )
