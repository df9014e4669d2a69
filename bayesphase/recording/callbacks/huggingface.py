"""A callback for the Trainer of Hugging Face."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from bayesphase.recording.callbacks.live import LiveRecording, checked_every
from bayesphase.recording.importers.trainer_state import trainer_values

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from bayesphase.recording.parameters import Selection


class HFRecorder(TrainerCallback):
    """Record metrics while a Hugging Face ``Trainer`` trains.

    The network is measured before the first step, after the last one, and at the steps between
    that `every` says, with what the Trainer logs there: ``loss`` becomes `train_loss`. Training is
    as it would be without: no weight and no random number changes. The file is that of a
    `Recorder`; one training that is resumed from a checkpoint goes on in it, and records after
    that checkpoint are replaced. Of several processes the first records.

    The attribute ``recording_share`` has the share of the time since training began that went into
    recording, losses of examples included; at the end it is logged, too (logger "bayesphase").

    Parameters
    ----------
    path : path-like
        The file to keep, ending in ``.nc``.
    run : str or int, optional
        The label of the run; by default the name of the file without its suffix.
    every : int, optional
        Optimiser steps between records. By default the network is measured whenever the Trainer
        logs or evaluates. With a number, values logged at other steps are not kept.
    mode : {"x", "w", "a"}
        What to do if the file exists and training is not resumed: raise, start anew, continue.
    selection : Selection, optional
        What to measure; see `select_parameters`.
    example_loss : callable, optional
        ``example_loss(model)`` returns the loss of each example of a fixed set, shape (example,).
        It is called in evaluation mode, without gradients.
    examples : array_like of int, optional
        Labels of these examples, shape (example,).
    attrs : dict, optional
        More attributes for the Dataset.

    Raises
    ------
    ValueError
        When training begins, if parameters are spread over processes; and what `Recorder` raises.

    Examples
    --------
    >>> trainer = Trainer(model, args, callbacks=[bp.HFRecorder("run.nc")])  # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        run: str | int | None = None,
        every: int | None = None,
        mode: str = "x",
        selection: Selection | None = None,
        example_loss: Callable[[Any], ArrayLike] | None = None,
        examples: ArrayLike | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        self.every = checked_every(every)
        self._live = LiveRecording(
            path,
            run=run,
            mode=mode,
            selection=selection,
            example_loss=example_loss,
            examples=examples,
            attrs=attrs,
            source="bayesphase.HFRecorder",
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the file, and measure the network that training starts from."""
        at = state.global_step
        self._live.start(kwargs["model"], at, keeps_file=state.is_world_process_zero)
        if not self._live.is_recorded(at):
            self._live.record(at, epoch=state.epoch, values={})

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the network every so many steps."""
        if self.every and state.global_step % self.every == 0:
            self._live.record(state.global_step, epoch=state.epoch, values={})

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep what the Trainer logs, evaluations included; not its summary at the end."""
        logs = kwargs.get("logs") or {}
        at = state.global_step
        if "train_runtime" in logs:
            return
        values = {name: value for name, value in trainer_values(logs).items() if name != "epoch"}
        if self.every and not self._live.is_recorded(at):
            self._live.hold(at, values)
        else:
            self._live.record(at, epoch=state.epoch, values=values)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the file: a checkpoint to resume from has all records that lie before it."""
        self._live.flush()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the trained network, and write the file."""
        if not self._live.is_recorded(state.global_step):
            self._live.record(state.global_step, epoch=state.epoch, values={})
        self._live.finish()
