"""Chains in continuous time, seen at checkpoints with any gaps between them."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from bayesphase.model import exponential
from bayesphase.model.compiled_chain import Plan
from bayesphase.model.markov_chain import MarkovChain, Parameters
from bayesphase.model.priors import Prior

# of an M-step in continuous time, which takes microseconds: how many at most, and the change of the
# logarithm of a rate under which there are enough
_MOST_STEPS = 30
_SETTLED = 1e-3


class Timed(MarkovChain):
    """A chain that switches at constant rates; see `transitions.ContinuousTime`.

    The free variable is `switch_rates` (switch), the entries of `rates` (state, state_next) beside
    the diagonal, which is 0. All are switches per optimiser step.

    Parameters
    ----------
    gaps : ndarray (gap)
        Distinct gaps between checkpoints, optimiser steps.
    median : float
        The gap that `transition_probs` is for.
    shape : float
        Shape of the gamma prior of each rate.
    dwell : float
        Prior mean of a state's rate of being left, inverted; optimiser steps.
    """

    spare: ClassVar[bool] = False
    dims: ClassVar[dict[str, tuple[str, ...]]] = {
        "initial_probs": ("state",),
        "rates": ("state", "state_next"),
        "transition_probs": ("state", "state_next"),
    }

    def __init__(self, gaps: np.ndarray, median: float, *, shape: float, dwell: float) -> None:
        self.gaps, self.median = gaps, median
        self._shape, self._dwell = shape, dwell

    @property
    def attrs(self) -> dict[str, dict[str, Any]]:
        """Attributes of the variables, by name."""
        return {
            "rates": {"long_name": "rate of switching", "units": "1 / optimiser step"},
            "transition_probs": {
                "long_name": "transition probability over the median gap",
                "units": "1",
                "gap": self.median,
            },
        }

    def exchangeable(self, n_states: int) -> np.ndarray:
        """Say which states (state) could be called by each other's names: all."""
        return np.ones(n_states, bool)

    def possible(self, n_states: int) -> tuple[np.ndarray, np.ndarray]:
        """Say which transitions (state, state) and first states (state) can happen: all."""
        return np.ones((n_states, n_states), bool), np.ones(n_states, bool)

    def _inverse_scale(self, n_states: int) -> float:
        """Second parameter of the gamma prior of each rate, optimiser steps."""
        return self._shape * (n_states - 1) * self._dwell

    def priors(self, n_states: int) -> dict[str, Prior]:
        """Give the default priors."""
        beta = self._inverse_scale(n_states)
        return {
            "initial_probs": Prior("Dirichlet", a=np.ones(n_states)),
            "switch_rates": Prior("Gamma", alpha=self._shape, beta=beta),
        }

    def build(self, priors: Mapping[str, Prior], n_states: int) -> dict[str, Any]:
        """Add the variables of `dims`, and the free rates, to the PyMC model in context."""
        import pymc as pm
        import pytensor.tensor as pt

        from bayesphase.model.exponential_op import transition_matrices

        initial = priors["initial_probs"].build("initial_probs", ("state",))
        pairs = np.argwhere(~np.eye(n_states, dtype=bool))
        pm.modelcontext(None).add_coord("switch", [f"{i}->{j}" for i, j in pairs])
        free = priors["switch_rates"].build("switch_rates", ("switch",))
        # each state's own entry is 0: taken from behind the end of the free ones
        place = np.full((n_states, n_states), len(pairs))
        place[pairs[:, 0], pairs[:, 1]] = np.arange(len(pairs))
        padded = pt.concatenate([free, pt.zeros(1)])
        rates = padded[place.ravel()].reshape((n_states, n_states))
        probs = transition_matrices(rates, np.array([self.median]))[0]
        return {
            "initial_probs": initial,
            "rates": pm.Deterministic("rates", rates, dims=self.dims["rates"]),
            "transition_probs": pm.Deterministic(
                "transition_probs", probs, dims=self.dims["transition_probs"]
            ),
        }

    def log_potentials(self, parameters: Parameters, xp: Any) -> tuple[Any, Any]:
        """Log-transitions (gap, state, state) and log-initial probabilities (state)."""
        if xp is np:
            matrices: Any = self._matrices(parameters["rates"], self.gaps)
        else:
            from bayesphase.model.exponential_op import transition_matrices

            matrices = transition_matrices(parameters["rates"], self.gaps)
        return xp.log(matrices), xp.log(parameters["initial_probs"])

    def plan(self) -> Plan:
        """Say how the compiled density makes log-potentials; see `Plan`."""
        kinds = np.full((len(self.gaps), 3), -1)
        kinds[:, 0] = np.arange(len(self.gaps))
        return Plan(kinds=kinds, gaps=self.gaps)

    @staticmethod
    def _matrices(rates: np.ndarray, gaps: np.ndarray) -> np.ndarray:
        return exponential.matrices(np.ascontiguousarray(rates), gaps)

    def maximise(
        self,
        expected_transitions: np.ndarray,
        first_states: np.ndarray,
        current: Parameters | None = None,
    ) -> tuple[dict[str, np.ndarray], float]:
        """M-step, by an EM of its own with the path in continuous time as what is missing.

        Given its ends, the path over a gap has expected numbers of switches and expected times in
        each state (Hobolth & Jensen 2005, doi:10.2202/1544-6115.1127); rates are then gamma. Steps
        are taken until they are small.

        Parameters
        ----------
        expected_transitions : ndarray (gap, state, state)
        first_states : ndarray (state)
            Expected number of runs that start in each state.
        current : mapping, optional
            The parameters that made these expected. Without, rates come from their prior alone.

        Returns
        -------
        parameters : dict
            Probabilities at the posterior mean; rates, too, which is the mode of their logarithm.
        log_prior : float
            Of probabilities and logarithms of rates, up to a constant.
        """
        n_states = len(first_states)
        beta = self._inverse_scale(n_states)
        off = ~np.eye(n_states, dtype=bool)
        rates = np.where(off, self._shape / beta, 0.0)
        if current:
            rates = np.ascontiguousarray(current["rates"])
            for _ in range(_MOST_STEPS):
                before, rates = rates, self._better(rates, expected_transitions, beta)
                if np.abs(np.log(rates[off] / before[off])).max() < _SETTLED:
                    break
        initial = first_states + 1.0
        initial /= initial.sum()
        free = rates[off]
        log_prior = np.sum(self._shape * np.log(free) - beta * free) + np.sum(np.log(initial))
        return self._parameters(initial, rates), float(log_prior)

    def _better(self, rates: np.ndarray, expected: np.ndarray, beta: float) -> np.ndarray:
        """Rates that fit the `expected` transitions (gap, state, state) better than the given."""
        switches, times = self._path(rates, expected)
        better = (self._shape + switches) / (beta + times)
        np.fill_diagonal(better, 0.0)
        return better

    def _path(self, rates: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of switches (state, state), and times (state, 1) in each state, to be expected.

        They are derivatives of the transition matrix, given the `expected` transitions (gap, state,
        state).
        """
        matrices = self._matrices(rates, self.gaps)
        weights = np.divide(expected, matrices, out=np.zeros_like(matrices), where=matrices > 0)
        slope = exponential.derivative(rates, self.gaps, weights)
        return rates * slope, slope.diagonal()[:, None]

    def jitter(
        self, rng: np.random.Generator, parameters: Parameters, size: float
    ) -> dict[str, np.ndarray]:
        """Move by about `size` on the log scale; the free rates are among the result."""
        initial, rates = (
            parameters[name] * np.exp(size * rng.normal(size=parameters[name].shape))
            for name in ("initial_probs", "rates")
        )
        moved = self._parameters(initial / initial.sum(), rates)
        return {**moved, **self.free(moved)}

    def free(self, parameters: Parameters) -> dict[str, Any]:
        """Values of the free variables."""
        rates = parameters["rates"]
        free = rates[~np.eye(len(rates), dtype=bool)]
        return {"initial_probs": parameters["initial_probs"], "switch_rates": free}

    def named(self, free: Parameters) -> dict[str, Any]:
        """Parameters from values of the free variables, each (..., state) or (..., switch)."""
        initial, switches = free["initial_probs"], free["switch_rates"]
        off = ~np.eye(initial.shape[-1], dtype=bool)
        rates = np.zeros((*initial.shape, initial.shape[-1]))
        rates[..., off] = switches
        return self._parameters(initial, rates)

    def counts(
        self, parameters: Parameters, expected_transitions: np.ndarray, first_states: np.ndarray
    ) -> dict[str, Any]:
        """Say what is known of each free variable; see `MarkovChain.counts`.

        Of rates it is how often a path in continuous time is expected to switch, and how long it
        could have.
        """
        rates = parameters["rates"]
        off = ~np.eye(len(rates), dtype=bool)
        path = np.broadcast_arrays(*self._path(rates, expected_transitions))
        return {
            "initial_probs": first_states,
            "switch_rates": np.stack([counts[off] for counts in path]),
        }

    def _parameters(self, initial: np.ndarray, rates: np.ndarray) -> dict[str, np.ndarray]:
        gap = np.array([self.median])
        each = [self._matrices(r, gap)[0] for r in rates.reshape(-1, *rates.shape[-2:])]
        probs = np.reshape(each, rates.shape)
        return {"initial_probs": initial, "rates": rates, "transition_probs": probs}
