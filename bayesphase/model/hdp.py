"""Chains whose states share how popular they are: most of many states may never be visited."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from scipy.special import polygamma, psi

from bayesphase.model import sparse
from bayesphase.model.passes import Expectation
from bayesphase.model.priors import Prior

Parameters = Mapping[str, Any]

# of an M-step: rounds between weights and the visits that they explain
_ROUNDS = 20
# mean and variance of the standard logistic distribution, which a score has under a sparse prior
_LOGISTIC_VARIANCE = np.pi**2 / 3.0


class Weighted:
    """The chain of `transitions.StickyHDP`.

    `state_weights`, `initial_probs` and the rows of `transition_probs` are Dirichlet vectors, made
    of gamma variables whose scores (`sparse`) are what is sampled: `weight_scores` (state),
    `initial_scores` (state), `transition_scores` (state, state_next).

    Parameters
    ----------
    n_states : int
    weight_concentration, concentration, stickiness : float
    """

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

    def own_prior(self, n_states: int) -> "WeightedPrior":
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
        log_weights = self.log_weights(free["weight_scores"], pt)
        for name, log_shapes in self.log_shapes(log_weights, pt).items():
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

    def log_weights(self, scores: Any, xp: Any) -> Any:
        """Logarithms of `state_weights` (..., state) from their scores."""
        return _normalised(sparse.log_gamma(scores, self.base, xp), xp)

    def log_shapes(self, log_weights: Any, xp: Any) -> dict[str, Any]:
        """Log shapes of the gamma variables of `initial_scores` and `transition_scores`."""
        log_shape = np.log(self.concentration) + log_weights
        rows = xp.zeros((self.n_states, 1)) + log_shape[..., None, :]
        own = np.log(self.stickiness) if self.stickiness > 0 else -np.inf
        sticky = xp.where(np.eye(self.n_states, dtype=bool), xp.logaddexp(rows, own), rows)
        return {"initial_scores": log_shape, "transition_scores": sticky}

    def _logs(self, free: Parameters, xp: Any) -> dict[str, Any]:
        """Logarithms of all probabilities, by name, from scores by name."""
        log_weights = self.log_weights(free["weight_scores"], xp)
        logs = {"state_weights": log_weights}
        for name, log_shapes in self.log_shapes(log_weights, xp).items():
            probs = name.replace("scores", "probs")
            logs[probs] = _normalised(sparse.log_gamma(free[name], log_shapes, xp), xp)
        return logs

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
        """M-step, at about the posterior mean; see `Sticky.maximise`.

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
        log_values = np.log(shapes + counts)
        scores = sparse.score_of(log_values, np.log(shapes))
        free = {
            "weight_scores": sparse.score_of(np.log(base + tables), self.base),
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


class WeightedPrior:
    """The scores of a `Weighted` chain, their prior and its gradient; see `ChainPrior`."""

    def __init__(self, chain: Weighted) -> None:
        self._chain, self._n_states = chain, chain.n_states
        self.n_dim = chain.n_states * (chain.n_states + 2)
        self.shape = (self.n_dim, 1)
        self.families = {"scores": self}
        self._base = chain.base

    def free(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Scores, by name, at coordinates (..., n_dim)."""
        n = self._n_states
        rows = x[..., 2 * n :]
        return {
            "weight_scores": x[..., :n],
            "initial_scores": x[..., n : 2 * n],
            "transition_scores": rows.reshape(*rows.shape[:-1], n, n),
        }

    def parameters(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters, by name, at coordinates (..., n_dim)."""
        return self._chain.named(self.free(x))

    def coordinates(self, parameters: Parameters) -> np.ndarray:
        """Undo `parameters` for one point."""
        return np.concatenate([x.ravel() for x in self._chain.free(parameters).values()])

    def log_density(self, free: Parameters) -> float:
        """Log density (nats) of the prior."""
        log_weights = self._chain.log_weights(free["weight_scores"], np)
        shapes = {"weight_scores": self._base, **self._chain.log_shapes(log_weights, np)}
        terms = [sparse.log_density(free[name], at).sum() for name, at in shapes.items()]
        return float(sum(terms))

    def value_and_slope(
        self, free: Parameters, parameters: Parameters, expected: Expectation
    ) -> tuple[float, np.ndarray]:
        """Log density (nats) of the prior, and the gradient of the log posterior."""
        log_weights = self._chain.log_weights(free["weight_scores"], np)
        log_shapes = self._chain.log_shapes(log_weights, np)
        counts = {
            "initial_scores": (expected.first_states, parameters["initial_probs"]),
            "transition_scores": (
                expected.transitions.sum(axis=0),
                parameters["transition_probs"],
            ),
        }
        value, to_weights, slopes = 0.0, np.zeros(self._n_states), []
        for name, (count, probs) in counts.items():
            score, log_shape = free[name], log_shapes[name]
            pull = count - count.sum(axis=-1, keepdims=True) * probs
            value += sparse.log_density(score, log_shape).sum()
            by_score, by_shape = sparse.slopes(score, log_shape, pull)
            slopes.append(by_score.ravel())
            # all shapes are the concentration times a weight, but for what is added to stay
            share = np.exp(np.log(self._chain.concentration) + log_weights - log_shape)
            to_weights += (share * by_shape).reshape(-1, self._n_states).sum(axis=0)
        weight = free["weight_scores"]
        value += sparse.log_density(weight, self._base).sum()
        pull = to_weights - to_weights.sum() * np.exp(log_weights)
        slopes.insert(0, sparse.slopes(weight, self._base, pull)[0])
        return float(value), np.concatenate(slopes)

    def factors(self, parameters: Parameters, expected: Expectation) -> list[np.ndarray]:
        """Cholesky factors (block, dim, dim) of about the posterior's covariance about a mode."""
        counts = np.concatenate(
            [
                np.zeros(self._n_states),
                expected.first_states,
                expected.transitions.sum(axis=0).ravel(),
            ]
        )
        precision = 1.0 / _LOGISTIC_VARIANCE + 1.0 / polygamma(1, counts + 1e-3)
        return [1.0 / np.sqrt(precision)[:, None, None]]


def _normalised(logs: Any, xp: Any) -> Any:
    """Log of probabilities from their logarithms up to a constant."""
    if xp is np:
        top = logs.max(axis=-1, keepdims=True)
        return logs - top - np.log(np.exp(logs - top).sum(axis=-1, keepdims=True))
    return xp.special.log_softmax(logs, axis=-1)
