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
    """Plot the columns of `state_counts` side by side, with their Monte Carlo errors.

    What is not known is a question mark, for a bar of no height would be a probability of 0.
    """
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
        known = np.isfinite(values)
        bars = made.vbar(
            x=x[known].tolist(),
            top=values[known].tolist(),
            width=width * 0.9,
            fill_color=color,
            line_color=None,
            hatch_pattern=pattern,
            hatch_color="white",
        )
        items.append((f"counts:legend:{b}", label, bars))
        unknown = made.text(
            x=x[~known].tolist(),
            y=[0.0] * int((~known).sum()),
            text=["?"] * int((~known).sum()),
            text_align="center",
            text_baseline="bottom",
            text_font_size="12px",
        )
        _plot.ink(unknown.glyph, "text_color")
        if error is not None:
            errors = table[error].transpose(..., "n_states").values.reshape(-1)
            low, high = np.clip([values - errors, values + errors], 0, 1)
            at = {"x0": x, "x1": x, "y0": low, "y1": high}
            sure = known & np.isfinite(errors)
            columns = {name: ends[sure].tolist() for name, ends in at.items()}
            whiskers = made.segment(**columns, line_width=2)
            _plot.ink(whiskers.glyph, "line_color")
    _plot.legend(made, items)
    return made
