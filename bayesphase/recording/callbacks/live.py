"""What recording in a training loop that is not one's own takes, whoever runs the loop."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesphase.contract import VARIABLES
from bayesphase.recording.importers.log import number
from bayesphase.recording.importers.naming import variable_names
from bayesphase.recording.recorder import Recorder
from bayesphase.recording.run_log import GIVEN

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import nn

    from bayesphase.recording.parameters import Selection

_LOGGER = logging.getLogger("bayesphase")


class LiveRecording:
    """A `Recorder` for the process that keeps it, its share of the time, and losses of examples.

    Parameters
    ----------
    path : path-like
        The file to keep, ending in ``.nc``.
    run : str or int, optional
        The label of the run; the name of the file without its suffix if None.
    mode : {"x", "w", "a"}
        What to do if the file exists and training starts at step 0: raise, start anew, continue.
    selection, examples, attrs
        See `Recorder`.
    example_loss : callable, optional
        Called with the network at each record; returns the loss of each example of a fixed set,
        shape (example,).
    source : str
        Name of the callback, for the attributes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        run: str | int | None,
        mode: str,
        selection: Selection | None,
        example_loss: Callable[[Any], ArrayLike] | None,
        examples: ArrayLike | None,
        attrs: Mapping[str, Any] | None,
        source: str,
    ) -> None:
        self._path = Path(path)
        self._run = self._path.stem if run is None else run
        self._mode = mode
        self._options: dict[str, Any] = {"selection": selection, "examples": examples}
        self._attrs = {**(attrs or {}), "source": source, "recording_share": 0.0}
        self._example_loss = example_loss
        self._model: nn.Module | None = None
        self._recorder: Recorder | None = None
        self._held: tuple[int, dict[str, Any]] = (-1, {})
        self._started = self._spent = 0.0

    @property
    def running(self) -> bool:
        """Whether this process records now."""
        return self._recorder is not None

    def start(self, model: nn.Module, step: int, *, keeps_file: bool) -> None:
        """Open the file: a new one at step 0, else the one of the training that is resumed.

        Parameters
        ----------
        model : torch.nn.Module
        step : int
            Optimiser steps that lie behind.
        keeps_file : bool
            Whether this process is the one that records, the first of all.

        Raises
        ------
        ValueError
            If the parameters are spread over processes.
        """
        require_whole(model)
        if not keeps_file:
            return
        self._started, self._spent = time.perf_counter(), 0.0
        with self.timed():
            mode = "a" if step else self._mode
            self._recorder = Recorder(
                model,
                run=self._run,
                path=self._path,
                mode=mode,
                attrs=self._attrs,
                **self._options,
            )
            self._model = model
            self._recorder.rewind(step or -1)  # a training from step 0 repeats that, too

    def record(self, step: int, *, epoch: float | None, values: Mapping[str, Any]) -> None:
        """Measure the network, or add to what was measured at this step already."""
        if self._recorder is None or self._model is None:
            return
        with self.timed():
            at, held = self._held
            given = recordable({**held, **values} if at == step else values)
            if self._recorder.last_step == step:
                self._recorder.amend(**given)
                return
            losses = None
            if self._example_loss is not None:
                with undisturbed(self._model):
                    losses = self._example_loss(self._model)
            self._recorder.attrs["recording_share"] = self._share()
            self._recorder.record(step, epoch=epoch, example_loss=losses, **given)

    def hold(self, step: int, values: Mapping[str, Any]) -> None:
        """Keep values of a step for which no record is due, in case it is the last."""
        at, held = self._held
        self._held = (step, {**held, **values} if at == step else dict(values))

    def is_recorded(self, step: int) -> bool:
        """Tell whether the last record is that of a step."""
        return self._recorder is not None and self._recorder.last_step == step

    def flush(self) -> None:
        """Write what is not in the file yet; a full disk does not end the training."""
        if self._recorder is None:
            return
        try:
            self._recorder.flush()
        except OSError as error:
            warnings.warn(f"could not write {self._path} ({error})", stacklevel=3)

    def finish(self) -> None:
        """Write the file for the last time, and log what recording took."""
        if self._recorder is None:
            return
        with self.timed():
            self._recorder.attrs["recording_share"] = self._share()
            if self._recorder.last_step is not None:
                self._recorder.amend()  # so that the attribute is written
            self.flush()
        _LOGGER.info(
            "recorded run %r in %s: %.2f s, %.2g %% of the time since training began",
            str(self._run),
            self._path,
            self._spent,
            100 * self._share(),
        )
        self._recorder = self._model = None

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count what is done inside as recording."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent += time.perf_counter() - start

    def _share(self) -> float:
        return self._spent / max(time.perf_counter() - self._started, 1e-9)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluate without a trace: no gradients, no dropout, and the same random numbers after."""
    import torch

    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            model.eval()
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def recordable(values: Mapping[str, Any]) -> dict[str, float]:
    """Keep the numbers among logged values, under names that a `Recorder` takes."""
    found = {}
    for name, value in values.items():
        if getattr(value, "ndim", 0) == 0 and hasattr(value, "item"):
            value = value.item()
        if (as_number := number(value)) is not None:
            found[name] = as_number
    return {
        f"logged_{name}" if name in VARIABLES and name not in GIVEN else name: found[logged]
        for logged, name in variable_names(list(found), {}).items()
    }


def require_whole(model: nn.Module) -> None:
    """Raise ValueError if a parameter of the network is spread over processes."""
    for name, parameter in model.named_parameters():
        spread = type(parameter).__name__ == "FlatParameter" or any(
            hasattr(parameter, mark) for mark in ("ds_id", "placements", "_is_flat_param")
        )
        if spread:
            raise ValueError(
                f"the parameter {name!r} is spread over processes (FSDP, ZeRO 3, tensor parallel): "
                "it can't be measured while training; save whole checkpoints and measure those"
            )


def checked_every(every: int | None) -> int | None:
    """Return a number of steps between records, or None; raise ValueError for anything else."""
    if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        raise ValueError(f"every is {every!r}, expected a whole number of optimiser steps, or None")
    return every
