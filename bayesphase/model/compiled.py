"""The density as the sampler calls it: compiled as a whole, and given one address.

The compiled code is kept on disk and serves every number of states, runs and features. There are
a few versions, so that normal features about constants do not wait for the code of all the others,
nor do chains that move once per checkpoint.
"""

from ctypes import CFUNCTYPE, c_int64, c_uint64, c_void_p
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import carray, cfunc, types

from bayesphase.model.compiled_chain import (
    Chain,
    gathered,
    log_in_time,
    log_steps,
    narrowed,
    pull_in_time,
    pull_steps,
    pull_stretched,
    stretched,
)
from bayesphase.model.compiled_lines import Frame, Priors, add, read
from bayesphase.model.hdp_prior import log_weighted, pull_weighted
from bayesphase.model.innovations import Data
from bayesphase.model.lanes import Layout
from bayesphase.model.lines import Family, Plain, lines_of, pull_back
from bayesphase.model.passes import expect
from bayesphase.model.pieces import Pieces
from bayesphase.model.simd import LANES, Quick, aligned, inlined

# What the sampler calls is given one address. All arrays lie there in one block of eight bytes for
# every number, flat and in the order of their names here, after a head: the length of the block,
# the numbers of states and features, the kind of line, and where each array begins and the last
# ends. Those that vectors are read from come first: they start with a cache line. `tails` holds
# the degrees of freedom and the constant of the innovations.
_ARRAYS = (
    *("values", "observed", "previous", "begins", "place"),
    *Layout._fields,
    *("gaps", "tails"),
    *Frame._fields,
    *Priors._fields,
    *Chain._fields,
    *Pieces._fields,
)
_HEAD = 4
# where the arrays of a record begin among them
_LAYOUT = 5
_GAPS = _LAYOUT + len(Layout._fields)
_FRAME = _GAPS + 2
_PRIORS = _FRAME + len(Frame._fields)
_CHAIN = _PRIORS + len(Priors._fields)
_PIECES = _CHAIN + len(Chain._fields)


def pack(
    frame: Frame, priors: Priors, chain: Chain, family: Plain | Family, data: Data
) -> np.ndarray:
    """Put all that the density depends on into one block."""
    kind, tails = (0, np.zeros(2))
    if isinstance(family, Family):
        kind, tails = family.kind, np.array([family.df, family.log_norm])
    arrays = [*data[:-2], *data.layout, family.gaps, tails, *frame, *priors, *chain, *data.pieces]
    first = -(-(_HEAD + len(_ARRAYS) + 1) // LANES) * LANES
    ends = first + np.cumsum([0, *(array.size for array in arrays)])
    block = aligned.py_func(ends[-1]).view(np.int64)
    head = [len(block), *frame.spread.shape[1:], kind, *ends]
    block[: len(head)] = head
    for begin, array in zip(ends, arrays, strict=False):
        block[begin : begin + array.size] = array.ravel().view(np.int64)
    return block


class _Call(NamedTuple):
    """What a call is about: all that lies in the block, the point, and where the answer goes."""

    n_states: int
    n_features: int
    frame: Any
    priors: Any
    chain: Any
    gaps: Any
    kind: int
    tails: Any
    data: Any
    u: Any
    gradient: Any
    value: Any


@inlined
def _part(block: Any, begins: Any, i: int) -> Any:
    return block[begins[i] : begins[i + 1]]


@inlined
def _opened(n_dim: int, u: Any, gradient: Any, value: Any, address: Any) -> Any:
    """Find the arrays in a block, seen as numbers and as integers."""
    length = carray(address, (1,), np.int64)[0]
    numbers = carray(address, (length,), np.float64)
    integers = carray(address, (length,), np.int64)
    begins = integers[_HEAD : _HEAD + len(_ARRAYS) + 1]
    layout = Layout(
        _part(integers, begins, _LAYOUT),
        _part(integers, begins, _LAYOUT + 1),
        _part(integers, begins, _LAYOUT + 2),
        _part(integers, begins, _LAYOUT + 3),
    )
    pieces = Pieces(
        _part(integers, begins, _PIECES),
        _part(integers, begins, _PIECES + 1),
        _part(integers, begins, _PIECES + 2),
        _part(integers, begins, _PIECES + 3),
        _part(integers, begins, _PIECES + 4),
        _part(integers, begins, _PIECES + 5),
    )
    data = Data(
        _part(numbers, begins, 0),
        _part(numbers, begins, 1),
        _part(numbers, begins, 2),
        _part(integers, begins, 3),
        _part(integers, begins, 4),
        pieces,
        layout,
    )
    frame = Frame(
        _part(numbers, begins, _FRAME),
        _part(integers, begins, _FRAME + 1),
        _part(numbers, begins, _FRAME + 2),
        _part(numbers, begins, _FRAME + 3),
        _part(numbers, begins, _FRAME + 4),
    )
    priors = Priors(
        _part(numbers, begins, _PRIORS),
        _part(numbers, begins, _PRIORS + 1),
        _part(numbers, begins, _PRIORS + 2),
        _part(numbers, begins, _PRIORS + 3),
        _part(numbers, begins, _PRIORS + 4),
        _part(numbers, begins, _PRIORS + 5),
        _part(numbers, begins, _PRIORS + 6),
        _part(numbers, begins, _PRIORS + 7),
        _part(numbers, begins, _PRIORS + 8),
        _part(numbers, begins, _PRIORS + 9),
        _part(numbers, begins, _PRIORS + 10),
    )
    chain = Chain(
        _part(integers, begins, _CHAIN),
        _part(integers, begins, _CHAIN + 1),
        _part(integers, begins, _CHAIN + 2),
        _part(numbers, begins, _CHAIN + 3),
        _part(numbers, begins, _CHAIN + 4),
        _part(numbers, begins, _CHAIN + 5),
    )
    return _Call(
        integers[1],
        integers[2],
        frame,
        priors,
        chain,
        _part(numbers, begins, _GAPS),
        integers[3],
        _part(numbers, begins, _GAPS + 1),
        data,
        carray(u, (n_dim,), np.float64),
        carray(gradient, (n_dim,), np.float64),
        carray(value, (1,), np.float64),
    )


@inlined
def _answer(family: Any, log_potentials: Any, pull: Any, call: Any) -> int:
    """Write the log density and its gradient, as nutpie wants them; a status, 0 if all is well."""
    u, gradient, frame, priors, chain = call.u, call.gradient, call.frame, call.priors, call.chain
    n_states = call.n_states
    x = stretched(frame.blocks, frame.triangles, frame.centre, u)
    by_gap, initial = log_potentials(chain, x, n_states)
    point = read(u, n_states, call.n_features, frame, priors)
    lines = lines_of(family, point.location, point.scale, point.rate, point.bend)
    expected = expect(call.data, lines, narrowed(chain, by_gap), initial)
    slopes = pull_back(family, expected.sums, lines, point.location, point.rate)
    result, slope = priors.constant[0], np.empty(x.shape[0])
    for run in range(expected.log_likelihood.shape[0]):
        result += expected.log_likelihood[run]
    counts = gathered(chain, expected.transitions, by_gap.shape[0])
    result += pull(chain, x, by_gap, initial, counts, expected.first_states, slope)
    pull_stretched(frame.blocks, frame.triangles, slope, gradient)
    result += add(point, slopes, frame, priors, gradient)
    call.value[0] = result
    finite = np.isfinite(result)
    for i in range(gradient.shape[0]):
        finite = finite and np.isfinite(gradient[i])
    return 0 if finite else 3


def _plain(n_dim, u, gradient, value, address):  # type: ignore[no-untyped-def]
    call = _opened(n_dim, u, gradient, value, address)
    return _answer(Plain(call.gaps), log_steps, pull_steps, call)


def _plain_in_time(n_dim, u, gradient, value, address):  # type: ignore[no-untyped-def]
    call = _opened(n_dim, u, gradient, value, address)
    return _answer(Plain(call.gaps), log_in_time, pull_in_time, call)


def _plain_weighted(n_dim, u, gradient, value, address):  # type: ignore[no-untyped-def]
    call = _opened(n_dim, u, gradient, value, address)
    return _answer(Plain(call.gaps), log_weighted, pull_weighted, call)


def _family(n_dim, u, gradient, value, address):  # type: ignore[no-untyped-def]
    call = _opened(n_dim, u, gradient, value, address)
    family = Family(call.gaps, call.kind, call.tails[0], call.tails[1])
    return _answer(family, log_steps, pull_steps, call)


def _family_in_time(n_dim, u, gradient, value, address):  # type: ignore[no-untyped-def]
    call = _opened(n_dim, u, gradient, value, address)
    family = Family(call.gaps, call.kind, call.tails[0], call.tails[1])
    return _answer(family, log_in_time, pull_in_time, call)


def _family_weighted(n_dim, u, gradient, value, address):  # type: ignore[no-untyped-def]
    call = _opened(n_dim, u, gradient, value, address)
    family = Family(call.gaps, call.kind, call.tails[0], call.tails[1])
    return _answer(family, log_weighted, pull_weighted, call)


# by whether the emission is `Plain`, and the `kind` of the chain
_VERSIONS = {
    (True, "steps"): _plain,
    (True, "in_time"): _plain_in_time,
    (True, "weighted"): _plain_weighted,
    (False, "steps"): _family,
    (False, "in_time"): _family_in_time,
    (False, "weighted"): _family_weighted,
}


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
def compiled(*, plain: bool, kind: str) -> Any:
    """Compile what the sampler calls for the density, or load it; for every model of its kind."""
    evaluate = _VERSIONS[plain, kind]
    return cfunc(_EVALUATE, cache=True, error_model="numpy", pipeline_class=Quick)(evaluate)


@cache
def compiled_copy() -> Any:
    """Compile what the sampler calls to keep a draw, or load it."""
    return cfunc(_COPY, cache=True)(_copy)


def evaluate(block: np.ndarray, u: np.ndarray, version: Any) -> tuple[float, np.ndarray]:
    """Log density (nats) and its gradient at `u`, in the sampler's coordinates, by `compiled`."""
    n = len(u)
    room = np.empty(2 * n + 1)  # point, gradient and value: to ask for an address takes long
    room[:n] = u
    at, size = room.ctypes.data, room.itemsize
    _PYTHON(version.address)(n, at, at + n * size, at + 2 * n * size, block.ctypes.data)
    return float(room[-1]), room[n:-1]
