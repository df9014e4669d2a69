"""What a report says in words: of numbers, of one run, of a kind of model."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bayesphase.reporting.gather import Analysis, FitTables

# what a phase is, by the emission of the fit
PHASES_ARE = {
    "quadratic_drift": "a law of motion: how fast each feature drifts, depending on where it is, "
    "and how noisily",
    "random_walk": "a drift of each feature and its noise, wherever the feature is",
    "autoregressive": "a level of each feature, the rate at which it goes back, and its noise",
    "gaussian": "a mean and a standard deviation of each feature",
    "student_t": "a centre and a scale of each feature, with heavy tails",
    "full_gaussian": "a mean of each feature, and how all of them vary together",
}
TRANSITIONS_ARE = {
    "sticky": "from any phase to any other, with a prior that phases last",
    "left_to_right": "from a phase to the next only, never back",
    "continuous_time": "at rates per optimiser step, so that longer gaps make switches likelier",
    "sticky_hdp": "from any phase to any other, with a prior that leaves unneeded phases unvisited",
}


def number(value: Any) -> str:
    """Write a number as a reader wants it: whole ones in full, others with four digits.

    Missing values are an empty text.
    """
    value = float(value)
    if np.isnan(value):
        return ""
    if np.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value.is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    if abs(value) >= 1000:
        return f"{value:,.1f}" if abs(value) < 1e7 else f"{value:.3e}"
    return f"{value:.4g}"


def probability(value: Any) -> str:
    """Write a probability with two decimals, and more where two would say certain or never."""
    value = float(value)
    if np.isnan(value):
        return ""
    if 0 < value < 0.01:
        return "< 0.01"
    return "> 0.99" if 0.99 < value < 1 else f"{value:.2f}"


def interval(lower: Any, upper: Any) -> str:
    """Write the two ends of an interval; an empty text where there is none."""
    return "" if np.isnan(float(lower)) else f"{number(lower)} to {number(upper)}"


def counted(count: int, noun: str) -> str:
    """Write a number of things, such as "1 run" or "8 runs"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def range_of(values: Iterable[Any]) -> str:
    """Write the smallest and the largest of some numbers, or the one that they all are."""
    values = [float(value) for value in values]
    low, high = min(values), max(values)
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def spaced(name: Any) -> str:
    """Write the name of a variable as words."""
    return str(name).replace("_", " ")


def listed(words: Iterable[Any]) -> str:
    """Write a list as "a, b and c"."""
    *others, last = [str(word) for word in words]
    return f"{', '.join(others)} and {last}" if others else last


def lead(analysis: "Analysis") -> str:
    """Say what there is, which fit is shown first, and why."""
    features, shown = analysis.features, analysis.fits[analysis.shown]
    checkpoints = features.notnull().any("feature").sum("step").values
    said = (
        f"{counted(len(checkpoints), 'training run')} of {range_of(checkpoints)} checkpoints, each "
        f"with {counted(features.sizes['feature'], 'feature')}, fitted with "
        f"{listed(tables.title for tables in analysis.fits)}."
    )
    believable = [t for t in analysis.fits if believed(t)]
    if not believable:
        return f"{said} No fit can be trusted yet: read on for why."
    if len(analysis.fits) == 1:
        return f"{said} The draws can be taken for the posterior of this model."
    rest = "the last of those" if analysis.counts.table is None else "the most probable of those"
    which = "the only one" if len(believable) == 1 else rest
    return f"{said} Shown first is the fit with {shown.title}, {which} that can be believed."


def believed(tables: "FitTables") -> bool:
    """Tell whether a fit is known to be believable."""
    table = tables.diagnosis.table
    return table is not None and bool(table.attrs["believable"])


def describe_run(tables: "FitTables", run: int) -> str:
    """Say which phases a run goes through, and when it changes: what its figures show."""
    path = tables.path.values[run]
    name = str(tables.path["run"].values[run])
    if not (path >= 0).any():
        return f"{name} has no checkpoints."
    first = int(path[path >= 0][0])
    table = tables.switches.isel(run=run).dropna("switch", subset=["step"])
    if not table.sizes["switch"]:
        return f"{name} stays in phase {first} and never changes."
    changes = [
        f"to phase {int(table['state_to'][i])} at step {number(table['step'][i])} "
        f"({interval(table['lower'][i], table['upper'][i])})"
        for i in range(table.sizes["switch"])
    ]
    return (
        f"{name} begins in phase {int(table['state_from'][0])} and changes {listed(changes)}. The "
        f"whole sequence has probability {probability(tables.switches['probability'][run])}."
    )
