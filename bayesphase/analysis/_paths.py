"""What every table needs from a fit: its sampled paths, checked, and a checked ``ci_prob``."""

from collections.abc import Iterator
from numbers import Real

import numpy as np
import xarray as xr

MISSING = -1
STEP_UNITS = "optimiser steps"
_DIMS = ("chain", "draw", "run", "step")


def sampled_paths(fit: xr.DataTree) -> xr.DataArray:
    """Take the sampled paths out of a fit.

    Parameters
    ----------
    fit : DataTree

    Returns
    -------
    DataArray
        int8, dims (chain, draw, run, step); -1 where the run has no checkpoint.

    Raises
    ------
    TypeError
        If `fit` is no DataTree.
    ValueError
        If it has no sampled paths, or paths of other dims.
    """
    if not isinstance(fit, xr.DataTree):
        raise TypeError(
            f"expected the DataTree that bayesphase.fit returns, got {type(fit).__name__}"
        )
    if "paths" not in fit.children or "state" not in fit["paths"].data_vars:
        raise ValueError(
            "the fit has no variable 'state' in a group 'paths'; its groups are "
            f"{sorted(fit.children)}: use the DataTree that bayesphase.fit returns"
        )
    state = fit["paths"].to_dataset()["state"]
    if set(state.dims) != set(_DIMS) or not all(state.sizes.values()):
        raise ValueError(
            f"'paths/state' must have dims {_DIMS}, none of them empty, got {dict(state.sizes)}"
        )
    return state.transpose(*_DIMS)


def state_labels(fit: xr.DataTree) -> np.ndarray:
    """Name all states of the model, 0 to K - 1, also those that no path visits."""
    state = sampled_paths(fit)
    if "posterior" in fit.children and "state" in fit["posterior"].sizes:
        n_states = fit["posterior"].sizes["state"]
    else:
        n_states = int(state.max()) + 1
    return np.arange(n_states)


def each_run(state: xr.DataArray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Go through the runs one by one, which keeps temporary arrays small.

    Yields
    ------
    path : ndarray
        int8, dims (sample, checkpoint): the sampled paths, chains one after the other.
    present : ndarray
        bool, dims (step): where the run has a checkpoint.
    steps : ndarray
        int64, dims (checkpoint): the steps of those checkpoints.
    """
    n_samples = state.sizes["chain"] * state.sizes["draw"]
    values, steps = state.values, state["step"].values
    for run in range(state.sizes["run"]):
        path = values[:, :, run].reshape(n_samples, -1)
        present = path[0] != MISSING
        yield path[:, present], present, steps[present]


def visits_of(path: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut the sampled paths of one run into visits: stretches in one state.

    There are far fewer visits than checkpoints, which is what makes the tables quick.

    Parameters
    ----------
    path : ndarray
        Dims (sample, checkpoint).
    steps : ndarray
        Dims (checkpoint).

    Returns
    -------
    sample, state, begin : ndarray
        Dims (visit): ordered by sample, then by time; `begin` is the step of the first checkpoint.
    """
    enters = np.ones(path.shape, dtype=bool)
    np.not_equal(path[:, 1:], path[:, :-1], out=enters[:, 1:])
    sample, at = np.nonzero(enters)
    return sample, path[sample, at].astype(np.intp), steps[at]


def time_held(
    visits: tuple[np.ndarray, np.ndarray, np.ndarray], steps: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Add up the steps that each sampled path of a run spends in each state.

    A checkpoint's state is held until the run's next checkpoint; the last one adds nothing.

    Parameters
    ----------
    visits : tuple of ndarray
        What `visits_of` returns.
    steps : ndarray
        Dims (checkpoint); at least one.
    shape : (int, int)
        Numbers of samples and of states.

    Returns
    -------
    ndarray
        Dims (sample, state).
    """
    sample, visited, begin = visits
    is_last = np.append(sample[1:] != sample[:-1], True)
    end = np.where(is_last, steps[-1], np.roll(begin, -1))
    cell = sample * shape[1] + visited
    return np.bincount(cell, weights=end - begin, minlength=shape[0] * shape[1]).reshape(shape)


def state_shares(state: xr.DataArray, n_states: int) -> np.ndarray:
    """Share of its time that each sampled path of each run spends in each state.

    Returns dims (sample, run, state); NaN for a run that has less than two checkpoints.
    """
    shape = (state.sizes["chain"] * state.sizes["draw"], n_states)
    shares = np.full((shape[0], state.sizes["run"], n_states), np.nan)
    for r, (path, _, steps) in enumerate(each_run(state)):
        if len(steps) > 1:
            held = time_held(visits_of(path, steps), steps, shape)
            shares[:, r] = held / held.sum(axis=1, keepdims=True)
    return shares


def earliest(cell: np.ndarray, step: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Find the least of the steps that fall in each cell of a table; NaN where there is none.

    Parameters
    ----------
    cell, step : ndarray
        Dims (event): the cell, counted row by row, and the step of each event.
    shape : (int, int)
        Rows and columns of the table.
    """
    first = np.full(shape[0] * shape[1], np.inf)
    np.minimum.at(first, cell, step.astype(float))
    return np.where(np.isinf(first), np.nan, first).reshape(shape)


def check_ci_prob(ci_prob: float) -> float:
    """Return `ci_prob` if it is a probability strictly between 0 and 1, else raise ValueError."""
    if isinstance(ci_prob, bool) or not isinstance(ci_prob, Real) or not 0 < ci_prob < 1:
        raise ValueError(f"ci_prob must be a number between 0 and 1, such as 0.9, got {ci_prob!r}")
    return float(ci_prob)


def checkpoint_quantiles(values: np.ndarray, *, ci_prob: float) -> np.ndarray:
    """Median and equal-tailed interval, each one of the `values` and not between two of them.

    Parameters
    ----------
    values : ndarray
        Dims (sample, ...); NaN is left out.
    ci_prob : float

    Returns
    -------
    ndarray
        Dims (3, ...): median, lower, upper; NaN where all samples are NaN.
    """
    tail = (1 - ci_prob) / 2
    columns = values.reshape(len(values), -1)
    result = np.full((3, columns.shape[1]), np.nan)
    for i, column in enumerate(columns.T):
        known = column[~np.isnan(column)]
        if known.size:
            result[:, i] = np.quantile(known, [0.5, tail, 1 - tail], method="inverted_cdf")
    return result.reshape(3, *values.shape[1:])
