"""The contract of a metrics Dataset, how it is checked, and its files.

A metrics Dataset has the dims `run` (labels) and `step` (optimiser steps), metrics of one weight
matrix also `parameter`, and vectors of losses `example`. A run that has no checkpoint at a step
holds NaN there. `bayesphase.contract` has the names whose meaning is fixed; metrics of your own
may stand beside them as long as their dims fit.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from pathlib import Path

import numpy as np
import xarray as xr

from bayesphase import _storage
from bayesphase.contract import COORDS, DIMS, PARAMETER_COORDS, VARIABLES, Variable

_RUN = ("run", "step")
_TEXT = ("run", "parameter", *PARAMETER_COORDS)


def validate_metrics(ds: xr.Dataset, *, min_steps: int = 1) -> xr.Dataset:
    """Check a metrics Dataset against the contract.

    Parameters
    ----------
    ds : Dataset
        Metrics with dims (run, step[, parameter | example]).
    min_steps : int
        The fewest checkpoints a run must have. An analysis over time asks for 2.

    Returns
    -------
    Dataset
        The same values, dims in the order (run, step, parameter, example), with `long_name` and
        `units` filled in where they were missing. The input is left as it is.

    Raises
    ------
    TypeError
        If `ds` is not a Dataset, or text, booleans or objects stand where numbers belong.
    ValueError
        If dims, coordinates or values break the contract. The message says which and what to do.
    """
    ds = check_structure(ds)
    for name, variable in ds.data_vars.items():
        if not bool(variable.notnull().any()):
            raise ValueError(
                f"{name} is NaN at every checkpoint of every run: drop it with "
                f"ds.drop_vars({str(name)!r}), or collect it again"
            )
    for run, count in zip(ds["run"].values, checkpoint_counts(ds), strict=True):
        if count < min_steps:
            raise ValueError(
                f"run {run!s} has {count} checkpoint{'' if count == 1 else 's'}, at least "
                f"{min_steps} are needed: record more often, or drop the run with "
                f"ds.drop_sel(run={str(run)!r})"
            )
    return ds


def checkpoint_counts(ds: xr.Dataset) -> np.ndarray:
    """Count the checkpoints of each run: the steps at which it has any value at all.

    Parameters
    ----------
    ds : Dataset
        Metrics with dims (run, step[, parameter | example]).

    Returns
    -------
    ndarray of int
        One count per run, shape (run,).
    """
    present = np.zeros((ds.sizes["run"], ds.sizes["step"]), dtype=bool)
    for variable in ds.data_vars.values():
        others = [dim for dim in variable.dims if dim not in _RUN]
        present |= variable.notnull().any(others).transpose(*_RUN).values
    return np.asarray(present.sum(axis=1))


def check_structure(ds: xr.Dataset) -> xr.Dataset:
    """Check dims, coordinates and dtypes only; a file that holds nothing but NaN passes.

    Parameters, returns and raises are those of `validate_metrics`.
    """
    require_dataset(ds)
    _check_dims(ds)
    _check_coords(ds)
    for name, variable in ds.data_vars.items():
        _check_variable(str(name), variable)
    return _complete(ds)


def require_dataset(ds: object) -> None:
    """Raise TypeError unless this is a Dataset, whatever is in it."""
    if not isinstance(ds, xr.Dataset):
        raise TypeError(
            f"metrics are a {type(ds).__name__}, expected an xarray.Dataset; "
            "bayesphase.open_metrics(path) reads one from a file"
        )


def _check_dims(ds: xr.Dataset) -> None:
    if unknown := [str(dim) for dim in ds.dims if dim not in DIMS]:
        raise ValueError(
            f"the dim {unknown[0]!r} is not known, the dims of metrics are {', '.join(DIMS)}: "
            "rename it with ds.rename(...), or reduce it first"
        )
    for dim, what in (("run", "runs"), ("step", "checkpoints")):
        if dim in ds.coords and not ds[dim].ndim:
            one = ds[dim].item()
            raise ValueError(
                f"the dim {dim!r} is gone, one of the {what} was selected: keep it by selecting "
                f"with a list, ds.sel({dim}=[{one!r}])"
            )
        if dim not in ds.dims:
            raise ValueError(
                f"the dim {dim!r} is missing, found {_listed(ds.dims)}: add it with "
                f"ds.expand_dims({dim}=[...])"
            )
        if not ds.sizes[dim]:
            raise ValueError(f"there are no {what} (the dim {dim!r} is empty): collect some first")
    if not ds.data_vars:
        raise ValueError("there are no metrics: the Dataset has no variables")


def _check_coords(ds: xr.Dataset) -> None:
    for dim in ("run", "step", "parameter"):
        if dim in ds.dims and dim not in ds.coords:
            raise ValueError(
                f"the dim {dim!r} has no labels: add them with ds.assign_coords({dim}=[...])"
            )
    for name in _TEXT:
        if name in ds.coords and not _is_text(ds[name]):
            raise TypeError(
                f"the coordinate {name!r} has dtype {ds[name].dtype}, expected text: convert it "
                f"with ds.assign_coords({name}=ds[{name!r}].astype(str))"
            )
        if name in ds.coords and ds[name].dims != COORDS[name].dims:
            raise ValueError(
                f"the coordinate {name!r} has dims {_listed(ds[name].dims)}, expected "
                f"{_listed(COORDS[name].dims)}"
            )
    for dim in ("run", "parameter", "example"):
        if dim in ds.coords and (twice := _repeated(ds[dim].values)):
            raise ValueError(
                f"the {dim} {twice!r} occurs more than once: rename one, or drop one with "
                f"ds.drop_duplicates({dim!r})"
            )
    _check_steps(ds["step"])
    if "epoch" in ds.coords and ds["epoch"].dims not in (("step",), _RUN, _RUN[::-1]):
        raise ValueError(
            f"the coordinate 'epoch' has dims {_listed(ds['epoch'].dims)}, expected step or "
            "run, step"
        )


def _check_steps(step: xr.DataArray) -> None:
    if step.dtype.kind not in "iu":
        raise TypeError(
            f"step has dtype {step.dtype}, expected whole optimiser steps: convert with "
            "ds.assign_coords(step=ds['step'].astype(int)); epochs go into a coordinate 'epoch'"
        )
    values = step.values.astype(np.int64)
    if twice := _repeated(values):
        raise ValueError(
            f"step {twice} occurs more than once: keep one with ds.drop_duplicates('step')"
        )
    if (falls := np.flatnonzero(np.diff(values) < 0)).size:
        at = int(falls[0])
        raise ValueError(
            f"steps are not in order: {values[at]} is followed by {values[at + 1]}; sort with "
            "ds.sortby('step')"
        )


def _check_variable(name: str, variable: xr.DataArray) -> None:
    if variable.dtype.kind not in "iuf":
        raise TypeError(
            f"{name} has dtype {variable.dtype}, expected numbers: convert it with "
            f"ds.assign({name}=ds[{name!r}].astype(float))"
        )
    expected = VARIABLES[name].dims if name in VARIABLES else None
    if expected and set(variable.dims) != set(expected):
        raise ValueError(
            f"{name} has dims {_listed(variable.dims)}, expected {_listed(expected)}: give it "
            "these dims, or another name"
        )
    if not set(variable.dims) >= set(_RUN):
        raise ValueError(
            f"{name} has dims {_listed(variable.dims)}, expected run, step and at most one of "
            "parameter, example: a value per run or per step only is not a metric of checkpoints"
        )
    if infinite := int(np.isinf(variable.values).sum()):
        raise ValueError(
            f"{name} has {infinite} infinite value{'' if infinite == 1 else 's'}: what could not "
            f"be computed is NaN, set it with ds[{name!r}].where(np.isfinite(ds[{name!r}]))"
        )


def _complete(ds: xr.Dataset) -> xr.Dataset:
    """Return a copy with ordered dims, plain dtypes of labels, long names and units."""
    ds = ds.transpose(*[dim for dim in DIMS if dim in ds.dims])
    text = {n: (ds[n].dims, ds[n].values.astype(str), ds[n].attrs) for n in _TEXT if n in ds.coords}
    step = ("step", ds["step"].values.astype(np.int64), ds["step"].attrs)
    ds = ds.assign_coords(text | {"step": step})
    for name in ds.variables:
        known = {**VARIABLES, **COORDS}.get(str(name), Variable((), str(name), "1"))
        defaults = {"long_name": known.long_name, "units": known.units}
        ds[name].attrs = {k: v for k, v in defaults.items() if v} | ds[name].attrs
    return ds


def _is_text(array: xr.DataArray) -> bool:
    kind = array.dtype.kind
    return kind in "UT" or (kind == "O" and all(isinstance(v, str) for v in array.values.flat))


def _repeated(values: np.ndarray) -> str | None:
    unique, counts = np.unique(values, return_counts=True)
    return str(unique[counts > 1][0]) if (counts > 1).any() else None


def _listed(names: Iterable[Hashable]) -> str:
    return ", ".join(map(str, names)) or "none"


def save_metrics(ds: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write metrics to a file, compressed.

    The file is written elsewhere first and then moved into place: `path` holds what it held
    before, or all of the new metrics. Written and read back, a Dataset is identical.

    Parameters
    ----------
    ds : Dataset
        Metrics with dims (run, step[, parameter | example]).
    path : path-like
        Ends in ``.nc`` (netCDF, one file) or ``.zarr`` (Zarr, a folder). Replaced if it exists.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    TypeError, ValueError
        If `ds` breaks the contract (see `validate_metrics`), or the suffix is another one.
    FileNotFoundError
        If the folder to write in does not exist.
    FileExistsError
        If `path` is a folder that is not a Zarr store.
    """
    return _storage.save(check_structure(ds), path)


def open_metrics(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read metrics that `save_metrics` or a `Recorder` wrote, all of them into memory.

    Parameters
    ----------
    path : path-like
        Ends in ``.nc`` or ``.zarr``.

    Returns
    -------
    Dataset
        Metrics with dims (run, step[, parameter | example]).

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    TypeError
        If `path` is no path, but a list of them, say.
    ValueError
        If the suffix is another one, the file can't be read, or it holds no metrics.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"path is a {type(path).__name__}, expected one path; several files are opened by "
            "bp.combine_runs([bp.open_metrics(p) for p in paths])"
        )
    tree = _storage.load(path)
    try:
        if tree.children:
            raise ValueError(
                f"it has the groups {_listed(sorted(tree.children))}, metrics have none"
            )
        return check_structure(tree.to_dataset())
    except (TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)!r} does not hold metrics: {error}") from error
