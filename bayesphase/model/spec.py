"""A model said in full, before any of it is built: data, number of states, families, priors."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple, TypeVar

import numpy as np
import xarray as xr

from bayesphase.model import offsets
from bayesphase.model.emissions import EMISSIONS
from bayesphase.model.family import Emission
from bayesphase.model.known import aligned, anchor
from bayesphase.model.markov_chain import MarkovChain
from bayesphase.model.priors import Prior, choose
from bayesphase.model.rows import Rows, Units, check_n_states, rows_of
from bayesphase.model.transitions import (
    TRANSITIONS,
    ContinuousTime,
    LeftToRight,
    Sticky,
    StickyHDP,
)

Transition = Sticky | LeftToRight | ContinuousTime | StickyHDP
T = TypeVar("T")


class Spec(NamedTuple):
    """What defines a model; see `specify`.

    `structure` and `known_states` (run, step; -1 where unknown) are the user's, and `transition` is
    the chain that they make of these data; see `transitions`.
    """

    rows: Rows
    n_states: int
    emission: Emission
    transition: MarkovChain
    priors: dict[str, Prior]
    structure: Transition
    known_states: xr.DataArray | None

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dims of the model's variables by name, in the order of the parameters."""
        of_runs = offsets.DIMS if self.emission.offsets else {}
        return {**self.transition.dims, **self.emission.dims, **of_runs}

    @property
    def variables(self) -> dict[str, tuple[str, ...]]:
        """Dims of all that the posterior holds by name: also of what is derived from the former."""
        return {**self.dims, **self.emission.derived}


def specify(
    features: xr.DataArray,
    n_states: int,
    *,
    emission: str | Emission,
    transition: str | Transition,
    priors: Mapping[str, Prior] | None,
    known_states: xr.DataArray | None = None,
    step_unit: float | None = None,
    units_of: Units | None = None,
) -> Spec:
    """Check everything that defines a model and fill in the default priors.

    Arguments and what is raised as in `bayesphase.build_model`. `step_unit` is the unit of time,
    in optimiser steps, where it is not that of these data. `units_of` are those of a fit to other
    runs: what has been decoded may be a single checkpoint, and lack a feature.
    """
    rows = rows_of(features, units_of=units_of, least=least_checkpoints(known_states, units_of))
    if step_unit is not None:
        rows = rows._replace(step_unit=float(step_unit))
    if units_of is None:
        n_states = check_n_states(n_states, rows)
    emission = _resolve("emission", emission, EMISSIONS)
    structure: Transition = _resolve("transition", transition, TRANSITIONS)
    chain, rows = structure.laid_out(rows, n_states)
    if known_states is not None:
        known_states = aligned(known_states, features, n_states)
        chain, rows = anchor(chain, known_states, rows, features, n_states)
    defaults = default_priors(chain, emission, rows, n_states)
    return Spec(rows, n_states, emission, chain, choose(defaults, priors), structure, known_states)


def least_checkpoints(known_states: xr.DataArray | None, units_of: Rows | Units | None) -> int:
    """Say how many checkpoints a run must have: one may be enough where nothing is fitted."""
    # the kernels can't rule states out where nothing leads into or out of a checkpoint
    return 1 if known_states is None and units_of is not None else 2


def default_priors(
    chain: MarkovChain, emission: Emission, rows: Rows, n_states: int
) -> dict[str, Prior]:
    """Give the default priors of all free variables that have one of their own."""
    of_runs = offsets.priors(rows) if emission.offsets else {}
    return {**chain.priors(n_states), **emission.priors(rows), **of_runs}


def record(spec: Spec) -> dict[str, Any]:
    """Say in attributes of a fit what its model was; `recorded` reads them."""
    return {
        "n_states": spec.n_states,
        "emission": spec.emission.name,
        "emission_options": asdict(spec.emission),
        "transition": spec.structure.name,
        "transition_options": {name: _plain(x) for name, x in asdict(spec.structure).items()},
        "priors": {name: repr(prior) for name, prior in spec.priors.items()},
        "step_unit": spec.rows.step_unit,
    }


def _plain(option: Any) -> Any:
    """Turn tuples into the lists that a file makes of them."""
    return [_plain(part) for part in option] if isinstance(option, tuple) else option


def recorded(fit: xr.DataTree) -> Spec:
    """Return what defined the model of a fit, its data included.

    Raises
    ------
    TypeError, ValueError
        If it is no DataTree, does not say it, or names a family that there is not.
    """
    if not isinstance(fit, xr.DataTree):
        raise TypeError(
            f"expected the DataTree that bayesphase.fit returns, got {type(fit).__name__}"
        )
    missing = [name for name in ("n_states", "emission", "transition") if name not in fit.attrs]
    if missing or "observed_data" not in fit.children:
        raise ValueError(
            f"the fit does not say what its model was: it lacks "
            f"{missing or ['the group observed_data']}; use the DataTree that bayesphase.fit "
            f"returns"
        )
    attrs, data = fit.attrs, fit["observed_data"].to_dataset()
    units_of = None
    if "location" in attrs:  # of decoded runs they are those of the fit
        location, spread = (np.asarray(attrs[name], float) for name in ("location", "spread"))
        units_of = Units(attrs["step_unit"], location, spread)
    return specify(
        data["features"],
        attrs["n_states"],
        emission=_named("emission", attrs, EMISSIONS),
        transition=_named("transition", attrs, TRANSITIONS),
        priors={name: Prior.parse(text) for name, text in attrs.get("priors", {}).items()},
        known_states=data.get("known_states"),
        step_unit=attrs.get("step_unit"),
        units_of=units_of,
    )


def _named(what: str, attrs: Mapping[Any, Any], known: Mapping[str, type[T]]) -> T:
    if attrs[what] not in known:
        raise ValueError(f"the fit's {what} {attrs[what]!r} is none of {sorted(known)}")
    return known[attrs[what]](**attrs.get(f"{what}_options", {}))


def _resolve(what: str, given: str | T, known: Mapping[str, type[T]]) -> T:
    """Turn a name into an object of its class; such an object is passed through."""
    if isinstance(given, str):
        if given in known:
            return known[given]()
    elif isinstance(given, tuple(known.values())):
        return given
    raise ValueError(f"{what} must be one of {sorted(known)} or an object of theirs, got {given!r}")
