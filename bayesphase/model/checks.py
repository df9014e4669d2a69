"""Checks of single arguments."""

import numpy as np


def check_integer(name: str, value: int) -> int:
    """Return a whole number, of Python's or NumPy's; raise TypeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    return int(value)


def check_count(name: str, value: int, *, least: int) -> int:
    """Return a whole number of at least `least`.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is smaller.
    """
    value = check_integer(name, value)
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def check_seed(random_seed: int | None) -> int | None:
    """Return a seed: None, or an integer of at least 0; raises as `check_count` does."""
    return None if random_seed is None else check_count("random_seed", random_seed, least=0)
