"""What is in a metrics Dataset, what is wrong with it, and what to do next."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping

import numpy as np
import xarray as xr

from bayesphase import _storage
from bayesphase.dataset import check_structure, require_dataset
from bayesphase.findings import findings

_ALIKE = 1e-6  # 1 - |correlation| of metrics that tell the same


def inspect(data: xr.Dataset | str | os.PathLike[str]) -> xr.DataTree:
    r"""Say what is in a metrics Dataset, what may be wrong with it, and what to do next.

    Unlike analysis it takes a Dataset with infinite values, or with nothing but NaN: it is there to
    find those.

    Parameters
    ----------
    data : Dataset or path-like
        Metrics with dims (run, step[, parameter | example]), or a file of them, ``.nc`` or
        ``.zarr``.

    Returns
    -------
    DataTree
        - ``runs`` (run): ``checkpoints`` (steps with any value), ``first_step``, ``last_step``,
          ``typical_gap`` and ``largest_gap`` (optimiser steps between two checkpoints, median and
          maximum) and ``largest_gap_after`` (the step before it); NaN where there is none.
        - ``metrics`` (metric): ``long_name``, ``units``, ``dims``, ``least``, ``greatest``,
          ``values`` (finite ones), ``constant`` (no finite value differs from another) and
          ``same_as``, an earlier metric that tells the same, or "".
        - ``values`` (run, metric): ``missing`` and ``infinite``, the values at the run's own
          checkpoints that are NaN and that are infinite, and ``recorded``, whether it has any. What
          is NaN at all checkpoints of a run, such as a matrix of another network, does not count.
        - ``parameters`` (parameter): ``layer``, ``kind`` and ``shape``, where they are known.
        - ``findings`` (finding): ``kind``, ``where``, ``text`` and ``suggestion``, in plain words;
          ``kind`` is "unread", "repeated", "infinite", "missing", "empty", "constant", "same",
          "percent", "absent", "few", "short", "gap" or "fine".

        The attributes are those of the Dataset.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    TypeError, ValueError
        If it is not a Dataset, or breaks the contract in another way; see `validate_metrics`.

    Notes
    -----
    Two metrics of the same dims tell the same if their correlation over all finite pairs of values
    is over :math:`1 - 10^{-6}` in absolute value, one then being a multiple of the other and a
    constant. A gap is reported where it is over 3 times the longer of the gaps on both sides of it,
    so that a grid which grows ever coarser has none. A run is short if it has fewer than half the
    checkpoints of the median run.
    """
    if not isinstance(data, str | os.PathLike):
        require_dataset(data)
    ds = data if isinstance(data, xr.Dataset) else _storage.load(data).to_dataset()
    floats = [name for name, v in ds.data_vars.items() if v.dtype.kind == "f"]
    infinite = {n: ds[n].copy(data=np.isinf(ds[n].values)) for n in floats}
    ds = check_structure(ds.assign({n: ds[n].where(~bad) for n, bad in infinite.items()}))
    there = ds.notnull().assign({n: ds[n].notnull() | bad for n, bad in infinite.items()})
    present = _present(there)
    runs, metrics = _runs(ds, present), _metrics(ds)
    values = _values(there, present, infinite)
    parts = {
        "/": xr.Dataset(attrs=ds.attrs),
        "runs": runs,
        "metrics": metrics,
        "values": values,
        "findings": findings(ds, present, metrics, values, runs),
    }
    if "parameter" in ds.coords:
        names = [n for n, c in ds.coords.items() if c.dims == ("parameter",) and n != "parameter"]
        parts["parameters"] = (
            ds[["parameter"]]
            .reset_coords(drop=True)
            .assign({name: ds[name].reset_coords(drop=True) for name in names})
        )
    return xr.DataTree.from_dict(parts)


def _present(there: xr.Dataset) -> np.ndarray:
    """Tell where a run has a checkpoint: any value, be it infinite; shape (run, step)."""
    others = [dim for dim in there.dims if dim not in ("run", "step")]
    return there.any(others).to_dataarray("metric").any("metric").transpose("run", "step").values


def _runs(ds: xr.Dataset, present: np.ndarray) -> xr.Dataset:
    table = np.full((ds.sizes["run"], 5), np.nan)
    all_steps = ds["step"].values
    for row, there in zip(table, present, strict=True):
        if not there.any():
            continue
        steps = all_steps[there]
        row[:2] = steps[0], steps[-1]
        if steps.size > 1:
            gaps = np.diff(steps)
            row[2:] = np.median(gaps), gaps.max(), steps[gaps.argmax()]
    columns = {
        "first_step": "first checkpoint",
        "last_step": "last checkpoint",
        "typical_gap": "median distance of two checkpoints",
        "largest_gap": "largest distance of two checkpoints",
        "largest_gap_after": "checkpoint before the largest gap",
    }
    about = {"long_name": "steps with any value", "units": "checkpoints"}
    variables = {"checkpoints": ("run", present.sum(axis=1), about)} | {
        name: ("run", column, {"long_name": long_name, "units": "optimiser steps"})
        for (name, long_name), column in zip(columns.items(), table.T, strict=True)
    }
    return xr.Dataset(variables, {"run": ds["run"]})


def _values(
    there: xr.Dataset, present: np.ndarray, infinite: Mapping[Hashable, xr.DataArray]
) -> xr.Dataset:
    checkpoints = xr.DataArray(present, dims=("run", "step"))
    counts = np.zeros((3, there.sizes["run"], len(there.data_vars)), dtype=np.int64)
    for i, (name, v) in enumerate(there.data_vars.items()):
        others = [dim for dim in v.dims if dim != "run"]
        recorded = v.any("step")
        missing = checkpoints & ~v & recorded
        bad = infinite.get(name, xr.zeros_like(v))
        found = (missing.sum(others), bad.sum(others), v.any(others))
        counts[:, :, i] = [of.values for of in found]
    about = {
        "missing": "values that are NaN at checkpoints of the run",
        "infinite": "values that are infinite",
        "recorded": "whether the run has the metric at all",
    }
    variables = {
        name: (("run", "metric"), count, {"long_name": long_name, "units": "1"})
        for (name, long_name), count in zip(about.items(), counts, strict=True)
    }
    coords = {"run": there["run"], "metric": [str(name) for name in there.data_vars]}
    table = xr.Dataset(variables, coords)
    return table.assign(recorded=table["recorded"].astype(bool))


def _metrics(ds: xr.Dataset) -> xr.Dataset:
    seen: dict[str, np.ndarray] = {}
    rows = []
    for name, v in ds.data_vars.items():
        x = v.values.astype(float)
        finite = x[np.isfinite(x)]
        least, greatest = (finite.min(), finite.max()) if finite.size else (np.nan, np.nan)
        constant = bool(finite.size) and least == greatest
        alike = "" if constant else next((n for n, y in seen.items() if _tell_the_same(x, y)), "")
        seen[str(name)] = x
        about = [str(v.attrs.get(key, "")) for key in ("long_name", "units")]
        dims = ", ".join(map(str, v.dims))
        rows.append((*about, dims, least, greatest, finite.size, constant, alike))
    names = ("long_name", "units", "dims", "least", "greatest", "values", "constant", "same_as")
    variables = {
        n: ("metric", np.array(c)) for n, c in zip(names, zip(*rows, strict=True), strict=True)
    }
    return xr.Dataset(variables, {"metric": list(seen)})


def _tell_the_same(x: np.ndarray, y: np.ndarray) -> bool:
    """Tell whether two metrics are missing at the same checkpoints and perfectly correlated."""
    if x.shape != y.shape:
        return False
    both = np.isfinite(x)
    if both.sum() < 3 or not (both == np.isfinite(y)).all():
        return False
    a, b = x[both], y[both]
    # dividing first keeps squares from overflow; what is constant has no correlation
    a, b = (v / (np.abs(v).max() or 1.0) for v in (a, b))
    a, b = a - a.mean(), b - b.mean()
    norms = np.sqrt((a**2).sum() * (b**2).sum())
    return bool(norms > 0.0 and abs((a * b).sum()) / norms > 1.0 - _ALIKE)
