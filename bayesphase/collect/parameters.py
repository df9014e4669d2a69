"""Which tensors of a network count, and under which names: the selection, as data.

The default rule is that of arXiv:2308.09543: weight matrices and biases count; embeddings, also of
positions, and norm layers do not; in attention each head's query, key and value is its own matrix.
Every tensor that is left out is listed with its reason, so that the rule can be seen and changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

_EMBEDDING_NAME = re.compile(
    r"(pos|position|positional)(_?emb\w*)?|\w*(pos|position)\w*_emb\w*|(cls|class)_?(token|embedding)"
)


@dataclass(frozen=True)
class Matrix:
    """One matrix to measure: all of a parameter, or the rows or columns of one head.

    Attributes
    ----------
    name : str
        Its label on the dim `parameter`.
    layer, kind : str
        The module that owns it, and what it does there (``"linear"``, ``"query"``, ...).
    shape : tuple of int
        As measured: rows, columns.
    source : str
        The parameter's name in ``module.named_parameters()``.
    axis, start, stop : int
        The slice of the parameter along one axis; all of it where `stop` is -1.
    """

    name: str
    layer: str
    kind: str
    shape: tuple[int, int]
    source: str
    axis: int = 0
    start: int = 0
    stop: int = -1

    def read(self, parameter: Tensor) -> Tensor:
        """Return the matrix, shape (rows, columns), as a view of its parameter."""
        if self.stop >= 0:
            parameter = parameter.narrow(self.axis, self.start, self.stop - self.start)
        return parameter.detach().reshape(self.shape)


@dataclass(frozen=True)
class Selection:
    """The tensors that count: weight matrices, biases, and what was left out and why."""

    matrices: tuple[Matrix, ...]
    biases: tuple[str, ...]
    left_out: Mapping[str, str]

    def to_json(self) -> str:
        """Return the selection as JSON, as it is kept in the attrs of a metrics Dataset."""
        return json.dumps(asdict(self))

    def read(self, module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """Return the selected matrices and biases of a module, as views without a graph.

        Raises
        ------
        ValueError
            If the module lacks a selected parameter, or its shape has changed.
        """
        parameters = dict(module.named_parameters(remove_duplicate=False))
        sources = [matrix.source for matrix in self.matrices] + list(self.biases)
        if missing := sorted(set(sources) - set(parameters)):
            raise ValueError(
                f"the network has no parameter {missing[0]!r}, which the selection names: was the "
                "network wrapped or changed after the selection was made? Select again"
            )
        try:
            matrices = [matrix.read(parameters[matrix.source]) for matrix in self.matrices]
        except RuntimeError as error:
            raise ValueError(
                f"a selected parameter has changed its shape ({error}): select again"
            ) from error
        return matrices, [parameters[name].detach() for name in self.biases]

    def read_gradients(self, module: nn.Module) -> list[Tensor | None]:
        """Return the gradients of the selected matrices that their parameters hold, or None."""
        parameters = dict(module.named_parameters(remove_duplicate=False))
        gradients = [(matrix, parameters[matrix.source].grad) for matrix in self.matrices]
        return [None if grad is None else matrix.read(grad) for matrix, grad in gradients]


def select_parameters(
    module: nn.Module,
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    heads: Mapping[str, tuple[int, int]] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> Selection:
    """Select the tensors of a network that count.

    A parameter with two or more dims is a weight matrix; a convolution's kernels are read as the
    matrix (first dim, all other dims). A parameter with one dim is a bias if its name says so.
    Embeddings (`nn.Embedding`, and parameters named like positional embeddings) and norm layers
    are left out. A tensor that two modules share counts once, under its first name, and is left
    out if one of its uses is. `nn.MultiheadAttention` is split into query, key and value per head.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    include, exclude : iterable of str
        Patterns as of `fnmatch` on parameter names: taken in against the rule, and left out.
        `exclude` wins.
    heads : mapping of str to (int, int), optional
        Patterns of parameter names to split by attention head: the axis, and the number of heads.
    kinds : mapping of str to str, optional
        Patterns of parameter names, to the `kind` their matrices get.

    Returns
    -------
    Selection
        In the order of ``module.named_parameters()``.

    Raises
    ------
    TypeError
        If `module` is no module of PyTorch.
    ValueError
        If a pattern matches nothing, a head split does not come out even, or no matrix is left.
    """
    require_module(module)
    names_of: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names_of.setdefault(id(parameter), []).append(name)
    patterns = _Patterns(tuple(include), tuple(exclude), dict(heads or {}), dict(kinds or {}))
    patterns.check([name for names in names_of.values() for name in names])

    matrices: list[Matrix] = []
    biases: list[str] = []
    left_out: dict[str, str] = {}
    for name, parameter in module.named_parameters():
        aliases = names_of[id(parameter)]
        left_out |= {alias: f"the same tensor as {name}" for alias in aliases[1:]}
        owners = [(module.get_submodule(a.rpartition(".")[0]), a) for a in aliases]
        if reason := patterns.reason(owners, parameter):
            left_out[name] = reason
        elif parameter.ndim < 2 or _is_bias(name, parameter.ndim):
            biases.append(name)
        else:
            matrices += _matrices(owners[0][0], name, parameter, patterns)
    if not matrices:
        raise ValueError(
            f"no weight matrix is left of the {len(names_of)} parameters of "
            f"{type(module).__name__}: take some in with include=[...]"
        )
    return Selection(tuple(matrices), tuple(biases), left_out)


def require_module(module: object) -> None:
    """Raise TypeError unless this is a module of PyTorch."""
    from torch import nn

    if not isinstance(module, nn.Module):
        raise TypeError(
            f"the network is of type {type(module).__name__}, expected a torch.nn.Module"
        )


@dataclass(frozen=True)
class _Patterns:
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    heads: dict[str, tuple[int, int]]
    kinds: dict[str, str]

    def check(self, names: list[str]) -> None:
        for pattern in (*self.include, *self.exclude, *self.heads, *self.kinds):
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(
                    f"the pattern {pattern!r} matches no parameter; there are {', '.join(names)}"
                )

    def reason(self, owners: list[tuple[nn.Module, str]], parameter: Tensor) -> str | None:
        """Say why a parameter is left out, or None if it counts."""
        names = [name for _, name in owners]
        for pattern in self.exclude:
            if any(fnmatchcase(name, pattern) for name in names):
                return f"excluded by {pattern!r}"
        if not parameter.is_floating_point():
            return f"of dtype {parameter.dtype}"
        if any(fnmatchcase(name, pattern) for name in names for pattern in self.include):
            return None
        for owner, name in owners:
            if why := _left_out(owner, name):
                return why
        if parameter.ndim < 2 and not _is_bias(names[0], parameter.ndim):
            return "neither a matrix nor a bias"
        return None


def _left_out(owner: nn.Module, name: str) -> str | None:
    from torch import nn

    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    if _EMBEDDING_NAME.fullmatch(name.rpartition(".")[2].lower()):
        return "embedding, by its name"
    # Normalisation layers share no base class in torch, and models define their own.
    if "norm" in type(owner).__name__.lower():
        return "norm layer"
    return None


def _is_bias(name: str, ndim: int) -> bool:
    last = name.rpartition(".")[2].lower()
    return "bias" in last or (ndim < 2 and (last.startswith("b_") or last == "b"))


def _matrices(
    owner: nn.Module, name: str, parameter: Tensor, patterns: _Patterns
) -> Iterator[Matrix]:
    from torch import nn

    layer, _, last = name.rpartition(".")
    kind = next((k for p, k in patterns.kinds.items() if fnmatchcase(name, p)), "")
    heads = next((h for p, h in patterns.heads.items() if fnmatchcase(name, p)), None)
    if heads is not None:
        yield from _split(name, layer, kind or last, parameter, source=name, heads=heads)
    elif isinstance(owner, nn.MultiheadAttention):
        thirds = ("query", "key", "value")
        if last == "in_proj_weight":
            for i, third in enumerate(thirds):
                yield from _split(
                    f"{layer}.{third}" if layer else third,
                    layer,
                    kind or third,
                    parameter,
                    source=name,
                    heads=(0, owner.num_heads),
                    start=i * owner.embed_dim,
                    stop=(i + 1) * owner.embed_dim,
                )
        else:  # q_proj_weight, k_proj_weight, v_proj_weight
            third = next((t for t in thirds if last.startswith(t[0] + "_proj")), last)
            yield from _split(
                name, layer, kind or third, parameter, source=name, heads=(0, owner.num_heads)
            )
    else:
        shape = (parameter.shape[0], parameter[0].numel())
        label = name.removesuffix(".weight")
        yield Matrix(label, layer, kind or _kind(owner), shape, name)


def _kind(owner: nn.Module) -> str:
    # Linear is "linear", Conv2d "conv2d"; the output of nn.MultiheadAttention is a class apart.
    name = type(owner).__name__.lower()
    return "output" if name == "nondynamicallyquantizablelinear" else name


def _split(
    name: str,
    layer: str,
    kind: str,
    parameter: Tensor,
    *,
    source: str,
    heads: tuple[int, int],
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Matrix]:
    axis, n_heads = heads
    if not 0 <= axis < parameter.ndim or n_heads < 1:
        raise ValueError(
            f"heads[...] = {heads} for the parameter {source!r} of shape {tuple(parameter.shape)}: "
            "expected (axis, number of heads)"
        )
    stop = parameter.shape[axis] if stop is None else stop
    size, rest = divmod(stop - start, n_heads)
    if rest:
        raise ValueError(
            f"the parameter {source!r} has {stop - start} entries along axis {axis}, which do not "
            f"split into {n_heads} heads: correct heads={{pattern: (axis, number of heads)}}"
        )
    for head in range(n_heads):
        begin = start + head * size
        part = parameter.narrow(axis, begin, size)
        if size == 1 and part.ndim > 2:  # an axis of heads alone, as in (head, rows, columns)
            part = part.squeeze(axis)
        shape = (part.shape[0], part[0].numel())
        yield Matrix(f"{name}.head{head}", layer, kind, shape, source, axis, begin, begin + size)
