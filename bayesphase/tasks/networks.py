"""Networks that several tasks use, as Hu et al. (arXiv:2308.09543) set them up."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def perceptron(n_inputs: int, hidden: int, n_outputs: int) -> nn.Sequential:
    """Make an MLP with one hidden layer of ReLUs, its biases 0 at first.

    The initial weights are uniform with the variance of Glorot & Bengio 2010 (PMLR 9, 249-256). An
    example may have any shape of `n_inputs` numbers.
    """
    layers = {"hidden": nn.Linear(n_inputs, hidden), "output": nn.Linear(hidden, n_outputs)}
    for layer in layers.values():
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    network = nn.Sequential(nn.Flatten())
    network.add_module("hidden", layers["hidden"])
    network.append(nn.ReLU())
    network.add_module("output", layers["output"])
    return network


class ResidualNetwork(nn.Module):
    """A CNN for small images in four stages, each of half the size and twice the channels.

    With two blocks in a stage and 64 channels at first it is the ResNet18 of He et al. 2016
    (doi:10.1109/CVPR.2016.90) with a first convolution of 3 x 3 and no pooling after it. Without
    residual connections no block has a shortcut. The initial weights of convolutions, which have
    no biases, are normal with the variance of He et al. 2015 (doi:10.1109/ICCV.2015.123).

    Parameters
    ----------
    n_channels, n_classes : int
        Of the images.
    width : int
        Channels of the first stage.
    n_blocks : int
        In each stage.
    batch_norm, residual : bool
        Whether to normalise after each convolution, and to add the input of each block to its
        output.
    """

    def __init__(
        self,
        n_channels: int,
        n_classes: int,
        *,
        width: int,
        n_blocks: int,
        batch_norm: bool,
        residual: bool,
    ) -> None:
        super().__init__()
        self.stem = _convolution(n_channels, width)
        self.norm = _norm(width, batch_norm)
        stages, n = [], width
        for stage in range(4):
            blocks = []
            for block in range(n_blocks):
                stride = 2 if stage and not block else 1
                blocks.append(_Block(n, width << stage, stride, batch_norm, residual))
                n = width << stage
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(n, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (example, class) for images (example, channel, height, width)."""
        features = self.stages(functional.relu(self.norm(self.stem(images))))
        return self.head(features.mean((2, 3)))


class _Block(nn.Module):
    def __init__(
        self, n_in: int, n_out: int, stride: int, batch_norm: bool, residual: bool
    ) -> None:
        super().__init__()
        self.conv1 = _convolution(n_in, n_out, stride=stride)
        self.norm1 = _norm(n_out, batch_norm)
        self.conv2 = _convolution(n_out, n_out)
        self.norm2 = _norm(n_out, batch_norm)
        self.residual = residual
        self.shortcut = nn.Sequential()
        if residual and (stride > 1 or n_in != n_out):
            self.shortcut.append(_convolution(n_in, n_out, stride=stride, size=1))
            self.shortcut.append(_norm(n_out, batch_norm))

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return functional.relu(out + self.shortcut(x) if self.residual else out)


def _convolution(n_in: int, n_out: int, *, stride: int = 1, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, size, stride=stride, padding=size // 2, bias=False)


def _norm(n: int, batch_norm: bool) -> nn.Module:
    return nn.BatchNorm2d(n) if batch_norm else nn.Identity()
