"""The compiled half of `density`: what the sampler calls.

The compiled code is kept on disk and serves every number of states, runs and features. There are
two versions, so that normal features about constants do not wait for the code of all the others.
"""

from ctypes import CFUNCTYPE, c_int64, c_uint64, c_void_p
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import carray, cfunc, types

from bayesphase.model.innovations import Data
from bayesphase.model.lanes import Layout
from bayesphase.model.lines import Family, Plain, lines_of, pull_back
from bayesphase.model.passes import expect
from bayesphase.model.simd import LANES, aligned, inlined


class Priors(NamedTuple):
    """Parameters of the priors for scaled features, and the scaling.

    `simplex` (1 + state, state) holds the concentrations of `initial_probs` and of the rows of
    `transition_probs`; then come mean and standard deviation of the location, the shape and scale
    of the scale, mean and standard deviation of the rate or its logarithm, and those of the bend,
    all (state, feature); `constant` is all that does not depend on the parameters.
    """

    simplex: np.ndarray
    location_mu: np.ndarray
    location_sigma: np.ndarray
    scale_alpha: np.ndarray
    scale_beta: np.ndarray
    rate_mu: np.ndarray
    rate_sigma: np.ndarray
    bend_mu: np.ndarray
    bend_sigma: np.ndarray
    location: np.ndarray
    spread: np.ndarray
    constant: np.ndarray


class Frame(NamedTuple):
    """The sampler's coordinates u: PyMC's are `centre` + L u, with L in blocks.

    `simplex` (1 + state, state - 1, state - 1) are lower triangles, `spread` (kind, state, feature)
    the diagonal for locations, log scales and, where there are any, rates (or their logarithms) and
    bends. Rates also move with the coordinate of their location, and bends with those of location
    and rate, by `shear` (3, state, feature).
    """

    centre: np.ndarray
    simplex: np.ndarray
    spread: np.ndarray
    shear: np.ndarray


class _Point(NamedTuple):
    """Parameters at a point: `log_probs` (1 + state, state), the rest of the scaled features."""

    log_probs: np.ndarray
    location: np.ndarray
    scale: np.ndarray
    rate: np.ndarray
    bend: np.ndarray


@inlined
def _at(u: Any, n_states: int, n_features: int, frame: Any, priors: Any) -> Any:
    """Read `u`: both simplexes, location, log scale, rate and bend, one after the other."""
    centre, simplex, stretch = frame.centre, frame.simplex, frame.spread
    location, spread = priors.location, priors.spread
    free = n_states - 1
    log_probs = np.empty((n_states + 1, n_states))
    place, scale = np.empty((n_states, n_features)), np.empty((n_states, n_features))
    rate, bend = np.ones((n_states, n_features)), np.zeros((n_states, n_features))
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
            own = k * n_features + d
            x = centre[at] + stretch[own] * u[at]
            place[k, d] = (x - location[d]) / spread[d]
            x = centre[at + size] + stretch[size + own] * u[at + size]
            scale[k, d] = np.exp(x) / spread[d]
            if stretch.shape[0] > 2 * size:
                x = centre[at + 2 * size] + stretch[2 * size + own] * u[at + 2 * size]
                x += frame.shear[own] * u[at]
                rate[k, d] = x
                if stretch.shape[0] == 3 * size:
                    rate[k, d] = np.exp(x)
                else:
                    x = centre[at + 3 * size] + stretch[3 * size + own] * u[at + 3 * size]
                    x += frame.shear[size + own] * u[at]
                    x += frame.shear[2 * size + own] * u[at + 2 * size]
                    bend[k, d] = x * spread[d]
            at += 1
    return _Point(log_probs, place, scale, rate, bend)


@inlined
def _density(
    u: Any,
    n_states: int,
    n_features: int,
    frame: Any,
    priors: Any,
    family: Any,
    data: Any,
    gradient: Any,
) -> float:
    """Log density at `u`; writes its gradient with respect to `u`."""
    point = _at(u, n_states, n_features, frame, priors)
    transition = point.log_probs[1:].copy().reshape((1, n_states, n_states))
    lines = lines_of(family, point.location, point.scale, point.rate, point.bend)
    expected = expect(data, lines, transition, point.log_probs[0].copy())
    slopes = pull_back(family, expected.sums, lines, point.location, point.rate)
    value = priors.constant[0]
    for run in range(expected.log_likelihood.shape[0]):
        value += expected.log_likelihood[run]
    value += _add_simplexes(point, expected, frame, priors, gradient)
    return value + _add_lines(point, slopes, frame, priors, gradient)


@inlined
def _add_simplexes(point: Any, expected: Any, frame: Any, priors: Any, gradient: Any) -> float:
    """Log prior of the probabilities, Jacobian included; writes their part of the gradient."""
    n_states = point.location.shape[0]
    free, value = n_states - 1, 0.0
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
    return value


@inlined
def _add_lines(point: Any, slopes: Any, frame: Any, priors: Any, gradient: Any) -> float:
    """Log prior of location, scale, rate and bend, Jacobian included; writes their gradient."""
    n_states, n_features = point.location.shape
    free, value = n_states - 1, 0.0
    at, size = (n_states + 1) * free, n_states * n_features
    for k in range(n_states):
        for d in range(n_features):
            own = k * n_features + d
            m, sigma = point.location[k, d], priors.location_sigma[own]
            deviation = (m - priors.location_mu[own]) / sigma
            rate, alpha = priors.scale_beta[own] / point.scale[k, d], priors.scale_alpha[own]
            log_scale = np.log(point.scale[k, d] * priors.spread[d])
            value -= 0.5 * deviation**2 + rate + alpha * log_scale
            slope = slopes[0][k, d] - deviation / sigma
            gradient[at] = slope / priors.spread[d] * frame.spread[own]
            slope = slopes[1][k, d] + rate - alpha
            gradient[at + size] = slope * frame.spread[size + own]
            if frame.spread.shape[0] > 2 * size:
                curved = frame.spread.shape[0] > 3 * size
                x, sigma = point.rate[k, d], priors.rate_sigma[own]
                if not curved:
                    x = np.log(x)
                deviation = (x - priors.rate_mu[own]) / sigma
                value -= 0.5 * deviation**2
                slope = slopes[2][k, d] - deviation / sigma
                gradient[at + 2 * size] = slope * frame.spread[2 * size + own]
                gradient[at] += slope * frame.shear[own]
                if curved:
                    sigma = priors.bend_sigma[own]
                    deviation = (point.bend[k, d] / priors.spread[d] - priors.bend_mu[own]) / sigma
                    value -= 0.5 * deviation**2
                    slope = slopes[3][k, d] * priors.spread[d] - deviation / sigma
                    gradient[at + 3 * size] = slope * frame.spread[3 * size + own]
                    gradient[at] += slope * frame.shear[size + own]
                    gradient[at + 2 * size] += slope * frame.shear[2 * size + own]
            at += 1
    return value


# What the sampler calls is given one address. All arrays lie there in one block of eight bytes for
# every number, flat and in the order of their names here, after a head: the length of the block,
# the numbers of states and features, the kind of line, and where each array begins and the last
# ends. Those that vectors are read from come first: they start with a cache line. `tails` holds
# the degrees of freedom and the constant of the innovations.
_ARRAYS = (
    *("values", "observed", "previous", "gap_class", "begins", "place"),
    *Layout._fields,
    *("gaps", "tails"),
    *Frame._fields,
    *Priors._fields,
)
_HEAD = 4


def pack(frame: Frame, priors: Priors, family: Plain | Family, data: Data) -> np.ndarray:
    """Put all that the density depends on into one block."""
    kind, tails = (0, np.zeros(2))
    if isinstance(family, Family):
        kind, tails = family.kind, np.array([family.df, family.log_norm])
    arrays = [*data[:-1], *data.layout, family.gaps, tails, *frame, *priors]
    first = -(-(_HEAD + len(_ARRAYS) + 1) // LANES) * LANES
    ends = first + np.cumsum([0, *(array.size for array in arrays)])
    block = aligned.py_func(ends[-1]).view(np.int64)
    head = [len(block), *frame.spread.shape[1:], kind, *ends]
    block[: len(head)] = head
    for begin, array in zip(ends, arrays, strict=False):
        block[begin : begin + array.size] = array.ravel().view(np.int64)
    return block


@inlined
def _part(block: Any, begins: Any, i: int) -> Any:
    return block[begins[i] : begins[i + 1]]


@inlined
def _unpack(numbers: Any, integers: Any) -> Any:
    """Find the arrays in a block, seen as numbers and as integers."""
    begins = integers[_HEAD : _HEAD + len(_ARRAYS) + 1]
    layout = Layout(
        _part(integers, begins, 6),
        _part(integers, begins, 7),
        _part(integers, begins, 8),
        _part(integers, begins, 9),
    )
    data = Data(
        _part(numbers, begins, 0),
        _part(numbers, begins, 1),
        _part(numbers, begins, 2),
        _part(integers, begins, 3),
        _part(integers, begins, 4),
        _part(integers, begins, 5),
        layout,
    )
    frame = Frame(
        _part(numbers, begins, 12),
        _part(numbers, begins, 13),
        _part(numbers, begins, 14),
        _part(numbers, begins, 15),
    )
    priors = Priors(
        _part(numbers, begins, 16),
        _part(numbers, begins, 17),
        _part(numbers, begins, 18),
        _part(numbers, begins, 19),
        _part(numbers, begins, 20),
        _part(numbers, begins, 21),
        _part(numbers, begins, 22),
        _part(numbers, begins, 23),
        _part(numbers, begins, 24),
        _part(numbers, begins, 25),
        _part(numbers, begins, 26),
        _part(numbers, begins, 27),
    )
    return frame, priors, _part(numbers, begins, 10), _part(numbers, begins, 11), data


@inlined
def _opened(address: Any) -> Any:
    """See a block as numbers and as integers."""
    length = carray(address, (1,), np.int64)[0]
    return carray(address, (length,), np.float64), carray(address, (length,), np.int64)


@inlined
def _answer(
    family: Any, frame: Any, priors: Any, data: Any, sizes: Any, point: Any, slope: Any, value: Any
) -> int:
    """Evaluate as nutpie wants it: a status, 0 if all is well, and two results."""
    result = _density(point, sizes[1], sizes[2], frame, priors, family, data, slope)
    value[0] = result
    finite = np.isfinite(result)
    for i in range(slope.shape[0]):
        finite = finite and np.isfinite(slope[i])
    return 0 if finite else 3


def _evaluate_plain(n_dim, u, gradient, value, address):  # type: ignore[no-untyped-def]
    numbers, integers = _opened(address)
    frame, priors, gaps, _, data = _unpack(numbers, integers)
    point, slope = carray(u, (n_dim,), np.float64), carray(gradient, (n_dim,), np.float64)
    out = carray(value, (1,), np.float64)
    return _answer(Plain(gaps), frame, priors, data, integers, point, slope, out)


def _evaluate_family(n_dim, u, gradient, value, address):  # type: ignore[no-untyped-def]
    numbers, integers = _opened(address)
    frame, priors, gaps, tails, data = _unpack(numbers, integers)
    point, slope = carray(u, (n_dim,), np.float64), carray(gradient, (n_dim,), np.float64)
    family = Family(gaps, integers[3], tails[0], tails[1])
    out = carray(value, (1,), np.float64)
    return _answer(family, frame, priors, data, integers, point, slope, out)


def _copy(n_dim, n_copied, u, out, address):  # type: ignore[no-untyped-def]
    """Turn a draw into what nutpie keeps of it: the same."""
    for i in range(n_dim):
        carray(out, (n_copied,), np.float64)[i] = carray(u, (n_dim,), np.float64)[i]
    return 0


_POINTER = types.CPointer(types.float64)
_COUNT = types.uint64
_EVALUATE = types.int64(_COUNT, _POINTER, _POINTER, _POINTER, types.voidptr)
_PYTHON = CFUNCTYPE(c_int64, c_uint64, *[c_void_p] * 4)  # the former, called from Python
_COPY = types.int64(_COUNT, _COUNT, _POINTER, _POINTER, types.voidptr)


@cache
def compiled(*, plain: bool) -> Any:
    """Compile what the sampler calls for the density, or load it; for every model of its kind."""
    return cfunc(_EVALUATE, cache=True)(_evaluate_plain if plain else _evaluate_family)


@cache
def compiled_copy() -> Any:
    """Compile what the sampler calls to keep a draw, or load it."""
    return cfunc(_COPY, cache=True)(_copy)


def evaluate(block: np.ndarray, u: np.ndarray, *, plain: bool) -> tuple[float, np.ndarray]:
    """Log density (nats) and its gradient at `u`, in the sampler's coordinates."""
    u, gradient, value = np.array(u, np.float64), np.empty(len(u)), np.empty(1)
    addresses = (array.ctypes.data for array in (u, gradient, value, block))
    _PYTHON(compiled(plain=plain).address)(len(u), *addresses)
    return float(value[0]), gradient
