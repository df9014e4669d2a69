"""When a run converged, or how far it was seen without doing so."""

import warnings
from numbers import Real

import numpy as np
import xarray as xr

from bayesphase.analysis._paths import STEP_UNITS
from bayesphase.analysis._summary import variable


def convergence(
    metrics: xr.Dataset,
    *,
    metric: str = "eval_accuracy",
    threshold: float = 0.9,
    below: bool = False,
) -> xr.Dataset:
    """Find the step at which each run converged: the first past a threshold of a metric.

    Parameters
    ----------
    metrics : Dataset
        As `bayesphase.collect` or `bayesphase.open_metrics` returns it.
    metric : str
        A variable of it with dims (run, step).
    threshold : float
        What has to be passed; a value that equals it has not.
    below : bool, default False
        Whether it is passed downwards, as by a loss.

    Returns
    -------
    Dataset
        Dims (run). ``step`` is the step of the run's first checkpoint past the threshold, NaN where
        it never is, and ``converged`` says whether it is. ``last_step`` is the step of the last
        checkpoint that has the metric: a run that did not converge had not by then (it is
        *censored* there, which is another thing than to converge there). Steps are optimiser steps;
        NaN for a run that never has the metric. The attributes hold ``metric``, ``threshold`` and
        ``below`` (0 or 1).

    Warns
    -----
    UserWarning
        If every run is past the threshold at its first checkpoint: `below` may be the wrong way.

    Raises
    ------
    TypeError, ValueError
        If `metrics` is no Dataset, lacks the metric or has it with other dims, or `threshold` is
        not a finite number.

    Examples
    --------
    >>> runs = bp.open_metrics("data/modular_addition.nc")  # doctest: +SKIP
    >>> bp.convergence(runs, metric="eval_accuracy", threshold=0.9)["step"]  # doctest: +SKIP
    """
    if not isinstance(metrics, xr.Dataset):
        raise TypeError(
            f"metrics must be an xarray.Dataset, as bayesphase.open_metrics returns it, got "
            f"{type(metrics).__name__}"
        )
    if metric not in metrics:
        here = sorted(
            str(name) for name, v in metrics.data_vars.items() if set(v.dims) == {"run", "step"}
        )
        raise ValueError(f"metrics has no variable {metric!r}; of each run and step it has {here}")
    values = metrics[metric]
    if set(values.dims) != {"run", "step"}:
        raise ValueError(f"{metric!r} must have the dims (run, step), got {values.dims}")
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not np.isfinite(threshold):
        raise ValueError(f"threshold must be a finite number, got {threshold!r}")
    values = values.sortby("step").transpose("run", "step")
    past = values.values < threshold if below else values.values > threshold
    known = ~np.isnan(values.values)
    steps = values["step"].values.astype(float)
    first = np.where(past, steps, np.inf).min(axis=1, initial=np.inf)
    last = np.where(known, steps, -np.inf).max(axis=1, initial=-np.inf)
    begun = np.where(known, steps, np.inf).min(axis=1, initial=np.inf)
    seen = known.any(axis=1)
    if seen.any() and (first == begun)[seen].all():
        warnings.warn(
            f"{metric} is {'below' if below else 'above'} {threshold:g} at the first checkpoint of "
            f"every run: did you mean below={not below}?",
            stacklevel=2,
        )
    columns = {
        "step": (
            "run",
            np.where(np.isinf(first), np.nan, first),
            "step of convergence",
            STEP_UNITS,
        ),
        "converged": ("run", np.isfinite(first), "whether the run converged", "1"),
        "last_step": ("run", np.where(np.isinf(last), np.nan, last), "last step seen", STEP_UNITS),
    }
    return xr.Dataset(
        {name: variable(*column) for name, column in columns.items()},
        coords={"run": metrics["run"].variable},
        attrs={"metric": metric, "threshold": float(threshold), "below": int(below)},
    )
