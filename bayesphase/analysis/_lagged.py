"""Correlation of what belongs to successive checkpoints of a run."""

import numpy as np
import xarray as xr


def lagged_correlation(
    values: xr.DataArray, *, lag: int = 1, state: xr.DataArray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Correlate values with those some checkpoints later in the run; their mean is taken to be 0.

    Parameters
    ----------
    values : DataArray (run, step, feature)
        NaN where there is none.
    lag : int
        Checkpoints of the run between the two, those without any value left out.
    state : DataArray (run, step), optional
        Pairs in different states are left out, -1 being none.

    Returns
    -------
    correlation : ndarray (feature)
        NaN where there are no pairs.
    n_pairs : ndarray (feature)
    """
    grid = values.transpose("run", "step", "feature").values
    if state is None:
        there = ~np.isnan(grid).all(axis=2)
    else:
        states = state.transpose("run", "step").values
        there = states >= 0
    run, step = np.nonzero(there)
    together = run[lag:] == run[:-lag]
    if state is not None:
        together &= states[run[lag:], step[lag:]] == states[run[:-lag], step[:-lag]]
    rows = grid[run, step]
    earlier, later = rows[:-lag][together], rows[lag:][together]
    both = np.isfinite(earlier) & np.isfinite(later)
    earlier, later = np.where(both, earlier, 0.0), np.where(both, later, 0.0)
    size = np.sqrt((earlier**2).sum(axis=0) * (later**2).sum(axis=0))
    with np.errstate(invalid="ignore"):
        return (earlier * later).sum(axis=0) / size, both.sum(axis=0)
