"""The path of training in the plane of two principal components: phases and turning points."""

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bayesphase.analysis.phases import boundaries, most_likely_path, phase_probabilities
from bayesphase.plots import _style, _tables
from bayesphase.plots._labels import label_points

_ENDS = {"start": ">", "end": "8"}  # as on a player: go and stop
_SURE = 0.9  # checkpoints whose phase is less probable have hollow markers
_MIN_VISITED = 0.5  # as in plot_boundaries
_FEW = 3  # runs without phases whose turning points are labelled


def plot_pca(
    pca_table: xr.Dataset,
    fit: xr.DataTree | None = None,
    *,
    run: str | Sequence[str] | None = None,
    turning_points: xr.Dataset | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw training as a path through the first two principal components.

    Each checkpoint has the colour and the marker of its most likely phase; it is hollow where the
    probability of that phase is below 0.9. Larger markers stand where a phase begins (the median
    first step, for phases that the run visits with a probability of at least 0.5), rings where the
    path turns, with a thick line over the interval of that step. Where one run is drawn, or up to
    three without phases, steps are written beside them, with the interval of turning points.

    Parameters
    ----------
    pca_table : Dataset
        What `bayesphase.pca` returns: ``scores`` (run, step, component) and
        ``explained_variance_ratio`` (component), at least two components.
    fit : DataTree, optional
        What `bayesphase.fit` returns. Its steps may be others than the table's. Without a fit, the
        path alone is drawn.
    run : str or sequence of str, optional
        The runs to draw, by default all of the fit, or of the table where there is none.
    turning_points : Dataset, optional
        What `bayesphase.turning_points` returns.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        If `pca_table` or `turning_points` is no Dataset, or `fit` no fit.
    ValueError
        If a table lacks a variable, has other dims or a single component, or a run is unknown.

    Examples
    --------
    >>> components = bp.pca(metrics["example_loss"], n_components=5)  # doctest: +SKIP
    >>> turns = bp.turning_points(components)  # doctest: +SKIP
    >>> bp.plot_pca(components, fit, run="seed 0", turning_points=turns)  # doctest: +SKIP
    """
    path = None if fit is None else most_likely_path(fit)
    _require_pca(pca_table)
    runs = _tables.choose("run", run, (pca_table if path is None else path)["run"])
    _tables.choose("run", runs, pca_table["run"])
    turns = None if turning_points is None else _tables.turn_table(turning_points)
    if turns is not None:
        _tables.choose("run", runs, turns["run"])
    scores = pca_table["scores"].isel(component=[0, 1]).transpose("run", "step", "component")
    with _style.drawing_on(ax, height=max(2.7, 0.6 * _style.width())) as drawn:
        for axis, share in zip(
            (drawn.xaxis, drawn.yaxis), pca_table["explained_variance_ratio"].values, strict=False
        ):
            name = "PC1" if axis is drawn.xaxis else "PC2"
            axis.set_label_text(f"{name} ({share:.1%} of the variance)")
        handles: list[Line2D] = []
        marks: list[tuple[np.ndarray, str]] = []
        if fit is not None and path is not None:
            probability, table = phase_probabilities(fit), boundaries(fit)
            for name in runs:
                one = {"run": name}
                _draw_run(drawn, scores.sel(one), path.sel(one), probability.sel(one))
                marks += _draw_boundaries(drawn, scores.sel(one), table.sel(one))
            handles += _phase_handles(probability["state"].values)
        else:
            for name in runs:
                _draw_path(drawn, scores.sel(run=name))
        if turns is not None:
            for name in runs:
                whose = "turn" if len(runs) == 1 else str(name)
                for point, text in _draw_turns(drawn, scores.sel(run=name), turns.sel(run=name)):
                    marks.append((point, f"{whose} {text}"))
            handles.append(_handle("turning point", "o", "none", _style.INK, size=8))
        _style.legend_above(drawn, [*handles, *_end_handles()])
        _style.settle(drawn)
        if marks and (len(runs) == 1 or (fit is None and len(runs) <= _FEW)):
            points, texts = np.array([point for point, _ in marks]), [text for _, text in marks]
            crowd = [_along(scores.sel(run=name).dropna("step").values) for name in runs]
            # a mark is much larger than a point on the path
            label_points(drawn, points, texts, avoid=np.concatenate([*crowd, *25 * [points]]))
    return drawn


def _along(xy: np.ndarray) -> np.ndarray:
    """Points on the lines between checkpoints, ten on each."""
    at = np.arange(0, max(len(xy) - 1, 0), 0.1)
    whole = np.arange(len(xy))
    return np.stack([np.interp(at, whole, column) for column in xy.T], axis=1) if len(xy) else xy


def _draw_path(ax: Axes, scores: xr.DataArray) -> None:
    """Draw a path without phases."""
    xy = scores.dropna("step").values
    if len(xy):
        ax.plot(*xy.T, color=_style.FAINT, linewidth=0.7, marker=".", markersize=3, zorder=1)
        _draw_ends(ax, xy)


def _draw_ends(ax: Axes, xy: np.ndarray) -> None:
    for end, marker in zip(xy[[0, -1]], _ENDS.values(), strict=True):
        ax.plot(*end, marker, color=_style.INK, markersize=6, markeredgecolor="white", zorder=5)


def _draw_turns(ax: Axes, scores: xr.DataArray, turns: xr.Dataset) -> list[tuple[np.ndarray, str]]:
    """Ring the turning points; return where they are and what to write there."""
    turns, scores = turns.dropna("turn", subset=["step"]), scores.dropna("step")
    marks = []
    for step, lower, upper in zip(
        *(turns[name].values for name in ("step", "lower", "upper")), strict=True
    ):
        around = scores.sel(step=slice(lower, upper)).values
        ax.plot(*around.T, color=_style.INK, alpha=0.35, linewidth=4, zorder=1.5)
        at = scores.sel(step=step, method="nearest").values
        ax.plot(
            *at,
            "o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=_style.INK,
            markeredgewidth=1.1,
            zorder=4.5,
        )
        marks.append((at, f"{step:,.0f} [{lower:,.0f}, {upper:,.0f}]"))
    return marks


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
    _draw_ends(ax, xy)


def _draw_boundaries(
    ax: Axes, scores: xr.DataArray, table: xr.Dataset
) -> list[tuple[np.ndarray, str]]:
    """Mark where phases begin, and return what to write there; the first is no boundary."""
    scores = scores.dropna("step")
    colors = _style.phase_colors(table["state"].values)
    table = table.isel(state=(table["visited"] >= _MIN_VISITED).values)
    table = table.isel(state=(table["first_step"] > scores["step"][:1].sum()).values)
    if not table.sizes["state"] or not scores.sizes["step"]:
        return []
    steps = table["first_step"].values
    at = scores.sel(step=steps, method="nearest").values
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
    return [(point, f"{step:,.0f}") for point, step in zip(at, steps, strict=True)]


def _phase_handles(states: Iterable[int]) -> list[Line2D]:
    phases = [
        _handle(f"phase {state}", _style.phase_marker(state), color, color)
        for state, color in _style.phase_colors(states).items()
    ]
    return [*phases, _handle(f"p < {_SURE:g}", "o", "white", _style.FAINT)]


def _end_handles() -> list[Line2D]:
    return [_handle(word, marker, _style.INK, "white", size=6.5) for word, marker in _ENDS.items()]


def _handle(label: str, marker: str, face: str, edge: str, *, size: float = 5.0) -> Line2D:
    return Line2D(
        [],
        [],
        linestyle="none",
        marker=marker,
        markerfacecolor=face,
        markeredgecolor=edge,
        markersize=size,
        label=label,
    )


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
