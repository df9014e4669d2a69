"""When runs in progress converge and enter the phases to come."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from bayesphase.plots import _rows, _style
from bayesphase.reporting.figures import _plot
from bayesphase.reporting.gather import Analysis

_ROW = 26  # pixels for a median with its interval
_LONGEST = 16  # letters of a name beside its row
_SPREAD = 0.8  # of a row that its intervals take
_ROOM = 0.14  # of the axis that is left free for probabilities, left of all rows


class _Kind(NamedTuple):
    """Something that may come in a run: quantiles (quantile, run), and how probable it is (run)."""

    label: str
    marker: str
    quantiles: np.ndarray
    probability: np.ndarray | None
    color: str | None


def forecasts(analysis: Analysis) -> Any:
    """Plot a row for each run with all that is to come in it; what is past is left out."""
    from bokeh.models import FixedTicker, NumeralTickFormatter

    table = analysis.forecasts
    assert table is not None
    kinds = _kinds(table)
    runs, now = [str(run) for run in table["run"].values], table["now"].values.astype(float)
    ends = [kind.quantiles[np.isfinite(kind.quantiles)] for kind in kinds]
    # intervals may be very long: as far as states are forecast
    far = now.max() + float(table["ahead"][-1])
    start, end = _plot.span(np.minimum(np.concatenate([now, *ends]), far))
    start -= _ROOM * (end - start)
    made = _plot.plot(
        "forecasts",
        height=_ROW * len(runs) * max(len(kinds), 1) + 130,
        x_range=(start, end),
        y_range=(len(runs) - 0.4, -0.6),
        x_axis_label=_style.STEP_LABEL,
    )
    made.xaxis.formatter = NumeralTickFormatter(format="0,0")
    made.xaxis.ticker.desired_num_ticks = 5
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
    for kind, height in zip(kinds, heights, strict=True):
        points = _draw(made, kind, now, rows + height, end)
        items.append((f"forecasts:item:{kind.label}", kind.label, points))
    _plot.legend(made, items)
    return made


def _draw(made: Any, kind: _Kind, now: np.ndarray, rows: np.ndarray, end: float) -> Any:
    """Draw medians, both intervals and probabilities of one kind; return the medians."""
    to_come = kind.quantiles[-1] > now  # not so where it is NaN
    quantiles, y = np.minimum(kind.quantiles[:, to_come], end), rows[to_come]
    middle = kind.quantiles[len(quantiles) // 2, to_come]
    for depth, width in zip(range(len(quantiles) // 2), (2.5, 6.0), strict=False):
        at = {"x0": quantiles[depth], "x1": quantiles[-1 - depth], "y0": y, "y1": y}
        columns = {name: values.tolist() for name, values in at.items()}
        if kind.color is None:  # pale, so that the marker is seen on it
            whiskers = made.segment(**columns, line_width=width, line_alpha=0.4)
            _plot.ink(whiskers.glyph, "line_color")
        else:
            edge = made.segment(**columns, line_width=width + 1.5)  # light colours need one
            _plot.ink(edge.glyph, "line_color")
            made.segment(**columns, line_width=width, line_color=kind.color)
    probability = np.ones(len(y)) if kind.probability is None else kind.probability[to_come]
    seen = middle <= end
    points = made.scatter(
        "x",
        "y",
        source=_plot.source(
            "forecasts:medians",
            x=middle[seen].tolist(),
            y=y[seen].tolist(),
            fill=np.where(probability[seen] >= _rows.LIKELY, 1.0, 0.0).tolist(),
        ),
        marker=kind.marker,
        fill_alpha="fill",
        size=12,
        line_width=1.2,
    )
    _plot.ink(points.glyph, "line_color")
    if kind.color is None:
        _plot.ink(points.glyph, "line_color", "fill_color")
        return points
    points.glyph.fill_color = kind.color
    beside = made.text(
        x=now[to_come].tolist(),
        y=y.tolist(),
        text=[f"p = {p:.2f}" for p in probability],
        x_offset=-4,
        text_align="right",
        text_baseline="middle",
        text_font_size="12px",
    )
    _plot.ink(beside.glyph, "text_color")
    return points


def _kinds(table: xr.Dataset) -> list[_Kind]:
    """Return what is to come in any run, convergence first."""
    found: list[_Kind] = []
    if "converged_step" in table:
        values = table["converged_step"].transpose("quantile", "run").values
        found.append(_Kind("converged", "star", values, None, None))
    entry = table["entry_step"].transpose("state", "quantile", "run").values
    probability = table["entry_probability"].transpose("state", "run").values
    for (state, color), values, of_phase in zip(
        _style.phase_colors(table["state"].values).items(), entry, probability, strict=True
    ):
        found.append(_Kind(f"phase {state}", _plot.marker(state), values, of_phase, color))
    return [kind for kind in found if (kind.quantiles[-1] > table["now"].values).any()]
