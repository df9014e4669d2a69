"""Transition matrices of a continuous-time chain as a PyTensor Op, with its gradient.

PyTensor has a matrix exponential, but until 3.0 its gradient goes through complex eigenvectors,
which do not exist for every generator, and numba does not know it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key
from pytensor.tensor.variable import TensorVariable

from bayesphase.model.exponential import derivative, matrices
from bayesphase.model.simd import SOURCES


class TransitionMatrices(Op):
    """Matrices (gap, state, state) from `rates` (state, state) and `gaps` (gap)."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        """Take everything as doubles."""
        arguments = [pt.cast(pt.as_tensor(x), "float64") for x in inputs]
        (n_gaps,), shape = arguments[1].type.shape, arguments[0].type.shape
        return Apply(self, arguments, [pt.tensor(dtype="float64", shape=(n_gaps, *shape))])

    def perform(self, node: Apply, inputs: Sequence[Any], output_storage: list[list[Any]]) -> None:
        """Run the compiled kernel."""
        output_storage[0][0] = matrices(*(np.ascontiguousarray(x) for x in inputs))

    def infer_shape(self, *arguments: Any) -> list[Any]:
        """Shape of the output from those of the inputs, the last argument."""
        rates, gaps = arguments[-1]  # PyTensor before 3 also passes the graph
        return [(gaps[0], *rates)]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Gaps are data."""
        return [[True], [False]]

    def pullback(
        self, inputs: Sequence[Any], outputs: Sequence[Any], cotangents: Sequence[Any]
    ) -> list[Variable]:
        """Gradient in the rates: what a rate adds off the diagonal it takes from it."""
        if isinstance(cotangents[0].type, DisconnectedType):
            return [disconnected_type() for _ in inputs]
        slope: Any = _derivative(*inputs, cotangents[0])
        return [slope - pt.diagonal(slope)[:, None], disconnected_type()]

    # PyTensor before 3 knows the pullback by this name
    L_op = pullback if not hasattr(Op, "pullback") else Op.L_op  # type: ignore[assignment]


class TransitionDerivative(Op):
    """What `exponential.derivative` gives; not to be differentiated again."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        """Take everything as doubles."""
        arguments = [pt.cast(pt.as_tensor(x), "float64") for x in inputs]
        return Apply(self, arguments, [pt.dmatrix()])

    def perform(self, node: Apply, inputs: Sequence[Any], output_storage: list[list[Any]]) -> None:
        """Run the compiled kernel."""
        output_storage[0][0] = derivative(*(np.ascontiguousarray(x) for x in inputs))

    def infer_shape(self, *arguments: Any) -> list[Any]:
        """Shape of the output: that of the rates."""
        return [arguments[-1][0]]


@register_funcify_default_op_cache_key(TransitionMatrices)
def _numba_matrices(op: TransitionMatrices, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def transition_matrices(rates, gaps):  # type: ignore[no-untyped-def]
        return matrices(np.ascontiguousarray(rates), np.ascontiguousarray(gaps))

    return transition_matrices, SOURCES


@register_funcify_default_op_cache_key(TransitionDerivative)
def _numba_derivative(op: TransitionDerivative, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def transition_derivative(rates, gaps, weights):  # type: ignore[no-untyped-def]
        return derivative(
            np.ascontiguousarray(rates), np.ascontiguousarray(gaps), np.ascontiguousarray(weights)
        )

    return transition_derivative, SOURCES


_matrices = TransitionMatrices()
_derivative = TransitionDerivative()


def transition_matrices(rates: Any, gaps: np.ndarray) -> TensorVariable:
    """Transition matrices (gap, state, state) of a chain that switches at the given `rates`.

    Parameters
    ----------
    rates : tensor (state, state)
        The diagonal makes no difference.
    gaps : ndarray (gap)
    """
    matrices_: Any = _matrices(rates, gaps)
    return matrices_
