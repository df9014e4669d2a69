"""Files that are broken or mean harm, each with a part of the reason it is refused for."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 4))


def weights() -> dict[str, torch.Tensor]:
    return network().state_dict()


class Reduced:
    """Runs a function when it is unpickled, by REDUCE."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self):
        return (Path.touch, (self.sentinel,))


def touching(sentinel: Path) -> str:
    return f"open({str(sentinel)!r}, 'w').close()"


def by_global_reduce(sentinel: Path) -> bytes:
    return b"\x80\x02cbuiltins\nexec\nX" + text(touching(sentinel)) + b"\x85R."


def by_inst(sentinel: Path) -> bytes:
    return b"(X" + text(touching(sentinel)) + b"ibuiltins\nexec\n."


def by_obj(sentinel: Path) -> bytes:
    return b"\x80\x02(cbuiltins\nexec\nX" + text(touching(sentinel)) + b"o."


def by_newobj(sentinel: Path) -> bytes:
    return b"\x80\x02cbuiltins\nmap\ncbuiltins\nexec\n]X" + text(touching(sentinel)) + b"a\x86\x81."


def by_stack_global(sentinel: Path) -> bytes:
    return b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93X" + text(touching(sentinel)) + b"\x85R."


def by_build(sentinel: Path) -> bytes:
    # an object whose __setstate__ is os.system
    return b"\x80\x02cposix\nsystem\nX" + text(f"touch {sentinel}") + b"\x85b."


def by_getattr(sentinel: Path) -> bytes:
    return (
        b"\x80\x02cbuiltins\ngetattr\ncbuiltins\n__import__\nX"
        + text("os")
        + b"\x85RX"
        + text("system")
        + b"\x86RX"
        + text(f"touch {sentinel}")
        + b"\x85R."
    )


def by_extension(sentinel: Path) -> bytes:
    return b"\x80\x02\x82\x01X" + text(touching(sentinel)) + b"\x85R."


def by_persistent_id(sentinel: Path) -> bytes:
    return b"\x80\x02cbuiltins\nexec\nX" + text(touching(sentinel)) + b"\x85RQ."


def by_newobj_ex(sentinel: Path) -> bytes:
    return (
        b"\x80\x04cbuiltins\nmap\ncbuiltins\nexec\n]X" + text(touching(sentinel)) + b"a\x86}\x92."
    )


def by_attribute(sentinel: Path) -> bytes:
    # an OrderedDict whose state, as BUILD would set it, replaces its methods by a function
    return (
        b"\x80\x02ccollections\nOrderedDict\n)R}X"
        + text("__setitem__")
        + b"cbuiltins\nexec\nsbX"
        + text(touching(sentinel))
        + b"K\x01s."
    )


def by_memo(sentinel: Path) -> bytes:
    # a mark in the memo, put back as an argument
    return (
        b"\x80\x02(q\x00cbuiltins\nexec\nq\x01(X"
        + text(touching(sentinel))
        + b"th\x01h\x00X"
        + text(touching(sentinel))
        + b"tR."
    )


def by_rebuilding(sentinel: Path) -> bytes:
    # the parts of a tensor in place of its storage and shape
    return (
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n(cbuiltins\nexec\n\x89NtRX"
        + text(touching(sentinel))
        + b"\x85R."
    )


ROUTES = {
    f.__name__: f
    for f in (
        by_global_reduce,
        by_inst,
        by_obj,
        by_newobj,
        by_stack_global,
        by_build,
        by_getattr,
        by_extension,
        by_persistent_id,
        by_newobj_ex,
        by_attribute,
        by_memo,
        by_rebuilding,
    )
}
# The objects that these describe are not made: the file then holds something that is not read.
INERT = {
    "by_global_reduce": "it holds a builtins.exec",
    "by_newobj": "it holds a builtins.map",
    "by_build": "it holds a posix.system",
    "by_getattr": "it holds a builtins.getattr",
    "by_attribute": "no weights are found in it, there is open(",
    "by_memo": "it holds a builtins.exec",
    "by_rebuilding": "it holds a builtins.exec",
}


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def zipped(
    path: Path, data: bytes, *, compression: int = zipfile.ZIP_STORED, more: str = "archive/more"
) -> None:
    """Write a file as torch.save does, with a pickle of one's own."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
        archive.writestr(more, b"")
        archive.writestr("archive/data/0", b"\0" * 64)
        archive.writestr("archive/version", "3\n")


def changed(path: Path, change: Callable[[bytes], bytes], state: object = None) -> None:
    """Save sound weights, and write them again with another pickle."""
    buffer = io.BytesIO()
    torch.save(weights() if state is None else state, buffer)
    with zipfile.ZipFile(buffer) as sound, zipfile.ZipFile(path, "w") as archive:
        for record in sound.infolist():
            data = sound.read(record)
            archive.writestr(
                record.filename, change(data) if record.filename.endswith("data.pkl") else data
            )


def expanded(path: Path) -> None:
    torch.save({"0.weight": torch.zeros(1).expand(3_000_000, 1_000_000)}, path)


def many_views(path: Path) -> None:
    flat = torch.zeros(100_000)
    torch.save({f"{i}.weight": flat[i:99_000].view(1, -1) for i in range(900)}, path)


def bytearray_bomb(path: Path) -> None:
    zipped(
        path,
        b"\x80\x02c__builtin__\nbytearray\n\x8a\x05" + (10**11).to_bytes(5, "little") + b"\x85R.",
    )


def declared_terabytes(path: Path) -> None:
    torch.save(weights(), path)
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFF0)  # its size, as the directory has it
    path.write_bytes(data)


def safetensors_with(path: Path, header: dict | bytes, data: bytes = b"\0" * 96) -> None:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def folder(path: Path, index: object, **files: bytes) -> None:
    path.mkdir()
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    for name, data in files.items():
        (path / name).write_bytes(data)


def outside_shard(path: Path) -> None:
    save_file(weights(), path.parent / "outside.safetensors.bak")
    folder(path, {"weight_map": {"0.weight": "../outside.safetensors.bak"}})


def missing_shard(path: Path) -> None:
    folder(path, {"weight_map": {"0.weight": "model-00001-of-00002.safetensors"}})


def distributed(path: Path, sentinel: Path) -> None:
    path.mkdir()
    (path / ".metadata").write_bytes(by_global_reduce(sentinel))


def lightning(path: Path, sentinel: Path) -> None:
    state = {
        "state_dict": weights(),
        "pytorch-lightning_version": "2.5.0",
        "hyper_parameters": {"model": Reduced(sentinel)},
    }
    torch.save(state, path)


def legacy(path: Path, sentinel: Path) -> None:
    torch.save(
        {"0.weight": torch.zeros(2, 2), "x": Reduced(sentinel)},
        path,
        _use_new_zipfile_serialization=False,
    )


def lora_bomb(path: Path) -> None:
    path.mkdir()
    tensors = {
        "q.lora_A.weight": torch.zeros(1, 300_000),
        "q.lora_B.weight": torch.zeros(300_000, 1),
    }
    save_file(tensors, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 1, "r": 1}))


def cycle(path: Path) -> None:
    state: dict = {}
    state["state_dict"] = state
    torch.save(state, path)


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def cases(sentinel: Path) -> dict[str, tuple[Callable[[Path], object], str]]:
    """What writes each file, by the file's suffix and name; and what its reason says."""
    huge = tensor("F32", [10**6, 10**6], 0, 4 * 10**12)
    found: dict[str, tuple[Callable[[Path], object], str]] = {
        f"{name} in a zip.pt": (
            lambda p, r=route: zipped(p, r(sentinel)),
            INERT.get(name, "its pickle"),
        )
        for name, route in ROUTES.items()
    }
    found |= {
        f"{name} bare.pt": (
            lambda p, r=route: p.write_bytes(r(sentinel)),
            "neither a safetensors file nor a zip",
        )
        for name, route in ROUTES.items()
    }
    return found | {
        "python object.pt": (
            lambda p: torch.save({"a": Reduced(sentinel)}, p),
            "there is a (a __builtin__.getattr, which is not read)",
        ),
        "object among weights.pt": (
            lambda p: torch.save({"a": torch.eye(2), "b": Reduced(sentinel)}, p),
            "'b' among its weights is a",
        ),
        "legacy.pth": (lambda p: legacy(p, sentinel), "a pickle in another form is never read"),
        "a whole model.pt": (
            lambda p: torch.save(network(), p),
            "it holds a torch.nn.modules.container.Sequential",
        ),
        "plain pickle.bin": (
            lambda p: p.write_bytes(pickle.dumps({"a": Reduced(sentinel)})),
            "never read",
        ),
        "distributed": (lambda p: distributed(p, sentinel), ".metadata is a pickle"),
        "bytearray.pt": (bytearray_bomb, "it holds a __builtin__.bytearray"),
        "dicts.pt": (
            lambda p: zipped(p, b"\x80\x02" + b"}" * 2**22 + b"."),
            "more than 2097152 opcodes",
        ),
        "expanded.pt": (expanded, "more than its storage holds"),
        "views.pt": (many_views, "its tensors claim"),
        "terabytes.pt": (declared_terabytes, "its records claim"),
        "compressed.pt": (
            lambda p: zipped(p, b"\x80\x02N." + b" " * 10**7, compression=zipfile.ZIP_DEFLATED),
            "claim",
        ),
        "script.pt": (
            lambda p: zipped(p, b"\x80\x02N.", more="archive/constants.pkl"),
            "TorchScript",
        ),
        "no pickle.pt": (lambda p: zipfile.ZipFile(p, "w").close(), "0 records named data.pkl"),
        "bent pickle.pt": (lambda p: changed(p, lambda d: d[: len(d) // 2]), "pickle is not sound"),
        "no stack.pt": (lambda p: zipped(p, b"\x80\x02R."), "stack is too short"),
        "itself.pt": (cycle, "no weights are found"),
        "numbers.pt": (lambda p: torch.save({"a": 1}, p), "no weights are found in it, there is a"),
        "list.pt": (lambda p: torch.save([torch.zeros(2, 2)], p), "it holds a list"),
        "meta.pt": (
            lambda p: torch.save({"w": torch.empty(10**6, 10**6, device="meta")}, p),
            "_rebuild_meta_tensor_no_storage",
        ),
        "sparse.pt": (lambda p: torch.save({"w": torch.eye(3).to_sparse()}, p), "sparse"),
        "empty.pt": (lambda p: p.touch(), "the file is empty"),
        "empty.safetensors": (lambda p: p.touch(), "the file is empty"),
        "folder.pt": (lambda p: p.mkdir(), "a folder without weights"),
        "long header.safetensors": (
            lambda p: p.write_bytes(struct.pack("<Q", 2**62) + b"{"),
            "its header claims",
        ),
        "huge.safetensors": (lambda p: safetensors_with(p, {"w": huge}), "does not fit the file"),
        "overlap.safetensors": (
            lambda p: safetensors_with(
                p, {"a": tensor("F32", [24], 0, 96), "b": tensor("F32", [24], 0, 96)}
            ),
            "does not fit the file",
        ),
        "shape.safetensors": (
            lambda p: safetensors_with(p, {"a": tensor("F32", [5, 5], 0, 96)}),
            "does not fit the file",
        ),
        "overflow.safetensors": (
            lambda p: safetensors_with(p, {"a": tensor("F32", [2**40, 2**40], 0, 96)}),
            "does not fit the file",
        ),
        "no json.safetensors": (lambda p: safetensors_with(p, b"{" * 64), "does not fit the file"),
        "text.safetensors": (lambda p: p.write_text("hello, world"), "not a safetensors file"),
        "packed.safetensors": (
            lambda p: save_file({"l.qweight": torch.zeros(4, 4, dtype=torch.int32)}, p),
            "'l.qweight' is packed as torch.int32",
        ),
        "outside": (outside_shard, "is not a file beside it"),
        "shard": (missing_shard, "is missing"),
        "index": (lambda p: folder(p, ["a"]), "holds a list"),
        "lora": (lora_bomb, "effective updates"),
        "nothing left.pt": (
            lambda p: torch.save({"0.weight": torch.zeros(0, 3), "s": torch.tensor(1.0)}, p),
            "no weight matrix is left of the 2 parameters",
        ),
    }
