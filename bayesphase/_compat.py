"""The differences between the generations of PyMC and ArviZ that the package works with."""

from typing import Any

import xarray as xr


def to_datatree(result: Any) -> xr.DataTree:
    """Turn what a sampler returns into a DataTree: PyMC 6 does so itself, PyMC 5 does not."""
    return result if isinstance(result, xr.DataTree) else result.to_datatree()
