"""The training that all tasks share: batches, checkpoints, and when to stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
import xarray as xr
from torch import Generator, Tensor, nn
from torch.nn import functional

from bayesphase.recording.recorder import Recorder
from bayesphase.recording.selection import Selection
from bayesphase.tasks.settings import Settings

Data = tuple[Tensor, ...]
"""Inputs and, last, targets; the first dim of each is that of the examples."""
Judge = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From outputs and targets to the loss of each example and whether, or how often, it is right."""


def cross_entropy(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Judge logits of classes, shape (example, class), by classes, shape (example,)."""
    losses = functional.cross_entropy(outputs, targets, reduction="none")
    return losses, outputs.argmax(-1) == targets


@dataclass(kw_only=True)
class Task:
    """What one training has of its own: a network, an optimiser, data, and a loss.

    Attributes
    ----------
    name : str
    network : torch.nn.Module
    optimiser : torch.optim.Optimizer
        Of the parameters of the network.
    train_data, eval_data : tuple of torch.Tensor
        Inputs and, last, targets, each of shape (example, ...).
    measured : tuple of torch.Tensor, optional
        The examples that `train_loss` and `train_accuracy` are of; by default `train_data`.
    judge : callable
        From outputs and targets to the losses of the examples and how right they are, each of
        shape (example,).
    predict : callable, optional
        From inputs to outputs; by default the network.
    vary : callable, optional
        Called with each batch and a generator: returns the batch to train on.
    labels : torch.Tensor, optional
        Of the validation examples, shape (example,); by default 0, 1, ...
    selection : Selection, optional
        What to measure; by default ``select_parameters(network)``.
    units : str
        Of the loss.
    at_once : int
        How many examples to evaluate at a time.
    attrs : dict of str to str
        What else the recorded Dataset should say.
    """

    name: str
    network: nn.Module
    optimiser: torch.optim.Optimizer
    train_data: Data
    eval_data: Data
    measured: Data | None = None
    judge: Judge = cross_entropy
    predict: Callable[..., Tensor] | None = None
    vary: Callable[[Data, Generator], Data] | None = None
    labels: Tensor | None = None
    selection: Selection | None = None
    units: str = "nats"
    at_once: int = 1000
    attrs: dict[str, str] | None = None

    def judged(self, data: Data, *, wide: bool = False) -> tuple[Tensor, Tensor]:
        """Return the losses of examples and how right they are, from float64 outputs if `wide`."""
        *inputs, targets = data
        outputs = (self.predict or self.network)(*inputs)
        return self.judge(outputs.double() if wide else outputs, targets)


def train(
    seed: int,
    *,
    settings: Settings,
    n_examples: int = 0,
    device: str = "cpu",
    on_checkpoint: Callable[[float, float], None] | None = None,
) -> xr.Dataset:
    """Train one network and record its metrics.

    The seed chooses the initial weights, the order of the batches, and what is drawn in them. On
    one thread of one kind of processor the result is the same bit by bit.

    Parameters
    ----------
    seed : int
        Its run is labelled ``seed {seed}``.
    settings : Settings
        The task.
    n_examples : int
        How many validation examples to keep the losses of.
    device : str
        Where to train, such as ``"cuda"``.
    on_checkpoint : callable, optional
        Called with the epoch and the validation accuracy after every checkpoint.

    Returns
    -------
    Dataset
        Metrics with dims (run, step, parameter); losses and accuracies are of the weights at the
        checkpoint, over all training and all validation examples that are evaluated.

    Raises
    ------
    ValueError
        If there are fewer than `n_examples` validation examples.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        # PyTorch's own draws, of initial weights and dropout, are another stream.
        torch.manual_seed(2**32 + seed)
        return _train(settings, seed, n_examples, device, on_checkpoint, generator)


def _train(
    settings: Settings,
    seed: int,
    n_examples: int,
    device: str,
    on_checkpoint: Callable[[float, float], None] | None,
    generator: Generator,
) -> xr.Dataset:
    task = _on(settings.build(generator), device)
    recorder = _recorder(task, settings, seed, n_examples)
    n_train = len(task.train_data[0])
    per_epoch = -(-n_train // settings.batch_size)
    every = settings.every * (per_epoch if settings.every_epoch else 1)
    calm_since = None
    for step, batch in enumerate(_batches(n_train, settings, generator)):
        if batch is not None:
            _update(task, batch.to(device), generator)
        if step % every:
            continue
        epoch = step // per_epoch if settings.every_epoch else step / per_epoch
        accuracy = _record(recorder, task, step, epoch, n_examples)
        if on_checkpoint:
            on_checkpoint(epoch, accuracy)
        if accuracy < settings.converged:
            calm_since = None
        elif calm_since is None:
            calm_since = epoch
        if (
            settings.tail is not None
            and calm_since is not None
            and epoch - calm_since >= settings.tail
        ):
            break
    ds = recorder.dataset()
    for name in {"train_loss", "eval_loss", "example_loss"} & set(ds):
        ds[name].attrs["units"] = task.units
    return ds


def _on(task: Task, device: str) -> Task:
    """Move a task to where it is trained; the optimiser knows the parameters, which stay."""
    task.network.to(device)
    task.train_data = tuple(part.to(device) for part in task.train_data)
    task.eval_data = tuple(part.to(device) for part in task.eval_data)
    measured = task.measured or task.train_data
    task.measured = tuple(part.to(device) for part in measured)
    return task


def _recorder(task: Task, settings: Settings, seed: int, n_examples: int) -> Recorder:
    n_eval = len(task.eval_data[0])
    if n_examples > n_eval:
        raise ValueError(
            f"n_examples is {n_examples}, expected at most {n_eval}, the number of validation "
            "examples"
        )
    labels = torch.arange(n_eval) if task.labels is None else task.labels
    attrs = {"task": task.name, "settings": json.dumps(asdict(settings))}
    return Recorder(
        task.network,
        run=f"seed {seed}",
        selection=task.selection,
        examples=labels[:n_examples] if n_examples else None,
        attrs=attrs | (task.attrs or {}),
    )


def _batches(n: int, settings: Settings, generator: Generator) -> Iterator[Tensor | None]:
    """Yield what to train on before each step can be recorded: for step 0 nothing."""
    yield None
    for _ in range(settings.epochs):
        yield from torch.randperm(n, generator=generator).split(settings.batch_size)


def _update(task: Task, index: Tensor, generator: Generator) -> None:
    batch = tuple(part[index] for part in task.train_data)
    if task.vary:
        batch = task.vary(batch, generator)
    task.network.train()
    loss = task.judged(batch)[0].mean()
    task.optimiser.zero_grad()
    loss.backward()
    task.optimiser.step()


@torch.no_grad()
def _record(recorder: Recorder, task: Task, step: int, epoch: float, n_examples: int) -> float:
    task.network.eval()
    values = {}
    for name, data in (("train", task.measured or task.train_data), ("eval", task.eval_data)):
        parts = zip(*(part.split(task.at_once) for part in data), strict=True)
        judged = [task.judged(part, wide=True) for part in parts]
        losses, right = (torch.cat(column).double() for column in zip(*judged, strict=True))
        values[f"{name}_loss"] = losses.mean().item()
        values[f"{name}_accuracy"] = right.mean().item()
    recorder.record(
        step,
        epoch=epoch,
        example_loss=losses[:n_examples].float() if n_examples else None,
        **values,
    )
    return values["eval_accuracy"]
