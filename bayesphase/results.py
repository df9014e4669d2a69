"""A fit on disk: one netCDF file or Zarr store that xarray alone can open."""

import os
from pathlib import Path

import xarray as xr

from bayesphase import _storage

_GROUPS = ("posterior", "paths")


def save_fit(fit: xr.DataTree, path: str | os.PathLike[str]) -> Path:
    """Write a fit to a file, compressed.

    It is written elsewhere first and then moved into place, so that `path` holds either what it
    held before or the whole fit.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    path : path-like
        Ends in ``.nc`` (netCDF, one file) or ``.zarr`` (Zarr, a folder). Replaced if it exists.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    TypeError
        If `fit` is no DataTree, or has an attribute that can't be saved.
    ValueError
        If it is not a fit, or the suffix is another one.
    FileNotFoundError
        If the folder to write in does not exist.
    FileExistsError
        If `path` is a folder that is not a Zarr store.
    """
    if not isinstance(fit, xr.DataTree):
        raise TypeError(
            f"expected the DataTree that bayesphase.fit returns, got {type(fit).__name__}"
        )
    _check_is_fit(fit, "the DataTree")
    return _storage.save(fit, path)


def open_fit(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read a fit that `save_fit` wrote, all of it into memory.

    Parameters
    ----------
    path : path-like
        Ends in ``.nc`` or ``.zarr``.

    Returns
    -------
    DataTree
        Equal to what was saved, attributes and types included.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If the suffix is another one, the file can't be read, or it holds no fit.
    """
    fit = _storage.load(path)
    _check_is_fit(fit, repr(os.fspath(path)))
    return fit


def _check_is_fit(tree: xr.DataTree, what: str) -> None:
    missing = [group for group in _GROUPS if group not in tree.children]
    if missing:
        raise ValueError(
            f"{what} is not a fit: it lacks the groups {missing}, it has {sorted(tree.children)}; "
            "a fit is what bayesphase.fit returns"
        )
