"""All runs at one glance: a small panel for each."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from bayesphase.analysis.phases import boundaries, most_likely_path, phase_probabilities
from bayesphase.plots import _curves, _rows, _style, _tables

_STRIP = 4.0  # points
_CROWDED = 20  # runs from which panels are smallest


def plot_overview(
    fit: xr.DataTree,
    *,
    loss: xr.DataArray | xr.Dataset | None = None,
    run: str | Sequence[str] | None = None,
    ci_prob: float = 0.9,
    xscale: str = "linear",
    ax: Sequence[Axes] | np.ndarray | None = None,
) -> np.ndarray:
    """Draw a small panel for each of many runs: its loss by phase, and when each phase begins.

    All panels have the same scales. The curve has the colour of the most likely phase, and the
    strip on top shows the probabilities of the phases, stacked up to 1. A vertical line is the
    median first step of a phase that the run probably visits, the band behind it the interval.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    loss : DataArray, or Dataset of one variable, optional
        Dims (run, step). By default the first feature of the fit.
    run : str or sequence of str, optional
        The runs to draw, in this order; all by default.
    ci_prob : float, default 0.9
        Probability of the intervals.
    xscale : {"linear", "log"}
        Scale of the steps. With "log", step 0 sits at the end of a short linear piece.
    ax : array of Axes, optional
        One for each run that is drawn.

    Returns
    -------
    ndarray of Axes
        Dims (run).

    Raises
    ------
    TypeError
        If `fit` is no fit, or `loss` neither DataArray nor Dataset.
    ValueError
        If a run is unknown, `loss` has other dims or several variables, `xscale` is another, or the
        number of axes is not that of the runs.

    Examples
    --------
    >>> order = bp.boundaries(fit)["first_step"].isel(state=-1).argsort()  # doctest: +SKIP
    >>> runs = order["run"].values[order]  # doctest: +SKIP
    >>> bp.plot_overview(fit, loss=metrics["eval_loss"], run=runs)  # doctest: +SKIP
    """
    path, probability = most_likely_path(fit), phase_probabilities(fit)
    table = boundaries(fit, ci_prob=ci_prob)
    if loss is None:
        curves = _curves.first_features(fit).isel(curve=[0])
        curves.attrs["label"] = str(curves["curve"].values[0])
    else:
        curves = _curves.loss_curves(loss, most=1)
    runs = _tables.choose("run", run, path["run"])
    _tables.choose("run", runs, curves["run"])
    _style.require_scale(xscale)
    curves = curves.sel(run=runs)
    given = None if ax is None else np.asarray(ax, dtype=object).ravel()
    if given is not None and len(given) != len(runs):
        raise ValueError(f"ax holds {len(given)} axes, expected one for each run of {runs}")
    states = probability["state"].values
    with _style.style() if given is None else _style.as_it_is():
        panels = _new_panels(len(runs)) if given is None else given
        is_log = _curves.span_decades(curves)
        limits = _limits(curves.values, is_log=is_log)
        for panel, name in zip(panels, runs, strict=True):
            _style.scale_steps(panel, probability["step"].values, xscale)
            panel.set_yscale("log" if is_log else "linear")
            panel.set_ylim(limits)
            # the same for all, and much quicker than to share axes
            panel.set_autoscale_on(False)
            panel.set_ylabel(curves.attrs["label"])
            one = {"run": name}
            _draw_boundaries(panel, table.sel(one))
            _draw_curve(panel, curves.isel(curve=0).sel(one), path.sel(one), states)
            _draw_strip(panel, probability.sel(one))
            panel.text(
                0,
                _STRIP + 1.5,
                str(name),
                transform=_style.above(panel),
                size=_style.font_points("xtick.labelsize"),
            )
        if given is None:
            _share_labels(panels)
            _style.legend_on_top(panels[0].figure, _style.phase_patches(states))
        else:
            _style.legend_above(panels[0], _style.phase_patches(states), points=_STRIP + 12)
    return panels


def _new_panels(n_runs: int) -> np.ndarray:
    crowded = n_runs > _CROWDED
    return _style.new_panels(
        n_runs,
        height=0.85 if crowded else 1.1,
        narrowest=0.85 if crowded else 1.6,
        most=6,
    )


def _limits(values: np.ndarray, *, is_log: bool) -> tuple[float, float]:
    """Return the ends of an axis that holds all values, with a margin."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    ends = np.array([known.min(), known.max()])
    ends = np.log(ends) if is_log else ends
    ends += (0.06 * (ends[1] - ends[0]) or 0.5) * np.array([-1, 1])
    low, high = np.exp(ends) if is_log else ends
    return float(low), float(high)


def _share_labels(panels: np.ndarray) -> None:
    """Write labels of axes once for the figure: small panels have no room for them."""
    figure = panels[0].figure
    figure.supxlabel(panels[0].get_xlabel(), size=mpl.rcParams["axes.labelsize"])
    figure.supylabel(panels[0].get_ylabel(), size=mpl.rcParams["axes.labelsize"])
    _style.label_outer(panels)
    for panel in panels:
        panel.set_xlabel("")
        panel.set_ylabel("")
        if panel.get_xscale() == "linear":
            panel.locator_params(axis="x", nbins=3)
        panel.tick_params(labelsize=0.9 * _style.font_points("xtick.labelsize"), pad=1.5)


def _draw_boundaries(ax: Axes, table: xr.Dataset) -> None:
    start = ax.get_xlim()[0]
    for state in range(table.sizes["state"]):
        phase = table.isel(state=state)
        if not float(phase["visited"]) >= _rows.LIKELY or float(phase["first_step"]) <= start:
            continue
        ax.axvspan(
            float(phase["lower"]), float(phase["upper"]), color="#dcdcdc", linewidth=0, zorder=0
        )
        ax.axvline(float(phase["first_step"]), color=_style.INK, linewidth=0.6, zorder=1)


def _draw_curve(ax: Axes, values: xr.DataArray, path: xr.DataArray, states: np.ndarray) -> None:
    colors = _style.phase_colors(states) | {-1: _style.FAINT}
    known = np.isfinite(values.values)
    steps, heights = values["step"].values[known], values.values[known]
    for state, first, last in _tables.blocks(_tables.held_states(path, steps)):
        piece = slice(first, last + 2)  # on to the first point of the next: no gaps
        ax.plot(
            steps[piece],
            heights[piece],
            color=colors[state],
            linewidth=1.2,
            path_effects=_style.outline(1.2),
            zorder=3,
        )


def _draw_strip(ax: Axes, probability: xr.DataArray) -> None:
    known = probability.dropna("step", how="all")
    tops = _STRIP * known.transpose("state", "step").values.cumsum(axis=0)
    floors = np.vstack([np.zeros_like(tops[:1]), tops[:-1]])
    colors = _style.phase_colors(known["state"].values).values()
    for floor, top, color in zip(floors, tops, colors, strict=True):
        ax.fill_between(
            known["step"].values,
            floor,
            top,
            step="post",
            transform=_style.above(ax, x=ax.transData),
            facecolor=color,
            linewidth=0,
            clip_on=False,
        )
