"""The numbers that the figures of a report draw, as JSON: by run, and by fit and run."""

import math
from typing import Any

import numpy as np
import xarray as xr

from bayesphase.plots import _curves, _style, _tables
from bayesphase.reporting.gather import Analysis, FitTables
from bayesphase.reporting.words import describe_run, spaced

# checkpoints that are drawn, of a run and in all: more can't be told apart on a screen
MOST_OF_RUN = 1000
MOST_IN_ALL = 20_000
LEAST_OF_RUN = 200
MOST_CURVES = 4
_DIGITS = 5  # of curves and scores
_DECIMALS = 4  # of probabilities


def drawn(analysis: Analysis) -> dict[str, Any]:
    """Return what the page draws, of lists, text and numbers only; None is a missing value.

    ``runs`` has a run's checkpoints, its scores and curves; ``fits`` has what each fit says of
    each run; ``panels`` names the curves.
    """
    panels = curve_panels(analysis)
    limit = checkpoints_drawn(len(analysis.runs))
    kept = [_kept(analysis, run, limit) for run in range(len(analysis.runs))]
    return {
        "shown": analysis.shown,
        "panels": [
            {"id": name, "curves": curves["curve"].values.tolist()}
            for name, curves in panels.items()
        ],
        "runs": [
            _run(analysis, panels, run, at, limit)
            for run, at in zip(analysis.features["run"].values.tolist(), kept, strict=True)
        ],
        "fits": [_fit(tables, kept) for tables in analysis.fits],
    }


def checkpoints_drawn(n_runs: int) -> int:
    """Say how many checkpoints of a run are drawn at most, where there are so many runs."""
    return min(MOST_OF_RUN, max(LEAST_OF_RUN, MOST_IN_ALL // n_runs))


def curve_panels(analysis: Analysis) -> dict[str, xr.DataArray]:
    """Return the curves of each panel, dims (curve, run, step): losses, accuracies or features."""
    panels, metrics = {}, analysis.metrics
    for kind in ("loss", "accuracy"):
        names = curve_names(metrics, kind)
        if metrics is not None and names:
            losses = metrics[names[:MOST_CURVES]]
            panels[kind] = _curves.loss_curves(losses, most=MOST_CURVES)
    if "loss" not in panels:
        panels = {"loss": _curves.first_features(analysis.fits[0].fit), **panels}
    return panels


def curve_names(metrics: xr.Dataset | None, kind: str) -> list[Any]:
    """Name the metrics with dims (run, step) that are of a kind: "loss" or "accuracy"."""
    if metrics is None:
        return []
    return [
        name
        for name, variable in metrics.data_vars.items()
        if set(variable.dims) == {"run", "step"} and str(name).endswith(kind)
    ]


def _kept(analysis: Analysis, run: int, limit: int) -> np.ndarray:
    """Choose the checkpoints of a run to draw: every nth, and all next to a switch of any fit."""
    present = np.flatnonzero(analysis.features[run].notnull().any("feature").values)
    if len(present) <= limit:
        return present
    chosen = np.zeros(len(present), dtype=bool)
    chosen[:: math.ceil(len(present) / limit)] = True
    chosen[-1] = True
    for tables in analysis.fits:
        path = tables.path.values[run, present]
        after = np.flatnonzero(path[1:] != path[:-1]) + 1
        chosen[after] = chosen[after - 1] = True
    return present[chosen]


def _run(
    analysis: Analysis, panels: dict[str, xr.DataArray], run: Any, kept: np.ndarray, limit: int
) -> dict[str, Any]:
    steps = analysis.features["step"].values[kept]
    found: dict[str, Any] = {"name": str(run), "steps": steps.tolist()}
    epoch = analysis.features.coords.get("epoch")
    if epoch is not None and epoch.dims == ("step",):
        found["epochs"] = _rounded(epoch.values[kept])
    if analysis.pca.table is not None:
        scores = analysis.pca.table["scores"].isel(component=slice(2)).sel(run=run).values[kept]
        found["scores"] = [_rounded(column) for column in scores.T]
        found["turns"] = _turns(analysis, run)
    found["curves"] = {}
    for panel, curves in panels.items():
        of_run = curves.sel(run=[run]) if run in curves["run"].values else curves[:, :0]
        found["curves"][panel] = [
            _curve(curve.squeeze("run"), steps, limit) for curve in of_run if curve.sizes["run"]
        ]
    return found


def _curve(curve: xr.DataArray, drawn_at: np.ndarray, limit: int) -> dict[str, Any]:
    """Return the steps and values of one curve, thinned to every nth and those at checkpoints.

    At each checkpoint that is drawn it has a value to be marked, if one is known.
    """
    known = curve.dropna("step")
    chosen = np.isin(known["step"].values, drawn_at)
    chosen[:: max(1, math.ceil(known.size / limit))] = True
    chosen[-1:] = True
    known = known.isel(step=chosen)
    return {"steps": known["step"].values.tolist(), "values": _rounded(known.values)}


def _fit(tables: FitTables, kept: list[np.ndarray]) -> dict[str, Any]:
    states = tables.states
    colors = list(_style.phase_colors(states).values())
    return {
        "name": tables.name,
        "title": tables.title,
        "states": states,
        "colors": colors,
        "inks": [_style.ink_on(color) for color in colors],
        "runs": [_fit_run(tables, run, at) for run, at in enumerate(kept)],
        "speeds": _speeds(tables),
        "drivers": _drivers(tables),
    }


def _fit_run(tables: FitTables, run: int, kept: np.ndarray) -> dict[str, Any]:
    at_checkpoints, path = _tables.checkpoints_of(tables.path[run])
    probability = tables.probability[run].transpose("state", "step").values[:, kept]
    table = tables.switches.isel(run=run).dropna("switch", subset=["step"])
    return {
        "path": tables.path.values[run, kept].tolist(),
        "probability": [_rounded(row, decimals=_DECIMALS) for row in probability],
        # [phase, first step, step at which the next begins or the run ends]
        "blocks": [
            [state, float(at_checkpoints[a]), float(at_checkpoints[min(b + 1, len(path) - 1)])]
            for state, a, b in _tables.blocks(path)
        ],
        "switches": [
            [
                int(table["state_from"][i]),
                int(table["state_to"][i]),
                *(float(table[name][i]) for name in ("step", "lower", "upper")),
            ]
            for i in range(table.sizes["switch"])
        ],
        "described": describe_run(tables, run),
    }


def _speeds(tables: FitTables) -> dict[str, list[list[float | None]]] | None:
    table = tables.speeds.table
    if table is None:
        return None
    names = ("speed", "speed_lower", "speed_upper")
    return {name: [_rounded(row) for row in table[name].values] for name in names}


def _drivers(tables: FitTables) -> list[dict[str, Any]] | None:
    """Return each switch's drivers, the features that speak most for it first."""
    table = tables.training_map.table
    if table is None or "log_odds" not in table:
        return None
    found = []
    for a, b in tables.edges:
        edge = table.isel(state=a, state_next=b).dropna("feature", subset=["log_odds"])
        edge = edge.isel(feature=np.argsort(-edge["log_odds"].values))
        rises, falls = edge["change_lower"].values > 0, edge["change_upper"].values < 0
        found.append(
            {
                "from": a,
                "to": b,
                "runs": _number(float(edge["n_runs"])),
                "features": [spaced(name) for name in edge["feature"].values],
                "change": (rises.astype(int) - falls).tolist(),
                **{
                    name: _rounded(edge[f"log_odds{end}"].values)
                    for name, end in (("evidence", ""), ("lower", "_lower"), ("upper", "_upper"))
                },
            }
        )
    return found


def _turns(analysis: Analysis, run: Any) -> list[dict[str, Any]]:
    """Return where the path of a run turns, and the stretch of it that the interval holds."""
    if analysis.turns.table is None or analysis.pca.table is None:
        return []
    turns = analysis.turns.table.sel(run=run).dropna("turn", subset=["step"])
    scores = analysis.pca.table["scores"].isel(component=slice(2)).sel(run=run).dropna("step")
    found = []
    for step, lower, upper in zip(
        *(turns[name].values for name in ("step", "lower", "upper")), strict=True
    ):
        around = scores.sel(step=slice(lower, upper)).values
        found.append(
            {
                "step": _number(float(step)),
                "at": _rounded(scores.sel(step=step).values),
                "around": [_rounded(column) for column in around.T],
            }
        )
    return found


def _rounded(values: np.ndarray, *, decimals: int | None = None) -> list[float | None]:
    """Round to `decimals`, or to so many significant digits as a figure can show."""
    return [_number(float(value), decimals) for value in np.asarray(values, dtype=float)]


def _number(value: float, decimals: int | None = None) -> float | None:
    if not math.isfinite(value):
        return None
    value = round(value, decimals) if decimals is not None else float(f"{value:.{_DIGITS}g}")
    return int(value) if value.is_integer() and abs(value) < 1e15 else value
