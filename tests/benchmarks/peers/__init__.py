"""One file per peer, all with the same small interface; what is not installed is only named.

A module here may have ``gradients(case)``, which yields an `Evaluation` per way to write it, and
``posterior(case, ...)``, which returns a `Posterior`. Peers' libraries are imported inside these.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np


class Evaluation(NamedTuple):
    """One way to compute a density and its gradient, at the parameters of a case.

    `value` is that of the "likelihood" or of the joint "density" of the unconstrained parameters,
    as `of` says, and `gradient` that of the density in bayesphase's order, or None where a library
    gives something else. `build` is the time in seconds from nothing to the first result, without
    imports.
    """

    label: str
    call: Callable[[], Any]
    of: str
    value: float
    gradient: np.ndarray | None
    build: float


class Posterior(NamedTuple):
    """Draws (chain, draw, ...) by name, and where the time went, in seconds.

    `total` is from the data to the draws, without imports; `before` the part of it before the first
    draw and `sampling` the time of the sampler; both None where they can't be told.
    """

    draws: dict[str, np.ndarray]
    divergences: int
    total: float
    before: float | None
    sampling: float | None


NEEDS = {  # by the peer's module: the distribution that must be installed
    "hmmlearn": "hmmlearn",
    "dynamax": "dynamax",
    "numpyro": "numpyro",
    "pymc_extras": "pymc-extras",
}


def installed(module: str) -> str | None:
    """Give the version of a peer, None where it is not installed; bayesphase itself always is."""
    if module == "ours":
        return import_module("bayesphase").__version__
    try:
        return version(NEEDS[module])
    except PackageNotFoundError:
        return None


def split_by_installed(modules: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Part peers into those installed, and the names of those not."""
    there = [module for module in modules if installed(module)]
    return there, [NEEDS[module] for module in modules if module not in there]
