"""Record the metrics of a network while it trains."""

from __future__ import annotations

import atexit
import os
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesphase.recording.definitions import choose_metrics
from bayesphase.recording.measured import Measured, Metric
from bayesphase.recording.metrics import count_nonfinite, matrices_metrics, pooled_metrics
from bayesphase.recording.parameters import Selection, require_module, select_parameters
from bayesphase.recording.run_log import RunLog

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import ArrayLike
    from torch import Tensor, nn

_MODES = ("x", "w", "a")


class Recorder:
    """Measure a network at chosen steps of its training, and keep the metrics.

    With a `path`, the file there is replaced as training goes on, each time by a whole one: a
    training that is killed leaves a file that `open_metrics` reads. Every record is written at
    once unless writing would take more than 5 % of the time; then the file lags behind by at most
    twenty times what one write takes. It is complete after `flush`, at the end of a ``with``
    block, and when Python exits, with or without an exception.

    Parameters
    ----------
    model : torch.nn.Module
        The network. It is read at every `record`, never changed.
    run : str or int
        The label of this run. A number, such as a seed, becomes text: labels are text.
    path : path-like, optional
        A file to keep, ending in ``.nc``.
    mode : {"x", "w", "a"}
        What to do if the file exists: raise, start anew, or continue the run that is in it. To
        continue from a checkpoint before the last record replaces the records from there on.
    selection : Selection, optional
        What to measure; by default ``select_parameters(model)``.
    metrics : sequence of str, Metric or callable, optional
        The metrics of each matrix, by name (`bayesphase.recording.definitions` lists them), as a
        `Metric`, or as a function of a matrix; by default the eight of arXiv:2308.09543. Gradients
        are those that the parameters hold when `record` is called.
    initial : torch.nn.Module, optional
        A network with the initial weights, for `distance_from_initial`; by default `model` as it is
        now, and unknown if a file is continued.
    examples : array_like of int, optional
        Labels of the examples whose losses are recorded, shape (example,); by default 0, 1, ...
    attrs : dict, optional
        More attributes for the Dataset, such as hyperparameters.

    Raises
    ------
    TypeError
        If `model` is no module of PyTorch, `run` neither text nor a whole number, or something in
        `metrics` no metric.
    ValueError
        If `mode` or the suffix of `path` is another one, a metric is unknown, or the file to
        continue has another run or other parameters.
    FileNotFoundError
        If the folder of `path` does not exist.
    FileExistsError
        If the file exists and `mode` is ``"x"``.

    Examples
    --------
    >>> with Recorder(model, run="seed 0", path="run0.nc") as recorder:  # doctest: +SKIP
    ...     for step, batch in enumerate(batches):
    ...         loss = train_step(batch)
    ...         if step % 100 == 0:
    ...             recorder.record(step, train_loss=loss)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        run: str | int = "0",
        path: str | os.PathLike[str] | None = None,
        mode: str = "x",
        selection: Selection | None = None,
        metrics: Sequence[str | Metric | Callable[[Measured], float]] | None = None,
        initial: nn.Module | None = None,
        examples: ArrayLike | None = None,
        attrs: dict[str, Any] | None = None,
    ) -> None:
        if mode not in _MODES:
            raise ValueError(
                f"mode is {mode!r}, expected 'x' (new file), 'w' (start anew) or 'a' (continue)"
            )
        require_module(model)
        self.selection = selection or select_parameters(model)
        self._model = model
        self._metrics = choose_metrics(metrics)
        self._log = RunLog(
            _label(run), path, self.selection, examples, attrs or {}, metrics=self._metrics
        )
        if path is not None:
            self._log.prepare(mode)
            _flush_at_the_end(self, self._log)
        self._initial = self._first_weights(initial)
        self._previous: list[Tensor] | None = None

    def record(
        self,
        step: int,
        *,
        epoch: float | None = None,
        example_loss: ArrayLike | None = None,
        **values: float | None,
    ) -> None:
        """Measure the network as it is now.

        Parameters
        ----------
        step : int
            Optimiser steps so far; larger than at the record before.
        epoch : float, optional
            Epochs so far.
        example_loss : array_like, optional
            The loss of each example of a fixed set, shape (example,).
        **values : float
            `train_loss`, `eval_loss`, `train_accuracy`, `eval_accuracy`, and any scalars of your
            own by name, without "/" in it. What is not finite is kept as NaN, None as not given.

        Raises
        ------
        TypeError
            If `step` is not a whole number, or a value is not a number.
        ValueError
            If `step` does not go up, a value has the name of a metric that is measured here or
            one that a file can't hold, or the number of examples changes.
        """
        row = self._log.checked_row(step, epoch, example_loss, values)
        matrices, biases = self.selection.read(self._model)
        gradients = self._wants("gradient") and self.selection.read_gradients(self._model)
        row |= matrices_metrics(
            matrices,
            metrics=self._metrics,
            initial=self._initial,
            previous=self._previous,
            gradients=gradients or None,
        )
        row |= pooled_metrics(matrices, prefix="weight") | pooled_metrics(biases, prefix="bias")
        row["nonfinite_count"] = float(count_nonfinite([*matrices, *biases]))
        if self._wants("previous"):
            self._previous = [matrix.clone() for matrix in matrices]
        self._log.append(row)

    def amend(self, **values: float | None) -> None:
        """Add values to the last record, for those that come later, as a validation loss may.

        Parameters
        ----------
        **values : float
            As in `record`. A value that is there already is replaced.

        Raises
        ------
        TypeError
            If a value is not a number.
        ValueError
            If nothing was recorded yet, or a value has a name that `record` does not take.
        """
        self._log.amend(values)

    def rewind(self, step: int) -> None:
        """Drop all records after a step: training goes on from a checkpoint before them.

        Parameters
        ----------
        step : int
            Optimiser steps at the checkpoint; the record of this step stays.

        Warns
        -----
        UserWarning
            If there are records after `step`.
        """
        if self.last_step is not None and self.last_step > step:
            self._previous = None  # the weights of a record that is dropped
        self._log.rewind(step)

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes for the Dataset; changed ones are written with the next record."""
        return self._log.attrs

    @property
    def last_step(self) -> int | None:
        """The step of the last record, None if there is none."""
        return self._log.rows[-1]["step"] if self._log.rows else None

    def _wants(self, reference: str) -> bool:
        """Tell whether a metric may look at the initial or previous weights, or the gradient."""
        return any(reference in metric.references for metric in self._metrics)

    def _first_weights(self, initial: nn.Module | None) -> list[Tensor] | None:
        if not self._wants("initial"):
            return None
        if initial is None and self._log.continued:
            warnings.warn(
                "the initial weights of a run that is continued are not in its file: metrics that "
                "need them are NaN from here on, unless you give a network with initial=",
                stacklevel=3,
            )
            return None
        network = self._model if initial is None else initial
        return [matrix.clone() for matrix in self.selection.read(network)[0]]

    def dataset(self) -> xr.Dataset:
        """Return what was recorded so far.

        Returns
        -------
        Dataset
            Metrics with dims (run, step[, parameter | example]), one run.

        Raises
        ------
        ValueError
            If nothing was recorded yet.
        """
        return self._log.dataset()

    def flush(self) -> None:
        """Write what was recorded to the file now, if there is one."""
        self._log.flush()

    def __enter__(self) -> Recorder:  # noqa: D105
        return self

    def __exit__(  # noqa: D105
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.flush()


def _label(run: str | int) -> str:
    if isinstance(run, bool) or not isinstance(run, str | int | np.integer):
        raise TypeError(
            f"run is {run!r}, expected the label of this run: text or a whole number, such as "
            "run='seed 0'"
        )
    return str(run)


def _flush_at_the_end(recorder: Recorder, log: RunLog) -> None:
    """Write the log when the recorder is dropped or Python exits, so that no record is lost."""
    # Exit handlers run last in, first out: this one has to be added after h5py adds its own.
    import h5py  # noqa: F401

    atexit.register(log.flush)
    dropped = weakref.finalize(recorder, _finish, log)
    dropped.atexit = False


def _finish(log: RunLog) -> None:
    atexit.unregister(log.flush)
    log.flush()
