"""Chains whose states share how popular they are: most of many states may never be visited."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from scipy.special import psi

from bayesphase.model import sparse
from bayesphase.model.compiled_chain import Plan
from bayesphase.model.hdp_prior import WeightedPrior, best_scores, log_probs
from bayesphase.model.markov_chain import MarkovChain, Parameters
from bayesphase.model.priors import Prior

# of an M-step: rounds between weights and the visits that they explain
_ROUNDS = 20


class Weighted(MarkovChain):
    """The chain of `transitions.StickyHDP`.

    `state_weights`, `initial_probs` and the rows of `transition_probs` are Dirichlet vectors, made
    of gamma variables whose scores (`sparse`) are what is sampled: `weight_scores` (state),
    `initial_scores` (state), `transition_scores` (state, state_next).

    Parameters
    ----------
    n_states : int
    weight_concentration, concentration, stickiness : float
    """

    spare: ClassVar[bool] = True  # there are more states than are expected to be visited
    attrs: ClassVar[dict[str, dict[str, Any]]] = {
        "state_weights": {"long_name": "share of all switches that lead to the state", "units": "1"}
    }
    dims: ClassVar[dict[str, tuple[str, ...]]] = {
        "initial_probs": ("state",),
        "transition_probs": ("state", "state_next"),
        "state_weights": ("state",),
        "weight_scores": ("state",),
        "initial_scores": ("state",),
        "transition_scores": ("state", "state_next"),
    }
    scores: ClassVar[tuple[str, ...]] = ("weight_scores", "initial_scores", "transition_scores")

    def __init__(
        self, n_states: int, weight_concentration: float, concentration: float, stickiness: float
    ) -> None:
        self.n_states, self.weight_concentration = n_states, weight_concentration
        self.concentration, self.stickiness = concentration, stickiness

    def exchangeable(self, n_states: int) -> np.ndarray:
        """Say which states (state) could be called by each other's names: all."""
        return np.ones(n_states, bool)

    def possible(self, n_states: int) -> tuple[np.ndarray, np.ndarray]:
        """Say which transitions (state, state) and first states (state) can happen: all."""
        return np.ones((n_states, n_states), bool), np.ones(n_states, bool)

    def priors(self, n_states: int) -> dict[str, Prior]:
        """Give the default priors: none, for all that there is to choose are the options."""
        return {}

    def own_prior(self, n_states: int) -> WeightedPrior:
        """Prior of the scores, which depend on each other."""
        return WeightedPrior(self)

    def build(self, priors: Mapping[str, Prior], n_states: int) -> dict[str, Any]:
        """Add the variables of `dims` to the PyMC model in context."""
        import pymc as pm
        import pytensor.tensor as pt

        def scores(name: str, log_shape: Any) -> Any:
            return pm.CustomDist(
                name,
                log_shape,
                logp=sparse.log_density_graph,
                random=lambda at, rng=None, size=None: sparse.draw(rng, at, size),
                signature="()->()",
                dims=self.dims[name],
            )

        free = {"weight_scores": scores("weight_scores", pt.as_tensor(self.base))}
        log_weights = self._log_weights(free["weight_scores"])
        for name, log_shapes in self._log_shapes(log_weights).items():
            free[name] = scores(name, log_shapes)
        logs = self._logs(free, pt)
        named = {
            name: pm.Deterministic(name, pt.exp(log), dims=self.dims[name])
            for name, log in logs.items()
        }
        return {name: {**named, **free}[name] for name in self.dims}

    @property
    def base(self) -> np.ndarray:
        """Log shapes (state) of the gamma variables of `weight_scores`."""
        return np.full(self.n_states, np.log(self.weight_concentration / self.n_states))

    def _log_weights(self, scores: Any) -> Any:
        import pytensor.tensor as pt

        return pt.special.log_softmax(sparse.log_gamma(scores, self.base, pt), axis=-1)

    @property
    def options(self) -> tuple[float, float, float]:
        """What the compiled code takes: log shape of a weight, and the concentrations."""
        return float(self.base[0]), self.concentration, self.stickiness

    def _log_shapes(self, log_weights: Any) -> dict[str, Any]:
        """Log shapes of the gamma variables of `initial_scores` and `transition_scores`."""
        import pytensor.tensor as pt

        log_shape = np.log(self.concentration) + log_weights
        rows = pt.zeros((self.n_states, 1)) + log_shape
        if self.stickiness > 0:
            diagonal = np.eye(self.n_states, dtype=bool)
            rows = pt.where(diagonal, pt.logaddexp(rows, np.log(self.stickiness)), rows)
        return {"initial_scores": log_shape, "transition_scores": rows}

    def _logs(self, free: Parameters, xp: Any) -> dict[str, Any]:
        """Logarithms of all probabilities, by name, from scores (..., state) by name."""
        if xp is np:
            found = log_probs(*(free[name] for name in self.scores), *self.options)
            return dict(
                zip(("state_weights", "initial_probs", "transition_probs"), found, strict=True)
            )
        log_weights = self._log_weights(free["weight_scores"])
        logs = {"state_weights": log_weights}
        for name, log_shapes in self._log_shapes(log_weights).items():
            log_values = sparse.log_gamma(free[name], log_shapes, xp)
            probs = name.replace("scores", "probs")
            logs[probs] = xp.special.log_softmax(log_values, axis=-1)
        return logs

    def plan(self) -> Plan:
        """Say how the compiled density makes log-potentials; see `Plan`."""
        return Plan()

    def free(self, parameters: Parameters) -> dict[str, Any]:
        """Values of the free variables."""
        return {name: parameters[name] for name in self.scores}

    def named(self, free: Parameters) -> dict[str, Any]:
        """Parameters from values of the free variables, each (..., state)."""
        probs = {name: np.exp(log) for name, log in self._logs(free, np).items()}
        return {name: {**probs, **free}[name] for name in self.dims}

    def log_potentials(self, parameters: Parameters, xp: Any) -> tuple[Any, Any]:
        """Log-transitions (gap, state, state), one gap, and log-initial probabilities (state).

        From the scores, for a probability itself may underflow.
        """
        logs = self._logs(parameters, xp)
        return logs["transition_probs"][None], logs["initial_probs"]

    def maximise(
        self,
        expected_transitions: np.ndarray,
        first_states: np.ndarray,
        current: Parameters | None = None,
    ) -> tuple[dict[str, np.ndarray], float]:
        """M-step, at about the mode of the scores; see `MarkovChain.maximise`.

        A weight is explained by the tables of the Chinese restaurants that serve its state: the
        expected number of distinct draws from the weights among the visits (Teh, Jordan, Beal &
        Blei 2006, doi:10.1198/016214506000000302, section 5.3).
        """
        counts = np.vstack([expected_transitions.sum(axis=0), first_states])
        n_states = len(first_states)
        base = self.weight_concentration / n_states
        own = np.vstack([self.stickiness * np.eye(n_states), np.zeros(n_states)])
        tables = counts.sum(axis=0)
        for _ in range(_ROUNDS):
            weights = (base + tables) / (base + tables).sum()
            shapes = self.concentration * weights + own
            served = psi(shapes + counts) - psi(shapes)
            tables = (self.concentration * weights * served).sum(axis=0)
        scores = best_scores(np.log(shapes), counts)
        free = {
            "weight_scores": best_scores(self.base[None], tables[None])[0],
            "initial_scores": scores[-1],
            "transition_scores": scores[:-1],
        }
        return self.named(free), self.own_prior(n_states).log_density(free)

    def jitter(
        self, rng: np.random.Generator, parameters: Parameters, size: float
    ) -> dict[str, np.ndarray]:
        """Move scores by about `size`; they are among the result."""
        free = self.free(parameters)
        return self.named({name: x + size * rng.normal(size=x.shape) for name, x in free.items()})
