"""Pseudo-residuals against what they would be if the model held: normal, and independent."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bayesphase.analysis.pseudo_residuals import normal_quantiles
from bayesphase.plots import _style, _tables

_BAND = "#cfcfcf"


def plot_pseudo_residuals(
    table_or_fit: xr.Dataset | xr.DataTree,
    *,
    feature: str | Sequence[str] | None = None,
    ci_prob: float = 0.95,
    ax: Sequence[Axes] | np.ndarray | None = None,
) -> np.ndarray:
    """Draw the quantiles of each feature's pseudo-residuals, and their autocorrelation.

    On the left, quantiles against those of the standard normal distribution: if the model held, all
    points of a feature would be on the line and, with probability `ci_prob`, within the band. On
    the right, the correlation of pseudo-residuals so many checkpoints apart: each would be in the
    band with that probability.

    Parameters
    ----------
    table_or_fit : Dataset or DataTree
        What `bayesphase.pseudo_residuals` returns, or a fit.
    feature : str or sequence of str, optional
        The features to draw; all by default.
    ci_prob : float, default 0.95
        Probability of the bands.
    ax : array of Axes, optional
        Two for each feature that is drawn.

    Returns
    -------
    ndarray of Axes
        Dims (feature, 2).

    Raises
    ------
    TypeError
        If it is neither a fit nor a table.
    ValueError
        If the table lacks a variable or has other dims, a feature is unknown, `ci_prob` is no
        probability or the number of axes is not twice that of the features.

    Examples
    --------
    >>> residuals = bp.pseudo_residuals(fit)  # doctest: +SKIP
    >>> bp.plot_pseudo_residuals(residuals, feature="l2_norm")  # doctest: +SKIP
    """
    table = _tables.pseudo_residual_table(table_or_fit)
    features = _tables.choose("feature", feature, table["feature"])
    table = table.sel(feature=features)
    quantiles = normal_quantiles(table["pseudo_residual"], ci_prob=ci_prob)
    widest = NormalDist().inv_cdf((1 + ci_prob) / 2)
    if ax is not None:
        given: np.ndarray = np.asarray(ax, dtype=object)
        if given.size != 2 * len(features):
            raise ValueError(f"ax holds {given.size} axes, expected two for each of {features}")
        given = given.reshape(-1, 2)
        _draw_all(given, table, quantiles, widest)
        return given
    n_columns = min(2 if _style.is_wide() else 1, len(features))
    n_rows = -(-len(features) // n_columns)
    with _style.style():
        figure, grid = plt.subplots(
            n_rows,
            2 * n_columns,
            figsize=(_style.width(), 1.35 * n_rows + 0.6 if n_rows > 1 else 2.6),
            squeeze=False,
            layout="constrained",
        )
        pairs = grid.reshape(-1, 2)
        for spare in pairs[len(features) :].ravel():
            figure.delaxes(spare)
        pairs = pairs[: len(features)]
        _draw_all(pairs, table, quantiles, widest)
        for qq, autocorrelation in pairs[: -n_columns or None]:
            qq.set_xlabel("")
            autocorrelation.set_xlabel("")
        _style.legend_on_top(figure, _handles(ci_prob))
    return pairs


def _draw_all(pairs: np.ndarray, table: xr.Dataset, quantiles: xr.Dataset, widest: float) -> None:
    lowest = float(np.nanmin([table["autocorrelation"].min(), 0.0]))
    for i, (qq, autocorrelation) in enumerate(pairs):
        _draw_quantiles(qq, quantiles.isel(feature=i))
        _draw_autocorrelation(autocorrelation, table.isel(feature=i), widest)
        autocorrelation.set_ylim(min(-0.25, 1.1 * lowest), 1.05)
        name = str(table["feature"].values[i]).replace("_", " ")
        place = _style.above(qq)
        qq.text(0, 3, name, transform=place, weight="bold", size=_style.font_points("font.size"))


def _draw_quantiles(ax: Axes, quantiles: xr.Dataset) -> None:
    known = quantiles.dropna("point")
    expected, observed = known["expected"].values, known["observed"].values
    lower, upper = known["lower"].values, known["upper"].values
    ax.fill_between(expected, lower, upper, color=_BAND, linewidth=0)
    ax.plot(expected, expected, color=_style.INK, linewidth=0.6)
    inside = (observed >= lower) & (observed <= upper)
    for which, face in ((inside, "white"), (~inside, _style.INK)):
        ax.plot(
            expected[which],
            observed[which],
            linestyle="none",
            marker="o",
            markersize=2.2,
            markeredgewidth=0.4,
            markeredgecolor=_style.INK,
            markerfacecolor=face,
        )
    ax.set_xlabel("standard normal quantile")
    ax.set_ylabel("pseudo-residual")


def _draw_autocorrelation(ax: Axes, table: xr.Dataset, widest: float) -> None:
    lags, values = table["lag"].values, table["autocorrelation"].values
    limit = widest * table["autocorrelation_sd"].values
    ax.fill_between(lags, -limit, limit, color=_BAND, linewidth=0)
    ax.axhline(0.0, color=_style.INK, linewidth=0.6)
    ax.vlines(lags, 0.0, values, color=_style.INK, linewidth=0.9)
    inside = np.abs(values) <= limit
    for which, face in ((inside, "white"), (~inside, _style.INK)):
        ax.plot(
            lags[which],
            values[which],
            linestyle="none",
            marker="o",
            markersize=2.6,
            markeredgewidth=0.4,
            markeredgecolor=_style.INK,
            markerfacecolor=face,
        )
    ax.set_xlabel("lag (checkpoints)")
    ax.set_ylabel("autocorrelation")


def _handles(ci_prob: float) -> list[Patch | Line2D]:
    marks: dict[str, Any] = {
        "linestyle": "none",
        "marker": "o",
        "markersize": 3.2,
        "markeredgecolor": _style.INK,
    }
    return [
        Patch(facecolor=_BAND, label=f"{ci_prob:.0%} band if the model held"),
        Line2D([], [], markerfacecolor="white", label="within", **marks),
        Line2D([], [], markerfacecolor=_style.INK, label="outside", **marks),
    ]
