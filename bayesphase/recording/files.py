"""Weights in files, read without running anything that is in them.

Two formats: safetensors, and the zip files of `torch.save`. The records of such a zip file must be
stored as they are and lie within it, so that what is read can't be larger than what is there; its
pickle is not unpickled but followed as a description of tensors (`inert`).
"""

from __future__ import annotations

import contextlib
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from bayesphase.recording.inert import PLAIN, TensorRecord, Unread, describe

if TYPE_CHECKING:
    from torch import Tensor

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "network",
    "net",
    "params",
    "weights",
)
"""Keys under which training loops keep the weights, beside the optimiser's state and the like."""

_MANY = 2  # declared bytes per byte of the file: views of one flat buffer are saved beside it


class Refused(ValueError):
    """A file is not read, or what it holds is not measured; the message says why."""


@dataclass(frozen=True)
class Weights:
    """The tensors of a checkpoint: shapes and dtypes now, values one at a time.

    Attributes
    ----------
    tensors : mapping of str to (tuple of int, str)
        Shape and dtype of each.
    read : callable
        Reads one tensor by its name.
    tied : mapping of str to str
        Further names of a tensor, to its first.
    """

    tensors: Mapping[str, tuple[tuple[int, ...], str]]
    read: Callable[[str], Tensor]
    tied: Mapping[str, str] = field(default_factory=dict)


def open_weights(path: Path, *, key: str | None = None) -> Weights:
    """Open a file of weights by what is in it, whatever its name.

    Parameters
    ----------
    path : Path
    key : str, optional
        Where in the file the weights are, as names separated by "/"; otherwise `WRAPPERS` are
        looked for.

    Raises
    ------
    Refused
        If it is no such file, or not a sound one.
    OSError
        If it can't be read.
    """
    if not path.is_file():
        raise Refused("it is a folder, not a file" if path.is_dir() else "it is not a file")
    with path.open("rb") as file:
        start = file.read(9)
    if not start:
        raise Refused("the file is empty")
    if start[:2] == b"PK":
        return _open_torch(path, key)
    if start[8:9] == b"{":
        return _open_safetensors(path)
    if start[:1] == b"\x80" or path.suffix != ".safetensors":
        raise Refused(
            "it is neither a safetensors file nor a zip file of torch.save: a pickle in another "
            "form is never read; if it is yours, load it and save its state dict again"
        )
    raise Refused("it is not a safetensors file: its header does not begin where it must")


def _open_safetensors(path: Path) -> Weights:
    import safetensors

    size = path.stat().st_size
    with path.open("rb") as file:
        (header,) = struct.unpack("<Q", file.read(8))
    if header + 8 > size:
        raise Refused(f"its header claims {header} bytes, the file has {size}: it is cut short")
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            tensors = {n: (tuple(s.get_shape()), _dtype(s.get_dtype())) for n, s in slices.items()}
    except safetensors.SafetensorError as error:
        raise Refused(f"its header does not fit the file ({error})") from error

    def read(name: str) -> Tensor:
        with safetensors.safe_open(path, framework="pt") as opened:
            return opened.get_tensor(name)

    return Weights(tensors, read)


def _dtype(code: str) -> str:
    """Write a dtype of safetensors as torch does."""
    known = {"BF16": "bfloat16", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn"}
    kinds = {"F": "float", "I": "int", "U": "uint"}
    return "torch." + (known.get(code) or kinds.get(code[:1], "") + code[1:].lower())


def _open_torch(path: Path, key: str | None) -> Weights:
    described, starts = _read_zip(path)
    found = _unwrap(described, key)
    tied = _tied(found)
    _check_proportion(found, tied, path.stat().st_size)

    def read(name: str) -> Tensor:
        import torch

        record = found[name]
        file = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)
        start = starts[record.storage.key]
        values = file[start : start + record.storage.n_bytes]
        dtype = getattr(torch, record.dtype.removeprefix("torch."))
        tensor = torch.empty(0, dtype=dtype)
        return tensor.set_(values, record.offset, record.shape, record.stride)

    return Weights({n: (t.shape, t.dtype) for n, t in found.items()}, read, tied)


def _read_zip(path: Path) -> tuple[Any, dict[str, int]]:
    """Read what the pickle of a zip file describes, and where in the file its values start."""
    size = path.stat().st_size
    starts, sizes = {}, {}
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            top = _check_records(archive.infolist(), size)
            for record in archive.infolist():
                name = record.filename
                if name.startswith(f"{top}data/"):
                    key = name.removeprefix(f"{top}data/")
                    starts[key], sizes[key] = _start(file, record), record.file_size
                    if starts[key] + sizes[key] > size:
                        raise Refused(f"its record {name!r} does not lie within the file")
            data = archive.read(f"{top}data.pkl")
            with contextlib.suppress(KeyError):  # files of early versions do not tell
                order = archive.read(f"{top}byteorder").decode("ascii", "replace")
                if order != sys.byteorder:
                    raise Refused(f"its byte order is {order[:40]!r}, expected {sys.byteorder!r}")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
        raise Refused(f"it is not a whole zip file ({error})") from error
    try:
        return describe(data, sizes), starts
    except Exception as error:  # whatever a pickle that is not sound leads to
        raise Refused(f"its pickle is not sound ({str(error)[:200]})") from error


def _check_records(records: list[zipfile.ZipInfo], size: int) -> str:
    """Refuse records that are packed, too large or not about tensors; return the folder of all."""
    declared = sum(record.file_size for record in records)
    if declared > size:
        raise Refused(f"its records claim {declared} bytes, the file has {size}")
    if packed := [r for r in records if r.compress_type != zipfile.ZIP_STORED]:
        raise Refused(f"its record {packed[0].filename!r} is compressed, torch's never are")
    names = [record.filename for record in records]
    if any(name.endswith("/constants.pkl") for name in names):
        raise Refused("it is a TorchScript program: save the state dict instead")
    pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise Refused(f"it has {len(pickles)} records named data.pkl, expected 1")
    return pickles[0].removesuffix("data.pkl")


def _start(file: BinaryIO, record: zipfile.ZipInfo) -> int:
    """Find where a record's bytes start: its own header, with name and extra field, is before."""
    file.seek(record.header_offset)
    mark, name, extra = struct.unpack("<4s22x2H", file.read(30))
    if mark != b"PK\x03\x04":
        raise Refused(f"its record {record.filename!r} does not start where it must")
    return record.header_offset + 30 + int(name) + int(extra)


def _unwrap(loaded: Any, key: str | None) -> dict[str, TensorRecord]:
    """Find the dict of tensors in what a file holds."""
    for part in key.split("/") if key else ():
        if not isinstance(loaded, Mapping) or part not in loaded:
            raise Refused(f"it has no key {key!r}, there is {_listed(loaded)}")
        loaded = loaded[part]
    for _ in range(len(WRAPPERS)):
        if not isinstance(loaded, Mapping):
            raise Refused(f"it holds a {_type(loaded)}, expected names and tensors")
        inner = [k for k in WRAPPERS if isinstance(loaded.get(k), Mapping)]
        if inner and not key:
            lightning = "pytorch-lightning_version" in loaded
            loaded = loaded[inner[0]]
            if lightning:
                return _without_network_name(_tensors(loaded))
            continue
        found = [v for v in loaded.values() if isinstance(v, TensorRecord)]
        beside = any(
            isinstance(t, TensorRecord)
            for inside in loaded.values()
            if isinstance(inside, Mapping)
            for t in inside.values()
        )
        if found and not (beside and not any(t.shape for t in found)):
            return _tensors(loaded)
        break
    raise Refused(f"no weights are found in it, there is {_listed(loaded)}: name theirs with key=")


def _tensors(loaded: Mapping[Any, Any]) -> dict[str, TensorRecord]:
    for name, value in loaded.items():
        # `nn.Module.get_extra_state` may return anything, and is never a weight
        plain = str(name).endswith("_extra_state")
        if isinstance(value, Unread) and value.name not in PLAIN and not plain:
            raise Refused(
                f"{str(name)[:80]!r} among its weights is a {_type(value)}, which is not read: "
                "save the state dict alone, or as safetensors"
            )
    return {str(k): v for k, v in loaded.items() if isinstance(v, TensorRecord)}


def _type(value: Any) -> str:
    return value.name[:80] if isinstance(value, Unread) else type(value).__name__


def _listed(loaded: Any) -> str:
    if not isinstance(loaded, Mapping):
        return f"a {_type(loaded)}"
    names = [
        str(k)[:40] + (f" (a {_type(v)}, which is not read)" if isinstance(v, Unread) else "")
        for k, v in list(loaded.items())[:8]
    ]
    return ", ".join(names) + (", ..." if len(loaded) > len(names) else "") or "nothing"


def _without_network_name(found: dict[str, TensorRecord]) -> dict[str, TensorRecord]:
    """Take off the attribute under which a Lightning module keeps its network."""
    if len({name.partition(".")[0] for name in found}) == 1 and all("." in n for n in found):
        return {name.partition(".")[2]: tensor for name, tensor in found.items()}
    return found


def plain_names(names: Mapping[str, Any]) -> dict[str, str]:
    """Take off what wrappers (compiled, sharded, data-parallel) put into names of parameters.

    Returns
    -------
    dict of str to str
        The old name, by the new one.
    """
    inside = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
    new = {name: ".".join(p for p in name.split(".") if p not in inside) for name in names}
    while new and all(name.startswith("module.") for name in new.values()):
        new = {old: name.removeprefix("module.") for old, name in new.items()}
    found: dict[str, str] = {}
    for old, name in new.items():
        if name in found:
            raise Refused(f"{found[name]!r} and {old!r} are both the parameter {name!r}")
        found[name] = old
    return found


def _tied(found: Mapping[str, TensorRecord]) -> dict[str, str]:
    """Tell further names of a tensor, with its first."""
    first: dict[TensorRecord, str] = {}
    tied = {}
    for name, tensor in found.items():
        if tensor.n_bytes and tensor in first:
            tied[name] = first[tensor]
        first.setdefault(tensor, name)
    return tied


def _check_proportion(
    found: Mapping[str, TensorRecord], tied: Mapping[str, str], size: int
) -> None:
    for name, tensor in found.items():
        if not tensor.fits():
            raise Refused(f"{name!r} claims the shape {tensor.shape}, more than its storage holds")
    declared = sum(tensor.n_bytes for name, tensor in found.items() if name not in tied)
    if declared > _MANY * size:
        raise Refused(f"its tensors claim {declared} bytes, the file has {size}")
