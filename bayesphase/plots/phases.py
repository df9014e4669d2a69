"""Loss curves coloured by phase, with the boundaries between phases and their intervals."""

import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bayesphase.analysis.phases import most_likely_path, phase_probabilities, switches
from bayesphase.plots import _curves, _style, _tables

_MOST_RUNS = 12  # more panels than this are too small to read
_LINES: tuple[str | tuple[float, Sequence[float]], ...] = (
    "-",
    (0, (3.5, 1.2)),
    (0, (1, 1)),
    (0, (5, 1, 1, 1)),
)  # one per curve
_STRIP = 1.2  # of its text that the strip of the most likely path is high
_ROW = 1.35  # of its text that a row of intervals is high
_MOST_ROWS = 4  # more would leave a panel no room for its curves


def plot_phases(
    fit: xr.DataTree,
    *,
    loss: xr.DataArray | xr.Dataset | None = None,
    run: str | Sequence[str] | None = None,
    ci_prob: float = 0.9,
    xscale: str = "linear",
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
) -> Axes | np.ndarray:
    """Draw the loss of each run, coloured by phase, and how surely each phase begins where.

    The curves, and the strip on top of them, have the colour of the most likely phase. Behind
    the curves stand the probabilities of the phases, stacked up to 1. Above are the boundaries, of
    `bayesphase.switches`: the median step of every switch, returns to a phase included, which the
    dashed line marks, and its interval; where there are too many to be told apart, their number.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    loss : DataArray or Dataset, optional
        Dims (run, step): one curve, or one for each variable (at most 4). Its steps may be others
        than the fit's. By default the first features of the fit are drawn.
    run : str or sequence of str, optional
        The runs to draw; by default all, but the first 12 only.
    ci_prob : float, default 0.9
        Probability of the intervals.
    xscale : {"linear", "log"}
        Scale of the steps. With "log", step 0 sits at the end of a short linear piece.
    ax : Axes or array of Axes, optional
        One for each run that is drawn.

    Returns
    -------
    Axes or ndarray of Axes
        Axes if `run` is one name or `ax` one axes, else an array with dims (run).

    Raises
    ------
    TypeError
        If `fit` is no fit, or `loss` neither DataArray nor Dataset.
    ValueError
        If a run is unknown, `loss` has other dims or too many variables, `xscale` is another, or
        the number of axes is not that of the runs.

    Warns
    -----
    UserWarning
        If there are more runs than are drawn.

    Examples
    --------
    >>> losses = metrics[["train_loss", "eval_loss"]]  # doctest: +SKIP
    >>> bp.plot_phases(fit, loss=losses, run="seed 0", xscale="log")  # doctest: +SKIP
    """
    path, probability = most_likely_path(fit), phase_probabilities(fit)
    table = switches(fit, ci_prob=ci_prob)
    if loss is None:
        curves = _curves.first_features(fit)
    else:
        curves = _curves.loss_curves(loss, most=len(_LINES))
    runs = _tables.choose("run", run, path["run"])
    if run is None and len(runs) > _MOST_RUNS:
        warnings.warn(
            f"{len(runs)} runs are too many for one figure; drawing the first {_MOST_RUNS}. "
            "Choose with run=[...], or see them all with plot_overview",
            stacklevel=2,
        )
        runs = runs[:_MOST_RUNS]
    _tables.choose("run", runs, curves["run"])
    _style.require_scale(xscale)
    curves = curves.sel(run=runs)
    given = None if ax is None else np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if given is not None and len(given) != len(runs):
        raise ValueError(f"ax holds {len(given)} axes, expected one for each run of {runs}")

    states = probability["state"].values
    handles = _handles(states, curves["curve"].values)
    with _style.drawing_on_panels(given, n_panels=len(runs), height=1.5) as panels:
        for panel, name in zip(panels, runs, strict=True):
            _style.scale_steps(panel, probability["step"].values, xscale)
            panel.set_ylabel(curves.attrs["label"])
            if _curves.span_decades(curves):
                panel.set_yscale("log")
            _draw_probabilities(panel, probability.sel(run=name))
            _draw_curves(panel, curves.sel(run=name), path.sel(run=name), states)
        _style.settle(panels[0])
        for panel, name in zip(panels, runs, strict=True):
            _draw_path(panel, path.sel(run=name), states)
            top = _draw_boundaries(panel, table.sel(run=name))
            panel.text(0, top, str(name), transform=_style.above(panel), weight="bold")
            if given is not None and panel is given[0]:
                _style.legend_above(panel, handles, points=top + 2.2 * _small_text())
        if given is None:
            _style.legend_on_top(panels[0].figure, handles)
    return panels[0] if isinstance(run, str) or isinstance(ax, Axes) else panels


def _draw_probabilities(ax: Axes, probability: xr.DataArray) -> None:
    """Stack the probabilities behind the curves; a checkpoint's hold until the next."""
    known = probability.dropna("step", how="all")
    tops = known.transpose("state", "step").values.cumsum(axis=0)
    lows = np.vstack([np.zeros_like(tops[:1]), tops[:-1]])
    colors = _style.phase_colors(known["state"].values).values()
    for low, top, color in zip(lows, tops, colors, strict=True):
        ax.fill_between(
            known["step"].values,
            low,
            top,
            step="post",
            transform=ax.get_xaxis_transform(),
            facecolor=color,
            alpha=0.2,
            linewidth=0,
            zorder=0,
        )


def _draw_curves(ax: Axes, curves: xr.DataArray, path: xr.DataArray, states: np.ndarray) -> None:
    colors = _style.phase_colors(states) | {-1: _style.FAINT}
    edge = _style.outline(mpl.rcParams["lines.linewidth"])
    for values, line in zip(curves.values, _LINES, strict=False):
        known = np.isfinite(values)
        steps, heights = curves["step"].values[known], values[known]
        for state, first, last in _tables.blocks(_tables.held_states(path, steps)):
            piece = slice(first, last + 2)  # on to the first point of the next: no gaps
            ax.plot(
                steps[piece],
                heights[piece],
                linestyle=line,
                color=colors[state],
                path_effects=edge,
                zorder=3,
            )


def _draw_path(ax: Axes, path: xr.DataArray, states: np.ndarray) -> None:
    """Draw the most likely path as a strip on the axes, with the numbers of the phases in it."""
    place = _style.above(ax, x=ax.transData)
    colors = _style.phase_colors(states)
    size = _small_text()
    height = _STRIP * size
    steps, at_checkpoints = _tables.checkpoints_of(path)
    for state, first, last in _tables.blocks(at_checkpoints):
        ends = steps[[first, min(last + 1, len(steps) - 1)]]
        ax.fill_between(
            ends, 0, height, transform=place, facecolor=colors[state], linewidth=0, clip_on=False
        )
        left, right = _style.along(ax, ends)
        if right - left > 1.5 * _style.text_points(str(state), size)[0]:
            ax.annotate(
                str(state),
                ((left + right) / 2 / _style.axes_points(ax)[0], height / 2),
                xycoords=_style.above(ax),
                ha="center",
                va="center_baseline",
                size=size,
                color=_style.ink_on(colors[state]),
                annotation_clip=False,
            )


def _draw_boundaries(ax: Axes, table: xr.Dataset) -> float:
    """Draw a run's boundaries; return how many points above the axes there is room again."""
    ends = table[["lower", "step", "upper"]].dropna("switch").to_array()
    ends = ends.transpose("switch", "variable")
    width = _style.axes_points(ax)[0]
    size = _small_text()
    taken: list[float] = []  # by row, the right end of what is in it
    placed = []
    for lower, step, upper in sorted(ends.values.tolist()):
        left, right = _style.along(ax, np.array([lower, upper]))
        room = _style.text_points(f"{step:,.0f}", size)[0] + 5
        label_right = right + room <= width
        left, right = (left, right + room) if label_right else (left - room, right)
        row = next((i for i, end in enumerate(taken) if left > end + 2), len(taken))
        taken[row : row + 1] = [right]
        placed.append((lower, step, upper, row, label_right))

    crowded = len(taken) > _MOST_ROWS
    for lower, step, upper, row, label_right in placed:
        line = 0.35 if crowded else 0.7
        ax.axvline(step, color=_style.INK, linewidth=line, linestyle=(0, (3, 2)), zorder=2)
        if not crowded:
            _draw_interval(ax, (lower, step, upper), row=row, label_right=label_right)
    if crowded:
        ax.annotate(
            f"{len(placed)} switches, too many for their intervals",
            (1, (_STRIP + 0.65) * size),
            xycoords=_style.above(ax),
            ha="right",
            va="center_baseline",
            size=size,
            annotation_clip=False,
        )
    return (_STRIP + 0.4 + _ROW * (1 if crowded else len(taken))) * size


def _draw_interval(
    ax: Axes, ends: tuple[float, float, float], *, row: int, label_right: bool
) -> None:
    """Draw an interval above the axes, its median as a dot and in figures at one end."""
    lower, step, upper = ends
    size = _small_text()
    place = _style.above(ax, x=ax.transData)
    height = (_STRIP + 0.65 + _ROW * row) * size
    marks: dict[str, Any] = {"transform": place, "color": _style.INK, "clip_on": False}
    ax.plot([lower, upper], 2 * [height], marker="|", markersize=4.5, linewidth=0.9, **marks)
    ax.plot([step], [height], marker="o", markersize=2.4, **marks)
    ax.annotate(
        f"{step:,.0f}",
        (upper if label_right else lower, height),
        xycoords=place,
        xytext=(3 if label_right else -3, 0),
        textcoords="offset points",
        ha="left" if label_right else "right",
        va="center_baseline",
        size=size,
        annotation_clip=False,
    )


def _small_text() -> float:
    """Return the size in points of the text above the axes."""
    return 0.85 * _style.font_points("xtick.labelsize")


def _handles(states: np.ndarray, curves: np.ndarray) -> list[Artist]:
    lines = [
        Line2D([], [], color=_style.INK, linestyle=line, label=str(name))
        for name, line in zip(curves, _LINES, strict=False)
    ]
    return [*lines, *_style.phase_patches(states)]
