"""An MLP that learns the parity of a few of many bits, all others being noise.

The network and its training are those of Hu et al. (arXiv:2308.09543), after Barak et al.
(arXiv:2207.08799): bits are -1 or 1, the answer is the product of the first few of them, and the
loss is the hinge loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesphase.tasks.networks import perceptron
from bayesphase.tasks.settings import SparseParity
from bayesphase.tasks.training import Data, Task


def build(settings: SparseParity) -> Task:
    """Make the network, and examples drawn independently."""
    network = perceptron(settings.n_bits, settings.hidden, 1)
    train_data, eval_data = draw(settings)
    return Task(
        name="sparse parity",
        network=network,
        optimiser=torch.optim.SGD(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        ),
        train_data=train_data,
        eval_data=eval_data,
        judge=hinge,
        units="1",
    )


def draw(settings: SparseParity) -> tuple[Data, Data]:
    """Draw the bits (example, bit) and their parities (example,) to train on, and to validate."""
    generator = torch.Generator().manual_seed(settings.split_seed)
    shape = (settings.n_train + settings.n_eval, settings.n_bits)
    bits = torch.randint(2, shape, generator=generator) * 2.0 - 1.0
    parity = bits[:, : settings.n_relevant].prod(1)
    n = settings.n_train
    return (bits[:n], parity[:n]), (bits[n:], parity[n:])


def hinge(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Judge outputs of shape (example, 1) by targets of -1 and 1: max(0, 1 - output target)."""
    margins = outputs[:, 0] * targets
    return (1 - margins).clamp(min=0), margins > 0
