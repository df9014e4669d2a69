"""What the Trainer of Hugging Face logged: the ``log_history`` of ``trainer_state.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bayesphase.recording.importers.log import Log, whole
from bayesphase.recording.importers.rows import read_json

FILE = "trainer_state.json"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def run_folder(path: Path) -> Path:
    """Return the folder of the run that a ``trainer_state.json`` belongs to."""
    folder = path.absolute().parent
    return folder.parent if CHECKPOINT.fullmatch(folder.name) else folder


def latest_states(paths: list[Path], log: Log) -> list[Path]:
    """Choose, for each run, the state of its last checkpoint: it holds the history of all.

    The others are noted as left out. A state outside of a checkpoint was saved at the end of a
    training, which may have gone on since.
    """
    by_run: dict[Path, list[tuple[float, bool, Path]]] = {}
    for path in paths:
        of_checkpoint = CHECKPOINT.fullmatch(path.absolute().parent.name)
        at = float(of_checkpoint[1]) if of_checkpoint else _steps(path)
        by_run.setdefault(run_folder(path), []).append((at, not of_checkpoint, path))
    chosen = []
    for states in by_run.values():
        *earlier, (_, _, latest) = sorted(states)
        chosen.append(latest)
        for _, _, path in earlier:
            log.skip("an earlier state of the same run", str(path))
    return chosen


def _steps(path: Path) -> float:
    """Optimiser steps at which a state was saved; infinite if it does not say, or is broken."""
    try:
        state = read_json(path)
    except ValueError:  # reported when it is read
        return float("inf")
    steps = state.get("global_step") if isinstance(state, dict) else None
    return float(steps) if isinstance(steps, int) else float("inf")


def read_trainer_state(path: Path, log: Log, *, label: str) -> None:
    """Put the history in one ``trainer_state.json`` into the log.

    Raises
    ------
    ValueError
        If it is no JSON, has no ``log_history``, or an entry has no whole number of steps.
    """
    state = read_json(path)
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise ValueError(f"{path}: no list 'log_history', expected the state that a Trainer saves")
    for i, entry in enumerate(history):
        where = f"{path}, log_history[{i}]"
        if not isinstance(entry, dict) or "step" not in entry:
            log.skip("an entry without a step", where)
            continue
        step = whole(entry["step"], "step", where)
        for name, value in trainer_values(entry).items():
            log.add_any(label, step, name, value, where)


def trainer_values(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Name the values that a Trainer logs at one step as the contract does.

    ``loss`` is the training loss. The summary that is logged at the end calls the mean of the
    loss over the whole training ``train_loss``, which is another thing: `overall_train_loss`.
    """
    summary = "train_runtime" in entry
    names = {"train_loss": "overall_train_loss"} if summary else {"loss": "train_loss"}
    return {names.get(name, name): value for name, value in entry.items() if name != "step"}
