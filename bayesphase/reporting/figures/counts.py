"""The numbers of phases that are probable, by each of the questions that one can ask."""

from typing import Any

import numpy as np

from bayesphase.reporting.figures import _plot
from bayesphase.reporting.gather import Analysis

# (variable, its error, label, colour, pattern)
_BARS = (
    ("probability", "mcse", "probability", "#0072b2", " "),
    ("probability_wider", "mcse_wider", "under wider priors", "#e69f00", "/"),
    ("visited_probability", None, "visited", "#999999", "."),
)
_WIDEST = 720  # pixels: three bars need no more
_LONGEST = 16  # letters of the name of a variant
_GROUP = 0.8  # of the distance between two numbers that their bars take


def counts(analysis: Analysis) -> Any:
    """Plot the columns of `state_counts` side by side, with their Monte Carlo errors."""
    from bokeh.models import FixedTicker

    table = analysis.counts.table
    variants = table["variant"].values.tolist() if "variant" in table.dims else [""]
    rows = [(v, k) for v in range(len(variants)) for k in range(table.sizes["n_states"])]
    labels = [f"{variants[v]} {int(table['n_states'][k])}".strip() for v, k in rows]
    made = _plot.plot(
        "counts",
        height=260,
        max_width=_WIDEST,
        x_range=(-0.6, len(rows) - 0.4),
        y_range=(0, 1.04),
        x_axis_label="number of phases",
        y_axis_label="probability",
    )
    made.xaxis.ticker = FixedTicker(ticks=list(range(len(rows))))
    made.xaxis.major_label_overrides = {
        i: _plot.plain(label, longest=_LONGEST) for i, label in enumerate(labels)
    }
    width, items = _GROUP / len(_BARS), []
    for b, (name, error, label, color, pattern) in enumerate(_BARS):
        x = np.arange(len(rows)) + (b - (len(_BARS) - 1) / 2) * width
        values = table[name].transpose(..., "n_states").values.reshape(-1)
        bars = made.vbar(
            x=x.tolist(),
            top=np.nan_to_num(values).tolist(),
            width=width * 0.9,
            fill_color=color,
            line_color=None,
            hatch_pattern=pattern,
            hatch_color="white",
        )
        items.append((f"counts:legend:{b}", label, bars))
        if error is not None:
            errors = np.nan_to_num(table[error].transpose(..., "n_states").values.reshape(-1))
            low, high = np.clip([values - errors, values + errors], 0, 1)
            at = {"x0": x, "x1": x, "y0": low, "y1": high}
            columns = {name: ends.tolist() for name, ends in at.items()}
            whiskers = made.segment(**columns, line_width=2)
            _plot.ink(whiskers.glyph, "line_color")
    _plot.legend(made, items)
    return made
