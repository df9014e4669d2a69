"""What the model needs of the way in which runs move between states.

A structure of `transitions` is fitted to the data by `laid_out`; the rest of the model works with
the chain that it returns: `Sticky` itself, `Masked`, `Timed`, `Weighted`, or, where states are
known, `Anchored`, which makes of any of these one that respects them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bayesphase.model.compiled_chain import Plan
from bayesphase.model.priors import Prior

if TYPE_CHECKING:
    from bayesphase.model.hdp_prior import WeightedPrior

Parameters = Mapping[str, Any]


class MarkovChain(Protocol):
    """How a run moves between states, from one checkpoint to the next."""

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dims by name of the variables that the posterior holds and `log_potentials` takes."""

    @property
    def attrs(self) -> dict[str, dict[str, Any]]:
        """Attributes of these, where units are not obvious."""

    @property
    def spare(self) -> bool:
        """Whether there may be more states than are visited."""

    known: np.ndarray | None = None
    """States (row), -1 where unknown; None where all are."""

    def possible(self, n_states: int) -> tuple[np.ndarray, np.ndarray]:
        """Say which transitions (state, state) and first states (state) can happen."""

    def exchangeable(self, n_states: int) -> np.ndarray:
        """Say which states (state) could be called by each other's names, and be renumbered."""

    def priors(self, n_states: int) -> dict[str, Prior]:
        """Give the default priors of the free variables, which need not be those of `dims`."""

    def own_prior(self, n_states: int) -> "WeightedPrior | None":
        """Return the prior of free variables that depend on each other; None where none does."""
        return None

    def build(self, priors: Mapping[str, Prior], n_states: int) -> dict[str, Any]:
        """Add the variables of `dims` to the PyMC model in context."""

    def log_potentials(self, parameters: Parameters, xp: Any) -> tuple[Any, Any]:
        """Log-transitions (gap, state, state) and log-initial probabilities (state)."""

    def plan(self) -> Plan:
        """Say how the compiled density makes log-potentials of the free variables."""

    def free(self, parameters: Parameters) -> dict[str, Any]:
        """Values of the free variables by name."""

    def named(self, free: Parameters) -> dict[str, Any]:
        """Parameters from values of the free variables, each (..., state): undoes `free`."""

    def counts(
        self, parameters: Parameters, expected_transitions: np.ndarray, first_states: np.ndarray
    ) -> dict[str, Any]:
        """Say what is known of each free variable, in the form that its prior in `conjugate` takes.

        A chain with an `own_prior` need not.

        Parameters
        ----------
        parameters : mapping
        expected_transitions : ndarray (gap, state, state)
        first_states : ndarray (state)
            Expected number of runs that start in each state, both under these parameters.
        """
        raise TypeError(f"{type(self).__name__} has a prior of its own")

    def maximise(
        self,
        expected_transitions: np.ndarray,
        first_states: np.ndarray,
        current: Parameters | None = None,
    ) -> tuple[dict[str, np.ndarray], float]:
        """M-step.

        Parameters
        ----------
        expected_transitions : ndarray (gap, state, state)
        first_states : ndarray (state)
            Expected number of runs that start in each state.
        current : mapping, optional
            The parameters that made these expected.

        Returns
        -------
        parameters : dict
        log_prior : float
            Of these parameters, up to a constant.
        """

    def jitter(
        self, rng: np.random.Generator, parameters: Parameters, size: float
    ) -> dict[str, np.ndarray]:
        """Move parameters by about `size` on the log scale."""
