"""An MLP and a residual CNN that learn to classify images.

The networks and their training are those of Hu et al. (arXiv:2308.09543), who trained the MLP on
MNIST, and the CNN, a ResNet18, on CIFAR-100 with and without batch norm and residual connections.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from bayesphase.tasks.image_files import Images, read_images
from bayesphase.tasks.networks import ResidualNetwork, perceptron
from bayesphase.tasks.settings import ImageCNN, ImageMLP
from bayesphase.tasks.training import Data, Task

_SHIFT = 4  # pixels at most


def build_mlp(settings: ImageMLP) -> Task:
    """Make an MLP for the images as they are, from 0 to 1, in one row."""
    images = read_images(settings.data, split_seed=settings.split_seed)
    network = perceptron(images.train[0].size, settings.hidden, images.n_classes)
    return _task("image classification by an MLP", settings, images, network)


def build_cnn(settings: ImageCNN) -> Task:
    """Make a CNN for the images, whose channels are standardised by those to train on.

    Photographs are shifted by up to 4 pixels and mirrored at random in each batch.
    """
    images = read_images(settings.data, split_seed=settings.split_seed)
    mean = images.train.mean((0, 2, 3), keepdims=True)
    spread = images.train.std((0, 2, 3), keepdims=True)
    images = images._replace(
        train=(images.train - mean) / spread, test=(images.test - mean) / spread
    )
    network = ResidualNetwork(
        images.train.shape[1],
        images.n_classes,
        width=settings.width,
        n_blocks=settings.n_blocks,
        batch_norm=settings.batch_norm,
        residual=settings.residual,
    )
    task = _task("image classification by a CNN", settings, images, network)
    task.vary = shift_and_mirror if images.natural else None
    return task


def _task(name: str, settings: ImageMLP | ImageCNN, images: Images, network: nn.Module) -> Task:
    train_data = torch.from_numpy(images.train), torch.from_numpy(images.train_labels)
    eval_data = torch.from_numpy(images.test), torch.from_numpy(images.test_labels)
    n = settings.evaluate
    return Task(
        name=name,
        network=network,
        optimiser=torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        ),
        train_data=train_data,
        eval_data=(eval_data[0][:n], eval_data[1][:n]),
        measured=(train_data[0][:n], train_data[1][:n]),
        attrs={"images": images.name},
    )


def shift_and_mirror(batch: Data, generator: Generator) -> Data:
    """Shift each image by up to 4 pixels, what is past an edge being its reflection; mirror half.

    Parameters
    ----------
    batch : tuple of torch.Tensor
        Images (example, channel, height, width) and labels (example,).
    generator : torch.Generator
    """
    images, labels = batch
    n, _, height, width = images.shape
    wide = functional.pad(images, [_SHIFT] * 4, mode="reflect")
    top, left = torch.randint(2 * _SHIFT + 1, (2, n, 1), generator=generator)
    mirrored = torch.randint(2, (n, 1), generator=generator).bool()
    rows = top + torch.arange(height)
    columns = left + torch.where(mirrored, torch.arange(width - 1, -1, -1), torch.arange(width))
    return _pick(wide, rows.to(images.device), columns.to(images.device)), labels


def _pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Take rows (example, row) and columns (example, column) of each image, in all channels."""
    n, n_channels = images.shape[:2]
    example = torch.arange(n, device=images.device)[:, None, None, None]
    channel = torch.arange(n_channels, device=images.device)[:, None, None]
    # The result lies in memory as images do: moved axes are taken for "channels last", for which
    # gradients of small convolutions corrupt memory (seen with PyTorch 2.13 on a CPU).
    return images[example, channel, rows[:, None, :, None], columns[:, None, None, :]]
