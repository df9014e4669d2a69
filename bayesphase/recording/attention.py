"""Which rows or columns of a parameter are one attention head's query, key or value.

Recognised by the names that the common families give: torch's own `nn.MultiheadAttention`, BERT and
ViT, Llama with grouped queries, T5, GPT-2 (fused, stored transposed), GPT-NeoX and Bloom (fused,
interleaved by head), TransformerLens (an axis of heads). GPTBigCode and CodeGen fuse in ways of
their own under names that others have, too: they are recognised by their configuration. What can't
be split is measured whole, and a note says why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

THIRDS = ("query", "key", "value")
# How the last part of a module's (or parameter's) name ends where each has a matrix of its own.
_SEPARATE = (
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_proj_weight", "k_proj_weight", "v_proj_weight"),
    ("q_lin", "k_lin", "v_lin"),
    ("to_q", "to_k", "to_v"),
    ("wq", "wk", "wv"),
    ("q", "k", "v"),
)
_FUSED = ("in_proj_weight", "c_attn", "qkv", "qkv_proj", "Wqkv")
_INTERLEAVED = ("query_key_value",)
_COUNT_KEYS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KV_COUNT_KEYS = ("num_key_value_heads", "n_head_kv", "n_kv_heads")


# The axis before rows and columns is that of the heads.
_BY_HEAD = {"W_Q": "query", "W_K": "key", "W_V": "value", "_W_K": "key", "_W_V": "value"}
_CODEGEN_BLOCKS = 4


class Heads(NamedTuple):
    """How many heads a network has for queries, and for keys and values; None if not known.

    `order` says how the heads lie in a fused matrix where its name does not: ``"interleaved"``
    by head, in CodeGen's ``"blocks"``, or as the name says if it is empty.
    """

    query: int | None = None
    key_value: int | None = None
    order: str = ""

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Heads:
        """Read the numbers from a model's configuration, as `config.json` has it."""
        query, key_value = _count(config, _COUNT_KEYS), _count(config, _KV_COUNT_KEYS)
        if config.get("model_type") == "codegen":
            return cls(query, key_value, "blocks")
        if config.get("model_type") == "gpt_bigcode":
            # as the model itself takes it where it is not told
            many = config.get("multi_query", True) is False
            return cls(query, None, "interleaved") if many else cls(query, 1)
        return cls(query, key_value)


class Part(NamedTuple):
    """A slice of a parameter: what it is, which head, and from where to where along an axis."""

    third: str
    head: int
    axis: int
    start: int
    stop: int


def _count(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def attention_parts(
    name: str, shape: tuple[int, ...], names: Collection[str], heads: Heads
) -> list[Part] | str | None:
    """Split a parameter of attention by head.

    Parameters
    ----------
    name : str
        Of the parameter, with or without ``.weight`` at its end.
    shape : tuple of int
        Of the parameter.
    names : collection of str
        Of all parameters of the network.
    heads : Heads
        The numbers of heads of the layer.

    Returns
    -------
    list of Part, str or None
        The heads' slices, queries before keys before values; a note that says why it is measured
        whole; or None if it is no query, key or value.
    """
    module = name.removesuffix(".weight")
    layer, _, last = module.rpartition(".")
    if len(shape) == 3 and last in _BY_HEAD:
        return list(parts(_BY_HEAD[last], 0, shape[0], stop=shape[0]))
    if len(shape) != 2:
        return None
    for family in _SEPARATE:
        siblings = [name.replace(module, f"{layer}.{n}" if layer else n, 1) for n in family]
        if last in family and set(siblings) <= set(names):
            return _separate(shape, THIRDS[family.index(last)], heads)
    fused = last in _FUSED
    if last in _INTERLEAVED or (fused and heads.order == "interleaved"):
        return _interleaved(shape, heads)
    if fused:
        return _in_blocks(shape, heads) if heads.order == "blocks" else _fused(shape, heads)
    return None


def _separate(shape: tuple[int, ...], third: str, heads: Heads) -> list[Part] | str:
    n = heads.query if third == "query" else heads.key_value or heads.query
    if n is None:
        return _unknown(third)
    if shape[0] % n:
        return f"whole: its {shape[0]} rows do not split into {n} heads"
    return list(parts(third, 0, n, stop=shape[0]))


def _fused(shape: tuple[int, ...], heads: Heads) -> list[Part] | str:
    if heads.query is None:
        return _unknown("query, key and value")
    kv = heads.key_value or heads.query
    # GPT-2 stores (in, out): there the side of queries, keys and values is the longer one, too
    axis = 1 if shape[1] == 3 * shape[0] else 0
    size, rest = divmod(shape[axis], heads.query + 2 * kv)
    if rest:
        return f"whole: {shape[axis]} entries along axis {axis} do not split into " + (
            f"{heads.query} + 2 x {kv} heads"
        )
    if kv == heads.query and shape[axis] != 3 * shape[1 - axis]:
        return _other_shape(shape, heads)
    ends = (heads.query * size, (heads.query + kv) * size, shape[axis])
    starts = (0, *ends[:2])
    counts = (heads.query, kv, kv)
    return [
        part
        for third, n, start, stop in zip(THIRDS, counts, starts, ends, strict=True)
        for part in parts(third, axis, n, start=start, stop=stop)
    ]


def _interleaved(shape: tuple[int, ...], heads: Heads) -> list[Part] | str:
    if heads.query is None:
        return _unknown("query, key and value")
    size, rest = divmod(shape[0], 3 * heads.query)
    if rest or shape[0] != 3 * shape[1]:
        return _other_shape(shape, heads)
    return [
        Part(third, head, 0, (3 * head + i) * size, (3 * head + i + 1) * size)
        for i, third in enumerate(THIRDS)
        for head in range(heads.query)
    ]


def _in_blocks(shape: tuple[int, ...], heads: Heads) -> list[Part] | str:
    """Split as CodeGen does: blocks one after the other, of queries, then values, then keys."""
    if heads.query is None:
        return _unknown("query, key and value")
    size, rest = divmod(shape[0], 3 * heads.query)
    here, uneven = divmod(heads.query, _CODEGEN_BLOCKS)
    if rest or uneven or shape[0] != 3 * shape[1]:
        return _other_shape(shape, heads)
    found = []
    for third in THIRDS:
        place = ("query", "value", "key").index(third)
        for head in range(heads.query):
            block, within = divmod(head, here)
            start = ((3 * block + place) * here + within) * size
            found.append(Part(third, head, 0, start, start + size))
    return found


def parts(third: str, axis: int, n: int, *, start: int = 0, stop: int) -> Iterator[Part]:
    """Cut a range along an axis into the equal slices of `n` heads."""
    size = (stop - start) // n
    for head in range(n):
        yield Part(third, head, axis, start + head * size, start + (head + 1) * size)


def _other_shape(shape: tuple[int, ...], heads: Heads) -> str:
    return (
        f"whole: of its shape {shape[0]}x{shape[1]} it is not known how {heads.query} heads "
        "lie in it"
    )


def _unknown(what: str) -> str:
    return f"whole: {what} of attention, but the number of heads is not known; give n_heads"
