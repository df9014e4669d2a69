"""How a run moves between states: one class per structure, with the options that users give.

`laid_out` fits a structure to the data. The rest of the model works with what it returns, a
`markov_chain.MarkovChain`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bayesphase.model.compiled_chain import Plan
from bayesphase.model.hdp import Weighted
from bayesphase.model.markov_chain import MarkovChain, Parameters
from bayesphase.model.masked import Masked, as_mask
from bayesphase.model.priors import Prior, certain
from bayesphase.model.rows import Rows
from bayesphase.model.timed import Timed


@dataclass(frozen=True, kw_only=True)
class Sticky(MarkovChain):
    """Any state may follow any other, and staying is the rule: one step per checkpoint.

    `initial_probs` (state) and the rows of `transition_probs` (state, state_next) are Dirichlet.
    Rows have concentration `concentration` everywhere and `stickiness` more on the diagonal, as in
    the sticky HDP-HMM (Fox et al. 2011, doi:10.1214/10-AOAS395) with a fixed number of states.

    Parameters
    ----------
    concentration : float
        Prior number of transitions to every state; positive.
    stickiness : float
        Prior number of further transitions to the state itself; at least 0.
    allowed : nested sequence (state, state) of bool, optional
        Which state (second) may follow which (first); all by default. What is not allowed has
        probability 0, and the rest of a row is Dirichlet. States then mean what their rows say:
        they are not renumbered.
    """

    concentration: float = 1.0
    stickiness: float = 20.0
    allowed: tuple[tuple[bool, ...], ...] | None = None

    name: ClassVar[str] = "sticky"
    spare: ClassVar[bool] = False
    attrs: ClassVar[dict[str, dict[str, Any]]] = {}
    dims: ClassVar[dict[str, tuple[str, ...]]] = {
        "initial_probs": ("state",),
        "transition_probs": ("state", "state_next"),
    }

    def __post_init__(self) -> None:  # noqa: D105
        _check_counts(self.concentration, self.stickiness)
        if self.allowed is not None:
            # as tuples, so that options can be compared, whatever a file made of them
            object.__setattr__(self, "allowed", as_mask(self.allowed))

    def laid_out(self, rows: Rows, n_states: int) -> "tuple[Sticky | Masked, Rows]":
        """Return the chain that this structure is for so many states, and the rows.

        Raises
        ------
        ValueError
            If `allowed` is for another number of states.
        """
        if self.allowed is None:
            return self, rows
        allowed = np.array(self.allowed)
        if len(allowed) != n_states:
            raise ValueError(
                f"allowed must have a row and a column for each of the {n_states} states, got "
                f"shape {allowed.shape}"
            )
        if allowed.all():
            return self, rows
        return Masked(allowed, _counts(self.concentration, self.stickiness, n_states)), rows

    def exchangeable(self, n_states: int) -> np.ndarray:
        """Say which states (state) could be called by each other's names: all."""
        return np.ones(n_states, bool)

    def possible(self, n_states: int) -> tuple[np.ndarray, np.ndarray]:
        """Say which transitions (state, state) and first states (state) can happen: all."""
        return np.ones((n_states, n_states), bool), np.ones(n_states, bool)

    def _pseudo_counts(self, n_states: int) -> np.ndarray:
        return _counts(self.concentration, self.stickiness, n_states)

    def priors(self, n_states: int) -> dict[str, Prior]:
        """Give the default priors."""
        return {
            "initial_probs": Prior("Dirichlet", a=np.ones(n_states)),
            "transition_probs": Prior("Dirichlet", a=self._pseudo_counts(n_states)),
        }

    def build(self, priors: Mapping[str, Prior], n_states: int) -> dict[str, Any]:
        """Add the variables of `dims` to the PyMC model in context."""
        if n_states == 1:  # a simplex of one corner has no density
            return {
                name: certain(name, dims, np.ones((1,) * len(dims)))
                for name, dims in self.dims.items()
            }
        return {name: priors[name].build(name, dims) for name, dims in self.dims.items()}

    def log_potentials(self, parameters: Parameters, xp: Any) -> tuple[Any, Any]:
        """Log-transitions (gap, state, state), one gap, and log-initial probabilities (state)."""
        return xp.log(parameters["transition_probs"])[None], xp.log(parameters["initial_probs"])

    def plan(self) -> Plan:
        """Say how the compiled density makes log-potentials; see `Plan`."""
        return Plan()

    def free(self, parameters: Parameters) -> dict[str, Any]:
        """Values of the free variables."""
        return {name: parameters[name] for name in self.dims}

    def named(self, free: Parameters) -> dict[str, Any]:
        """Parameters from values of the free variables, each (..., state)."""
        return dict(free)

    def counts(
        self, parameters: Parameters, expected_transitions: np.ndarray, first_states: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Say what is known of each free variable; see `MarkovChain.counts`."""
        return {
            "initial_probs": first_states,
            "transition_probs": expected_transitions.sum(axis=0),
        }

    def maximise(
        self,
        expected_transitions: np.ndarray,
        first_states: np.ndarray,
        current: Parameters | None = None,
    ) -> tuple[dict[str, np.ndarray], float]:
        """M-step, at the posterior mean so that no probability is 0; see `MarkovChain.maximise`."""
        counts = self._pseudo_counts(len(first_states))
        rows = expected_transitions.sum(axis=0) + counts
        initial = first_states + 1.0
        parameters = {
            "initial_probs": initial / initial.sum(),
            "transition_probs": rows / rows.sum(axis=1, keepdims=True),
        }
        log_prior = np.sum(counts * np.log(parameters["transition_probs"]))
        log_prior += np.sum(np.log(parameters["initial_probs"]))
        return parameters, float(log_prior)

    def jitter(
        self, rng: np.random.Generator, parameters: Parameters, size: float
    ) -> dict[str, np.ndarray]:
        """Move probabilities by about `size` on the log scale."""
        moved = {}
        for name in self.dims:
            factor = np.exp(size * rng.normal(size=parameters[name].shape))
            product = parameters[name] * factor
            moved[name] = product / product.sum(axis=-1, keepdims=True)
        return moved


@dataclass(frozen=True, kw_only=True)
class LeftToRight:
    """Phases that come one after the other and never come back: a model of change points.

    A run starts in state 0, and at every checkpoint stays or goes on to the next state; it stays in
    the last for good, and need not reach it (Chib 1998, doi:10.1016/S0304-4076(97)00115-2, whose
    runs do). States have an order, so that they are not renumbered.

    Rows of `transition_probs` (state, state_next) are Dirichlet over what can happen: a Beta
    distribution of the probability to stay, without `skip`.

    Parameters
    ----------
    concentration : float
        Prior number of transitions to every later state that may follow; positive.
    stickiness : float
        Prior number of further transitions to the state itself; at least 0.
    skip : bool
        Whether runs may leave out states: any later one may follow, and runs start in any, with
        Dirichlet `initial_probs` (state).
    """

    concentration: float = 1.0
    stickiness: float = 20.0
    skip: bool = False

    name: ClassVar[str] = "left_to_right"

    def __post_init__(self) -> None:  # noqa: D105
        _check_counts(self.concentration, self.stickiness)
        if not isinstance(self.skip, bool | np.bool_):
            raise TypeError(f"skip must be True or False, got {self.skip!r}")
        object.__setattr__(self, "skip", bool(self.skip))

    def laid_out(self, rows: Rows, n_states: int) -> tuple[Sticky | Masked, Rows]:
        """Return the chain that this structure is for so many states, and the rows."""
        if n_states == 1:
            return Sticky(), rows
        allowed = np.triu(np.ones((n_states, n_states), bool))
        if not self.skip:
            allowed = np.tril(allowed, 1)
        counts = _counts(self.concentration, self.stickiness, n_states)
        return Masked(allowed, counts, first=None if self.skip else 0, spare=True), rows


@dataclass(frozen=True, kw_only=True)
class ContinuousTime:
    """Switches happen at any time at constant rates: what a gap between checkpoints may hide.

    Over a gap of g optimiser steps the transition matrix is exp(Q g), with the generator Q that has
    `rates` (state, state_next), switches per optimiser step, beside its diagonal (Kalbfleisch &
    Lawless 1985, doi:10.1080/01621459.1985.10478195). Uneven grids and missing checkpoints need no
    care. `transition_probs` (state, state_next) is the matrix of the median gap, which the
    variable's attribute `gap` holds in a fit.

    Rates have independent gamma priors of shape `shape`, and a state is left after `dwell_share` of
    the median length of a run, on average.

    Parameters
    ----------
    shape : float
        Shape of the gamma prior of each rate, an exponential one by default; positive.
    dwell_share : float, optional
        By default the inverse of the number of states; positive.
    """

    shape: float = 1.0
    dwell_share: float | None = None

    name: ClassVar[str] = "continuous_time"

    def __post_init__(self) -> None:  # noqa: D105
        if not self.shape > 0 or not (self.dwell_share is None or self.dwell_share > 0):
            raise ValueError(
                f"shape and dwell_share must be positive, got {self.shape} and {self.dwell_share}"
            )

    def laid_out(self, rows: Rows, n_states: int) -> tuple[Sticky | Timed, Rows]:
        """Return the chain for these gaps, and the rows with the index of each one's gap."""
        if n_states == 1:
            return Sticky(), rows
        gaps, median, rows = by_gap(rows)
        length = np.median(np.add.reduceat(rows.gap, rows.layout.starts))
        share = 1.0 / n_states if self.dwell_share is None else self.dwell_share
        return Timed(gaps, median, shape=self.shape, dwell=share * length), rows


@dataclass(frozen=True, kw_only=True)
class StickyHDP:
    """More states than are needed, most of which a run never visits: how many it does is inferred.

    The sticky hierarchical Dirichlet process (Fox, Sudderth, Jordan & Willsky 2011,
    doi:10.1214/10-AOAS395) in its weak-limit approximation, with as many states as a fit has: the
    more of them, the nearer. States have `state_weights` (state), Dirichlet with
    `weight_concentration` shared out over all, so that few of them have nearly all weight. Every
    row of `transition_probs` (state, state_next) and `initial_probs` (state) are Dirichlet about
    the weights: with `concentration` times the weights, and in a row `stickiness` more on the
    diagonal. A state that no run has entered is thus rarely entered from any other, which rows that
    are sparse each by itself do not achieve: each then has its own favourites.

    So sparse a Dirichlet has probabilities whose logarithms have tails hundreds of nats long, in
    which the log-ratios that other structures are sampled in get lost. Here the gamma variables
    that the probabilities are made of are sampled, in coordinates in which their prior is about
    standard logistic whatever the weights: `weight_scores`, `initial_scores` and
    `transition_scores` of a fit.

    Parameters
    ----------
    weight_concentration : float
        Small where few states are expected; positive. `bayesphase.visited_counts` says how the
        answer depends on it.
    concentration : float
        Prior number of transitions to other states, from each; positive.
    stickiness : float
        Prior number of further transitions to the state itself; at least 0.
    """

    weight_concentration: float = 1.0
    concentration: float = 1.0
    stickiness: float = 20.0

    name: ClassVar[str] = "sticky_hdp"

    def __post_init__(self) -> None:  # noqa: D105
        _check_counts(self.concentration, self.stickiness)
        if not self.weight_concentration > 0:
            raise ValueError(
                f"weight_concentration must be positive, got {self.weight_concentration}"
            )

    def laid_out(self, rows: Rows, n_states: int) -> tuple[Sticky | Weighted, Rows]:
        """Return the chain that this structure is for so many states, and the rows."""
        if n_states == 1:
            return Sticky(), rows
        options = self.weight_concentration, self.concentration, self.stickiness
        return Weighted(n_states, *options), rows


def by_gap(rows: Rows) -> tuple[np.ndarray, float, Rows]:
    """Find the distinct gaps (gap) and the median one, and have `gap_index` say which is whose.

    Gaps are in optimiser steps; those that differ by rounding only are one.
    """
    follows = np.ones(len(rows.gap), bool)
    follows[rows.layout.starts] = False
    if not follows.any():  # nothing but single checkpoints
        return np.array([rows.step_unit]), rows.step_unit, rows
    median = float(np.median(rows.gap[follows]))
    _, example, which = np.unique(
        np.round(rows.gap[follows] / median, 9), return_index=True, return_inverse=True
    )
    gap_index = np.zeros(len(rows.gap), np.int64)
    gap_index[follows] = which
    return rows.gap[follows][example], median, rows.with_gap_index(gap_index)


def _counts(concentration: float, stickiness: float, n_states: int) -> np.ndarray:
    diagonal = stickiness * np.eye(n_states)
    return np.full((n_states, n_states), concentration) + diagonal


def _check_counts(concentration: float, stickiness: float) -> None:
    if not concentration > 0 or not stickiness >= 0:
        raise ValueError(
            f"concentration must be positive and stickiness at least 0, got "
            f"{concentration} and {stickiness}"
        )


TRANSITIONS: dict[str, Any] = {c.name: c for c in (Sticky, LeftToRight, ContinuousTime, StickyHDP)}
