"""The posterior density of our own models as one compiled function, without PyMC's compiler.

PyMC defines the model (`build_model`), but compiling its graph takes far longer than sampling it.
A model that is ours unchanged, with priors of the families below, has the same density here:
priors, transforms, Jacobians, likelihood and the gradient of it all, in the coordinates that PyMC
uses (simplexes as centred log-ratios, scales as logarithms). The compiled code is kept on disk and
serves every number of states, runs and features. `direct_density` returns None for anything else.
"""

from collections.abc import Mapping
from ctypes import CFUNCTYPE, c_int64, c_uint64, c_void_p
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import carray, cfunc, types
from scipy.special import gammaln, log_softmax, polygamma

from bayesphase.model.emissions import Gaussian
from bayesphase.model.gaussian import Data, Expectation, arrange, expect, scaled_parameters
from bayesphase.model.lanes import Layout
from bayesphase.model.simd import inlined
from bayesphase.model.spec import Spec
from bayesphase.model.transitions import Sticky

_FAMILIES = {
    "initial_probs": ("Dirichlet", {"a"}),
    "transition_probs": ("Dirichlet", {"a"}),
    "mean": ("Normal", {"mu", "sigma"}),
    "scale": ("InverseGamma", {"alpha", "beta"}),
}


class _Priors(NamedTuple):
    """Parameters of the priors for scaled features, and the scaling.

    `simplex` (1 + state, state) holds the concentrations of `initial_probs` and of the rows of
    `transition_probs`; `constant` all that does not depend on the parameters.
    """

    simplex: np.ndarray
    mean_mu: np.ndarray
    mean_sigma: np.ndarray
    scale_alpha: np.ndarray
    scale_beta: np.ndarray
    location: np.ndarray
    spread: np.ndarray
    constant: np.ndarray


class _Frame(NamedTuple):
    """The sampler's coordinates u: PyMC's are `centre` + L u, with L in blocks.

    `simplex` (1 + state, state - 1, state - 1) are lower triangles, `spread` (2, state, feature)
    the diagonal for means and log scales.
    """

    centre: np.ndarray
    simplex: np.ndarray
    spread: np.ndarray


class _Point(NamedTuple):
    """Parameters at a point: `log_probs` (1 + state, state), the rest of the scaled features."""

    log_probs: np.ndarray
    mean: np.ndarray
    scale: np.ndarray


@inlined
def _at(u: Any, n_states: int, n_features: int, frame: Any, priors: Any) -> Any:
    """Read `u`: `initial_probs`, `transition_probs`, `mean`, log `scale`, one after the other."""
    centre, simplex, stretch = frame.centre, frame.simplex, frame.spread
    location, spread = priors.location, priors.spread
    free = n_states - 1
    log_probs = np.empty((n_states + 1, n_states))
    mean, scale = np.empty((n_states, n_features)), np.empty((n_states, n_features))
    for row in range(n_states + 1):
        last, top = 0.0, -np.inf
        for i in range(free):
            ratio = centre[row * free + i]
            for j in range(i + 1):
                ratio += simplex[(row * free + i) * free + j] * u[row * free + j]
            log_probs[row, i] = ratio
            last -= ratio
            top = max(top, ratio)
        log_probs[row, free] = last
        top = max(top, last)
        norm = 0.0
        for i in range(n_states):
            norm += np.exp(log_probs[row, i] - top)
        norm = top + np.log(norm)
        for i in range(n_states):
            log_probs[row, i] -= norm
    at, size = (n_states + 1) * free, n_states * n_features
    for k in range(n_states):
        for d in range(n_features):
            x = centre[at] + stretch[k * n_features + d] * u[at]
            mean[k, d] = (x - location[d]) / spread[d]
            x = centre[at + size] + stretch[size + k * n_features + d] * u[at + size]
            scale[k, d] = np.exp(x) / spread[d]
            at += 1
    return _Point(log_probs, mean, scale)


@inlined
def _density(
    u: Any, n_states: int, n_features: int, frame: Any, priors: Any, data: Any, gradient: Any
) -> float:
    """Log density at `u`; writes its gradient with respect to `u`."""
    free = n_states - 1
    point = _at(u, n_states, n_features, frame, priors)
    transition = point.log_probs[1:].copy().reshape((1, n_states, n_states))
    expected = expect(data, point.mean, point.scale, transition, point.log_probs[0].copy())
    value = priors.constant[0]
    for run in range(expected.log_likelihood.shape[0]):
        value += expected.log_likelihood[run]
    # The Jacobian of the centred log-ratios is the product of all probabilities (times their
    # number): a Dirichlet density and its Jacobian together are the sum of a log p.
    pull = np.empty(n_states)
    for row in range(n_states + 1):
        weight = 0.0
        for i in range(n_states):
            if row == 0:
                pull[i] = expected.first_states[i]
            else:
                pull[i] = expected.transitions[0, row - 1, i]
            pull[i] += priors.simplex[row * n_states + i]
            weight += pull[i]
            value += priors.simplex[row * n_states + i] * point.log_probs[row, i]
        for i in range(n_states):
            pull[i] -= weight * np.exp(point.log_probs[row, i])
        for j in range(free):
            gradient[row * free + j] = 0.0
            for i in range(j, free):
                gradient[row * free + j] += frame.simplex[(row * free + i) * free + j] * (
                    pull[i] - pull[free]
                )
    at, size = (n_states + 1) * free, n_states * n_features
    for k in range(n_states):
        for d in range(n_features):
            own = k * n_features + d
            m, precision = point.mean[k, d], 1.0 / point.scale[k, d] ** 2
            counts, sums = expected.counts[k, d], expected.sums[k, d]
            deviation = (m - priors.mean_mu[own]) / priors.mean_sigma[own]
            rate, alpha = priors.scale_beta[own] / point.scale[k, d], priors.scale_alpha[own]
            log_scale = np.log(point.scale[k, d] * priors.spread[d])
            value -= 0.5 * deviation**2 + rate + alpha * log_scale
            slope = precision * (sums - m * counts) - deviation / priors.mean_sigma[own]
            gradient[at] = slope / priors.spread[d] * frame.spread[own]
            squares = expected.squares[k, d] - 2.0 * m * sums + m * m * counts
            slope = precision * squares - counts + rate - alpha
            gradient[at + size] = slope * frame.spread[size + own]
            at += 1
    return value


# What the sampler calls is given one address. All arrays lie there in one block of eight bytes for
# every number, flat and in the order of their names here, after a head: the length of the block,
# the numbers of states and features, and where each array begins and the last ends.
_ARRAYS = (*_Frame._fields, *_Priors._fields, *Data._fields[:-1], *Layout._fields)
_HEAD = 3


def _pack(frame: _Frame, priors: _Priors, data: Data) -> np.ndarray:
    arrays = [*frame, *priors, *data[:-1], *data.layout]
    first = _HEAD + len(_ARRAYS) + 1
    ends = first + np.cumsum([0, *(array.size for array in arrays)])
    head = [ends[-1], *frame.spread.shape[1:], *ends]
    return np.concatenate([np.array(head, np.int64), *(a.ravel().view(np.int64) for a in arrays)])


@inlined
def _part(block: Any, begins: Any, i: int) -> Any:
    return block[begins[i] : begins[i + 1]]


@inlined
def _unpack(numbers: Any, integers: Any) -> Any:
    """Find the arrays in a block, seen as numbers and as integers."""
    begins = integers[_HEAD : _HEAD + len(_ARRAYS) + 1]
    frame = _Frame(_part(numbers, begins, 0), _part(numbers, begins, 1), _part(numbers, begins, 2))
    priors = _Priors(
        _part(numbers, begins, 3),
        _part(numbers, begins, 4),
        _part(numbers, begins, 5),
        _part(numbers, begins, 6),
        _part(numbers, begins, 7),
        _part(numbers, begins, 8),
        _part(numbers, begins, 9),
        _part(numbers, begins, 10),
    )
    layout = Layout(
        _part(integers, begins, 15),
        _part(integers, begins, 16),
        _part(integers, begins, 17),
        _part(integers, begins, 18),
    )
    data = Data(
        _part(numbers, begins, 11),
        _part(numbers, begins, 12),
        _part(integers, begins, 13),
        _part(integers, begins, 14),
        layout,
    )
    return frame, priors, data


def _evaluate(n_dim, u, gradient, value, address):  # type: ignore[no-untyped-def]
    """Evaluate the density as nutpie wants it: a status, 0 if all is well, and two results."""
    length = carray(address, (1,), np.int64)[0]
    numbers, integers = carray(address, (length,), np.float64), carray(address, (length,), np.int64)
    frame, priors, data = _unpack(numbers, integers)
    slope = carray(gradient, (n_dim,), np.float64)
    point = carray(u, (n_dim,), np.float64)
    result = _density(point, integers[1], integers[2], frame, priors, data, slope)
    carray(value, (1,), np.float64)[0] = result
    finite = np.isfinite(result)
    for i in range(n_dim):
        finite = finite and np.isfinite(slope[i])
    return 0 if finite else 3


def _copy(n_dim, n_copied, u, out, address):  # type: ignore[no-untyped-def]
    """Turn a draw into what nutpie keeps of it: the same."""
    for i in range(n_dim):
        carray(out, (n_copied,), np.float64)[i] = carray(u, (n_dim,), np.float64)[i]
    return 0


_POINTER = types.CPointer(types.float64)
_COUNT = types.uint64
_EVALUATE = types.int64(_COUNT, _POINTER, _POINTER, _POINTER, types.voidptr)
_PYTHON = CFUNCTYPE(c_int64, c_uint64, *[c_void_p] * 4)  # `_evaluate`, called from Python
_COPY = types.int64(_COUNT, _COUNT, _POINTER, _POINTER, types.voidptr)


@cache
def compiled() -> tuple[Any, Any]:
    """Compile what the sampler calls, or load it: `_evaluate` and `_copy`, for every model."""
    return cfunc(_EVALUATE, cache=True)(_evaluate), cfunc(_COPY, cache=True)(_copy)


class DirectDensity:
    """The density of one model and data set, and the way between its coordinates and parameters.

    `block` is what the `compiled` function works on.
    """

    def __init__(self, spec: Spec, frame: _Frame | None = None) -> None:
        self._spec = spec
        self._data = arrange(spec.rows)
        self._priors = _scaled_priors(spec)
        self._frame = _pymc_frame(spec) if frame is None else frame
        self.n_dim = len(self._frame.centre)
        self.block = _pack(self._frame, self._priors, self._data)

    def __call__(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """Log density (nats) and its gradient at `u`, an unconstrained point of `n_dim` numbers."""
        u, gradient, value = np.array(u, np.float64), np.empty(self.n_dim), np.empty(1)
        addresses = (array.ctypes.data for array in (u, gradient, value, self.block))
        _PYTHON(compiled()[0].address)(self.n_dim, *addresses)
        return float(value[0]), gradient

    def around(self, parameters: Mapping[str, np.ndarray]) -> "DirectDensity":
        """Return the same density in coordinates in which it is about standard normal at a mode.

        They are PyMC's, shifted and stretched by what the posterior would be if the states were
        known: sums of counts for probabilities, of squares for means and scales.
        """
        rows = self._spec.rows
        scaled = scaled_parameters(rows, self._spec.transition, parameters)
        expected, scale = expect(self._data, *scaled), scaled[1]
        priors = self._priors
        precision = expected.counts / scale**2 + priors.mean_sigma**-2
        curvature = 2.0 * expected.counts + priors.scale_beta / scale
        spread = np.stack([rows.spread / np.sqrt(precision), 1.0 / np.sqrt(curvature)])
        simplex = _simplex_spread(priors.simplex, expected)
        return DirectDensity(self._spec, _Frame(self._unconstrained(parameters), simplex, spread))

    def start(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a point for a chain to start from, standard normal."""
        return rng.normal(size=self.n_dim)

    def parameters(self, u: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters, by name, of unconstrained points (..., n_dim)."""
        frame = self._frame
        n_states, free = frame.spread.shape[1], frame.simplex.shape[1]
        batch = u.shape[:-1]
        n_ratios = (n_states + 1) * free
        ratios = u[..., :n_ratios].reshape(*batch, n_states + 1, free)
        ratios = np.einsum("rij,...rj->...ri", frame.simplex, ratios)
        ratios = ratios + frame.centre[:n_ratios].reshape(n_states + 1, free)
        others = u[..., n_ratios:].reshape(*batch, *frame.spread.shape) * frame.spread
        others = others + frame.centre[n_ratios:].reshape(frame.spread.shape)
        last = -ratios.sum(axis=-1, keepdims=True)
        probs = np.exp(log_softmax(np.concatenate([ratios, last], axis=-1), axis=-1))
        return {
            "initial_probs": probs[..., 0, :],
            "transition_probs": probs[..., 1:, :],
            "mean": others[..., 0, :, :],
            "scale": np.exp(others[..., 1, :, :]),
        }

    def unconstrained(self, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
        """Undo `parameters` for one point."""
        frame = self._frame
        away = self._unconstrained(parameters) - frame.centre
        n_ratios = frame.simplex.shape[0] * frame.simplex.shape[1]
        ratios = away[:n_ratios].reshape(*frame.simplex.shape[:2], 1)
        ratios = np.linalg.solve(frame.simplex, ratios)
        others = away[n_ratios:] / frame.spread.ravel()
        return np.concatenate([ratios.ravel(), others])

    @staticmethod
    def _unconstrained(parameters: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the point in PyMC's coordinates."""
        logs = np.log(np.vstack([parameters["initial_probs"], parameters["transition_probs"]]))
        ratios = (logs - logs.mean(axis=-1, keepdims=True))[:, :-1]
        others = parameters["mean"], np.log(parameters["scale"])
        return np.concatenate([np.ravel(array) for array in (ratios, *others)])


def direct_density(spec: Spec) -> DirectDensity | None:
    """Return the compiled density of this model, or None where there is none."""
    if type(spec.emission) is not Gaussian or type(spec.transition) is not Sticky:
        return None
    for name, (distribution, parameters) in _FAMILIES.items():
        prior = spec.priors[name]
        if prior.distribution != distribution or set(prior.parameters) != parameters:
            return None
    return DirectDensity(spec)


def _pymc_frame(spec: Spec) -> _Frame:
    """Frame in which the coordinates are PyMC's own."""
    n_states, n_features = spec.n_states, spec.rows.values.shape[1]
    free = n_states - 1
    return _Frame(
        np.zeros((n_states + 1) * free + 2 * n_states * n_features),
        np.broadcast_to(np.eye(free), (n_states + 1, free, free)).copy(),
        np.ones((2, n_states, n_features)),
    )


def _simplex_spread(prior: np.ndarray, expected: Expectation) -> np.ndarray:
    """Cholesky factors (1 + state, state - 1, state - 1) of the centred log-ratios' covariances.

    A Dirichlet vector is one of gamma variables divided by their sum, and the logarithm of a
    gamma variable has the trigamma function of its shape as variance.
    """
    n_states = prior.shape[1]
    shapes = prior + np.vstack([expected.first_states, *expected.transitions])
    centring = (np.eye(n_states) - 1.0 / n_states)[:-1]
    covariance = np.einsum("ik,rk,jk->rij", centring, polygamma(1, shapes), centring)
    return np.linalg.cholesky(covariance)


def _scaled_priors(spec: Spec) -> _Priors:
    rows, priors = spec.rows, spec.priors
    n_states, shape = spec.n_states, (spec.n_states, spec.rows.values.shape[1])

    def parameter(name: str, key: str, full: tuple[int, ...]) -> np.ndarray:
        value = np.asarray(priors[name].parameters[key], np.float64)
        try:
            value = np.broadcast_to(value, full)
        except ValueError:
            raise ValueError(
                f"the prior of {name!r} has {key} of shape {value.shape}, which does not fit the "
                f"variable's {full}"
            ) from None
        if not np.isfinite(value).all() or (key != "mu" and (value <= 0).any()):
            raise ValueError(
                f"the prior of {name!r} has {key} = {value.tolist()}, expected "
                f"{'finite' if key == 'mu' else 'positive'} numbers"
            )
        return value

    initial_a = parameter("initial_probs", "a", (n_states,))
    transition_a = parameter("transition_probs", "a", (n_states, n_states))
    mu, sigma = (parameter("mean", key, shape) for key in ("mu", "sigma"))
    alpha, beta = (parameter("scale", key, shape) for key in ("alpha", "beta"))
    # the likelihood is that of the scaled features
    constant = -np.sum(rows.observed @ np.log(rows.spread))
    constant -= np.sum(np.log(sigma) + 0.5 * np.log(2.0 * np.pi))
    constant += np.sum(alpha * np.log(beta) - gammaln(alpha))
    if n_states > 1:  # one state leaves no simplex to have a density
        for a in (initial_a, *transition_a):
            constant += gammaln(a.sum()) - gammaln(a).sum() + np.log(n_states)
    return _Priors(
        np.vstack([initial_a, transition_a]),
        (mu - rows.location) / rows.spread,
        sigma / rows.spread,
        alpha.copy(),
        beta / rows.spread,
        rows.location,
        rows.spread,
        np.array([constant]),
    )
