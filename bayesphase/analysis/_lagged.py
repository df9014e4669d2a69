"""Correlation of what belongs to successive checkpoints of a run."""

import numpy as np


def lagged_correlation(
    values: np.ndarray, *, lag: int = 1, state: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Correlate values with those some checkpoints later in the run; their mean is taken to be 0.

    Parameters
    ----------
    values : ndarray (run, step, feature)
        NaN where there is none.
    lag : int
        Checkpoints of the run between the two, those without any value left out.
    state : ndarray (run, step), optional
        Pairs in different states are left out, -1 being none.

    Returns
    -------
    correlation : ndarray (feature)
        NaN where there are no pairs.
    n_pairs : ndarray (feature)
    """
    run, step = np.nonzero(~np.isnan(values).all(axis=2) if state is None else state >= 0)
    together = run[lag:] == run[:-lag]
    if state is not None:
        together &= state[run[lag:], step[lag:]] == state[run[:-lag], step[:-lag]]
    rows = values[run, step]
    earlier, later = rows[:-lag][together], rows[lag:][together]
    both = np.isfinite(earlier) & np.isfinite(later)
    earlier, later = np.where(both, earlier, 0.0), np.where(both, later, 0.0)
    size = np.sqrt((earlier**2).sum(axis=0) * (later**2).sum(axis=0))
    with np.errstate(invalid="ignore"):
        return (earlier * later).sum(axis=0) / size, both.sum(axis=0)
