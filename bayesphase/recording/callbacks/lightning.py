"""A callback for the Trainer of Lightning."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

try:
    from lightning.pytorch import Callback
except ImportError:  # the same library under its older name
    from pytorch_lightning import Callback  # type: ignore[assignment]

from bayesphase.recording.callbacks.live import LiveRecording, checked_every

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from numpy.typing import ArrayLike

    from bayesphase.recording.parameters import Selection


class LightningRecorder(Callback):
    """Record metrics while a Lightning ``Trainer`` trains.

    The network is measured before the first step, after the last one, and at the steps between
    that `every` says, with what the module logs there; `train_loss` is the loss that
    ``training_step`` returns unless the module logs one, and ``val_loss`` becomes `eval_loss`. A
    value is kept at the step at which it was logged, and not again until it is logged anew.
    Training is as it would be without: no weight and no random number changes. The file is that of
    a `Recorder`; a training that is resumed from a checkpoint goes on in it, and records after that
    checkpoint are replaced. Of several processes the first records.

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
        logs (``log_every_n_steps``), validates, or has values of an epoch. With a number, values
        logged at other steps are not kept.
    mode : {"x", "w", "a"}
        What to do if the file exists and training is not resumed: raise, start anew, continue.
    selection : Selection, optional
        What to measure; see `select_parameters`.
    example_loss : callable, optional
        ``example_loss(module)`` returns the loss of each example of a fixed set, shape (example,).
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
    >>> trainer = Trainer(callbacks=[bp.LightningRecorder("run.nc")])  # doctest: +SKIP
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
            source="bayesphase.LightningRecorder",
        )
        self._seen: dict[str, Any] = {}
        self._last_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file, and measure the network that training starts from."""
        step = self._last_step = trainer.global_step
        self._seen = dict(trainer.callback_metrics)
        self._live.start(pl_module, step, keeps_file=trainer.is_global_zero)
        if not self._live.is_recorded(step):
            self._record(trainer, {})

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measure the network if an optimiser step was made and a record is due."""
        fresh = self._fresh(trainer)
        every = self.every or trainer.log_every_n_steps  # type: ignore[attr-defined]
        step, before = trainer.global_step, self._last_step
        self._last_step = step
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None and pl_module.automatic_optimization:
            loss = loss * trainer.accumulate_grad_batches  # which Lightning has divided it by
        values = ({} if loss is None else {"train_loss": loss}) | fresh
        # with several optimisers, steps are counted by more than one at a time
        if every and step // every > before // every:
            self._record(trainer, values)
        else:
            self._live.hold(step, values)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what was logged in validation."""
        if not trainer.sanity_checking:
            self._keep(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what was logged for the epoch."""
        self._keep(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the file: a checkpoint to resume from has all records that lie before it."""
        self._live.flush()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Write what was recorded until training failed."""
        self._live.finish()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the trained network, and write the file."""
        if not self._live.is_recorded(trainer.global_step):
            self._record(trainer, {})
        self._live.finish()

    def _keep(self, trainer: Trainer) -> None:
        fresh = self._fresh(trainer)
        if fresh and (self.every is None or self._live.is_recorded(trainer.global_step)):
            self._record(trainer, fresh)
        else:
            self._live.hold(trainer.global_step, fresh)

    def _record(self, trainer: Trainer, values: Mapping[str, Any]) -> None:
        self._live.record(trainer.global_step, epoch=trainer.current_epoch, values=values)

    def _fresh(self, trainer: Trainer) -> dict[str, Any]:
        """Return what was logged since the last call: Lightning keeps old values beside new ones.

        Each time a value is logged it is stored anew; a view of an old one has the old place in
        memory, which is not given away as long as it is among those seen.
        """
        if not self._live.running:
            return {}
        with self._live.timed():
            now, before = dict(trainer.callback_metrics), self._seen
            self._seen = now
            return {
                name: value
                for name, value in now.items()
                if name not in before or value.data_ptr() != before[name].data_ptr()
            }
