"""The rule by which tensors count, one for networks in memory and for files of their weights.

It works on descriptions: of a live network the classes of its modules are known, of a file only
names and shapes. By default weight matrices and biases count; embeddings, norm layers and buffers
do not; in attention each head's query, key and value is its own matrix (arXiv:2308.09543).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bayesphase.recording.attention import Heads, Part, attention_parts, parts
from bayesphase.recording.selection import Matrix, Selection

_EMBEDDING_NAME = re.compile(
    r"(pos|position|positional)(_?emb\w*)?|\w*(pos|position)\w*_emb\w*|(cls|class)_?(token|embedding)"
)
# modules that hold an embedding, by what they are called; `embed_out` and `unembed` are outputs
_EMBEDDING_MODULE = re.compile(
    r"wte|wpe|shared|tok_?emb\w*|relative_attention_bias|(\w*_)?(embed|embedding)(s|_in|_tokens|_positions)?"
)
_NORM_MODULE = re.compile(r"\w*norm\w*|(\w*_)?(ln|bn)(_?\w)?")
_BUFFERS = (
    *("running_mean", "running_var", "num_batches_tracked", "masked_bias", "inv_freq"),
    *("rotary_sin", "rotary_cos"),
)
# As TransformerLens calls them; the biases have an axis of heads.
_LENS_EMBEDDINGS = ("W_E", "W_pos", "W_token_type")
_LENS_BIASES = ("b_Q", "b_K", "b_V", "_b_K", "_b_V")


@dataclass(frozen=True)
class Entry:
    """What the rule knows of one parameter.

    Attributes
    ----------
    name : str
    aliases : tuple of str
        Other names of the same tensor.
    shape : tuple of int
    dtype : str
        As torch writes it, ``"torch.float32"``.
    kind : str
        What its module does.
    left_out : str or None
        Why it does not count, by the class or the name of its module.
    heads : Heads
        Of its attention layer.
    """

    name: str
    aliases: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    kind: str
    left_out: str | None
    heads: Heads

    @property
    def names(self) -> tuple[str, ...]:
        """Its name, and its other names."""
        return (self.name, *self.aliases)

    @property
    def ndim(self) -> int:
        """The number of its dims."""
        return len(self.shape)


def entries_of_shapes(
    tensors: Mapping[str, tuple[tuple[int, ...], str]],
    *,
    tied: Mapping[str, str] | None = None,
    heads: Heads = Heads(),  # noqa: B008  (immutable)
) -> list[Entry]:
    """Describe the tensors of a file, of which only names, shapes and dtypes are known.

    They come in the order of their names, numbers by value: formats keep different orders.

    Parameters
    ----------
    tensors : mapping of str to (tuple of int, str)
        Shape and dtype of each.
    tied : mapping of str to str, optional
        Further names of a tensor, to its first.
    heads : Heads
        Numbers of attention heads.
    """
    aliases: dict[str, list[str]] = {}
    for alias, first in (tied or {}).items():
        aliases.setdefault(first, []).append(alias)
    entries = []
    for name in sorted(tensors, key=_by_number):
        shape, dtype = tensors[name]
        if tied and name in tied:
            continue
        names = [name, *aliases.get(name, [])]
        reasons = [_left_out(n, tensors) for n in names]
        entries.append(
            Entry(
                name,
                tuple(names[1:]),
                shape,
                dtype,
                _kind(name, tensors),
                next((r for r in reasons if r), None),
                heads,
            )
        )
    return entries


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in re.split(r"(\d{1,18})", name)]


def _left_out(name: str, tensors: Mapping[str, tuple[tuple[int, ...], str]]) -> str | None:
    shape, _ = tensors[name]
    path, _, last = name.rpartition(".")
    module = path.rpartition(".")[2]
    # GPT-2 and GPT-NeoX kept their causal masks, 1 x 1 x n x n, under the name of a bias
    if last in _BUFFERS or (last == "bias" and len(shape) == 4 and shape[:2] == (1, 1)):
        return "buffer, by its name"
    if why := embedding_by_name(name):
        return why
    if last == "weight" and _EMBEDDING_MODULE.fullmatch(module.lower()):
        return "embedding, by its name"
    weight = tensors.get(f"{path}.weight" if path else "weight")
    if (
        weight is not None and len(weight[0]) == 1
    ):  # batch, layer and RMS norms, whatever their name
        return "norm layer, by its vector of weights"
    if _NORM_MODULE.fullmatch(module.lower()):
        return "norm layer, by its name"
    return None


def _kind(name: str, tensors: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    path, _, _ = name.rpartition(".")
    layer, _, module = path.rpartition(".")
    beside = {f"{layer}.{n}".removeprefix(".") for n in ("in_proj_weight", "q_proj_weight")}
    if module == "out_proj" and beside & set(tensors):
        return "output"
    ndim = len(tensors[name][0])
    return "linear" if ndim < 3 else f"conv{ndim - 2}d"


def embedding_by_name(name: str) -> str | None:
    """Say that a parameter is an embedding if it is called like one itself."""
    last = name.rpartition(".")[2]
    if _EMBEDDING_NAME.fullmatch(last.lower()) or last in _LENS_EMBEDDINGS:
        return "embedding, by its name"
    return None


@dataclass(frozen=True)
class Rule:
    """What a user may change about which tensors count; see `select_parameters`."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    heads: tuple[tuple[str, tuple[int, int]], ...] = ()
    kinds: tuple[tuple[str, str], ...] = ()
    n_heads: int | None = None
    n_kv_heads: int | None = None

    @classmethod
    def of(
        cls,
        *,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        heads: Mapping[str, tuple[int, int]] | None = None,
        kinds: Mapping[str, str] | None = None,
        n_heads: int | None = None,
        n_kv_heads: int | None = None,
    ) -> Rule:
        """Take the settings as users give them."""
        for name, value in (("n_heads", n_heads), ("n_kv_heads", n_kv_heads)):
            whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and (not whole or value < 1):
                raise ValueError(f"{name} is {value!r}, expected a number of attention heads")
        for name, patterns in (("include", include), ("exclude", exclude)):
            if isinstance(patterns, str):
                raise TypeError(f"{name} is {patterns!r}, expected a list of patterns")
        declared = tuple((p, (int(a), int(n))) for p, (a, n) in (heads or {}).items())
        named = tuple((kinds or {}).items())
        return cls(tuple(include), tuple(exclude), declared, named, n_heads, n_kv_heads)

    def select(self, entries: list[Entry], *, what: str) -> Selection:
        """Select the tensors that count.

        Parameters
        ----------
        entries : list of Entry
        what : str
            What they are the parameters of, for messages.

        Raises
        ------
        ValueError
            If a pattern matches nothing, a head split does not come out even, or no matrix is left.
        """
        names = [name for entry in entries for name in entry.names]
        self._check(names)
        matrices: list[Matrix] = []
        biases: list[str] = []
        left_out: dict[str, str] = {}
        notes: dict[str, str] = {}
        for entry in entries:
            left_out |= {alias: f"the same tensor as {entry.name}" for alias in entry.aliases}
            if reason := self._reason(entry):
                left_out[entry.name] = reason
            elif entry.ndim < 2 or _is_bias(entry.name, entry.ndim):
                biases.append(entry.name)
            else:
                matrices += self._matrices(entry, names, notes)
        if not matrices:
            raise ValueError(
                f"no weight matrix is left of the {len(entries)} parameters of {what}: take some "
                "in with include=[...]"
            )
        return Selection(tuple(matrices), tuple(biases), left_out, notes)

    def _check(self, names: list[str]) -> None:
        declared = [pattern for pattern, _ in (*self.heads, *self.kinds)]
        for pattern in (*self.include, *self.exclude, *declared):
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(
                    f"the pattern {pattern!r} matches no parameter; there are {', '.join(names)}"
                )

    def _reason(self, entry: Entry) -> str | None:
        """Say why a parameter is left out, or None if it counts."""
        for pattern in self.exclude:
            if any(fnmatchcase(name, pattern) for name in entry.names):
                return f"excluded by {pattern!r}"
        if not entry.dtype.removeprefix("torch.").startswith(("float", "bfloat")):
            return f"of dtype {entry.dtype}"
        if 0 in entry.shape:
            return "it has no entries"
        if any(fnmatchcase(name, p) for name in entry.names for p in self.include):
            return None
        if entry.left_out:
            return entry.left_out
        if entry.ndim < 2 and not _is_bias(entry.name, entry.ndim):
            return "neither a matrix nor a bias"
        return None

    def _matrices(self, entry: Entry, names: list[str], notes: dict[str, str]) -> Iterator[Matrix]:
        name, shape = entry.name, entry.shape
        layer, _, last = name.rpartition(".")
        kind = next((k for p, k in self.kinds if fnmatchcase(name, p)), "")
        declared = next((h for p, h in self.heads if fnmatchcase(name, p)), None)
        if declared is not None:
            for part in _declared(name, shape, declared):
                yield _head(name, layer, kind or last, entry, part)
            return
        heads = entry.heads._replace(
            query=self.n_heads or entry.heads.query,
            key_value=self.n_kv_heads or entry.heads.key_value,
        )
        found = attention_parts(name, shape, names, heads)
        if isinstance(found, list):
            fused = len({part.third for part in found}) > 1
            own = name.removesuffix(".weight")
            for part in found:
                label = f"{layer}.{part.third}".removeprefix(".") if fused else own
                yield _head(label, layer, kind or part.third, entry, part)
            return
        if found:
            notes[name] = found
        columns = 1
        for size in shape[1:]:
            columns *= size
        yield Matrix(
            name.removesuffix(".weight"), layer, kind or entry.kind, (shape[0], columns), name
        )


def _head(label: str, layer: str, kind: str, entry: Entry, part: Part) -> Matrix:
    shape = list(entry.shape)
    shape[part.axis] = part.stop - part.start
    if shape[part.axis] == 1 and len(shape) > 2:  # an axis of heads alone: (head, rows, columns)
        del shape[part.axis]
    columns = 1
    for size in shape[1:]:
        columns *= size
    rows = (shape[0], columns)
    name = f"{label}.head{part.head}"
    return Matrix(name, layer, kind, rows, entry.name, part.axis, part.start, part.stop)


def _declared(name: str, shape: tuple[int, ...], heads: tuple[int, int]) -> Iterator[Part]:
    axis, n = heads
    if not 0 <= axis < len(shape) or n < 1:
        raise ValueError(
            f"heads[...] = {heads} for the parameter {name!r} of shape {shape}: expected (axis, "
            "number of heads)"
        )
    if shape[axis] % n:
        raise ValueError(
            f"the parameter {name!r} has {shape[axis]} entries along axis {axis}, which do not "
            f"split into {n} heads: correct heads={{pattern: (axis, number of heads)}}"
        )
    return parts("", axis, n, stop=shape[axis])


def _is_bias(name: str, ndim: int) -> bool:
    last = name.rpartition(".")[2]
    if last in _LENS_BIASES:
        return True
    last = last.lower()
    return "bias" in last or (ndim < 2 and (last.startswith("b_") or last == "b"))
