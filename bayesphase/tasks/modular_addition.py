"""A one-layer transformer that learns to add modulo a prime: it memorises first, and then groks.

The network and its training are those of Hu et al. (arXiv:2308.09543; code in
michahu/modeling-training), after Nanda et al. (arXiv:2301.05217): tokens a, b, "=", and the sum is
read at the last position. Only the last position is computed, and keys and values once per token
instead of once per example, which leaves the MLP as nearly all of the work.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from bayesphase.recording.parameters import Selection, select_parameters
from bayesphase.tasks.settings import ModularAddition
from bayesphase.tasks.training import Task


def build(settings: ModularAddition, generator: Generator) -> Task:
    """Make the network and the pairs; pair a + b is labelled a p + b."""
    network = Transformer(settings, generator)
    optimiser = torch.optim.AdamW(
        network.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        betas=settings.betas,
        fused=True,
    )
    train_pairs, eval_pairs = split_pairs(settings)
    return Task(
        name="modular addition",
        network=network,
        optimiser=optimiser,
        train_data=train_pairs,
        eval_data=eval_pairs,
        labels=eval_pairs.a * settings.modulus + eval_pairs.b,
        selection=selection_of(network),
        at_once=settings.modulus**2,
    )


class Transformer(nn.Module):
    """One attention layer and one MLP, read at the last of the positions a, b, "=".

    Parameters
    ----------
    settings : ModularAddition
        Sizes, and whether to use layer norm.
    generator : torch.Generator
        Draws the initial weights: normal, with standard deviation one over the root of the
        input width (of the number of tokens for the unembedding); biases start at 0.
    """

    def __init__(self, settings: ModularAddition, generator: Generator) -> None:
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


def split_pairs(settings: ModularAddition) -> tuple[Pairs, Pairs]:
    """Split all pairs into those to train on and those for validation, each in random order."""
    p = settings.modulus
    a, b = torch.arange(p * p) // p, torch.arange(p * p) % p
    pairs = Pairs(a, b, (a + b) % p)
    order = torch.randperm(p * p, generator=torch.Generator().manual_seed(settings.split_seed))
    n_train = int(p * p * settings.train_fraction)
    return pairs.at(order[:n_train]), pairs.at(order[n_train:])
