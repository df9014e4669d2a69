"""Which tensors of a network in memory count, and under which names.

The default rule is that of arXiv:2308.09543: weight matrices and biases count; embeddings, also of
positions, and norm layers do not; in attention each head's query, key and value is its own matrix.
Every tensor that is left out is listed with its reason, so that the rule can be seen and changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from bayesphase.recording.attention import Heads
from bayesphase.recording.rule import Entry, Rule, embedding_by_name
from bayesphase.recording.selection import Matrix, Selection

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Matrix", "Selection", "require_module", "select_parameters"]


def select_parameters(
    module: nn.Module,
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    heads: Mapping[str, tuple[int, int]] | None = None,
    kinds: Mapping[str, str] | None = None,
    n_heads: int | None = None,
    n_kv_heads: int | None = None,
) -> Selection:
    """Select the tensors of a network that count.

    A parameter with two or more dims is a weight matrix; a convolution's kernels are read as the
    matrix (first dim, all other dims). A parameter with one dim is a bias if its name says so.
    Embeddings (`nn.Embedding`, and parameters named like positional embeddings) and norm layers
    are left out. A tensor that two modules share counts once, under its first name, and is left
    out if one of its uses is. Attention is split into query, key and value per head where it is
    called as in torch, BERT, ViT, Llama, T5, GPT-2 or GPT-NeoX and the number of heads is known:
    from an `nn.MultiheadAttention`, from ``module.config``, or from `n_heads`.

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

    n_heads, n_kv_heads : int, optional
        How many attention heads the network has, and how many for keys and values where those are
        fewer (grouped queries). What is given here is taken for every layer.

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
    rule = Rule.of(
        include=include,
        exclude=exclude,
        heads=heads,
        kinds=kinds,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
    )
    return rule.select(_entries(module), what=type(module).__name__)


def _entries(module: nn.Module) -> list[Entry]:
    """Describe the parameters of a network by the classes of the modules that own them."""
    names_of: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names_of.setdefault(id(parameter), []).append(name)
    config = getattr(module, "config", None)
    told = getattr(config, "to_dict", None)
    heads = Heads() if told is None else Heads.of_config(told())
    entries = []
    for name, parameter in module.named_parameters():
        names = names_of[id(parameter)]
        owners = [module.get_submodule(n.rpartition(".")[0]) for n in names]
        reasons = [_left_out(owner, n) for owner, n in zip(owners, names, strict=True)]
        own = getattr(owners[0], "num_heads", None) if _is_attention(owners[0]) else None
        entries.append(
            Entry(
                name,
                tuple(names[1:]),
                tuple(parameter.shape),
                str(parameter.dtype),
                _kind(owners[0], parameter),
                next((reason for reason in reasons if reason), None),
                Heads(own) if own else heads,
            )
        )
    return entries


def require_module(module: object) -> None:
    """Raise TypeError unless this is a module of PyTorch."""
    from torch import nn

    if not isinstance(module, nn.Module):
        raise TypeError(
            f"the network is of type {type(module).__name__}, expected a torch.nn.Module"
        )


def _is_attention(owner: nn.Module) -> bool:
    from torch import nn

    return isinstance(owner, nn.MultiheadAttention)


def _left_out(owner: nn.Module, name: str) -> str | None:
    from torch import nn

    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    if why := embedding_by_name(name):
        return why
    # Normalisation layers share no base class in torch, and models define their own.
    if "norm" in type(owner).__name__.lower():
        return "norm layer"
    return None


def _kind(owner: nn.Module, parameter: Tensor) -> str:
    # Linear is "linear", Conv2d "conv2d"; the output of nn.MultiheadAttention is a class apart, and
    # what transformers calls Conv1D is a linear layer.
    name = type(owner).__name__.lower()
    if name == "nondynamicallyquantizablelinear":
        return "output"
    return "linear" if name == "conv1d" and parameter.ndim == 2 else name
