"""Which files and folders are checkpoints, of which run and which step: by their names alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bayesphase.recording.folders import is_checkpoint_folder

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")
# Never weights; several are pickles of anything.
_OTHER = re.compile(
    r"(optim(izer)?|scheduler|rng_state|scaler|training_args|zero_|random_states)\w*([.-].*)?"
)
_STEP = re.compile(r"(?:global_?)?(?:step|iter(?:ation)?|it)s?[-_=]?(\d+)", re.IGNORECASE)
_NAMED = re.compile(r"(?:checkpoint|ckpt|batch)[-_=]?(\d+)", re.IGNORECASE)
_EPOCH = re.compile(r"epochs?[-_=]?(\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"(\d+)")
_PLAIN_FOLDERS = {"checkpoints", "checkpoint", "ckpts", "ckpt", "weights"}
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
    "checkpoint" or "ckpt", else after "epoch", else the only number in it; it is looked for in the
    file's name, then in its folder's. The run is what is left of the path.

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
    guesses: list[tuple[str, str, int, int | None, str]] = []
    for path, plain in _candidates(root, everything=matcher is not None):
        if matcher is not None:
            if match := matcher.fullmatch(path):
                found.append(_of_match(match, path, root))
        elif not plain:
            other[path] = "it can't be followed: a link that leads nowhere, or back to itself"
        elif (guess := _guess(path)) is None:
            other[path] = "no step is in its name: give a pattern if it is a checkpoint"
        else:
            guesses.append((*guess, path))
    found += _labelled(guesses, root)
    for checkpoint in [c for c in found if c.step >= _MOST]:
        found.remove(checkpoint)
        other[checkpoint.path] = f"its step {checkpoint.step} is too large a number"
    return Found(sorted(found), other)


def _candidates(root: Path, *, everything: bool) -> Iterator[tuple[str, bool]]:
    """Yield paths that may be checkpoints, and whether they are sound files or folders."""
    seen = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back to a folder above
            continue
        seen.add(real)
        for path in sorted(folder / name for name in _names(folder) if not name.startswith(".")):
            below = path.relative_to(root).as_posix()
            looks = path.suffix in SUFFIXES and not _OTHER.fullmatch(path.name)
            if path.is_dir():
                whole = is_checkpoint_folder(_names(path)) and (everything or bool(_guess(below)))
                if everything or not (whole or looks):
                    waiting.append(path)
                looks |= whole  # a folder called like a file is refused by the reader
            if looks or (everything and path.is_file()):
                yield below, path.exists()


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:  # a folder that may not be read
        return set()


def _guess(path: str) -> tuple[str, str, int, int | None] | None:
    """Read folder, rest of the name, step and epoch from a path; None if there is no step."""
    parts = path.split("/")
    suffix = next((s for s in SUFFIXES if parts[-1].endswith(s)), "")
    parts[-1] = parts[-1].removesuffix(suffix)
    for depth in (1, 2):
        if len(parts) < depth:
            return None
        name = parts[-depth]
        if read := _step(name):
            start, end, step, epoch = read
            rest = (name[:start] + name[end:]).strip("-_=. ")
            if depth == 2:
                rest = "/".join(p for p in (rest, parts[-1]) if p)
            folder = [p for p in parts[:-depth] if p not in _PLAIN_FOLDERS]
            return "/".join(folder), rest, step, epoch
    return None


def _step(name: str) -> tuple[int, int, int, int | None] | None:
    """Find the step in a name: where it begins and ends, the step, and the epoch."""
    epoch = _last(_EPOCH, name)
    match = _last(_STEP, name) or _last(_NAMED, name) or epoch
    if match is None:
        numbers = list(_NUMBER.finditer(name))
        if len(numbers) != 1:
            return None
        match = numbers[0]
    start, end = match.span()
    if epoch is not None and epoch is not match and epoch.end() <= start:
        start = epoch.start()
    return start, end, int(match[1][:30]), int(epoch[1][:30]) if epoch is not None else None


def _last(pattern: re.Pattern[str], name: str) -> re.Match[str] | None:
    matches = list(pattern.finditer(name))
    return matches[-1] if matches else None


def _labelled(guesses: list[tuple[str, str, int, int | None, str]], root: Path) -> list[Checkpoint]:
    """Name the runs: by their folders, and by the rest of the names where those differ."""
    rests: dict[str, set[str]] = {}
    for folder, rest, *_ in guesses:
        rests.setdefault(folder, set()).add(rest)
    found = []
    for folder, rest, step, epoch, path in guesses:
        label = "/".join(p for p in (folder, rest if len(rests[folder]) > 1 else "") if p)
        found.append(Checkpoint(label or root.resolve().name or "0", step, epoch, path))
    return found


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
