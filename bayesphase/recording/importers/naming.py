"""What logged values are called in a metrics Dataset."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from bayesphase.contract import COORDS, VARIABLES

_SET = {
    "train": "train",
    "training": "train",
    "eval": "eval",
    "val": "eval",
    "valid": "eval",
    "validation": "eval",
}
_WHAT = {"loss": "loss", "acc": "accuracy", "accuracy": "accuracy"}
_UNITS = {
    "runtime": "s",
    "timestamp": "s",
    "per_second": "1/s",
    "learning_rate": "1",
    "lr": "1",
    "loss": "1",
    "accuracy": "1",
    "acc": "1",
    "grad_norm": "1",
}


def variable_names(logged: Sequence[str], names: Mapping[str, str]) -> dict[str, str]:
    """Choose a variable for each logged name.

    A name in `names` gets what is said there. One that consists of a word for the set and one for
    loss or accuracy, such as ``val/acc`` or ``Loss/train``, becomes the variable of the contract
    (``eval_accuracy``, ``train_loss``) unless another one has that name already. All others keep
    their own, with ``_`` in place of what can't stand in a file.

    Raises
    ------
    ValueError
        If `names` has a name that was not logged, two for one variable, or a variable that the
        contract or a file can't have.
    """
    _check_given(logged, names)
    found = dict(names)
    for choose in (_exact, _contract, _unchanged, _clean):
        for name in logged:
            chosen = choose(name)
            if name not in found and chosen and chosen not in found.values():
                found[name] = chosen
    for name in logged:  # two that differ only in what can't stand in a file
        number = 2
        while name not in found:
            variable = f"{_clean(name)}_{number}"
            if variable not in found.values():
                found[name] = variable
            number += 1
    return {name: found[name] for name in logged}


def _check_given(logged: Sequence[str], names: Mapping[str, str]) -> None:
    for name in names:
        if name not in logged:
            near = difflib.get_close_matches(name, logged, 1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"names has {name!r}, logged are {', '.join(sorted(logged))}{hint}")
    if len(set(names.values())) < len(names):
        raise ValueError(f"names gives one variable to several: {dict(names)}")
    for variable in names.values():
        if not variable or _clean(variable) != variable:
            raise ValueError(f"names gives {variable!r}, which can't be the name of a variable")


def _exact(name: str) -> str | None:
    return name if name in VARIABLES and name != "example_loss" else None


def _contract(name: str) -> str | None:
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
    if len(words) != 2:
        return None
    for of_set, what in (words, words[::-1]):
        if of_set in _SET and what in _WHAT:
            return f"{_SET[of_set]}_{_WHAT[what]}"
    return None


def _unchanged(name: str) -> str | None:
    return name if _clean(name) == name else None


def _clean(name: str) -> str:
    clean = re.sub(r"[/\\\x00]+", "_", name).strip()
    if not clean.strip(". "):
        clean = "unnamed"
    return f"logged_{clean}" if clean in COORDS or clean == "example_loss" else clean


def units_of(name: str) -> str:
    """Say the units of a logged value by the end of its name, "unknown" where it does not tell."""
    words = re.sub(r"[\W_]+", "_", name.lower())
    ends = (units for end, units in _UNITS.items() if re.search(rf"(^|_){end}$", words))
    return next(ends, "unknown")
