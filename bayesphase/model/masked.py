"""Chains in which some transitions can't happen: a mask of those that can."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from bayesphase.model.compiled_chain import Plan
from bayesphase.model.markov_chain import MarkovChain, Parameters
from bayesphase.model.priors import Prior, certain


class Masked(MarkovChain):
    """A chain whose rows are Dirichlet over the transitions that are allowed, and 0 elsewhere.

    A Dirichlet vector is a stick of which independent Beta shares are broken off in turn, the last
    entry being what is left. `transition_sticks` (stick) are these shares of all rows, one after
    the other; each row begins with staying, where it may, so that without other choice than to go
    on the only stick is the probability to stay. Any mask is a number of sticks, and forbidden
    entries are in none.

    Parameters
    ----------
    allowed : bool ndarray (state, state)
        At least one per row.
    counts : ndarray (state, state)
        Concentrations of the Dirichlet rows; those of what is forbidden make no difference.
    first : int, optional
        The state that all runs start in; any, with Dirichlet probabilities, by default.
    spare : bool
        Whether runs need not reach all states.
    """

    attrs: ClassVar[dict[str, dict[str, Any]]] = {}
    dims: ClassVar[dict[str, tuple[str, ...]]] = {
        "initial_probs": ("state",),
        "transition_probs": ("state", "state_next"),
    }

    def __init__(
        self,
        allowed: np.ndarray,
        counts: np.ndarray,
        *,
        first: int | None = None,
        spare: bool = False,
    ):
        self._allowed, self._first, self._spare = allowed, first, spare
        self._counts = np.where(allowed, counts, 0.0)
        n_states = len(allowed)
        # entries of a row in the order in which they are broken off: staying, the others that are
        # allowed, and what is forbidden, which is never come to
        last = np.where(allowed, np.arange(n_states), n_states + 1)
        np.fill_diagonal(last, np.where(allowed.diagonal(), -1, n_states + 1))
        self._order = np.argsort(last, axis=1, kind="stable")
        place = np.arange(n_states)
        self._broken = place < allowed.sum(axis=1, keepdims=True) - 1

    @property
    def spare(self) -> bool:
        """Whether there may be more states than are visited."""
        return self._spare

    def exchangeable(self, n_states: int) -> np.ndarray:
        """Say which states (state) could be called by each other's names: none."""
        return np.zeros(n_states, bool)

    def possible(self, n_states: int) -> tuple[np.ndarray, np.ndarray]:
        """Say which transitions (state, state) and first states (state) can happen."""
        starts = np.ones(n_states, bool)
        if self._first is not None:
            starts = np.arange(n_states) == self._first
        return self._allowed, starts

    def priors(self, n_states: int) -> dict[str, Prior]:
        """Give the default priors."""
        priors = {}
        if self._first is None:
            priors["initial_probs"] = Prior("Dirichlet", a=np.ones(n_states))
        if self._broken.any():
            taken, left = self._taken_and_left(self._counts)
            priors["transition_sticks"] = Prior("Beta", alpha=taken, beta=left)
        return priors

    def _taken_and_left(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How much of `counts` (state, state) each stick (stick) has, and all that come after."""
        ordered = np.take_along_axis(counts, self._order, axis=1)
        left = ordered[:, ::-1].cumsum(axis=1)[:, ::-1] - ordered
        return ordered[self._broken], left[self._broken]

    def build(self, priors: Mapping[str, Prior], n_states: int) -> dict[str, Any]:
        """Add the variables of `dims`, and the sticks, to the PyMC model in context."""
        import pymc as pm
        import pytensor.tensor as pt

        if self._first is None:
            initial = priors["initial_probs"].build("initial_probs", ("state",))
        else:
            initial = certain("initial_probs", ("state",), np.eye(n_states)[self._first])
        dims = self.dims["transition_probs"]
        if not self._broken.any():  # each state has one successor
            return {
                "initial_probs": initial,
                "transition_probs": certain("transition_probs", dims, self._allowed.astype(float)),
            }
        ends = zip(*np.nonzero(self._broken), strict=True)
        sticks = [f"{state}->{self._order[state, place]}" for state, place in ends]
        pm.modelcontext(None).add_coord("stick", sticks)
        sticks = priors["transition_sticks"].build("transition_sticks", ("stick",))
        probs = pm.Deterministic("transition_probs", self._from_sticks(sticks, pt), dims=dims)
        return {"initial_probs": initial, "transition_probs": probs}

    def _from_sticks(self, sticks: Any, xp: Any) -> Any:
        """Matrix (state, state) of all `sticks` (stick)."""
        shape, broken = self._broken.shape, self._broken
        # a stick for every entry, any at all for those that are not broken off
        which = np.maximum(broken.ravel().cumsum() - 1, 0)
        stick = sticks[which].reshape(shape)
        taken = xp.where(broken, xp.log(stick), 0.0)
        left = xp.cumsum(xp.where(broken, xp.log1p(-stick), 0.0), axis=1)
        before = xp.concatenate([xp.zeros((shape[0], 1)), left[:, :-1]], axis=1)
        place = np.argsort(self._order, axis=1)
        flat = (np.arange(shape[0])[:, None] * shape[1] + place).ravel()
        log_probs = (taken + before).reshape((-1,))[flat].reshape(shape)
        return xp.where(self._allowed, xp.exp(log_probs), 0.0)

    def _to_sticks(self, probs: np.ndarray) -> np.ndarray:
        """Undo `_from_sticks`."""
        ordered = np.take_along_axis(probs, self._order, axis=1)
        left = ordered[:, ::-1].cumsum(axis=1)[:, ::-1]
        return ordered[self._broken] / left[self._broken]

    def free(self, parameters: Parameters) -> dict[str, Any]:
        """Values of the free variables."""
        free = {}
        if self._first is None:
            free["initial_probs"] = parameters["initial_probs"]
        if self._broken.any():
            free["transition_sticks"] = self._to_sticks(parameters["transition_probs"])
        return free

    def named(self, free: Parameters) -> dict[str, Any]:
        """Parameters from values of the free variables, each (..., state) or (..., stick)."""
        some = next(iter(free.values()))
        batch, n_states = some.shape[:-1], len(self._allowed)
        initial = free.get("initial_probs", np.eye(n_states)[self._first or 0])
        probs = self._allowed.astype(float)
        if self._broken.any():
            sticks = free["transition_sticks"]
            each = [self._from_sticks(s, np) for s in sticks.reshape(-1, sticks.shape[-1])]
            probs = np.reshape(each, (*batch, *probs.shape))
        return {
            "initial_probs": np.broadcast_to(initial, (*batch, n_states)),
            "transition_probs": np.broadcast_to(probs, (*batch, n_states, n_states)),
        }

    def counts(
        self, parameters: Parameters, expected_transitions: np.ndarray, first_states: np.ndarray
    ) -> dict[str, Any]:
        """Say what is known of each free variable; see `MarkovChain.counts`."""
        return {
            "initial_probs": first_states,
            "transition_sticks": self._taken_and_left(expected_transitions.sum(axis=0)),
        }

    def log_potentials(self, parameters: Parameters, xp: Any) -> tuple[Any, Any]:
        """Log-transitions (gap, state, state), one gap, and log-initial probabilities (state).

        What is forbidden is minus infinity, with a gradient of 0.
        """
        allowed, starts = self.possible(len(self._allowed))
        return (
            _log(parameters["transition_probs"], allowed, xp)[None],
            _log(parameters["initial_probs"], starts, xp),
        )

    def plan(self) -> Plan:
        """Say how the compiled density makes log-potentials; see `Plan`."""
        place = np.arange(len(self._allowed))
        order = np.where(place < self._allowed.sum(axis=1, keepdims=True), self._order, -1)
        return Plan(order=order, first=np.array([-1 if self._first is None else self._first]))

    def maximise(
        self,
        expected_transitions: np.ndarray,
        first_states: np.ndarray,
        current: Parameters | None = None,
    ) -> tuple[dict[str, np.ndarray], float]:
        """M-step, at the posterior mean; see `MarkovChain.maximise`."""
        allowed, starts = self.possible(len(first_states))
        rows = np.where(allowed, expected_transitions.sum(axis=0), 0.0) + self._counts
        initial = np.where(starts, first_states + 1.0, 0.0)
        parameters = {
            "initial_probs": initial / initial.sum(),
            "transition_probs": rows / rows.sum(axis=1, keepdims=True),
        }
        log_prior = np.sum(self._counts[allowed] * np.log(parameters["transition_probs"][allowed]))
        log_prior += np.sum(np.log(parameters["initial_probs"][starts]))
        return parameters, float(log_prior)

    def jitter(
        self, rng: np.random.Generator, parameters: Parameters, size: float
    ) -> dict[str, np.ndarray]:
        """Move probabilities by about `size` on the log scale; free ones are among the result."""
        moved = {}
        for name in self.dims:
            factor = np.exp(size * rng.normal(size=parameters[name].shape))
            product = parameters[name] * factor
            moved[name] = product / product.sum(axis=-1, keepdims=True)
        return {**moved, **self.free(moved)}


def _log(probs: Any, possible: np.ndarray, xp: Any) -> Any:
    return xp.where(possible, xp.log(xp.where(possible, probs, 1.0)), -np.inf)


def as_mask(allowed: Any) -> tuple[tuple[bool, ...], ...]:
    """Return a mask (state, state) of allowed transitions as nested tuples.

    Raises
    ------
    TypeError
        If it does not hold True and False.
    ValueError
        If it is not square, or a state has no successor.
    """
    try:
        mask = np.array(allowed)
    except ValueError as error:
        raise ValueError(f"allowed must have rows of one length, got {allowed!r}") from error
    if mask.dtype != bool:
        raise TypeError(f"allowed must hold True and False only, got {allowed!r}")
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        raise ValueError(f"allowed must be square, (state, state), got shape {mask.shape}")
    if stuck := np.flatnonzero(~mask.any(axis=1)).tolist():
        raise ValueError(
            f"allowed leaves the states {stuck} without any successor: allow them at least to stay"
        )
    return tuple(tuple(row) for row in mask.tolist())
