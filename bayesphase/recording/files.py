"""Weights in files, read without running anything that is in them.

Two formats: safetensors, and the zip files of `torch.save`, of which torch's own restricted loader
takes tensors only. Before that loader sees a file, the file itself is looked at: its records must
be stored as they are and lie within it, and its pickle may name nothing but the parts of tensors,
so that what is read can't be larger than what is there.
"""

from __future__ import annotations

import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

_SAFE_GLOBALS = {
    "collections OrderedDict",
    "collections Counter",
    "torch Size",
    "torch Tensor",
    "torch device",
    "torch.nn.parameter Parameter",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_parameter_with_state",
    "torch.storage UntypedStorage",
    "torch.storage TypedStorage",
}
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
    import torch

    _check_zip(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError:
        raise
    except (
        Exception
    ) as error:  # the loader raises whatever its parts do on a file that is not sound
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Refused(f"torch's loader of weights does not take it ({first})") from error
    found = _unwrap(loaded, key)
    tensors, tied = _distinct(found)
    _check_proportion(found, tensors, path.stat().st_size)
    shapes = {n: (tuple(t.shape), str(t.dtype)) for n, t in found.items()}
    return Weights(shapes, found.__getitem__, tied)


def _check_zip(path: Path) -> None:
    """Refuse a zip file with records that are packed, too large or not about tensors."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
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
            _check_pickle(archive.read(pickles[0]))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
        raise Refused(f"it is not a whole zip file ({error})") from error


def _check_pickle(data: bytes) -> None:
    """Refuse a pickle that names something else than the parts of tensors. Nothing is run."""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "GLOBAL":
                module, _, name = str(argument).partition(" ")
                storage = module in ("torch", "torch.cuda") and name.endswith("Storage")
                dtype = module == "torch" and name.islower()
                if f"{module} {name}" not in _SAFE_GLOBALS and not storage and not dtype:
                    raise Refused(
                        f"its pickle asks for {module}.{name}, which is no part of a tensor: save "
                        "the state dict alone, or as safetensors"
                    )
            elif opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
                raise Refused(f"its pickle uses {opcode.name}, which torch.save never does")
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"its pickle is not sound ({error})") from error


def _unwrap(loaded: Any, key: str | None) -> dict[str, Tensor]:
    """Find the dict of tensors in what a file holds."""
    import torch

    at = []
    for part in key.split("/") if key else ():
        if not isinstance(loaded, Mapping) or part not in loaded:
            raise Refused(f"it has no key {key!r}, there is {_listed(loaded)}")
        loaded = loaded[part]
        at.append(part)
    for _ in range(len(WRAPPERS)):
        if not isinstance(loaded, Mapping):
            raise Refused(f"it holds a {type(loaded).__name__}, expected names and tensors")
        found = {k: v for k, v in loaded.items() if isinstance(v, torch.Tensor)}
        inner = [k for k in WRAPPERS if isinstance(loaded.get(k), Mapping)]
        if inner and not key:
            lightning = "pytorch-lightning_version" in loaded
            loaded = loaded[inner[0]]
            if lightning:
                return _without_network_name(_tensors(loaded))
            continue
        if found:
            return {str(k): v for k, v in found.items()}
        break
    raise Refused(f"no weights are found in it, there is {_listed(loaded)}: name theirs with key=")


def _tensors(loaded: Mapping[Any, Any]) -> dict[str, Tensor]:
    import torch

    return {str(k): v for k, v in loaded.items() if isinstance(v, torch.Tensor)}


def _listed(loaded: Any) -> str:
    if not isinstance(loaded, Mapping):
        return f"a {type(loaded).__name__}"
    names = [str(k)[:40] for k in list(loaded)[:8]]
    return ", ".join(names) + (", ..." if len(loaded) > len(names) else "") or "nothing"


def _without_network_name(found: dict[str, Tensor]) -> dict[str, Tensor]:
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


def _distinct(found: Mapping[str, Tensor]) -> tuple[list[Tensor], dict[str, str]]:
    """Tell tensors from further names of the same one."""
    first: dict[Any, str] = {}
    tensors: list[Tensor] = []
    tied = {}
    for name, tensor in found.items():
        if tensor.device.type == "meta" or tensor.layout != _strided() or tensor.is_quantized:
            raise Refused(f"{name!r} is packed, sparse or without values: it can't be measured")
        where = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and where in first:
            tied[name] = first[where]
        else:
            first[where] = name
            tensors.append(tensor)
    return tensors, tied


def _strided() -> Any:
    import torch

    return torch.strided


def _check_proportion(found: Mapping[str, Tensor], tensors: list[Tensor], size: int) -> None:
    for name, tensor in found.items():
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise Refused(
                f"{name!r} claims the shape {tuple(tensor.shape)}, more than its storage holds"
            )
    declared = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if declared > _MANY * size:
        raise Refused(f"its tensors claim {declared} bytes, the file has {size}")
