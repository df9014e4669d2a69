"""States that are known at some checkpoints, from labels or from looking.

To know a state is to rule out all others, and that can be done where the model says how states
follow each other: a matrix that leads into a checkpoint of a known state has no other column, and
one that leads out of a run's known first state has no other row. Every recursion then respects
what is known, whatever the emission, with nothing but more matrices.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from bayesphase.model.compiled_chain import Plan
from bayesphase.model.hdp_prior import WeightedPrior
from bayesphase.model.markov_chain import MarkovChain, Parameters
from bayesphase.model.priors import Prior
from bayesphase.model.rows import Rows

UNKNOWN = -1


class Anchored(MarkovChain):
    """A chain some of whose states are known.

    Known states keep the numbers that the user gave them; the others are renumbered among
    themselves where `chain` allows it.

    Parameters
    ----------
    chain
        What it would be if nothing were known; see `transitions`.
    known : ndarray (row)
        -1 where a state is not known.
    rows : Rows
        Laid out for `chain`.
    n_states : int
    """

    def __init__(self, chain: MarkovChain, known: np.ndarray, rows: Rows, n_states: int) -> None:
        self._chain = chain
        self.known: np.ndarray = known
        starts = rows.layout.starts
        # of a run's first checkpoint nothing leads into it, but there always is a second
        leaving = np.full(len(known), UNKNOWN)
        leaving[starts + 1] = known[starts]
        kinds = np.stack([rows.layout.gap_index, leaving, known], axis=1)
        kinds[starts] = kinds[starts + 1]
        kinds, which = np.unique(kinds, axis=0, return_inverse=True)
        self._gap, self._leaving, self._entering = kinds.T
        self._n_gaps = int(rows.layout.gap_index.max()) + 1
        state = np.arange(n_states)
        rows_, columns = (
            (only[:, None] == UNKNOWN) | (state == only[:, None])
            for only in (self._leaving, self._entering)
        )
        self._open = rows_[:, :, None] & columns[:, None, :]
        self.rows = rows.with_gap_index(which.ravel().astype(np.int64))

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dims of the variables by name."""
        return self._chain.dims

    @property
    def attrs(self) -> dict[str, dict[str, Any]]:
        """Attributes of these."""
        return self._chain.attrs

    @property
    def spare(self) -> bool:
        """Whether there may be more states than are visited."""
        return self._chain.spare

    def exchangeable(self, n_states: int) -> np.ndarray:
        """Say which states (state) could be called by each other's names."""
        return self._chain.exchangeable(n_states) & ~np.isin(np.arange(n_states), self.known)

    def possible(self, n_states: int) -> tuple[np.ndarray, np.ndarray]:
        """Say which transitions (state, state) and first states (state) can happen."""
        return self._chain.possible(n_states)

    def priors(self, n_states: int) -> dict[str, Prior]:
        """Give the default priors."""
        return self._chain.priors(n_states)

    def own_prior(self, n_states: int) -> WeightedPrior | None:
        """Return the prior of free variables that depend on each other."""
        return self._chain.own_prior(n_states)

    def build(self, priors: Mapping[str, Prior], n_states: int) -> dict[str, Any]:
        """Add the variables of `dims` to the PyMC model in context."""
        return self._chain.build(priors, n_states)

    def log_potentials(self, parameters: Parameters, xp: Any) -> tuple[Any, Any]:
        """Log-transitions (gap and what is known, state, state), log-initial probabilities."""
        log_transition, log_initial = self._chain.log_potentials(parameters, xp)
        return xp.where(self._open, log_transition[self._gap], -np.inf), log_initial

    def plan(self) -> Plan:
        """Say how the compiled density makes log-potentials; see `Plan`."""
        kinds = np.stack([self._gap, self._leaving, self._entering], axis=1)
        return self._chain.plan()._replace(kinds=kinds)

    def maximise(
        self,
        expected_transitions: np.ndarray,
        first_states: np.ndarray,
        current: Parameters | None = None,
    ) -> tuple[dict[str, np.ndarray], float]:
        """M-step of the chain; transitions (gap and what is known, state, state)."""
        by_gap = self._by_gap(expected_transitions)
        return self._chain.maximise(by_gap, first_states, current)

    def _by_gap(self, transitions: np.ndarray) -> np.ndarray:
        """Add up transitions (gap and what is known, state, state) by the gap (gap) alone."""
        by_gap = np.zeros((self._n_gaps, *transitions.shape[1:]))
        if len(transitions) == len(self._gap):  # else none is known yet, and all are 0
            np.add.at(by_gap, self._gap, transitions)
        return by_gap

    def free(self, parameters: Parameters) -> dict[str, Any]:
        """Values of the free variables."""
        return self._chain.free(parameters)

    def named(self, free: Parameters) -> dict[str, Any]:
        """Parameters from values of the free variables."""
        return self._chain.named(free)

    def counts(
        self, parameters: Parameters, expected_transitions: np.ndarray, first_states: np.ndarray
    ) -> dict[str, Any]:
        """Say what is known of each free variable; see `MarkovChain.counts`."""
        by_gap = self._by_gap(expected_transitions)
        return self._chain.counts(parameters, by_gap, first_states)

    def jitter(
        self, rng: np.random.Generator, parameters: Parameters, size: float
    ) -> dict[str, np.ndarray]:
        """Move parameters by about `size` on the log scale."""
        return self._chain.jitter(rng, parameters, size)


def aligned(known_states: xr.DataArray, features: xr.DataArray, n_states: int) -> xr.DataArray:
    """Bring known states onto the grid of the features.

    Parameters
    ----------
    known_states : DataArray (run, step)
        Of some or all of the runs and steps; -1 or NaN where a state is not known.
    features : DataArray (run, step, feature)
    n_states : int

    Returns
    -------
    DataArray (run, step)
        int64, -1 where unknown.

    Raises
    ------
    TypeError
        If it is no DataArray, or does not hold whole numbers.
    ValueError
        If its dims or labels are not those of the features, a number is no state, or a run has no
        checkpoint where its state is said to be known.
    """
    if not isinstance(known_states, xr.DataArray):
        raise TypeError(
            f"known_states must be an xarray.DataArray with dims (run, step), got "
            f"{type(known_states).__name__}"
        )
    if set(known_states.dims) != {"run", "step"}:
        raise ValueError(f"known_states must have the dims (run, step), got {known_states.dims}")
    known_states = known_states.transpose("run", "step")
    for dim in ("run", "step"):
        if dim not in known_states.coords:
            raise ValueError(f"known_states has no coordinate {dim!r}; assign its labels")
        labels = known_states.indexes[dim]
        if labels.has_duplicates:
            raise ValueError(
                f"known_states has {dim} labels that occur twice: "
                f"{sorted(set(labels[labels.duplicated()]))}"
            )
        if strange := [x for x in labels.tolist() if x not in features.indexes[dim]]:
            raise ValueError(
                f"known_states has {dim} labels that the features do not have: {strange}"
            )
    states = _whole_numbers(known_states.values)
    wrong = np.unique(states[(states < UNKNOWN) | (states >= n_states)]).tolist()
    if wrong:
        raise ValueError(
            f"known_states must lie between 0 and {n_states - 1}, or be -1 where a state is not "
            f"known, got {wrong}"
        )
    known = known_states.copy(data=states).drop_vars(
        [name for name in known_states.coords if name not in ("run", "step")]
    )
    full = known.reindex(run=features["run"], step=features["step"], fill_value=UNKNOWN)
    present = features.notnull().any("feature").transpose("run", "step").values
    for r, t in np.argwhere((full.values != UNKNOWN) & ~present)[:1]:
        raise ValueError(
            f"known_states says that run {full['run'].values[r]!s} is in state "
            f"{full.values[r, t]} at step {full['step'].values[t]}, where it has no checkpoint; "
            f"put -1 there"
        )
    return xr.DataArray(
        full.values,
        dims=("run", "step"),
        name="known_states",
        attrs={"long_name": "state known beforehand, -1 where it is not", "units": "1"},
    )


def _whole_numbers(values: np.ndarray) -> np.ndarray:
    if not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise TypeError(f"known_states must hold numbers of states, got dtype {values.dtype}")
    states = np.where(np.isnan(values), UNKNOWN, values)
    if broken := states[states != np.round(states)].tolist():
        raise TypeError(f"known_states must hold whole numbers, got {broken[:5]}")
    return states.astype(np.int64)


def anchor(
    chain: MarkovChain,
    known_states: xr.DataArray,
    rows: Rows,
    features: xr.DataArray,
    n_states: int,
) -> tuple[Any, Rows]:
    """Return the chain with its states known, and the rows laid out for it.

    Parameters
    ----------
    chain
        Of structures as `transitions` describes them.
    known_states : DataArray (run, step)
        As `aligned` returns it.
    rows : Rows
        Laid out for `chain`.
    features : DataArray (run, step, feature)
    n_states : int

    Raises
    ------
    ValueError
        If no path can be in all of a run's known states.
    """
    known = known_states.values[rows.run, rows.step]
    if (known == UNKNOWN).all():
        return chain, rows
    _check_possible(chain, known, rows, features, n_states)
    anchored = Anchored(chain, known, rows, n_states)
    return anchored, anchored.rows


def _check_possible(
    chain: MarkovChain, known: np.ndarray, rows: Rows, features: xr.DataArray, n_states: int
) -> None:
    allowed, starts = chain.possible(n_states)
    if allowed.all() and starts.all():
        return
    state = np.arange(n_states)
    first = np.isin(np.arange(len(known)), rows.layout.starts)
    reached = starts
    for row, only in enumerate(known):
        reached = starts if first[row] else allowed[reached].any(axis=0)
        if only != UNKNOWN:
            reached = reached & (state == only)
        if not reached.any():
            raise ValueError(
                f"known_states says that run {features['run'].values[rows.run[row]]!s} is in state "
                f"{only} at step {features['step'].values[rows.step[row]]}, which the transitions "
                f"do not allow after what is known before"
            )
