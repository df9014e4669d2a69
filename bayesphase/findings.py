"""What may be wrong with a metrics Dataset, in plain words, and what to do about it."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from bayesphase.contract import VARIABLES
from bayesphase.recording.importers.log import told_twice
from bayesphase.views.selection import WEIGHT_METRICS

_SHORT = 0.5  # a run with under half of the checkpoints of the median run is short
_GAP = 3.0  # times as far as the steps before and after it lie apart
_FEW = 3  # metrics to begin with, where a log has many

_Finding = tuple[str, str, str, str]  # kind, where, text, suggestion


def findings(
    ds: xr.Dataset,
    present: np.ndarray,
    metrics: xr.Dataset,
    values: xr.Dataset,
    runs: xr.Dataset,
) -> xr.Dataset:
    """List what may be wrong with metrics, by the tables that `bayesphase.inspect` makes of them.

    Parameters
    ----------
    ds : Dataset
        The metrics.
    present : ndarray of bool, shape (run, step)
        Where a run has a checkpoint.
    metrics, values, runs : Dataset
        As `bayesphase.inspect` returns them.

    Returns
    -------
    Dataset
        ``kind``, ``where``, ``text`` and ``suggestion``, dims (finding).
    """
    found = [*_unread(ds), *_repeated(ds), *_bad_values(values), *_doubtful_metrics(metrics)]
    found += _not_everywhere(values)
    for row, run in zip(present, runs["run"].values.tolist(), strict=True):
        found += _uneven(run, ds["step"].values[row], float(runs["checkpoints"].median()))
    if not found:
        found.append(("fine", "", "nothing is wrong with it", f"go on: {_next(metrics)}"))
    columns = zip(("kind", "where", "text", "suggestion"), zip(*found, strict=True), strict=True)
    return xr.Dataset({name: ("finding", np.array(column)) for name, column in columns})


def _next(metrics: xr.Dataset) -> str:
    """Say how to go on, in code that runs with what there is."""
    names = [str(name) for name in metrics["metric"].values]
    if any(name in WEIGHT_METRICS for name in names):
        return "x = bp.features(ds); bp.fit(x, 3)"
    of_examples = np.char.endswith(metrics["dims"].values.astype(str), "example")
    out = of_examples | metrics["constant"].values
    usable = [name for name, is_out in zip(names, out, strict=True) if not is_out]
    if not usable and of_examples.any():
        return f"components = bp.pca(ds[{names[of_examples.argmax()]!r}])"
    if not usable:  # but a count of 0, which is no fault
        return "record metrics that change, such as losses, or those of bp.collect"
    known = [name for name in usable if name in VARIABLES] or usable
    return f"x = bp.features(ds, metrics={known[:_FEW]}); bp.fit(x, 3)"


def _unread(ds: xr.Dataset) -> list[_Finding]:
    missing = json.loads(ds.attrs.get("missing_checkpoints", "[]"))
    if not missing:
        return []
    first, n = missing[0], len(missing)
    more = f", and {n - 1} more" if n > 1 else ""
    text = f"{n} checkpoint{'s' if n > 1 else ''} could not be read: {first['path']}: "
    suggestion = (
        "json.loads(ds.attrs['missing_checkpoints']) has all of them; copy them again where they "
        "are damaged, and call bp.collect again"
    )
    return [("unread", "", f"{text}{first['reason']}{more}", suggestion)]


def _repeated(ds: xr.Dataset) -> list[_Finding]:
    said = told_twice(ds.attrs, list(map(str, ds.data_vars)))
    return [("repeated", "", *said)] if said else []


def _bad_values(values: xr.Dataset) -> list[_Finding]:
    found = []
    diverged = "; where a weight was not finite, the run may have diverged: look at "
    counted = "nonfinite_count" in values["metric"].values
    for kind, suggestion in (
        ("infinite", "turn them into missing values: ds = ds.where(np.isfinite(ds))"),
        (
            "missing",
            "models take them as missing" + (f"{diverged}ds['nonfinite_count']" if counted else ""),
        ),
    ):
        for run in values["run"].values:
            counts = values[kind].sel(run=run)
            worst = [str(m) for m in counts["metric"].values[counts.values > 0]]
            if worst:
                n = int(counts.sum())
                listed = ", ".join(f"{m} ({int(counts.sel(metric=m))})" for m in worst[:5])
                more = f" and {len(worst) - 5} more metrics" if len(worst) > 5 else ""
                text = f"{n} value{'s are' if n > 1 else ' is'} {kind}: {listed}{more}"
                found.append((kind, f"run {run}", text, suggestion))
    return found


def _doubtful_metrics(metrics: xr.Dataset) -> list[_Finding]:
    found = []
    for name in metrics["metric"].values.tolist():
        of = metrics.sel(metric=name)
        drop = f"ds = ds.drop_vars({name!r})"
        if not int(of["values"]):
            found.append(("empty", name, "has no finite value at all", drop))
        elif bool(of["constant"]) and name != "nonfinite_count":
            text = f"is {float(of['least']):g} throughout: no phase can be told by it"
            found.append(("constant", name, text, drop))
        elif same := str(of["same_as"].item()):
            text = f"is a multiple of {same} but for a constant: together they count it twice"
            found.append(("same", name, text, f"leave one out: {drop}"))
        if name.endswith("accuracy") and float(of["greatest"].round(6)) > 1.0:  # 1 but for rounding
            divide = f"ds[{name!r}] = ds[{name!r}] / 100"
            text = f"goes up to {float(of['greatest']):g}, an accuracy up to 1"
            found.append(("percent", name, text, f"in percent? divide by 100: {divide}"))
    return found


def _not_everywhere(values: xr.Dataset) -> list[_Finding]:
    found = []
    for name in values["metric"].values.tolist():
        recorded = values["recorded"].sel(metric=name).values
        without = values["run"].values[~recorded].tolist()
        if without and recorded.any():
            listed = ", ".join(without[:5]) + (", ..." if len(without) > 5 else "")
            text = f"is not recorded in {len(without)} of {recorded.size} runs: {listed}"
            suggestion = (
                "name metrics that all runs have, bp.features(ds, metrics=[...]), or select"
            )
            found.append(("absent", name, text, f"{suggestion} runs with ds.sel(run=[...])"))
    return found


def _uneven(run: str, steps: np.ndarray, typical: float) -> list[_Finding]:
    """Say whether a run with checkpoints at these steps is short, or has a gap."""
    found = []
    where, drop = f"run {run}", f"ds = ds.drop_sel(run={run!r})"
    if steps.size < 2:
        text = f"has {steps.size} checkpoint{'' if steps.size == 1 else 's'}: a model needs two"
        found.append(("few", where, text, f"record more often, or leave it out: {drop}"))
    elif steps.size < _SHORT * typical:
        text = (
            f"has {steps.size} checkpoints where the median run has {typical:g}: it ends at step "
            f"{steps[-1]}"
        )
        suggestion = "models take runs of any length; if it was cut short, continue it, or leave "
        found.append(("short", where, text, f"{suggestion}it out: {drop}"))
    if (gap := _gap(steps)) is not None:
        text = f"has no checkpoint between steps {gap[0]} and {gap[1]}"
        suggestion = (
            "collect what is missing there, or let transitions depend on the distance: "
            "bp.fit(x, 3, transition='continuous_time')"
        )
        found.append(("gap", where, text, suggestion))
    return found


def _gap(steps: np.ndarray) -> tuple[int, int] | None:
    """Find the gap that stands out most against those on both of its sides."""
    gaps = np.diff(steps)
    if gaps.size < 3:
        return None
    beside = np.maximum(np.r_[0, gaps[:-1]], np.r_[gaps[1:], 0])
    worst = int((gaps / beside).argmax())
    if gaps[worst] <= _GAP * beside[worst]:
        return None
    return int(steps[worst]), int(steps[worst + 1])
