"""Vectors of eight doubles for compiled code.

LLVM finds little to vectorise in the recursions by itself: it can't know that arrays do not
overlap, and the loops over states are short. With a vector as a type of its own, kernels say
what they mean, eight rows or eight runs at a time, and LLVM maps it to whatever the processor
has (one AVX-512 register, two of AVX2, four of SSE2 or NEON).

In a kernel, `load`, `store` and `fill` make and keep vectors; ``+ - * /`` work between vectors and
between a vector and a number. A product followed by a sum becomes one fused operation.
"""

import operator
from collections.abc import Callable
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config
from numba.core.compiler import Compiler
from numba.core.typing import signature
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

from bayesphase.model.kept import drop_older_kernels

# every kernel imports this module, so that it happens before the first is looked for on disk
SOURCES = drop_older_kernels(Path(__file__).parent)

LANES = 8

_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(64), LANES)
_INDEX = ir.IntType(32)
_ZEROS = ir.Constant(_DOUBLES, [0.0] * LANES)


class Quick(Compiler):
    """Numba's compiler, with LLVM optimising at its second level instead of the third.

    The third makes a copy of a loop for every combination of the conditions in it that the loop
    does not change. With vectors written out that gains nothing, and takes twice as long.
    """

    def compile_extra(self, func: Any) -> Any:  # noqa: D102
        usual, config.OPT = config.OPT, min(config.OPT, 2)  # under the lock of all compilation
        try:
            return super().compile_extra(func)
        finally:
            config.OPT = usual


OPTIONS = {"nogil": True, "error_model": "numpy", "pipeline_class": Quick}

kernel = njit(**OPTIONS, cache=True)
"""Compile a function that releases the GIL, divides by zero as NumPy does, and is kept on disk."""

inner = njit(**OPTIONS, cache=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""The same for a function that only kernels call; it takes less time to compile."""

inlined = njit(inline="always", error_model="numpy")
"""Put the body of a small function into those that call it: a call with arrays costs dearly."""


@inner
def aligned(n: int) -> Any:
    """Room for `n` doubles from the start of a cache line on, so that no vector lies across two.

    It can be had from Python as `aligned.py_func`.
    """
    room = np.empty(n + LANES)
    start = LANES - room.ctypes.data // room.itemsize % LANES
    return room[start : start + n]


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"Vector({LANES})")


_vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _DOUBLES)


def _pointer(context: Any, builder: Any, kinds: Any, values: Any) -> Any:
    """Address of the vector that starts at an element of an array."""
    array, index = values[:2]
    index = cgutils.unpack_tuple(builder, index, len(kinds[1]))
    array = context.make_array(kinds[0])(context, builder, array)
    element = cgutils.get_item_pointer(context, builder, kinds[0], array, index)
    return builder.bitcast(element, _DOUBLES.as_pointer())


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """Read eight neighbours on the last axis of `array`, from the element at `index`, a tuple."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args, arguments)
        return builder.load(pointer, align=8)

    return _vector(array, index), code


@intrinsic
def store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write eight neighbours on the last axis of `array`, from the element at `index`, a tuple."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args, arguments)
        builder.store(arguments[2], pointer, align=8)
        return context.get_dummy_value()

    return types.void(array, index, vector), code


def _fill(builder: Any, number: Any) -> Any:
    first = builder.insert_element(_ZEROS, number, ir.Constant(_INDEX, 0))
    every = ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES)
    return builder.shuffle_vector(first, first, every)


@intrinsic
def fill(typing: Any, number: Any) -> Any:
    """Eight times the same number."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _fill(builder, arguments[0])

    return _vector(types.float64), code


@intrinsic
def total(typing: Any, vector: Any) -> Any:
    """Sum of the eight."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        parts = [
            builder.extract_element(arguments[0], ir.Constant(_INDEX, lane))
            for lane in range(LANES)
        ]
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [builder.fadd(left, right) for left, right in pairs]
        return parts[0]

    return types.float64(vector), code


def _operator(symbol: Callable[..., Any], instruction: str) -> None:
    """Define one of ``+ - * /``."""
    combinations = [(_vector, _vector), (_vector, types.float64), (types.float64, _vector)]

    @infer_global(symbol)
    class _Typed(ConcreteTemplate):
        cases = [signature(_vector, *operands) for operands in combinations]  # noqa: RUF012

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        operands = [
            value if kind is _vector else _fill(builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        return getattr(builder, instruction)(*operands, flags=("contract",))

    for operands in combinations:
        lower_builtin(symbol, *operands)(code)


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")


def _choice(comparison: str) -> Any:
    """Of two vectors, take in each lane the first if the comparison holds, else the second."""

    @intrinsic
    def choose(typing: Any, left: Any, right: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.select(builder.fcmp_ordered(comparison, *arguments), *arguments)

        return _vector(left, right), code

    return choose


smaller = _choice("<")
larger = _choice(">")


@intrinsic
def zero_below(typing: Any, vector: Any, bound: Any, value: Any) -> Any:
    """Take 0 where `vector` is below `bound`, else `value`."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, bound, value = arguments
        return builder.select(builder.fcmp_ordered("<", vector, bound), _ZEROS, value)

    return _vector(vector, bound, value), code


@intrinsic
def _exponent_bits(typing: Any, vector: Any) -> Any:
    """2 to the power of the integer in the lowest bits of each double."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], _INTEGERS)
        bits = builder.add(bits, ir.Constant(_INTEGERS, [1023] * LANES))
        bits = builder.shl(bits, ir.Constant(_INTEGERS, [52] * LANES))
        return builder.bitcast(bits, _DOUBLES)

    return _vector(vector), code


@intrinsic
def split(typing: Any, vector: Any) -> Any:
    """Exponent of 2, and mantissa between sqrt(1/2) and sqrt(2), of normal positive numbers."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def integers(value: int) -> Any:
            return ir.Constant(_INTEGERS, [value] * LANES)

        bits = builder.bitcast(arguments[0], _INTEGERS)
        # the distance in bits from sqrt(1/2) has the exponent sought where a double has its own;
        # kept positive, as few processors can shift eight negative integers or make them doubles
        one, root = 1023 << 52, 0x3FE6A09E667F3BCD
        offset = builder.add(bits, integers(one - root))
        above = builder.and_(offset, integers(0xFFF << 52))
        mantissa = builder.add(builder.sub(bits, above), integers(one))
        # a small integer, put into the last bits of 2 to the power of 52, is added to that
        large = builder.or_(builder.lshr(offset, integers(52)), integers((1023 + 52) << 52))
        base = ir.Constant(_DOUBLES, [2.0**52 + 1023.0] * LANES)
        exponent = builder.fsub(builder.bitcast(large, _DOUBLES), base)
        pair = exponent, builder.bitcast(mantissa, _DOUBLES)
        return context.make_tuple(builder, signature.return_type, pair)

    return types.UniTuple(_vector, 2)(vector), code


@intrinsic
def ones(typing: Any, bits: Any) -> Any:
    """1 in the lanes whose bit is set among the lowest of an integer, 0 in the others."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = builder.trunc(arguments[0], ir.IntType(LANES))
        return builder.uitofp(builder.bitcast(lanes, ir.VectorType(ir.IntType(1), LANES)), _DOUBLES)

    return _vector(types.int64), code


LN2 = 0.6931471805599453
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ROUND = 1.5 * 2.0**52  # added to a double and taken off again, it rounds to an integer
_LOWEST = -500.0
_TAYLOR = tuple(1.0 / factorial(n) for n in range(13))
_ODD = tuple(2.0 / (2 * n + 1) for n in range(11))


@inner
def exp(x: Any) -> Any:
    """Exponential of a vector of numbers up to 709; under -500 it is 0.

    What is left out is too small to matter here, and products with it would be so small that
    processors fall back to slow arithmetic.
    The argument is reduced to half of log 2 (Cody & Waite 1980), then come thirteen terms of the
    Taylor series: the relative error is within 3e-16.
    """
    whole, x = x, larger(fill(_LOWEST), x)
    shifted = x * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    p = fill(_TAYLOR[12])
    for i in range(11, -1, -1):
        p = p * r + _TAYLOR[i]
    return zero_below(whole, fill(_LOWEST), p * _exponent_bits(shifted))


@inner
def log(x: Any) -> Any:
    """Natural logarithm of a vector of normal positive numbers; anything else gives nonsense.

    The series of 2 artanh(f / (2 + f)) for 1 + f between sqrt(1/2) and sqrt(2), eleven terms.
    """
    exponent, mantissa = split(x)
    f = mantissa - 1.0
    s = f / (f + 2.0)
    z = s * s
    p = fill(_ODD[10])
    for i in range(9, -1, -1):
        p = p * z + _ODD[i]
    return exponent * _LN2_HIGH + (p * s + exponent * _LN2_LOW)
