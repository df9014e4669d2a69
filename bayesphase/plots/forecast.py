"""Where a run that is still training is going: its metric, its phases and its convergence."""

import re
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bayesphase.analysis.forecast_intervals import forecast_intervals
from bayesphase.plots import _rows, _style, _tables

_ROW = 2.3  # of its text that an interval with its text is high
_BAND, _INNER = "#c9c9c9", "#8f8f8f"  # of the 90% and the 50% interval
_MARGIN = 0.02  # of the steps that are drawn


def plot_forecast(
    table: xr.Dataset,
    *,
    metric: str | None = None,
    history: xr.DataArray | xr.Dataset | None = None,
    run: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a forecast: a metric as a fan, and above it when phases and convergence are to come.

    The line up to now is what was recorded, the one from there on the median of the forecast, in
    the middle of its 50% and 90% intervals. Behind them stand the probabilities of the phases to
    come, stacked up to 1. Above are the step of convergence and of the first entry into each phase
    that is still to come: median, 50% (thick) and 90% intervals. Beside a phase stands the
    probability that it is entered at all, and its marker is hollow where that is below 0.5; its
    steps are those of the samples in which it is.

    Parameters
    ----------
    table : Dataset
        What `bayesphase.forecast` returns.
    metric : str, optional
        A metric of the forecast or one of its features; by default the one that convergence is told
        by, or else the first feature.
    history : DataArray or Dataset, optional
        Dims (run, step): the metric as recorded, or a Dataset that has it, or features, whose own
        scale is undone; what comes after now is not drawn.
    run : str, optional
        By default the first.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        If `table` is no forecast.
    ValueError
        If there is no such metric or run.

    Examples
    --------
    >>> ahead = bp.forecast(fit, features, metrics=metrics, random_seed=1)  # doctest: +SKIP
    >>> bp.plot_forecast(ahead, metric="eval_loss", history=metrics)  # doctest: +SKIP
    """
    intervals = forecast_intervals(table, ci_prob=(0.5, 0.9))
    name = _tables.choose("run", None if run is None else [run], table["run"])[0]
    label, fan = _fan(intervals, metric)
    fan, one = fan.sel(run=name), intervals.sel(run=name)
    recorded = _recorded(history, label, name, float(one["now"]))
    rows = _to_come(one)
    with _style.drawing_on(ax, height=2.9) as drawn:
        _draw_phases(drawn, one)
        _draw_fan(drawn, fan, recorded, float(one["now"]))
        _limit(drawn, one, recorded, rows)
        units = fan.attrs.get("units", "1")
        units = "" if units in ("1", "mixed") else f" ({units})"
        drawn.set_ylabel(label.replace("_", " ") + units)
        _style.settle(drawn)
        top = _draw_times(drawn, one, rows)
        handles = _handles(one, has_history=recorded is not None)
        _style.legend_above(drawn, handles, points=top)
    return drawn


def _fan(intervals: xr.Dataset, metric: str | None) -> tuple[str, xr.DataArray]:
    """Return what is drawn, dims (quantile, run, ahead), and its name."""
    metrics = metrics_of(intervals)
    features = intervals["feature"].values.tolist()
    if metric is None:
        metric = metrics[0] if told_by(intervals) in metrics else features[0]
    if metric in metrics:
        return metric, intervals[metric]
    if metric in features:
        return metric, intervals["features"].sel(feature=metric)
    raise ValueError(
        f"there is no metric {metric!r} in the forecast; it has the metrics {metrics} and the "
        f"features {features}"
    )


def metrics_of(intervals: xr.Dataset) -> list[str]:
    """Name the metrics that are forecast, first of all the one that convergence is told by."""
    names = [str(n) for n, v in intervals.items() if v.dims == ("quantile", "run", "ahead")]
    return sorted(names, key=lambda name: name != told_by(intervals))


def told_by(intervals: xr.Dataset) -> str | None:
    """Name the metric that convergence is told by, if it is."""
    return next(iter(re.findall(r"\w+", intervals.attrs.get("converged", ""))), None)


def _recorded(
    history: xr.DataArray | xr.Dataset | None, label: str, run: str, now: float
) -> xr.DataArray | None:
    if history is None:
        return None
    if isinstance(history, xr.Dataset):
        if label not in history:
            raise ValueError(f"history has no {label!r}, only {list(history)}")
        history = history[label]
    if not isinstance(history, xr.DataArray):
        raise TypeError(f"history must be a DataArray or a Dataset, got {type(history).__name__}")
    if "feature" in history.dims:
        _tables.choose("feature", [label], history["feature"])
        history = history.sel(feature=label)
        if "feature_scale" in history.coords:  # the forecast is in units of the metrics
            history = history * history["feature_scale"] + history["feature_location"]
    _tables.require_dims(history, ("run", "step"), name="history")
    _tables.choose("run", [run], history["run"])
    past = history.sel(run=run)
    return past.sel(step=past["step"] <= now).dropna("step")


class _Row(NamedTuple):
    """What is to come: convergence, of no phase, or the first entry into a phase."""

    label: str
    state: int | None
    quantiles: np.ndarray
    probability: float


def _to_come(one: xr.Dataset) -> list[_Row]:
    """Return what is to come, convergence first."""
    now, found = float(one["now"]), []
    if "converged_step" in one:  # which is taken to come
        found.append(_Row("converged", None, one["converged_step"].values, 1.0))
    for state in one["state"].values.tolist():
        probability = float(one["entry_probability"].sel(state=state))
        label = f"phase {state} (p = {probability:.2f})"
        found.append(_Row(label, state, one["entry_step"].sel(state=state).values, probability))
    # what lies in the past in all of the samples is no forecast
    return [row for row in found if row.quantiles[-1] > now]


def _limit(
    ax: Axes,
    one: xr.Dataset,
    recorded: xr.DataArray | None,
    rows: list[_Row],
) -> None:
    """Draw the steps from the first recorded one as far as is forecast."""
    now = float(one["now"])
    first = now if recorded is None or not recorded.size else float(recorded["step"][0])
    last = now + float(one["ahead"][-1])
    # as far as there is something to see: the intervals, if they end before the fan does
    ends = [row.quantiles[-1] for row in rows if np.isfinite(row.quantiles[-1])]
    if ends and max(ends) < last:
        last = max(ends)
    _style.scale_steps(ax, np.array([first, last]), "linear")
    margin = _MARGIN * (last - first)
    ax.set_xlim(first - margin, last + margin)


def _draw_phases(ax: Axes, one: xr.Dataset) -> None:
    steps = np.append(float(one["now"]), float(one["now"]) + one["ahead"].values)
    share = one["state_probability"].transpose("state", "ahead").values
    tops = np.hstack([share[:, :1], share]).cumsum(axis=0)
    lows = np.vstack([np.zeros_like(tops[:1]), tops[:-1]])
    colors = _style.phase_colors(one["state"].values).values()
    for low, top, color in zip(lows, tops, colors, strict=True):
        ax.fill_between(
            steps,
            low,
            top,
            transform=ax.get_xaxis_transform(),
            facecolor=color,
            alpha=0.2,
            linewidth=0,
            zorder=0,
        )


def _draw_fan(ax: Axes, fan: xr.DataArray, recorded: xr.DataArray | None, now: float) -> None:
    steps = now + fan["ahead"].values
    values = fan.transpose("quantile", "ahead").values
    if recorded is not None and recorded.size:
        ax.plot(recorded["step"].values, recorded.values, color=_style.INK, zorder=4)
        # from where the run is now
        steps = np.append(now, steps)
        values = np.column_stack([np.full(len(values), float(recorded[-1])), values])
    known = np.empty(0) if recorded is None else recorded.values
    low, high = _span(np.concatenate([known, values[2]]), values)
    is_share = str(fan.name).endswith("accuracy")
    if is_log := not is_share and low > 0 and np.log10(high / low) >= 2:
        ax.set_yscale("log")
    margin = 1.1 if is_log else 0.05 * (high - low)
    ax.set_ylim(*((low / margin, high * margin) if is_log else (low - margin, high + margin)))
    # what is infinite ends at the edge
    drawn = np.clip(values, *ax.get_ylim())
    ax.fill_between(steps, drawn[0], drawn[-1], color=_BAND, alpha=0.75, linewidth=0, zorder=1)
    ax.fill_between(steps, drawn[1], drawn[-2], color=_INNER, alpha=0.75, linewidth=0, zorder=2)
    ax.plot(steps, drawn[2], color=_style.INK, linestyle=(0, (4, 1.5)), zorder=4)
    ax.axvline(now, color=_style.INK, linewidth=0.8, zorder=3)


def _span(core: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Return the limits of what is drawn: all of the core, and of the rest not much beyond it."""
    core, values = core[np.isfinite(core)], values[np.isfinite(values)]
    if not core.size:
        return 0.0, 1.0
    low, high = core.min(), core.max()
    if low > 0 and values.min() > 0 and np.log10(high / low) >= 1:  # on a log scale all has room
        return float(min(low, values.min())), float(max(high, values.max()))
    room = (high - low) or abs(high) or 1.0
    room /= 2.0
    low, high = max(low - room, min(low, values.min())), min(high + room, max(high, values.max()))
    return float(low), float(high) if high > low else float(low + room)


def _draw_times(ax: Axes, one: xr.Dataset, rows: list[_Row]) -> float:
    """Draw intervals above the axes; return how many points above them there is room again."""
    size = 0.85 * _style.font_points("xtick.labelsize")
    place = _style.above(ax, x=ax.transData)
    colors = _style.phase_colors(one["state"].values)
    left, right = ax.get_xlim()
    for row, (label, state, quantiles, probability) in enumerate(reversed(rows)):
        height = (0.8 + _ROW * row) * size
        color = _style.INK if state is None else colors[state]
        # a star is not seen on a line of its own colour
        of_line = _INNER if state is None else color
        low, lower, middle, upper, high = np.clip(quantiles, left, right)
        line: dict[str, Any] = {"transform": place, "clip_on": False, "color": of_line, "zorder": 5}
        ax.plot([low, high], 2 * [height], linewidth=1.0, **line)
        ax.plot([lower, upper], 2 * [height], linewidth=3.0, **line)
        beyond = quantiles[-1] > right
        ax.plot([high], [height], marker=">" if beyond else "|", markersize=4, **line)
        ax.plot([low], [height], marker="|", markersize=4, **line)
        if quantiles[2] <= right:
            ax.plot(
                [middle],
                [height],
                marker="*" if state is None else _style.phase_marker(state),
                markersize=7 if state is None else 4.5,
                markerfacecolor=color if (likely := probability >= _rows.LIKELY) else "white",
                markeredgecolor="white" if likely else color,
                markeredgewidth=0.6 if likely else 1.0,
                **{**line, "color": color},
            )
        numbers = [_number(step) for step in (quantiles[2], quantiles[0], quantiles[-1])]
        text = "{}: {} [{}, {}]".format(label, *numbers)
        ax.annotate(
            text,
            (0, height + 0.5 * size),
            xycoords=_style.above(ax),
            va="baseline",
            size=size,
            annotation_clip=False,
        )
    return (0.6 + _ROW * len(rows)) * size


def _number(step: float) -> str:
    return f"{step:,.0f}" if np.isfinite(step) else "∞"


def _handles(one: xr.Dataset, *, has_history: bool) -> list[Artist]:
    lines = [Line2D([], [], color=_style.INK, label="recorded")] if has_history else []
    to_come = Line2D([], [], color=_style.INK, linestyle=(0, (4, 1.5)), label="median")
    bands = [Patch(facecolor=_INNER, label="50%"), Patch(facecolor=_BAND, label="90%")]
    return [*lines, to_come, *bands, *_style.phase_patches(one["state"].values, alpha=0.2)]
