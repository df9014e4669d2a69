"""How probable each number of states is, from sources that are not the same."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from bayesphase.plots import _style, _tables

if TYPE_CHECKING:
    import pandas as pd

_WIDTH = 0.8  # of all bars of a number together
# variable, its error, label, fill and hatching
_SOURCES = (
    ("probability", "mcse", "evidence", "#4d4d4d", ""),
    ("probability_wider", "mcse_wider", "evidence, wider priors", "#9a9a9a", "////"),
    ("visited_probability", None, "visited in the largest fit", "#e3e3e3", ""),
    ("stacking_weight", None, "stacking weight", "white", "...."),
)


def plot_state_counts(
    table: xr.Dataset,
    *,
    comparison: "pd.DataFrame | None" = None,
    ax: Axes | np.ndarray | None = None,
) -> Axes | np.ndarray:
    """Draw the posterior of the number of states beside what else is said about it.

    They answer different questions, see `bayesphase.state_counts`: which number of states the
    marginal likelihood favours, under the priors of the fits and under wider ones; how many states
    are visited where there are more of them; and, where a comparison is given, what each number
    adds to the mixture that predicts best. Whiskers are two Monte Carlo standard errors to either
    side; a bar that is 0 is a line, and "?" stands where a probability is not known.

    Parameters
    ----------
    table : Dataset
        What `bayesphase.state_counts` returns.
    comparison : DataFrame, optional
        What `bayesphase.compare` returns for the same fits, for its weights.
    ax : Axes or array of Axes, optional
        One for each variant.

    Returns
    -------
    Axes or ndarray of Axes
        An array, dims (variant), where the table has variants.

    Raises
    ------
    TypeError
        If `table` is no Dataset.
    ValueError
        If the table lacks a variable or has other dims, a fit in `comparison` is not among those of
        the table, or the number of axes is not that of the variants.

    Examples
    --------
    >>> fits = bp.fit_range(x, range(1, 6), random_seed=1)  # doctest: +SKIP
    >>> counts = bp.state_counts(fits, random_seed=1)  # doctest: +SKIP
    >>> bp.plot_state_counts(counts, comparison=bp.compare(fits))  # doctest: +SKIP
    """
    table = _tables.count_table(table)
    has_variants = "variant" in table.dims
    table = table if has_variants else table.expand_dims(variant=[""])
    if comparison is not None:
        table = table.assign(stacking_weight=_weights(table, comparison))
    variants = table["variant"].values.tolist()
    given = None if ax is None else np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if given is not None and len(given) != len(variants):
        raise ValueError(f"ax holds {len(given)} axes, expected one for each variant: {variants}")
    sources = [source for source in _SOURCES if source[0] in table]
    with _style.drawing_on_panels(given, n_panels=len(variants), height=2.0) as panels:
        for panel, variant in zip(panels, variants, strict=True):
            _draw(panel, table.sel(variant=variant), sources)
            if has_variants:
                panel.set_title(str(variant) or "default", loc="left", weight="bold")
        handles = [
            Patch(facecolor=fill, hatch=hatch, edgecolor=_style.INK, linewidth=0.5, label=label)
            for _, _, label, fill, hatch in sources
        ]
        if given is None:
            _style.legend_on_top(panels[0].figure, handles)
        else:
            above = 5.0 + has_variants * 1.6 * _style.font_points("axes.titlesize")
            _style.legend_above(panels[0], handles, points=above)
    return panels if has_variants else panels[0]


def _draw(ax: Axes, table: xr.Dataset, sources: list[tuple]) -> None:
    numbers = table["n_states"].values
    bar = _WIDTH / len(sources)
    for i, (name, error, _, fill, hatch) in enumerate(sources):
        x = numbers + (i - (len(sources) - 1) / 2) * bar
        values = table[name].values
        known = np.isfinite(values)
        ax.bar(
            x[known],
            values[known],
            0.9 * bar,
            color=fill,
            hatch=hatch,
            edgecolor=_style.INK,
            linewidth=0.5,
        )
        if error is not None and error in table:
            errors = table[error].fillna(0.0).values
            shown = known & (errors > 0)
            ax.errorbar(
                x[shown],
                values[shown],
                2 * errors[shown],
                fmt="none",
                ecolor="black",
                elinewidth=0.8,
                capsize=2,
            )
        # a number that was not fitted has no evidence, and is no question
        asked = ~known & np.isfinite(table["probability"].values)
        for at in x[asked]:
            ax.text(at, 0.01, "?", ha="center", va="bottom", size=_style.font_points("font.size"))
    ax.set_xticks(numbers)
    ax.set_xlim(numbers[0] - 0.6, numbers[-1] + 0.6)
    ax.set_ylim(0, 1.05)
    ax.set_xlabel(_tables.with_doubt("number of states", table))
    ax.set_ylabel("probability or weight")


def _weights(table: xr.Dataset, comparison: "pd.DataFrame") -> xr.DataArray:
    """Return the weights of a comparison, dims (variant, n_states), by the names of its fits."""
    if "weight" not in getattr(comparison, "columns", ()):
        raise ValueError(
            f"comparison has no column 'weight', it is {type(comparison).__name__}: pass what "
            f"bayesphase.compare returns"
        )
    fitted = table["probability"]
    weights = xr.full_like(fitted, np.nan)
    places = {
        f"{variant} {number}".strip(): (i, j)
        for i, variant in enumerate(fitted["variant"].values.tolist())
        for j, number in enumerate(fitted["n_states"].values.tolist())
    }
    for name, weight in comparison["weight"].items():
        if str(name) not in places:
            raise ValueError(
                f"comparison has a fit {name!r}, expected those of the table: {sorted(places)}"
            )
        weights.values[places[str(name)]] = weight
    return weights
