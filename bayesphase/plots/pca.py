"""The path of training in the plane of two principal components, coloured by phase."""

from collections.abc import Iterable, Sequence

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bayesphase.analysis.phases import boundaries, most_likely_path, phase_probabilities
from bayesphase.plots import _style, _tables
from bayesphase.plots._labels import label_points

_ENDS = {"start": ">", "end": "8"}  # as on a player: go and stop
_SURE = 0.9  # checkpoints whose phase is less probable have hollow markers
_MIN_VISITED = 0.5  # as in plot_phases


def plot_pca(
    pca_table: xr.Dataset,
    fit: xr.DataTree,
    *,
    run: str | Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw training as a path through the first two principal components.

    Each checkpoint has the colour and the marker of its most likely phase; it is hollow where the
    probability of that phase is below 0.9. Larger markers stand where a phase begins (the median
    first step, for phases that the run visits with a probability of at least 0.5), with their step
    if there is one run only.

    Parameters
    ----------
    pca_table : Dataset
        What `bayesphase.pca` returns: ``scores`` (run, step, component) and
        ``explained_variance_ratio`` (component), at least two components.
    fit : DataTree
        What `bayesphase.fit` returns. Its steps may be others than the table's.
    run : str or sequence of str, optional
        The runs to draw, by default all.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        If `pca_table` is no Dataset or `fit` no fit.
    ValueError
        If the table lacks a variable, has other dims or a single component, or a run is unknown.
    """
    path, probability, table = most_likely_path(fit), phase_probabilities(fit), boundaries(fit)
    _require_pca(pca_table)
    runs = _tables.choose("run", run, path["run"])
    _tables.choose("run", runs, pca_table["run"])
    scores = pca_table["scores"].isel(component=[0, 1]).transpose("run", "step", "component")
    colors = _style.phase_colors(probability["state"].values)
    with _style.drawing_on(ax, height=4.2) as drawn:
        for axis, share in zip(
            (drawn.xaxis, drawn.yaxis), pca_table["explained_variance_ratio"].values, strict=False
        ):
            name = "PC1" if axis is drawn.xaxis else "PC2"
            axis.set_label_text(f"{name} ({share:.0%} of the variance)")
        for name in runs:
            one = {"run": name}
            _draw_run(drawn, scores.sel(one), path.sel(one), probability.sel(one))
        _style.legend_above(drawn, _handles(probability["state"].values))
        _style.settle(drawn)
        for name in runs:
            one = {"run": name}
            _draw_boundaries(drawn, scores.sel(one), table.sel(one), colors, label=len(runs) == 1)
    return drawn


def _draw_run(
    ax: Axes, scores: xr.DataArray, path: xr.DataArray, probability: xr.DataArray
) -> None:
    scores = scores.dropna("step")
    xy, steps = scores.values, scores["step"].values
    if not len(steps):
        return
    states = _tables.held_states(path, steps)
    ax.plot(*xy.T, color=_style.FAINT, linewidth=0.5, zorder=1)
    held = probability.dropna("step", how="all").reindex(step=steps, method="ffill")
    for state, color in _style.phase_colors(probability["state"].values).items():
        here = states == state
        sure = here & (held.sel(state=state).values >= _SURE)
        for chosen, face in ((sure, color), (here & ~sure, "white")):
            ax.scatter(
                xy[chosen, 0],
                xy[chosen, 1],
                s=9,
                marker=_style.phase_marker(state),
                facecolor=face,
                edgecolor=color,
                linewidth=0.7,
                zorder=2,
            )
    for end, marker in zip(xy[[0, -1]], _ENDS.values(), strict=True):
        ax.plot(*end, marker, color=_style.INK, markersize=6, markeredgecolor="white", zorder=5)


def _draw_boundaries(
    ax: Axes, scores: xr.DataArray, table: xr.Dataset, colors: dict[int, str], *, label: bool
) -> None:
    """Mark where phases begin; the first, at the start, is no boundary."""
    scores = scores.dropna("step")
    table = table.isel(state=(table["visited"] >= _MIN_VISITED).values)
    table = table.isel(state=(table["first_step"] > scores["step"][:1].sum()).values)
    if not table.sizes["state"] or not scores.sizes["step"]:
        return
    at = scores.sel(step=table["first_step"].values, method="nearest").values
    for point, state in zip(at, table["state"].values, strict=True):
        ax.plot(
            *point,
            _style.phase_marker(state),
            color=colors[state],
            markeredgecolor=_style.INK,
            markeredgewidth=0.9,
            markersize=7,
            zorder=4,
        )
    if label:
        texts = [f"{step:,.0f}" for step in table["first_step"].values]
        label_points(ax, at, texts, avoid=scores.values)


def _handles(states: Iterable[int]) -> list[Line2D]:
    def handle(label: str, marker: str, color: str, face: str, edge: str) -> Line2D:
        return Line2D(
            [],
            [],
            linestyle="none",
            marker=marker,
            color=color,
            markerfacecolor=face,
            markeredgecolor=edge,
            markersize=5 if edge != "white" else 6.5,
            label=label,
        )

    phases = [
        handle(f"phase {state}", _style.phase_marker(state), color, color, color)
        for state, color in _style.phase_colors(states).items()
    ]
    ends = [handle(word, marker, _style.INK, _style.INK, "white") for word, marker in _ENDS.items()]
    unsure = handle(f"p < {_SURE:g}", "o", _style.FAINT, "white", _style.FAINT)
    return [*phases, unsure, *ends]


def _require_pca(table: xr.Dataset) -> None:
    if not isinstance(table, xr.Dataset):
        raise TypeError(
            f"pca_table is a {type(table).__name__}, expected the Dataset that bayesphase.pca "
            "returns"
        )
    _tables.require_variables(table, ["scores"], ("run", "step", "component"), made_by="pca")
    _tables.require_variables(table, ["explained_variance_ratio"], ("component",), made_by="pca")
    if table.sizes["component"] < 2:
        raise ValueError("pca_table has 1 component, expected 2 or more: use pca(n_components=2)")
