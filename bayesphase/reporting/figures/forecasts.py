"""When runs in progress converge and enter the phases to come."""

from typing import Any

import numpy as np
import xarray as xr

from bayesphase.plots import _style
from bayesphase.reporting.figures import _plot
from bayesphase.reporting.gather import Analysis

_ROW = 22  # pixels for a median with its interval
_LONGEST = 16  # letters of a name beside its row
_SPREAD = 0.8  # of a row that its intervals take


def forecasts(analysis: Analysis) -> Any:
    """Plot a row for each run with all that is to come in it; what is past is left out."""
    from bokeh.models import FixedTicker, NumeralTickFormatter

    table = analysis.forecasts
    assert table is not None
    kinds = _kinds(table)
    runs, now = [str(run) for run in table["run"].values], table["now"].values.astype(float)
    steps = np.concatenate([now, *(ends[np.isfinite(ends)] for _, _, ends, _ in kinds)])
    # intervals may be very long: as far as states are forecast
    start, end = _plot.span(np.minimum(steps, now.max() + float(table["ahead"][-1])))
    made = _plot.plot(
        "forecasts",
        height=_ROW * len(runs) * max(len(kinds), 1) + 120,
        x_range=(start, end),
        y_range=(len(runs) - 0.4, -0.6),
        x_axis_label=_style.STEP_LABEL,
    )
    made.xaxis.formatter = NumeralTickFormatter(format="0,0")
    made.yaxis.ticker = FixedTicker(ticks=list(range(len(runs))))
    made.yaxis.major_label_overrides = {
        i: _plot.plain(run, longest=_LONGEST) for i, run in enumerate(runs)
    }
    made.ygrid.grid_line_color = None
    rows = np.arange(len(runs))
    at = {"x0": now, "x1": now, "y0": rows - _SPREAD / 2, "y1": rows + _SPREAD / 2}
    marks = made.segment(**{name: ends.tolist() for name, ends in at.items()}, line_dash=[4, 3])
    _plot.ink(marks.glyph, "line_color")
    items = [("forecasts:item:now", "now", marks)]
    heights = _SPREAD * ((np.arange(len(kinds)) + 0.5) / max(len(kinds), 1) - 0.5)
    for (label, marker, ends, color), height in zip(kinds, heights, strict=True):
        to_come = ends[-1] > now  # not so where it is NaN
        low, middle, high = ends[:, to_come]
        y = rows[to_come] + height
        at = {"x0": np.minimum(low, end), "x1": np.minimum(high, end), "y0": y, "y1": y}
        whiskers = made.segment(**{k: v.tolist() for k, v in at.items()}, line_width=2)
        seen = middle <= end
        points = made.scatter(
            x=middle[seen].tolist(), y=y[seen].tolist(), marker=marker, size=10, line_width=0.8
        )
        if color is None:
            _plot.ink(whiskers.glyph, "line_color")
            _plot.ink(points.glyph, "line_color", "fill_color")
        else:
            whiskers.glyph.line_color = points.glyph.fill_color = color
            _plot.ink(points.glyph, "line_color")
        items.append((f"forecasts:item:{label}", label, points))
    _plot.legend(made, items)
    return made


def _kinds(table: xr.Dataset) -> list[tuple[str, str, np.ndarray, str | None]]:
    """Return label, marker, quantiles (quantile, run) and colour of what is to come in any run."""
    found: list[tuple[str, str, np.ndarray, str | None]] = []
    if "converged_step" in table:
        values = table["converged_step"].transpose("quantile", "run").values
        found.append(("converged", "star", values, None))
    entry = table["entry_step"].transpose("state", "quantile", "run").values
    for (state, color), values in zip(
        _style.phase_colors(table["state"].values).items(), entry, strict=True
    ):
        found.append((f"phase {state}", _plot.marker(state), values, color))
    return [kind for kind in found if (kind[2][-1] > table["now"].values).any()]
