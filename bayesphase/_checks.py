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


def threads(cores: int | None) -> int:
    """Count the threads to use: `cores`, or all that this process may use; as `check_count`."""
    from joblib.externals.loky import cpu_count  # minds affinity and the limits of containers

    return cpu_count() if cores is None else check_count("cores", cores, least=1)


def check_seed(random_seed: int | None) -> int | None:
    """Return a seed: None, or an integer of at least 0; raises as `check_count` does."""
    return None if random_seed is None else check_count("random_seed", random_seed, least=0)
