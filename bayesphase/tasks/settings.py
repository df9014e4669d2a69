"""What each training is, but for its seed: one dataclass for each task.

The defaults are the settings of Hu et al. (arXiv:2308.09543) and of their published code, where
they trained such a network, but for how long parities are trained. Nothing here needs PyTorch, so
that the command line can list the options without loading it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, ClassVar

if TYPE_CHECKING:
    from torch import Generator

    from bayesphase.tasks.training import Task

# The text beside a type says what the field is; it is also the help of its option.
Epochs = Annotated[int, "The most epochs to train."]
EveryEpochs = Annotated[int, "Epochs between checkpoints."]
EverySteps = Annotated[int, "Optimiser steps between checkpoints."]
Tail = Annotated[int | None, "Stop so many epochs after convergence [default: never]."]
Converged = Annotated[float, "Validation accuracy from which a run counts as converged."]
BatchSize = Annotated[int, "Examples in a batch."]
LearningRate = Annotated[float, "Learning rate."]
WeightDecay = Annotated[float, "Weight decay."]
SplitSeed = Annotated[
    int,
    "Chooses the data and how they are split; the same for all seeds of a network, which therefore "
    "share their validation examples.",
]
Evaluate = Annotated[int, "The most training and validation examples to evaluate at a checkpoint."]
Data = Annotated[
    str,
    "'digits' of scikit-learn, or a folder with the files of MNIST or CIFAR (the binary version).",
]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all trainings have.

    Attributes
    ----------
    every_epoch : bool
        Whether `every` counts epochs; otherwise it counts optimiser steps.
    """

    every_epoch: ClassVar[bool] = True

    epochs: Epochs
    every: EveryEpochs
    tail: Tail = None
    converged: Converged
    batch_size: BatchSize
    learning_rate: LearningRate = 1e-3
    weight_decay: WeightDecay = 0.01
    split_seed: SplitSeed = 0

    def __post_init__(self) -> None:  # noqa: D105
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is int and field.name != "split_seed" and value < 1:
                raise ValueError(f"{field.name} is {value}, expected 1 or more")
        if not 0 < self.converged <= 1:
            raise ValueError(f"converged is {self.converged}, expected an accuracy from 0 to 1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}, expected more than 0")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay is {self.weight_decay}, expected 0 or more")

    def build(self, generator: Generator) -> Task:
        """Make the network and its data.

        Parameters
        ----------
        generator : torch.Generator
            Draws the initial weights, where the global generator of PyTorch does not.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ModularAddition(Settings):
    """One-layer transformers learn to add modulo a prime: they memorise, and then they grok."""

    modulus: Annotated[int, "The prime p; there are p x p pairs."] = 113
    train_fraction: Annotated[float, "Share of the pairs to train on."] = 0.3
    epochs: Epochs = 10_000
    every: EveryEpochs = 10
    converged: Converged = 0.99
    layer_norm: Annotated[
        bool, "Normalise the residual stream after attention and MLP; the batches were 256 then."
    ] = False
    batch_size: BatchSize = 2048
    weight_decay: WeightDecay = 1.0
    betas: Annotated[tuple[float, float], "Of AdamW."] = (0.9, 0.999)
    width: Annotated[int, "Of the residual stream."] = 128
    n_heads: Annotated[int, "Attention heads."] = 4
    hidden: Annotated[int, "Units of the MLP."] = 512

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        n_train = int(self.modulus**2 * self.train_fraction)
        if not 0 < n_train < self.modulus**2:
            raise ValueError(
                f"train_fraction is {self.train_fraction}, expected a share between 0 and 1 that "
                f"leaves pairs on both sides of the split of {self.modulus**2}"
            )

    def build(self, generator: Generator) -> Task:  # noqa: D102
        from bayesphase.tasks import modular_addition

        return modular_addition.build(self, generator)


@dataclass(frozen=True, kw_only=True)
class SparseParity(Settings):
    """MLPs learn the parity of a few of many bits."""

    n_bits: Annotated[int, "Bits of an example."] = 40
    n_relevant: Annotated[int, "The answer is the parity of so many of them, the first."] = 3
    n_train: Annotated[int, "Training examples."] = 1000
    n_eval: Annotated[int, "Validation examples."] = 100
    epochs: Epochs = 1000
    every: EveryEpochs = 10
    converged: Converged = 0.9
    batch_size: BatchSize = 32
    learning_rate: LearningRate = 0.1
    hidden: Annotated[int, "Units of the hidden layer."] = 128

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        if self.n_relevant > self.n_bits:
            raise ValueError(
                f"n_relevant is {self.n_relevant}, expected at most {self.n_bits}, the number of "
                "bits"
            )

    def build(self, generator: Generator) -> Task:  # noqa: D102
        from bayesphase.tasks import sparse_parity

        return sparse_parity.build(self)


@dataclass(frozen=True, kw_only=True)
class ImageMLP(Settings):
    """MLPs learn to classify images."""

    every_epoch: ClassVar[bool] = False

    data: Data = "digits"
    epochs: Epochs = 100
    every: EverySteps = 20
    converged: Converged = 0.97
    batch_size: BatchSize = 256
    hidden: Annotated[int, "Units of the hidden layer."] = 800
    evaluate: Evaluate = 10_000

    def build(self, generator: Generator) -> Task:  # noqa: D102
        from bayesphase.tasks import image_classification

        return image_classification.build_mlp(self)


@dataclass(frozen=True, kw_only=True)
class ImageCNN(Settings):
    """Residual CNNs learn to classify images, with or without what makes their training stable."""

    every_epoch: ClassVar[bool] = False

    data: Data = "digits"
    epochs: Epochs = 100
    every: EverySteps = 20
    converged: Converged = 0.6
    batch_size: BatchSize = 256
    batch_norm: Annotated[bool, "Normalise after each convolution."] = True
    residual: Annotated[bool, "Add the input of each block to its output."] = True
    width: Annotated[int, "Channels of the first stage; each of the others doubles them."] = 64
    n_blocks: Annotated[int, "Blocks in each of the four stages; two are a ResNet18."] = 2
    evaluate: Evaluate = 10_000

    def build(self, generator: Generator) -> Task:  # noqa: D102
        from bayesphase.tasks import image_classification

        return image_classification.build_cnn(self)


@dataclass(frozen=True, kw_only=True)
class LanguageModel(Settings):
    """What both kinds of language models have; Hu et al. took released runs instead."""

    every_epoch: ClassVar[bool] = False

    epochs: Epochs = 20
    every: EverySteps = 20
    converged: Converged = 0.5
    batch_size: BatchSize = 64
    context: Annotated[int, "Bytes of an example."] = 64
    n_examples: Annotated[int, "Examples of text to use, training and validation together."] = 8192
    train_fraction: Annotated[float, "Share of the examples to train on."] = 0.9
    width: Annotated[int, "Of the residual stream."] = 64
    n_layers: Annotated[int, "Layers."] = 2
    n_heads: Annotated[int, "Attention heads of a layer."] = 4
    hidden: Annotated[int, "Units of the MLP of a layer."] = 256
    dropout: Annotated[float, "Share of units and attention dropped in training."] = 0.1
    evaluate: Evaluate = 512

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        if not 0 < int(self.n_examples * self.train_fraction) < self.n_examples:
            raise ValueError(
                f"train_fraction is {self.train_fraction}, expected a share between 0 and 1 that "
                f"leaves examples on both sides of the split of {self.n_examples}"
            )
        if self.width % self.n_heads:
            raise ValueError(
                f"width is {self.width}, expected a multiple of n_heads, {self.n_heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, expected a share from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class MaskedLanguageModel(LanguageModel):
    """Small BERTs learn to fill in masked bytes of the docstrings of Python's standard library."""

    mask_fraction: Annotated[float, "Share of the bytes of an example to ask for."] = 0.15

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        if not 1 <= int(self.context * self.mask_fraction) <= self.context:
            raise ValueError(
                f"mask_fraction is {self.mask_fraction}, expected a share between 0 and 1 that "
                f"masks one of {self.context} bytes or more"
            )

    def build(self, generator: Generator) -> Task:  # noqa: D102
        from bayesphase.tasks import language_model

        return language_model.build_masked(self)


@dataclass(frozen=True, kw_only=True)
class CausalLanguageModel(LanguageModel):
    """Small GPT-NeoX networks learn to continue the docstrings of Python's standard library."""

    def build(self, generator: Generator) -> Task:  # noqa: D102
        from bayesphase.tasks import language_model

        return language_model.build_causal(self)


TASKS: dict[str, type[Settings]] = {
    "modular-addition": ModularAddition,
    "sparse-parity": SparseParity,
    "image-mlp": ImageMLP,
    "image-cnn": ImageCNN,
    "masked-lm": MaskedLanguageModel,
    "causal-lm": CausalLanguageModel,
}
"""The tasks by the names that `bayesphase train` has for them."""
