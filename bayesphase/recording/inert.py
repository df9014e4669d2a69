"""What the pickle of a file of `torch.save` describes, without unpickling it.

Training loops keep more in a checkpoint than weights: arguments, paths, NumPy numbers, whatever
they were configured with. Here a pickle is not executed but followed as a description: its opcodes
are taken one by one from `pickletools`, which only decodes them, and nothing but dicts, tuples,
strings and numbers is made of them. Tensors become a `TensorRecord`, which says where the values
lie in the file; everything else is an `Unread` of its name. No name is ever looked up or imported
and nothing of the file's is called, so that there is nothing that a file could make run.
"""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MOST_OPCODES = 2**21  # an empty dict takes one byte there and 88 here: some 200 MB at most
_MOST_DIMS = 64  # torch's own limit
# By the names in the pickle, which are only ever compared whole: they may be as long as the file.
_BYTES = {
    f"torch.{name}": n
    for n, names in {
        1: "bool int8 uint8 float4_e2m1fn_x2 float8_e4m3fn float8_e4m3fnuz float8_e5m2 "
        "float8_e5m2fnuz float8_e8m0fnu",
        2: "bfloat16 float16 int16 uint16",
        4: "float32 int32 uint32",
        8: "complex64 float64 int64 uint64",
        16: "complex128",
    }.items()
    for name in names.split()
}
_STORAGES = {
    f"{module}.{name}Storage": f"torch.{dtype}"
    for name, dtype in {
        "BFloat16": "bfloat16",
        "Bool": "bool",
        "Byte": "uint8",
        "Char": "int8",
        "ComplexDouble": "complex128",
        "ComplexFloat": "complex64",
        "Double": "float64",
        "Float": "float32",
        "Half": "float16",
        "Int": "int32",
        "Long": "int64",
        "Short": "int16",
    }.items()
    for module in ("torch", "torch.cuda")
}
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_TYPED = ("torch._utils._rebuild_tensor_v3",)
_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", *_TYPED)
PLAIN = {"collections.Counter", "int", "torch.Size", "torch.device", "tuple", *_BYTES}
"""Names of `Unread` that are certainly no weights."""

# Opcodes whose argument is the value.
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
# How many items others take off the stack; None is all above the last mark.
_TAKES = {
    "TUPLE": None,
    "TUPLE1": 1,
    "TUPLE2": 2,
    "TUPLE3": 3,
    "SETITEM": 2,
    "SETITEMS": None,
    "REDUCE": 2,
    "BINPERSID": 1,
    # from here on what is taken is dropped: what lists and objects hold is not kept
    "APPEND": 1,
    "APPENDS": None,
    "BUILD": 1,
    "NEWOBJ": 1,
    "POP": 1,
    "POP_MARK": None,
}


@dataclass(frozen=True, eq=False, slots=True)
class Unread:
    """Stands for whatever is no part of a tensor; it has the name of its class and no content."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Values that lie one after the other: the record's key, how many bytes, the dtype if told."""

    key: str
    n_bytes: int
    dtype: str | None


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor as the file describes it; offset and strides count entries."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of all entries."""
        n = _BYTES[self.dtype]
        for size in self.shape:
            n *= size
        return n

    def fits(self) -> bool:
        """Whether all entries lie within the storage, and are not more than it has."""
        if not self.n_bytes:
            return True
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        held = self.storage.n_bytes
        return (last + 1) * _BYTES[self.dtype] <= held and self.n_bytes <= held


_MARK = Unread("mark")
_CONSTANTS = {
    "EMPTY_LIST": [],  # one for all, as none is filled
    "EMPTY_TUPLE": (),
    "LONG4": Unread("int"),  # of more than 255 bytes
    "MARK": _MARK,
    "NEWFALSE": False,
    "NEWTRUE": True,
    "NONE": None,
}


def describe(data: bytes, sizes: Mapping[str, int]) -> Any:
    """Follow a pickle of protocol 2, as `torch.save` writes it.

    Parameters
    ----------
    data : bytes
    sizes : mapping of str to int
        How many bytes the records of values have, by their keys.

    Returns
    -------
    dict, TensorRecord, Unread, str, int or another plain value
        What lists and objects hold is dropped.

    Raises
    ------
    ValueError
        If an opcode is none that `torch.save` writes, or a storage is not in the file.
    Exception
        Whatever else a pickle that is not sound leads to.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if count == _MOST_OPCODES:
            raise ValueError(f"it has more than {_MOST_OPCODES} opcodes: save the weights alone")
        _follow(opcode.name, argument, stack, memo, sizes)
    return stack.pop()


def _follow(
    opcode: str, argument: Any, stack: list[Any], memo: dict[int, Any], sizes: Mapping[str, int]
) -> None:
    if opcode in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif opcode in _TAKES:
        _take(opcode, stack, sizes)
    elif opcode in _VALUES:
        stack.append(argument)
    elif opcode in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif opcode in _CONSTANTS:
        stack.append(_CONSTANTS[opcode])
    elif opcode == "EMPTY_DICT":
        stack.append({})
    elif opcode == "GLOBAL":
        stack.append(Unread(argument.replace(" ", ".", 1)))
    elif opcode not in ("PROTO", "STOP"):
        raise ValueError(f"it uses {opcode}, which torch.save never does")


def _take(opcode: str, stack: list[Any], sizes: Mapping[str, int]) -> None:
    n = _TAKES[opcode]
    if n is None:
        n = 0
        while stack[-1 - n] is not _MARK:
            n += 1
        items = stack[len(stack) - n :]
        del stack[-1 - n :]
    else:
        items = stack[-n:]
        if len(items) < n:
            raise ValueError("its stack is too short")
        del stack[-n:]
    if opcode.startswith("TUPLE"):
        stack.append(tuple(items))
    elif opcode.startswith("SETITEM"):
        _set(stack[-1], items)
    elif opcode == "REDUCE":
        stack.append(_made(*items))
    elif opcode == "BINPERSID":
        stack.append(_storage(items[0], sizes))


def _set(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict):
        return
    for key, value in zip(items[::2], items[1::2], strict=True):
        # the hash of a tuple is computed each time, as deep as tuples are nested in it
        if isinstance(key, tuple) and (len(key) > 8 or any(isinstance(k, tuple) for k in key)):
            key = Unread("tuple")
        target[key] = value


def _made(of: Any, args: Any) -> Any:
    """Describe what calling `of` would have made: itself again if that is no part of a tensor."""
    if not isinstance(of, Unread) or not isinstance(args, tuple):
        raise ValueError("it calls what is no name, or without a tuple")
    if of.name == "collections.defaultdict" or (of.name == "collections.OrderedDict" and not args):
        return {}
    if of.name in _PARAMETERS:
        return args[0]
    return _tensor(of, args) if of.name in _TENSORS else of


def _tensor(of: Unread, args: tuple[Any, ...]) -> TensorRecord | Unread:
    if not 4 <= len(args) <= 8:
        raise ValueError(f"a tensor in it has {len(args)} arguments")
    storage, offset, shape, stride = args[:4]
    if not isinstance(storage, Storage) or type(shape) is not tuple or type(stride) is not tuple:
        raise ValueError("a tensor in it has no storage, shape or strides")
    if len(shape) != len(stride) or len(shape) > _MOST_DIMS:
        raise ValueError(f"a tensor in it has {len(shape)} dims and {len(stride)} strides")
    if any(type(n) is not int or not 0 <= n < 2**63 for n in (offset, *shape, *stride)):
        raise ValueError("a tensor in it has a shape or strides that are no numbers of entries")
    # version 3 tells the dtype; what comes last says that values count negated or conjugated
    dtype, more = (args[6].name, args[7:]) if of.name in _TYPED else (storage.dtype, args[6:])
    if dtype not in _BYTES or any(more):
        return of
    return TensorRecord(storage, dtype, offset, shape, stride)


def _storage(pid: Any, sizes: Mapping[str, int]) -> Storage:
    if type(pid) is not tuple or len(pid) != 5 or pid[0] != "storage":
        raise ValueError("it refers to something that is no storage")
    _, of, key, _, n = pid
    if not isinstance(of, Unread) or type(key) is not str or type(n) is not int or n < 0:
        raise ValueError("it refers to a storage without class, key or size")
    dtype = _STORAGES.get(of.name)
    n_bytes = n * (_BYTES[dtype] if dtype else 1)
    if n_bytes > sizes.get(key, -1):
        raise ValueError(f"its storage {key[:40]!r} claims {n_bytes} bytes, more than are there")
    return Storage(key, n_bytes, dtype)
