"""A one-layer transformer that learns to add modulo a prime: it memorises first, and then groks.

The network and its training are those of Hu et al. (arXiv:2308.09543; code in
michahu/modeling-training), after Nanda et al. (arXiv:2301.05217): tokens a, b, "=", and the sum is
read at the last position. Only the last position is computed, and keys and values once per token
instead of once per example, which leaves the MLP as nearly all of the work.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional

from bayesphase.recording.parameters import Selection, select_parameters
from bayesphase.recording.recorder import Recorder

CONVERGED = 0.99
"""Validation accuracy from which a run counts as converged for `Settings.tail`."""


@dataclass(frozen=True)
class Settings:
    """What one training is, but for its seed.

    Attributes
    ----------
    modulus : int
        The prime p; there are p x p pairs.
    train_fraction : float
        The share of the pairs to train on; the others are for validation.
    split_seed : int
        Chooses the pairs to train on. It is the same for all seeds, so that they share their
        validation examples.
    epochs : int
        The most epochs to train.
    every : int
        Epochs from one checkpoint to the next; there is one at step 0 too.
    tail : int or None
        Stop when the validation accuracy has been at least 0.99 for so many epochs.
    layer_norm : bool
        Normalise the residual stream after the attention and after the MLP.
    batch_size, learning_rate, weight_decay, betas
        Of AdamW; the other options are PyTorch's own.
    width, n_heads, hidden : int
        Of the residual stream, of the attention, of the MLP.
    """

    modulus: int = 113
    train_fraction: float = 0.3
    split_seed: int = 0
    epochs: int = 10_000
    every: int = 10
    tail: int | None = None
    layer_norm: bool = False
    batch_size: int = 2048
    learning_rate: float = 1e-3
    weight_decay: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    width: int = 128
    n_heads: int = 4
    hidden: int = 512

    def __post_init__(self) -> None:  # noqa: D105
        n_train = int(self.modulus**2 * self.train_fraction)
        if not 0 < n_train < self.modulus**2:
            raise ValueError(
                f"train_fraction is {self.train_fraction}, expected a share between 0 and 1 that "
                f"leaves pairs on both sides of the split of {self.modulus**2}"
            )
        for name in ("epochs", "every", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")


class Transformer(nn.Module):
    """One attention layer and one MLP, read at the last of the positions a, b, "=".

    Parameters
    ----------
    settings : Settings
        Sizes, and whether to use layer norm.
    generator : torch.Generator
        Draws the initial weights: normal, with standard deviation one over the root of the
        input width (of the number of tokens for the unembedding); biases start at 0.
    """

    def __init__(self, settings: Settings, generator: torch.Generator) -> None:
        super().__init__()
        width, n_tokens = settings.width, settings.modulus + 1
        self.embed = nn.Embedding(n_tokens, width)
        self.position = nn.Embedding(3, width)
        self.attention = nn.MultiheadAttention(
            width, settings.n_heads, bias=False, batch_first=True
        )
        self.mlp_in = nn.Linear(width, settings.hidden)
        self.mlp_out = nn.Linear(settings.hidden, width)
        self.unembed = nn.Linear(width, n_tokens, bias=False)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * settings.layer_norm))
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.startswith("norms"):
                    continue
                spread = n_tokens if name == "unembed.weight" else width
                parameter.normal_(0, spread**-0.5, generator=generator)
                if parameter.ndim == 1:
                    parameter.zero_()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the logits of the answer, shape (batch, token), for summands of shape (batch,)."""
        tokens, position = self.embed.weight[:-1], self.position.weight
        last = self.embed.weight[-1] + position[2]
        query, key, value = self.attention.in_proj_weight.chunk(3)
        head = (-1, self.attention.num_heads, self.attention.head_dim)
        asked = functional.linear(last, query).view(head[1:]) / head[2] ** 0.5

        keys, values = [], []
        for stream, index in ((tokens + position[0], a), (tokens + position[1], b), (last, None)):
            score = (functional.linear(stream, key).view(head) * asked).sum(-1)
            worth = functional.linear(stream, value).view(head)
            keys.append(score.expand(len(a), -1) if index is None else score[index])
            values.append(worth if index is None else worth[index])
        shares = torch.stack(keys, -1).softmax(-1)  # (batch, head, position)
        first, second, third = (shares[..., i : i + 1] * values[i] for i in range(3))
        mixed = first + second + third

        x = last + functional.linear(mixed.flatten(1), self.attention.out_proj.weight)
        x = self.norms[0](x) if self.norms else x
        x = x + self.mlp_out(functional.relu(self.mlp_in(x)))
        x = self.norms[1](x) if self.norms else x
        return self.unembed(x)


def selection_of(network: Transformer) -> Selection:
    """Select the matrices of the network: q, k, v by head, o, MLP in and out, unembedding."""
    kinds = {f"{layer}.weight": layer for layer in ("mlp_in", "mlp_out", "unembed")}
    return select_parameters(network, kinds=kinds)


class Pairs(NamedTuple):
    """Pairs to add: summands a and b, and the answer; each of shape (pair,)."""

    a: Tensor
    b: Tensor
    answer: Tensor

    def at(self, index: Tensor) -> Pairs:
        """Return the pairs at an index."""
        return Pairs(self.a[index], self.b[index], self.answer[index])


def split_pairs(settings: Settings) -> tuple[Pairs, Pairs]:
    """Split all pairs into those to train on and those for validation, each in random order."""
    p = settings.modulus
    a, b = torch.arange(p * p) // p, torch.arange(p * p) % p
    pairs = Pairs(a, b, (a + b) % p)
    order = torch.randperm(p * p, generator=torch.Generator().manual_seed(settings.split_seed))
    n_train = int(p * p * settings.train_fraction)
    return pairs.at(order[:n_train]), pairs.at(order[n_train:])


def train(
    seed: int,
    *,
    settings: Settings | None = None,
    n_examples: int = 0,
    on_checkpoint: Callable[[int, float], None] | None = None,
) -> xr.Dataset:
    """Train one network and record its metrics.

    The seed chooses the initial weights and the order of the batches. On one thread of one kind
    of machine the result is the same bit by bit.

    Parameters
    ----------
    seed : int
        Its run is labelled ``seed {seed}``.
    settings : Settings, optional
        The task; by default p = 113 with 30 % of the pairs to train on.
    n_examples : int
        How many validation examples to keep the losses of; they are labelled a p + b.
    on_checkpoint : callable, optional
        Called with the epoch and the validation accuracy after every checkpoint.

    Returns
    -------
    Dataset
        Metrics with dims (run, step, parameter), losses in nats; losses and accuracies are of the
        weights at the checkpoint, over all training and all validation pairs.

    Raises
    ------
    ValueError
        If there are fewer than `n_examples` validation pairs.
    """
    settings = settings or Settings()
    generator = torch.Generator().manual_seed(seed)
    network = Transformer(settings, generator)
    optimiser = torch.optim.AdamW(
        network.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        betas=settings.betas,
        fused=True,
    )
    train_pairs, eval_pairs = split_pairs(settings)
    examples = eval_pairs.at(torch.arange(len(eval_pairs.a))[:n_examples])
    if len(examples.a) < n_examples:
        raise ValueError(
            f"n_examples is {n_examples}, expected at most {len(eval_pairs.a)}, the number of "
            "validation pairs"
        )
    recorder = Recorder(
        network,
        run=f"seed {seed}",
        selection=selection_of(network),
        examples=(examples.a * settings.modulus + examples.b) if n_examples else None,
        attrs={"task": "modular addition", "settings": json.dumps(asdict(settings))},
    )
    step, calm = 0, 0
    for epoch in range(settings.epochs + 1):
        if epoch:
            order = torch.randperm(len(train_pairs.a), generator=generator)
            for batch in order.split(settings.batch_size):
                _step(network, optimiser, train_pairs.at(batch))
                step += 1
        if epoch % settings.every:
            continue
        accuracy = _record(recorder, network, step, epoch, train_pairs, eval_pairs, n_examples)
        if on_checkpoint:
            on_checkpoint(epoch, accuracy)
        calm = calm + 1 if accuracy >= CONVERGED else 0
        if settings.tail is not None and (calm - 1) * settings.every >= settings.tail:
            break
    ds = recorder.dataset()
    for name in {"train_loss", "eval_loss", "example_loss"} & set(ds):
        ds[name].attrs["units"] = "nats"
    return ds


def _step(network: Transformer, optimiser: torch.optim.Optimizer, pairs: Pairs) -> None:
    loss = functional.cross_entropy(network(pairs.a, pairs.b), pairs.answer)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


@torch.no_grad()
def _record(
    recorder: Recorder,
    network: Transformer,
    step: int,
    epoch: int,
    train_pairs: Pairs,
    eval_pairs: Pairs,
    n_examples: int,
) -> float:
    values = {}
    for name, pairs in (("train", train_pairs), ("eval", eval_pairs)):
        logits = network(pairs.a, pairs.b).double()
        losses = functional.cross_entropy(logits, pairs.answer, reduction="none")
        values[f"{name}_loss"] = losses.mean().item()
        right = logits.argmax(-1) == pairs.answer
        values[f"{name}_accuracy"] = right.double().mean().item()
    recorder.record(
        step,
        epoch=epoch,
        example_loss=losses[:n_examples].float() if n_examples else None,
        **values,
    )
    return values["eval_accuracy"]
