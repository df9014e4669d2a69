"""The metric that convergence is told by, as recorded and as forecast, of each run in progress."""

from typing import Any

import numpy as np
import xarray as xr

from bayesphase.plots import _curves, _style
from bayesphase.plots.forecast import metrics_of
from bayesphase.reporting.figures import _plot
from bayesphase.reporting.gather import Analysis

MOST = 6  # runs that are drawn
_POINTS = 200  # of a curve: more can't be told apart in a small figure
_BANDS = (0.25, 0.35)  # how dark the outer and the inner interval are


def metric_of(analysis: Analysis) -> str | None:
    """Name the metric that is drawn, if there is any."""
    names = [] if analysis.forecasts is None else metrics_of(analysis.forecasts)
    return names[0] if names else None


def fans(analysis: Analysis) -> dict[str, Any]:
    """Plot a fan for each of the first runs in progress, by the name of its place."""
    name, table = metric_of(analysis), analysis.forecasts
    if table is None or name is None:
        return {}
    some = table.isel(run=slice(MOST))
    past = [_recorded(analysis, name, table["run"].values[r]) for r in range(some.sizes["run"])]
    fan = some[name].transpose("run", "quantile", "ahead")
    fan = fan.isel(ahead=slice(_n_ahead(some)))
    log = _curves.span_decades(fan)
    values = np.concatenate([fan.values.ravel(), *(curve.values for curve in past)])
    y_range = _plot.span(values, log=log)  # one for all, to compare them
    return {
        f"fan-{r}": _fan(f"fan-{r}", fan[r], curve, y_range=y_range, log=log)
        for r, curve in enumerate(past)
    }


def _n_ahead(table: xr.Dataset) -> int:
    """Say how far ahead there is something to see: up to the last of the times to come."""
    times = [table[name] for name in ("converged_step", "entry_step") if name in table]
    last = max(float((time - table["now"]).max()) for time in times)  # NaN is left out
    return max(2, int((table["ahead"] <= last).sum()))


def _recorded(analysis: Analysis, name: str, run: Any) -> xr.DataArray:
    """Return what is known of a metric of a run up to now, dims (step)."""
    metrics, now = analysis.metrics, float(analysis.forecasts["now"].sel(run=run))  # type: ignore[index]
    if metrics is None or name not in metrics or run not in metrics["run"].values:
        return xr.DataArray(np.empty(0), dims="step", coords={"step": np.empty(0)})
    curve = metrics[name].sel(run=run).dropna("step")
    return curve.sel(step=curve["step"] <= now)


def _fan(name: str, fan: xr.DataArray, past: xr.DataArray, *, y_range: Any, log: bool) -> Any:
    from bokeh.models import NumeralTickFormatter

    now = float(fan["now"])
    every = max(1, fan.sizes["ahead"] // _POINTS)
    steps, values = now + fan["ahead"].values[::every], fan.values[:, ::every]
    if past.size:  # from where the run is now
        steps = np.append(now, steps)
        values = np.column_stack([np.full(len(values), float(past[-1])), values])
    made = _plot.plot(
        name,
        height=230,
        x_range=_plot.span(np.append(past["step"].values, steps)),
        y_range=y_range,
        y_axis_type="log" if log else "linear",
        x_axis_label=_style.STEP_LABEL,
        y_axis_label=_plot.plain(str(fan.name).replace("_", " "), longest=24),
    )
    made.xaxis.formatter = NumeralTickFormatter(format="0,0")
    made.xaxis.ticker.desired_num_ticks = 4
    drawn = np.clip(values, *y_range)  # what is infinite ends at the edge
    for depth, alpha in zip(range(len(values) // 2), _BANDS, strict=False):
        band = made.varea(
            x=steps.tolist(),
            y1=drawn[depth].tolist(),
            y2=drawn[-1 - depth].tolist(),
            fill_alpha=alpha,
        )
        _plot.ink(band.glyph, "fill_color")
    middle = made.line(steps.tolist(), drawn[len(values) // 2].tolist(), line_dash=[6, 3])
    middle.glyph.line_width = 2
    _plot.ink(middle.glyph, "line_color")
    thinned = past[:: max(1, past.size // _POINTS)]
    known = made.line(thinned["step"].values.tolist(), thinned.values.tolist(), line_width=2)
    _plot.ink(known.glyph, "line_color")
    mark = made.vspan(x=[now], line_width=1)
    _plot.ink(mark.glyph, "line_color")
    return made
