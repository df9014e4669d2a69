"""A metrics Dataset of the values that were found in logs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayesphase.contract import PARAMETER_COORDS, VARIABLES
from bayesphase.dataset import check_structure
from bayesphase.recording.importers.log import PLACES, Log, Place, natural
from bayesphase.recording.importers.naming import units_of, variable_names

ALL = "all"
"""The parameter of a metric of matrices that was logged as one number for all of them."""


def build_dataset(log: Log, source: Mapping[str, Any], names: Mapping[str, str]) -> xr.Dataset:
    """Put the values of a log into a Dataset.

    Parameters
    ----------
    log : Log
    source : dict
        What was read: attributes of the Dataset, among them `log_path`.
    names : dict of str to str
        Variables for logged names.

    Returns
    -------
    Dataset
        Metrics with dims (run, step[, parameter]).

    Raises
    ------
    ValueError
        If there is not one value, or `names` has a name that was not logged.
    """
    if not log.values:
        reasons = [f"{reason} ({where[0]})" for reason, where in log.skipped.items()]
        why = f"; left out: {', '.join(reasons[:3])}" if reasons else ""
        raise ValueError(f"{source['log_path']}: no numbers in it{why}")
    variables = variable_names(list(log.values), names)
    by_parameter = {
        name
        for name, variable in variables.items()
        if name in log.by_parameter or "parameter" in getattr(VARIABLES.get(variable), "dims", ())
    }
    places = list(log.places)
    filled = np.unique(np.concatenate([_indices(of_name) for of_name in log.values.values()]))
    runs = sorted({places[i][0] for i in filled}, key=natural)
    steps = sorted({places[i][1] for i in filled})
    parameters = _parameters(log, places, by_parameter)
    at = _positions(places, runs, steps, parameters)
    data, nonfinite = {}, {}
    for name, of_name in log.values.items():
        index = at[:, _indices(of_name)]
        values = np.fromiter(of_name.values(), dtype=float, count=len(of_name))
        if bad := _nonfinite(of_name, values, places):
            nonfinite[variables[name]] = bad
        dims = ("run", "step", "parameter") if name in by_parameter else ("run", "step")
        array = np.full((len(runs), len(steps), len(parameters))[: len(dims)], np.nan)
        array[tuple(index[: len(dims)])] = np.where(np.isfinite(values), values, np.nan)
        data[variables[name]] = (dims, array, _attrs_of(log, name, variables[name]))
    coords: dict[str, Any] = {"run": runs, "step": steps}
    if parameters:
        coords["parameter"] = parameters
        for column in PARAMETER_COORDS:
            cells = [log.parameters.get(name, {}).get(column, "") for name in parameters]
            if any(cells):
                coords[column] = ("parameter", cells)
    ds = xr.Dataset(data, coords, attrs=_attrs(log, source, variables, nonfinite))
    return check_structure(_with_epochs(ds, log, runs, steps))


def _indices(of_name: Mapping[int, float]) -> np.ndarray:
    return np.fromiter(of_name, dtype=np.intp, count=len(of_name))


def _parameters(log: Log, places: Sequence[Place], by_parameter: set[str]) -> list[str]:
    """List the parameters in the order they were first found."""
    names = dict.fromkeys(log.parameters)
    for name in by_parameter:
        names |= dict.fromkeys(places[i][2] or ALL for i in log.values[name])
    return list(names)


def _positions(
    places: Sequence[Place], runs: list[str], steps: list[int], parameters: list[str]
) -> np.ndarray:
    """Return the positions of each place along run, step and parameter, shape (3, place)."""
    at_run = {run: i for i, run in enumerate(runs)}
    at_step = {step: i for i, step in enumerate(steps)}
    at_parameter = {name: i for i, name in enumerate(parameters)}
    found = [
        (at_run.get(run, -1), at_step.get(step, -1), at_parameter.get(parameter or ALL, -1))
        for run, step, parameter in places
    ]
    return np.array(found, dtype=np.intp).T


def _nonfinite(
    of_name: Mapping[int, float], values: np.ndarray, places: Sequence[Place]
) -> dict[str, Any]:
    """Sum up the values that are NaN in the Dataset because they were logged as no number."""
    found: dict[str, dict[str, Any]] = {}
    which = list(of_name)
    for i in np.flatnonzero(~np.isfinite(values)):
        run, step, _ = places[which[i]]
        entry = found.setdefault(str(values[i]), {"count": 0, "where": []})
        entry["count"] += 1
        if len(entry["where"]) < PLACES:
            entry["where"].append({"run": run, "step": step})
    return found


def _attrs_of(log: Log, name: str, variable: str) -> dict[str, str]:
    attrs = {"logged_as": name} if name != variable else {}
    if variable not in VARIABLES:
        attrs |= {"long_name": name, "units": units_of(name)}
    if note := log.notes.get(variable):
        attrs["comment"] = note
    return attrs


def _attrs(
    log: Log, source: Mapping[str, Any], variables: Mapping[str, str], nonfinite: Mapping[str, Any]
) -> dict[str, Any]:
    skipped = [
        {"what": reason, "count": log.skips[reason], "where": where}
        for reason, where in log.skipped.items()
    ]
    repeats = {variables[n]: {"count": c, "differing": d} for n, (c, d) in log.repeats.items()}
    return {
        "source": "bayesphase.read_log",
        **source,
        "log_files": log.files,
        "skipped": json.dumps(skipped),
        "duplicates": json.dumps(repeats),
        "duplicates_rule": "of several values for one step, the last one in the log is kept",
        "nonfinite": json.dumps(nonfinite),
        **log.attrs,
    }


def _with_epochs(ds: xr.Dataset, log: Log, runs: list[str], steps: list[int]) -> xr.Dataset:
    """Put epochs beside the steps: one for each where all runs agree, else one for each run."""
    if log.unit == "epochs":
        ds["step"].attrs = {"units": "epochs", "comment": "the log has epochs, and no steps"}
        return ds.assign_coords(epoch=("step", np.array(steps, dtype=float)))
    if not log.epochs:
        return ds
    epoch = np.array([[log.epochs.get((run, step), np.nan) for step in steps] for run in runs])
    shared = np.where(np.isnan(epoch), -np.inf, epoch).max(axis=0)
    shared = np.where(np.isinf(shared), np.nan, shared)
    if np.all(np.isnan(epoch) | (epoch == shared)):
        return ds.assign_coords(epoch=("step", shared))
    return ds.assign_coords(epoch=(("run", "step"), epoch))
