"""Checkpoints that are folders: as `save_pretrained` writes them, in shards, and LoRA adapters."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesphase.recording.attention import Heads
from bayesphase.recording.files import Refused, Weights, open_weights, plain_names

if TYPE_CHECKING:
    from torch import Tensor

# What a folder's weights are called, the first that is there; safetensors before pickles.
_WHOLE = ("model.safetensors", "pytorch_model.bin", "mp_rank_00_model_states.pt")
_SHARDED = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")
_MOST_JSON = 64 * 2**20  # bytes of an index or a configuration
_MOST_EFFECTIVE = 2**28  # entries of all products B A of an adapter: 2 GiB in float64

MARKS = (*_WHOLE[:2], *_SHARDED, *_ADAPTER, _WHOLE[2], ".metadata")
"""A folder that holds one of these is one checkpoint."""


def is_checkpoint_folder(names: set[str]) -> bool:
    """Whether a folder with files of these names is one checkpoint."""
    return bool(names & set(MARKS))


def open_checkpoint(path: Path, *, key: str | None = None) -> tuple[Weights, Heads]:
    """Open a file or folder of weights; the numbers of attention heads come from `config.json`.

    Raises
    ------
    Refused
        If it is no sound checkpoint.
    OSError
        If it can't be read.
    """
    if not path.is_dir():
        weights, folder = open_weights(path, key=key), path.parent
    else:
        weights, folder = _open_folder(path, key), path
    return _checked(weights), _heads(folder)


def files_of(path: Path) -> list[Path]:
    """List the files that a checkpoint is made of: those that change when it does."""
    return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


def _open_folder(path: Path, key: str | None) -> Weights:
    names = {p.name for p in path.iterdir()}
    if whole := [n for n in _WHOLE if n in names]:
        parts = [n for n in names if n.startswith("mp_rank_") and n.endswith("model_states.pt")]
        if whole[0] == _WHOLE[2] and len(parts) > 1:
            raise Refused(f"it is a model in {len(parts)} parallel parts: merge them first")
        return open_weights(path / whole[0], key=key)
    if index := [n for n in _SHARDED if n in names]:
        return _open_shards(path, index[0])
    if adapter := [n for n in _ADAPTER if n in names]:
        return _open_adapter(path, open_weights(path / adapter[0]))
    if ".metadata" in names:
        raise Refused(
            "it is a distributed checkpoint, whose .metadata is a pickle and never read: convert "
            "it with torch.distributed.checkpoint.format_utils.dcp_to_torch_save"
        )
    if any("-of-" in n for n in names):
        raise Refused("it is a folder of shards whose index is not there, or not there yet")
    raise Refused("it is a folder without weights in it")


def _json(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > _MOST_JSON:
        raise Refused(f"its {path.name} has {size} bytes, at most {_MOST_JSON} are read")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Refused(f"its {path.name} is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise Refused(f"its {path.name} holds a {type(found).__name__}, expected names and values")
    return found


def _heads(folder: Path) -> Heads:
    path = folder / "config.json"
    return Heads.of_config(_json(path)) if path.is_file() else Heads()


def _open_shards(path: Path, index: str) -> Weights:
    shard_of = _json(path / index).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise Refused(f"its {index} has no weight_map")
    for name, file in shard_of.items():
        if not isinstance(file, str) or not file or Path(file).name != file or "\\" in file:
            raise Refused(f"its {index} has {name!r} in {file!r}, which is not a file beside it")
    shards = {}
    for file in sorted(set(shard_of.values())):
        if not (path / file).exists():
            raise Refused(f"its shard {file!r} is missing")
        try:
            shards[file] = open_weights(path / file)
        except Refused as error:
            raise Refused(f"of its shard {file!r}: {error}") from error
    held = {name: file for file, shard in shards.items() for name in shard.tensors}
    if wrong := [name for name, file in shard_of.items() if held.get(name) != file]:
        raise Refused(f"its shard {shard_of[wrong[0]]!r} lacks {wrong[0]!r}, which the index has")
    return Weights(
        {name: shards[file].tensors[name] for name, file in shard_of.items()},
        lambda name: shards[shard_of[name]].read(name),
        {a: f for shard in shards.values() for a, f in shard.tied.items()},
    )


def _open_adapter(path: Path, weights: Weights) -> Weights:
    """Present the effective updates of LoRA, B A times the scale, in place of A and B.

    Source: Hu et al., "LoRA", arXiv:2106.09685; the scale alpha / r, or with `use_rslora`
    alpha / sqrt(r) (Kalajdzievski, arXiv:2312.03732).
    """
    lower = {n for n in weights.tensors if n.endswith(".lora_A.weight")}
    if not lower:
        return weights
    config = _json(path / "adapter_config.json") if (path / "adapter_config.json").is_file() else {}
    alpha = config.get("lora_alpha")
    if not isinstance(alpha, int | float) or config.get("alpha_pattern"):
        raise Refused("its adapter_config.json has no single lora_alpha: the scale is not known")
    if any("lora_magnitude" in name for name in weights.tensors):
        raise Refused("it is a DoRA adapter, whose update depends on the weights it is added to")
    tensors = {n: v for n, v in weights.tensors.items() if ".lora_" not in n}
    products = {}
    for down in sorted(lower):
        base = down.removesuffix(".lora_A.weight")
        up = f"{base}.lora_B.weight"
        a, b = weights.tensors[down][0], weights.tensors.get(up, ((), ""))[0]
        if len(a) != 2 or len(b) != 2 or a[0] != b[1] or not a[0]:
            raise Refused(f"{down!r} has shape {a} and {up!r} {b}: they have no product")
        rank = a[0]
        scale = float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
        products[f"{base}.weight"] = (up, down, scale)
        tensors[f"{base}.weight"] = ((b[0], a[1]), "torch.float64")
    entries = sum(math.prod(tensors[name][0]) for name in products)
    if entries > _MOST_EFFECTIVE:
        raise Refused(
            f"the effective updates of its adapter have {entries} entries, at most "
            f"{_MOST_EFFECTIVE} are made"
        )

    def read(name: str) -> Tensor:
        if name not in products:
            return weights.read(name)
        up, down, scale = products[name]
        return scale * (weights.read(up).double() @ weights.read(down).double())

    return Weights(tensors, read, weights.tied)


def _checked(weights: Weights) -> Weights:
    """Take wrappers' parts off the names, refuse packed tensors, and widen what is read."""
    old = plain_names(weights.tensors)
    for name, source in old.items():
        shape, dtype = weights.tensors[source]
        packed = dtype.startswith(("torch.int", "torch.uint")) or "float4" in dtype
        if packed and shape and ("weight" in name.rpartition(".")[2] or ".quant_state" in name):
            raise Refused(
                f"{name!r} is packed as {dtype}: dequantise it, packed bits are no weights"
            )
    new = {source: name for name, source in old.items()}

    def read(name: str) -> Tensor:
        tensor = weights.read(old[name])
        # the narrow formats are exact in float32, in which every device can count and compare
        return tensor.float() if tensor.element_size() < 4 else tensor

    tensors: Mapping[str, Any] = {n: weights.tensors[source] for n, source in old.items()}
    return Weights(tensors, read, {new[a]: new[f] for a, f in weights.tied.items() if a in new})
