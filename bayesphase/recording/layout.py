"""Which files and folders are checkpoints, of which run and which step: by their names alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bayesphase.recording.folders import MARKS, is_checkpoint_folder
from bayesphase.recording.step_names import SUFFIXES, Reading, read_path, run_labels

# What trainers write beside weights, under these very names; several are pickles of anything.
_BESIDE = re.compile(
    r"(optimizer|scheduler|scaler|training_args|rng_state(_\d+)?|random_states_\d+)\.\w+"
    r"|(bf16_)?zero_pp_rank_\w+\.pt"
)
_NO_WEIGHTS = re.compile(
    r"(optim(izer)?s?(?![A-Za-z])|scheduler|rng_state|scaler|training_args|random_states)"
    r"\w*([.-].*)?"
)
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")
_MOST = 2**63  # a step must fit an integer of 64 bits


class Checkpoint(NamedTuple):
    """One checkpoint, as its name tells.

    Attributes
    ----------
    run : str
    step : int
        The number of the step, or of the epoch where no step is in the name.
    epoch : int or None
    path : str
        Below the folder that is collected, with "/".
    """

    run: str
    step: int
    epoch: int | None
    path: str


class Found(NamedTuple):
    """Checkpoints in the order of run and step, and what else looked like one, with the reason."""

    checkpoints: list[Checkpoint]
    other: dict[str, str]


def find_checkpoints(root: Path, *, pattern: str | None = None) -> Found:
    """Find the checkpoints below a folder.

    Without a `pattern`, the step is the number after "step" or "iter" in a name, else after
    "checkpoint" or "ckpt", else after "epoch", in the file's name, then in its folder's; else the
    only number in the file's name, but for those of seeds, runs and versions; else the folder's
    name, if it is a number. The run is what is left of the path, without losses and the like.
    What is called ``tmp-*`` or ``*.tmp`` is still being written, and left alone.

    Parameters
    ----------
    root : Path
        A folder.
    pattern : str, optional
        How paths below `root` are made, such as ``"{run}/step{step}.pt"``: `{run}`, `{step}` and
        `{epoch}` stand for themselves, ``*`` for anything within one name.

    Returns
    -------
    Found
        Several checkpoints may be of the same run and step.

    Raises
    ------
    ValueError
        If the pattern has neither `{step}` nor `{epoch}`, or another field.
    """
    matcher = None if pattern is None else _matcher(pattern)
    found: list[Checkpoint] = []
    other: dict[str, str] = {}
    guesses: list[tuple[str, Reading]] = []
    for path, read in _candidates(root, everything=matcher is not None):
        if matcher is not None:
            if match := matcher.fullmatch(path):
                found.append(_of_match(match, path, root))
        elif isinstance(read, str):
            other[path] = read
        else:
            guesses.append((path, read))
    for (path, read), run in zip(guesses, run_labels([r for _, r in guesses]), strict=True):
        found.append(Checkpoint(run or root.resolve().name or "0", read.step, read.epoch, path))
    for checkpoint in [c for c in found if c.step >= _MOST]:
        found.remove(checkpoint)
        other[checkpoint.path] = f"its step {checkpoint.step} is too large a number"
    return Found(sorted(found), other)


def _candidates(root: Path, *, everything: bool) -> Iterator[tuple[str, Reading | str]]:
    """Yield paths that may be checkpoints, and what they tell, or why they are none."""
    seen = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back to a folder above
            continue
        seen.add(real)
        for path in sorted(folder / n for n in _names(folder) if not n.startswith(".")):
            below = path.relative_to(root).as_posix()
            looks = path.suffix in SUFFIXES and not _BESIDE.fullmatch(path.name)
            if path.is_dir():
                whole = None if everything else _whole(path, below)
                if everything or not (whole or looks):
                    waiting.append(path)
                if whole is not None:
                    yield below, whole
                    continue
                looks |= everything and _has_weights(_names(path))
            if looks or (everything and path.is_file()):
                yield below, _of_file(path, below)


def _whole(path: Path, below: str) -> Reading | None:
    """Read the path of a folder that is a checkpoint as a whole; None if it is not one.

    A folder with checkpoints of other steps in it is where a training wrote them, and what else
    it holds is of no step that its name could tell.
    """
    read = read_path(below, is_folder=True)
    if read is None or not _has_weights(names := _names(path)):
        return None
    for name in names:
        inner = read_path(name, is_folder=True)
        if inner is not None and inner.step != read.step and _has_weights(_names(path / name)):
            return None
    return read


def _has_weights(names: set[str]) -> bool:
    # shards whose index is not written yet are refused by the reader, until it is
    return is_checkpoint_folder(names) or any(_SHARD.search(name) for name in names)


def _of_file(path: Path, below: str) -> Reading | str:
    """Read the path of a file, or of a folder called like one, which the reader refuses."""
    if not path.exists():
        return "it can't be followed: a link that leads nowhere, or back to itself"
    if _NO_WEIGHTS.fullmatch(path.name):
        return "it holds no weights, by its name: give a pattern if it is a checkpoint"
    of_folder = path.name in MARKS or _SHARD.search(path.name)
    if not of_folder and (read := read_path(below, is_folder=False)):
        return read
    return "no step is in its name: give a pattern if it is a checkpoint"


def _names(folder: Path) -> set[str]:
    """List what is in a folder, without what is still being written, by its name."""
    try:
        names = os.listdir(folder)
    except OSError:  # not a folder, or one that may not be read
        return set()
    return {n for n in names if not n.startswith("tmp-") and not n.endswith(".tmp")}


def _matcher(pattern: str) -> re.Pattern[str]:
    fields = {"run": "[^/]+", "step": r"\d{1,30}", "epoch": r"\d{1,30}"}
    expression, seen = "", set()
    for part in re.split(r"(\{[^}]*\}|\*)", pattern.removeprefix("./")):
        name = part[1:-1]
        if part == "*":
            expression += "[^/]*"
        elif not part.startswith("{"):
            expression += re.escape(part)
        elif name not in fields:
            raise ValueError(
                f"the pattern {pattern!r} has the field {part!r}, expected {{run}}, {{step}} or "
                "{epoch}"
            )
        else:
            expression += f"(?P={name})" if name in seen else f"(?P<{name}>{fields[name]})"
            seen.add(name)
    if not seen & {"step", "epoch"}:
        raise ValueError(
            f"the pattern {pattern!r} has no {{step}}: write where its number stands, as in "
            "'{run}/step{step}.pt'"
        )
    return re.compile(expression)


def _of_match(match: re.Match[str], path: str, root: Path) -> Checkpoint:
    read = match.groupdict()
    epoch = None if read.get("epoch") is None else int(read["epoch"])
    step = epoch if read.get("step") is None else int(read["step"])
    assert step is not None  # a pattern has one of the two
    return Checkpoint(read.get("run") or root.resolve().name or "0", step, epoch, path)
