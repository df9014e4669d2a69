"""The prior of a `Weighted` chain and its gradient, compiled."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit
from scipy.special import polygamma

from bayesphase.model.compiled_chain import Chain, Plan
from bayesphase.model.passes import Expectation
from bayesphase.model.sparse import entry, log_value, most_probable

Parameters = Mapping[str, Any]

# of the standard logistic distribution, which a score has under a sparse prior
_LOGISTIC_VARIANCE = np.pi**2 / 3.0


@njit(cache=True)
def _normalise(logs):  # type: ignore[no-untyped-def]
    top = logs.max()
    logs -= top + np.log(np.exp(logs - top).sum())


@njit(cache=True)
def _log_shape(log_weight, concentration, stickiness, own):  # type: ignore[no-untyped-def]
    log_shape = np.log(concentration) + log_weight
    if own and stickiness > 0.0:
        return np.log(np.exp(log_shape) + stickiness)
    return log_shape


@njit(cache=True)
def _log_probs(scores, logs, log_base, concentration, stickiness):  # type: ignore[no-untyped-def]
    """Fill `logs` (2 + state, state): weights, initial, rows; of `scores` of the same shape."""
    n = scores.shape[1]
    for k in range(n):
        logs[0, k] = log_value(scores[0, k], log_base)
    _normalise(logs[0])
    for row in range(1, n + 2):
        for k in range(n):
            log_shape = _log_shape(logs[0, k], concentration, stickiness, row == k + 2)
            logs[row, k] = log_value(scores[row, k], log_shape)
        _normalise(logs[row])


@njit(cache=True)
def _each_log_probs(scores, log_base, concentration, stickiness):  # type: ignore[no-untyped-def]
    logs = np.empty(scores.shape)
    for i in range(scores.shape[0]):
        _log_probs(scores[i], logs[i], log_base, concentration, stickiness)
    return logs


@njit(cache=True)
def _density(scores, counts, log_base, concentration, stickiness):  # type: ignore[no-untyped-def]
    """Log prior of `scores` (2 + state, state), and the gradient of the log posterior.

    `counts` (1 + state, state) say how often each state came first and followed each.
    """
    n = scores.shape[1]
    logs, slope, to_weight = np.empty(scores.shape), np.empty(scores.shape), np.zeros(n)
    _log_probs(scores, logs, log_base, concentration, stickiness)
    value = 0.0
    for row in range(1, n + 2):
        total = counts[row - 1].sum()
        for k in range(n):
            log_shape = _log_shape(logs[0, k], concentration, stickiness, row == k + 2)
            pull = counts[row - 1, k] - total * np.exp(logs[row, k])
            density, slope[row, k], by_shape = entry(scores[row, k], log_shape, pull)
            value += density
            # of the shape, a part of this size is the concentration times the weight
            to_weight[k] += by_shape * concentration * np.exp(logs[0, k] - log_shape)
    total = to_weight.sum()
    for k in range(n):
        pull = to_weight[k] - total * np.exp(logs[0, k])
        density, slope[0, k], _ = entry(scores[0, k], log_base, pull)
        value += density
    return value, slope


@njit(cache=True)
def log_weighted(chain, x, n_states):  # type: ignore[no-untyped-def]
    """Log-transitions (1, state, state) and log-initial (state); see `compiled_chain`."""
    scores = x.reshape((n_states + 2, n_states))
    logs = np.empty(scores.shape)
    _log_probs(scores, logs, chain.pairs[0], chain.pairs[1], chain.pairs[2])
    return logs[2:].copy().reshape((1, n_states, n_states)), logs[1].copy()


@njit(cache=True)
def pull_weighted(chain, x, log_probs, initial, counts, first_states, slope):  # type: ignore[no-untyped-def]
    """Log prior of the scores; writes the slope; see `compiled_chain`."""
    n_states = initial.shape[0]
    seen = np.empty((n_states + 1, n_states))
    seen[0], seen[1:] = first_states, counts[0]
    options = chain.pairs
    scores = x.reshape((n_states + 2, n_states))
    value, found = _density(scores, seen, options[0], options[1], options[2])
    slope[:] = found.ravel()
    return value


@njit(cache=True)
def best_scores(log_shapes, counts):  # type: ignore[no-untyped-def]
    """Scores (row, state) of Dirichlet vectors that are most probable given `counts` of the same.

    The counts do not say anything about the sum of gamma variables, which stays that of the shapes.
    """
    scores = np.empty(counts.shape)
    for row in range(counts.shape[0]):
        widening = 1.0 + counts[row].sum() / np.exp(log_shapes[row]).sum()
        for k in range(counts.shape[1]):
            scores[row, k] = most_probable(log_shapes[row, k], counts[row, k], widening)
    return scores


def log_probs(
    weight: np.ndarray, initial: np.ndarray, rows: np.ndarray, *options: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logarithms of weights and probabilities from their scores.

    Parameters
    ----------
    weight, initial : ndarray (..., state)
    rows : ndarray (..., state, state)
    *options : float
        Log shape of a weight, concentration and stickiness.
    """
    scores = np.concatenate([weight[..., None, :], initial[..., None, :], rows], axis=-2)
    logs = _each_log_probs(scores.reshape(-1, *scores.shape[-2:]), *options).reshape(scores.shape)
    return logs[..., 0, :], logs[..., 1, :], logs[..., 2:, :]


class WeightedPrior:
    """The scores of a `Weighted` chain, their prior and its gradient; see `ChainPrior`."""

    kind = "weighted"
    constant = 0.0

    def __init__(self, chain: Any) -> None:
        self._chain, self._n_states = chain, chain.n_states
        self.n_dim = chain.n_states * (chain.n_states + 2)
        self.shape = (self.n_dim, 1)
        self.families = {"scores": self}

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

    def described(self, plan: Plan) -> Chain:
        """Say what the compiled code is told of the chain; see `ChainPrior`."""
        return Chain(
            **plan._asdict(), simplex=np.zeros(0), pairs=np.array(self._chain.options, np.float64)
        )

    def log_density(self, free: Parameters) -> float:
        """Log density (nats) of the prior."""
        n = self._n_states
        return _density(_stacked(free), np.zeros((n + 1, n)), *self._chain.options)[0]

    def value_and_slope(
        self, free: Parameters, parameters: Parameters, expected: Expectation
    ) -> tuple[float, np.ndarray]:
        """Log density (nats) of the prior, and the gradient of the log posterior."""
        rows = expected.transitions.sum(axis=0)
        counts = np.concatenate([expected.first_states[None], rows])
        value, slope = _density(_stacked(free), counts, *self._chain.options)
        return value, slope.ravel()

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


def _stacked(free: Parameters) -> np.ndarray:
    """Scores (2 + state, state): of weights, initial probabilities and rows."""
    weight, initial = free["weight_scores"], free["initial_scores"]
    return np.concatenate([weight[None], initial[None], free["transition_scores"]])
