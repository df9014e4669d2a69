"""What the names in a checkpoint's path tell: its step, its epoch, and what is left for its run."""

from __future__ import annotations

import re
from typing import NamedTuple

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")
_STEP = re.compile(
    r"(?<![a-z])(?:global_?)?(?:step|iter(?:ation)?|it)(?P<s>s?)[-_=]?(?P<n>\d+)", re.IGNORECASE
)
_SAVED = re.compile(r"(?<![a-z])(?:checkpoint|ckpt)(?P<s>)[-_=]?(?P<n>\d+)", re.IGNORECASE)
_EPOCH = re.compile(r"(?<![a-z])epoch(?P<s>s?)[-_=]?(?P<n>\d+)", re.IGNORECASE)
# What a number after one of these words counts is never steps.
_NUMBER = re.compile(
    r"(?P<of>(?<![a-z])(?:seed|run|rank|fold|split|trial|version|v)[-_=]?)?(?P<n>\d+)",
    re.IGNORECASE,
)
# A whole number needs its "=": loss1 and loss2 may well be two losses, of two runs.
_MEASURED = re.compile(
    r"(?<![a-z])(?:(?:val(?:id(?:ation)?)?|eval|train|test|dev)[-_]?)?"
    r"(?:loss|acc(?:uracy)?|ppl|perplexity|f1(?=[-_=])|auc|auroc|score)"
    r"(?:=[-+]?\d+(?:\.\d+)?|[-_]?\d+\.\d+)(?:e[-+]?\d+)?"
    r"|(?<![a-z])tokens?[-_=]?\d+(?:\.\d+)?[KMBT]?(?![a-z])",
    re.IGNORECASE,
)
_BETWEEN = "-_=. "
_PART_OF_MODEL = re.compile(r"(?:mp_)?rank(?:_?\d+)+")  # folders of a model in parallel parts
_PLAIN_FOLDERS = {"checkpoints", "checkpoint", "ckpts", "ckpt", "weights"}
_PLAIN_RESTS = {"", "model", "pytorch_model", "weights", "checkpoint", "ckpt", "state_dict"}
_PLAIN_RESTS |= {"snapshot", "params", "net", "network", "batch", "model_optim_rng"}


class Reading(NamedTuple):
    """What a path tells.

    Attributes
    ----------
    folder : str
        The folders above that do not name the step.
    rest : str
        What is left of the names in which the step was found, or that stand below it.
    step : int
    epoch : int or None
    """

    folder: str
    rest: str
    step: int
    epoch: int | None


class _Step(NamedTuple):
    step: int
    epoch: int | None
    rest: str


def read_path(path: str, *, is_folder: bool) -> Reading | None:
    """Read a path: its last name and the folder above, named steps before mere numbers.

    The only number in a name is a step in a file's name alone: folders are often called by numbers
    (gpt2, run_003) that are none, and must be all digits or name what they count.

    Parameters
    ----------
    path : str
        With "/".
    is_folder : bool
        Whether it leads to a folder that may be a checkpoint as a whole.

    Returns
    -------
    Reading or None
        None if no step is in it.
    """
    *folders, own = path.split("/")
    own = own.removesuffix(next((s for s in SUFFIXES if own.endswith(s)), ""))
    own = _MEASURED.sub("", own).strip(_BETWEEN)
    above = len(folders) - 1
    while above >= 0 and _PART_OF_MODEL.fullmatch(folders[above]):
        above -= 1
    holder = folders[above] if above >= 0 else ""
    if here := _named(own, plural=True):
        return _reading(folders, here, here.rest)
    if there := _named(holder, plural=False):
        return _reading(folders[:above], there, there.rest, own)
    if here := _digits(own) if is_folder else _only_number(own):
        return _reading(folders, here, here.rest)
    if not is_folder and (there := _digits(holder)):
        return _reading(folders[:above], there, own)
    return None


def _reading(folders: list[str], found: _Step, *rests: str) -> Reading:
    kept = [n for n in folders if n not in _PLAIN_FOLDERS and not _names_again(n, found)]
    return Reading("/".join(kept), "/".join(r for r in rests if r), found.step, found.epoch)


def _names_again(folder: str, found: _Step) -> bool:
    """Whether a folder's name is nothing but the same step, or epoch: then it is no run's."""
    named = _named(folder, plural=False)
    if named is None or named.rest:
        return False
    return named.step == found.step or (named.epoch is not None and named.epoch == found.epoch)


def _named(name: str, *, plural: bool) -> _Step | None:
    """Find the number that is named a step, else a checkpoint, else an epoch.

    The plural in a folder's name, as in epochs100, tells how many there are in all.
    """
    name = _MEASURED.sub("", name)
    saved = (_last(_STEP, name, plural), _last(_SAVED, name, plural))
    epoch = _last(_EPOCH, name, plural)
    match = saved[0] or saved[1] or epoch
    return None if match is None else _step(name, match, epoch)


def _digits(name: str) -> _Step | None:
    match = re.fullmatch(r"(?P<n>\d+)", name)
    return None if match is None else _step(name, match, None)


def _only_number(name: str) -> _Step | None:
    numbers = [match for match in _NUMBER.finditer(name) if match["of"] is None]
    return _step(name, numbers[0], None) if len(numbers) == 1 else None


def _step(name: str, match: re.Match[str], epoch: re.Match[str] | None) -> _Step:
    rests, end = [], 0
    for start, stop in sorted({m.span() for m in (match, epoch) if m is not None}):
        rests.append(name[end:start])
        end = stop
    stripped = (rest.strip(_BETWEEN) for rest in (*rests, name[end:]))
    number = None if epoch is None else int(epoch["n"][:30])
    return _Step(int(match["n"][:30]), number, "_".join(r for r in stripped if r))


def _last(pattern: re.Pattern[str], name: str, plural: bool) -> re.Match[str] | None:
    matches = [match for match in pattern.finditer(name) if plural or not match["s"]]
    return matches[-1] if matches else None


def run_labels(readings: list[Reading]) -> list[str]:
    """Name the run of each: its folder and the rest of its names.

    So far as names allow, a label does not change when other checkpoints come or go. A rest such
    as "model" says nothing and is left out, unless another such stands in the same folder. Rests
    that occur once each, at different steps, and differ in nothing but numbers are of one run,
    whose numbers were measured at each step.
    """
    plain: dict[str, set[str]] = {}
    alike: dict[tuple[str, str], list[Reading]] = {}
    for reading in readings:
        alike.setdefault((reading.folder, _without_numbers(reading.rest)), []).append(reading)
        if reading.rest.lower() in _PLAIN_RESTS:
            plain.setdefault(reading.folder, set()).add(reading.rest)
    once = {
        key: 1 < len(group) == len({r.rest for r in group}) == len({r.step for r in group})
        for key, group in alike.items()
    }
    labels = []
    for reading in readings:
        without = _without_numbers(reading.rest)
        rest = without if once[reading.folder, without] else reading.rest
        if rest.lower() in _PLAIN_RESTS and len(plain.get(reading.folder, ())) < 2:
            rest = ""
        labels.append("/".join(part for part in (reading.folder, rest) if part))
    return labels


def _without_numbers(rest: str) -> str:
    """Take numbers out, but not those of seeds and the like: they tell runs apart."""
    kept = _NUMBER.sub(lambda match: match[0] if match["of"] else "", rest)
    return "/".join(part.strip(_BETWEEN) for part in kept.split("/"))
