"""Saving xarray objects to netCDF or Zarr so that they read back equal, or not at all.

Both formats go through one `xarray.DataTree`: a Dataset is a tree with nothing below its root.
What is written is plain netCDF-4 (HDF5) or Zarr; xarray alone opens it.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

_ENGINES = {".nc": "h5netcdf", ".zarr": "zarr"}
_JSON = "json:"


def engine_for(path: str | os.PathLike[str]) -> str:
    """Name xarray's engine for a path, by its suffix: ``.nc`` or ``.zarr``.

    Raises
    ------
    ValueError
        If the suffix is another one.
    """
    suffix = Path(path).suffix
    if suffix not in _ENGINES:
        raise ValueError(
            f"{os.fspath(path)!r} has the suffix {suffix!r}; "
            "end the name in '.nc' (netCDF, one file) or '.zarr' (Zarr, a folder)"
        )
    return _ENGINES[suffix]


def require_writable(path: str | os.PathLike[str]) -> None:
    """Raise what `save` would raise of a path: to be called before work that takes long.

    Raises
    ------
    ValueError
        If the suffix is another one than ``.nc`` or ``.zarr``.
    FileNotFoundError
        If the folder that `path` is in does not exist.
    FileExistsError
        If `path` is a folder that is not a Zarr store.
    """
    path = Path(path)
    engine_for(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"can't write {str(path)!r}: make the folder {str(path.parent)!r}")
    if path.is_dir() and not _is_zarr(path):
        raise FileExistsError(
            f"{str(path)!r} is a folder and not a Zarr store; it is left as it is"
        )


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Let `write` make a file or folder elsewhere, then move it to `path` in one step.

    If `write` fails or the process dies, what was at `path` before is still there, whole.

    Parameters
    ----------
    path : path-like
        Where the result goes. A file, or an earlier Zarr store, is replaced.
    write : callable
        Called with the path to write to, which is on the same file system.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    FileNotFoundError
        If the folder that `path` is in does not exist.
    FileExistsError
        If `path` is a folder that is not a Zarr store.
    """
    path = Path(path)
    require_writable(path)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        write(scratch / path.name)
        if path.is_dir():  # a folder can't be replaced by a rename: put the old one aside first
            path.rename(scratch / "replaced")
        (scratch / path.name).replace(path)
    finally:
        if not path.exists() and (scratch / "replaced").exists():
            (scratch / "replaced").rename(path)
        shutil.rmtree(scratch, ignore_errors=True)
    return path


def save(data: xr.Dataset | xr.DataTree, path: str | os.PathLike[str]) -> Path:
    """Write a Dataset or DataTree, compressed and atomically.

    Attributes that netCDF can't hold as they are (booleans, lists, dicts, None) are written as
    text, ``json:`` followed by their JSON; `load` turns them back.

    Parameters
    ----------
    data : Dataset or DataTree
    path : path-like
        Ends in ``.nc`` or ``.zarr``.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    TypeError
        If an attribute is neither text, a number, nor made of such things.
    ValueError
        If the suffix is another one.
    """
    engine = engine_for(path)
    tree = data if isinstance(data, xr.DataTree) else xr.DataTree(dataset=data)
    # Encodings left over from the file something was read from (chunks, codecs) are not wanted.
    tree = tree.map_over_datasets(lambda ds: _map_attrs(ds.drop_encoding(), _encode_attr))
    if engine == "zarr":
        # Format 3 has no specification for fixed-length text yet; format 2 has.
        return write_atomically(
            path, lambda target: tree.to_zarr(target, zarr_format=2, consolidated=True)
        )
    packed = {"zlib": True, "complevel": 4, "shuffle": True}
    encoding = {
        node.path: {
            name: dict(packed)
            for name, v in node.data_vars.items()
            if v.ndim and v.dtype.kind in "fiub"
        }
        for node in tree.subtree
    }
    return write_atomically(
        path, lambda target: tree.to_netcdf(target, engine="h5netcdf", encoding=encoding)
    )


def load(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read what `save` wrote (or any netCDF or Zarr hierarchy) into memory.

    Parameters
    ----------
    path : path-like
        Ends in ``.nc`` or ``.zarr``.

    Returns
    -------
    DataTree
        Use ``.to_dataset()`` for one that was saved as a Dataset.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If the suffix is another one, or the contents can't be read: a file cut short, say.
    """
    engine = _ENGINES.get(Path(path).suffix)
    if engine is None:
        raise ValueError(
            f"{os.fspath(path)!r} has the suffix {Path(path).suffix!r}, expected the path of what "
            "bayesphase wrote: a file that ends in '.nc' (netCDF), or a folder that ends in "
            "'.zarr' (Zarr)"
        )
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {os.fspath(path)!r}")
    try:
        with xr.open_datatree(path, engine=engine) as opened:
            tree = opened.load()
            return tree.map_over_datasets(lambda ds: _map_attrs(ds, _decode_attr))
    except (OSError, ValueError, KeyError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} can't be read as {'Zarr' if engine == 'zarr' else 'netCDF'} "
            f"({error}); it may be cut short or of another format: copy or write it again"
        ) from error


def _is_zarr(path: Path) -> bool:
    return any((path / name).exists() for name in (".zgroup", ".zarray", "zarr.json"))


def _map_attrs(ds: xr.Dataset, convert: Callable[[str, Any], Any]) -> xr.Dataset:
    ds = ds.copy(deep=False)
    holders: list[xr.Dataset | xr.Variable] = [ds, *ds.variables.values()]
    for holder in holders:
        holder.attrs = {str(k): convert(str(k), v) for k, v in holder.attrs.items()}
    return ds


def _encode_attr(name: str, value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    native = isinstance(value, str | int | float) and not isinstance(value, bool)
    if native and not str(value).startswith(_JSON):
        return value
    try:
        return _JSON + json.dumps(value)
    except TypeError as error:
        raise TypeError(
            f"attribute {name!r} is a {type(value).__name__}, which can't be saved; "
            "use text, numbers, or lists and dicts of them"
        ) from error


def _decode_attr(name: str, value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_JSON):
        return json.loads(value.removeprefix(_JSON))
    return value.item() if isinstance(value, np.generic) else value
