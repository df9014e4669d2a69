"""Draws summed up as a median with its interval, as variables of a table."""

from typing import Any

import numpy as np

Variable = tuple[str | tuple[str, ...], Any, dict[str, str]]


def variable(dims: str | tuple[str, ...], values: Any, long_name: str, units: str) -> Variable:
    """Return a variable as xarray takes it, with its name and units."""
    return dims, values, {"long_name": long_name, "units": units}


def summed(
    name: str,
    dims: str | tuple[str, ...],
    draws: np.ndarray,
    long_name: str,
    units: str,
    *,
    ci_prob: float,
) -> dict[str, Variable]:
    """Return ``name``, ``name_lower`` and ``name_upper``: median and equal-tailed interval.

    Parameters
    ----------
    name, dims, long_name, units
        Of the variable.
    draws : ndarray (draw, ...)
        NaN is left out; what is NaN in all draws, or has none, is NaN.
    ci_prob : float
    """
    middle, lower, upper = intervals(draws, ci_prob=ci_prob)
    return {
        name: variable(dims, middle, f"median {long_name}", units),
        f"{name}_lower": variable(dims, lower, f"lower end of the interval of {long_name}", units),
        f"{name}_upper": variable(dims, upper, f"upper end of the interval of {long_name}", units),
    }


def intervals(draws: np.ndarray, *, ci_prob: float) -> np.ndarray:
    """Median and both ends (3, ...) of equal-tailed intervals of draws (draw, ...).

    NaN is left out; what is NaN in all draws, or has none, is NaN.
    """
    tail = (1 - ci_prob) / 2
    columns = np.moveaxis(draws, 0, -1).reshape(int(np.prod(draws.shape[1:])), len(draws))
    values = np.full((3, len(columns)), np.nan)
    for i, column in enumerate(columns):
        known = column[~np.isnan(column)]
        if known.size:
            values[:, i] = np.quantile(known, [0.5, tail, 1 - tail])
    return values.reshape(3, *draws.shape[1:])
