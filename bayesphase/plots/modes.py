"""Modes of the posterior: what searches found, what each is worth, and whether names hold."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bayesphase.analysis.diagnostics import AMBIGUOUS
from bayesphase.plots import _style, _tables

_NEAR = 1.0  # nats: the axis shows as many at least
_CHAIN_LINES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))


def plot_modes(fit: xr.DataTree, *, ax: np.ndarray | None = None) -> np.ndarray:
    """Draw the modes that searches ended in, and how nearly states could swap names.

    On the left is a dot for every search for a starting point: how far the log density of its mode
    is below the best. The mode that the chains were started in is filled. A second mode a few nats
    below the best may hold as much of the posterior, see `bayesphase.mode_weights`.

    On the right is, for each chain, the share of draws whose label ambiguity is at least so large;
    where it is above 0.5, what is said of single states mixes two of them, see
    `bayesphase.diagnose`.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    ax : array of Axes, optional
        Two.

    Returns
    -------
    ndarray of Axes
        Two.

    Raises
    ------
    TypeError
        If `fit` is no DataTree.
    ValueError
        If the fit lacks its searches or the label ambiguity, or there are not two axes.

    Examples
    --------
    >>> bp.plot_modes(fit)  # doctest: +SKIP
    """
    restarts, ambiguity = _tables.searches_of(fit)
    given = None if ax is None else np.asarray(ax, dtype=object).ravel()
    if given is not None and len(given) != 2:
        raise ValueError(f"ax holds {len(given)} axes, expected two")
    with _style.style() if given is None else _style.as_it_is():
        panels = given
        if panels is None:
            panels = _style.new_panels(2, height=2.2, narrowest=2.2)
        _draw_searches(panels[0], restarts, int(fit.attrs.get("mode", 0)))
        _draw_ambiguity(panels[1], ambiguity)
    return panels


def plot_mode_weights(table: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw how much of the posterior each mode holds, and its weight in the best mixture.

    Whiskers are two Monte Carlo standard errors to either side. "?" stands where chains were not
    found in a mode of their own, so that it has no weight.

    Parameters
    ----------
    table : Dataset
        What `bayesphase.mode_weights` returns.
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
    >>> fits = bp.fit_modes(x, 4, random_seed=1)  # doctest: +SKIP
    >>> bp.plot_mode_weights(bp.mode_weights(fits, random_seed=1))  # doctest: +SKIP
    """
    table = _tables.weight_table(table)
    names = [str(name) for name in table["mode"].values]
    at = np.arange(len(names))
    bars = (
        ("probability", "mcse", "posterior probability", "#4d4d4d", "", -0.2),
        ("stacking_weight", None, "stacking weight", "white", "....", 0.2),
    )
    with _style.drawing_on(ax, height=2.3) as drawn:
        handles = []
        for name, error, label, fill, hatch, side in bars:
            values = table[name].values
            known = np.isfinite(values)
            look: dict[str, Any] = {"hatch": hatch, "edgecolor": _style.INK, "linewidth": 0.5}
            drawn.bar(at[known] + side, values[known], 0.36, color=fill, **look)
            handles.append(Patch(facecolor=fill, label=label, **look))
            if error is not None:
                errors = table[error].fillna(0.0).values
                drawn.errorbar(
                    at[known] + side,
                    values[known],
                    2 * errors[known],
                    fmt="none",
                    ecolor="black",
                    elinewidth=0.8,
                    capsize=2,
                )
            for x in at[~known]:
                size = _style.font_points("font.size")
                drawn.text(x + side, 0.01, "?", ha="center", va="bottom", size=size)
        drawn.set_xticks(at, names)
        drawn.set_xlim(-0.6, len(names) - 0.4)
        drawn.set_ylim(0, 1.05)
        drawn.set_xlabel(_tables.with_doubt("mode", table))
        drawn.set_ylabel("probability or weight")
        _style.legend_above(drawn, handles)
    return drawn


def _draw_searches(ax: Axes, restarts: xr.Dataset, started: int) -> None:
    density = restarts["log_density"].values
    modes = restarts["mode"].values if "mode" in restarts else np.zeros(len(density), int)
    below = density.max() - density
    for mode in np.unique(modes):
        here = np.flatnonzero(modes == mode)
        # side by side, so that none hides another
        x = mode + np.linspace(-0.3, 0.3, len(here) + 2)[1:-1]
        ax.plot(
            x,
            below[here],
            linestyle="none",
            marker="o",
            markersize=3.6,
            markeredgecolor=_style.INK,
            markeredgewidth=0.7,
            markerfacecolor=_style.INK if mode == started else "white",
        )
    numbers = np.unique(modes)
    ax.set_xticks(numbers, [str(mode) for mode in numbers])
    ax.set_xlim(numbers[0] - 0.6, numbers[-1] + 0.6)
    deepest = max(_NEAR, float(below.max()))
    if deepest > 10 * _NEAR:
        ax.set_yscale("symlog", linthresh=_NEAR, linscale=0.5)
        ticks = 10.0 ** np.arange(0, np.ceil(np.log10(deepest)) + 1)
        ax.set_yticks([0.0, *ticks], ["0", *(f"{tick:,.0f}" for tick in ticks)])
        ax.set_ylim(2 * deepest, -0.3 * _NEAR)  # the best is on top
    else:
        ax.set_ylim(1.08 * deepest, -0.08 * deepest)
    ax.set_xlabel("mode")
    ax.set_ylabel("nats below the best")
    marks = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker="o",
            markersize=3.6,
            markeredgecolor=_style.INK,
            markerfacecolor=face,
            label=label,
        )
        for face, label in ((_style.INK, "chains start here"), ("white", "other"))
    ]
    _style.legend_above(ax, marks)


def _draw_ambiguity(ax: Axes, ambiguity: xr.DataArray) -> None:
    for i, chain in enumerate(ambiguity.transpose("chain", "draw")):
        values = np.sort(chain.values)
        share = 1.0 - np.arange(len(values)) / len(values)
        ax.plot(
            np.concatenate([[0.0], values, [1.0]]),
            np.concatenate([[1.0], share, [0.0]]),
            drawstyle="steps-pre",
            color=_style.INK,
            alpha=0.8,
            linestyle=_CHAIN_LINES[i % len(_CHAIN_LINES)],
            linewidth=0.9,
            clip_on=False,
        )
    ax.axvspan(AMBIGUOUS, 1.0, color="#e8e8e8", linewidth=0, zorder=0)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_xlabel("label ambiguity")
    ax.set_ylabel("share of draws above")
    lines = Line2D([], [], color=_style.INK, linewidth=0.9, label="each chain")
    band = Patch(facecolor="#e8e8e8", label="could be swapped")
    _style.legend_above(ax, [lines, band])
