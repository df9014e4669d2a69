"""The log-likelihood of a hidden Markov model, states summed out, as a PyTensor Op."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key
from pytensor.tensor.variable import TensorVariable

from bayesphase.model.forward_backward import forward_backward_kernel
from bayesphase.model.lanes import Layout, lay_out
from bayesphase.model.simd import SOURCES


class HMMLogLikelihood(Op):
    """Log-likelihood of every run, with its gradient from the same forward and backward pass.

    Inputs are those of `forward_backward`. Outputs are `log_likelihood` (run), `state_probs`
    (row, state) and `expected_transitions` (run, gap, state, state); the last two are the
    derivatives of the first and can't be differentiated again.
    """

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        """Take potentials as doubles and the layout as integers."""
        doubles = [pt.cast(pt.as_tensor(x), "float64") for x in inputs[:3]]
        layout = [pt.cast(pt.as_tensor(x), "int64") for x in inputs[3:]]
        outputs = [pt.dvector(), pt.dmatrix(), pt.dtensor4()]
        return Apply(self, doubles + layout, outputs)

    def perform(self, node: Apply, inputs: Sequence[Any], output_storage: list[list[Any]]) -> None:
        """Run the compiled kernel."""
        arrays = [np.ascontiguousarray(x) for x in inputs]
        results = forward_backward_kernel(*arrays[:3], Layout(*arrays[3:]))
        for storage, value in zip(output_storage, results, strict=True):
            storage[0] = value

    def infer_shape(self, *arguments: Any) -> list[Any]:
        """Shapes of the outputs from those of the inputs, the last argument."""
        *_, shapes = arguments  # PyTensor before 3 also passes the graph
        emission, transition, _, _, _, lengths, _ = shapes
        return [lengths, emission, (lengths[0], *transition)]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Only the log-likelihood has a gradient, and only in the three potentials."""
        return [[i < 3, False, False] for i in range(7)]

    def pullback(
        self, inputs: Sequence[Any], outputs: Sequence[Any], cotangents: Sequence[Any]
    ) -> list[Variable]:
        """Fisher's identity: posterior expectations of the complete-data gradient."""
        _, state_probs, expected = outputs
        gap_index, starts = inputs[3:5]
        if isinstance(cotangents[0].type, DisconnectedType):
            return [disconnected_type() for _ in inputs]
        per_run = cotangents[0]
        # rows of no run have state_probs 0, so it does not matter whose weight they take
        run_of_row = pt.searchsorted(starts, pt.arange(gap_index.shape[0]), side="right") - 1
        return [
            state_probs * per_run[run_of_row][:, None],
            (per_run[:, None, None, None] * expected).sum(axis=0),
            (per_run[:, None] * state_probs[starts]).sum(axis=0),
            *(disconnected_type() for _ in inputs[3:]),
        ]

    # PyTensor before 3 knows the pullback by this name
    L_op = pullback if not hasattr(Op, "pullback") else Op.L_op  # type: ignore[assignment]


@register_funcify_default_op_cache_key(HMMLogLikelihood)
def _numba_funcify(op: HMMLogLikelihood, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def hmm_log_likelihood(  # type: ignore[no-untyped-def]
        log_emission, log_transition, log_initial, gap_index, starts, lengths, by_length
    ):
        return forward_backward_kernel(
            np.ascontiguousarray(log_emission),
            np.ascontiguousarray(log_transition),
            np.ascontiguousarray(log_initial),
            Layout(
                np.ascontiguousarray(gap_index),
                np.ascontiguousarray(starts),
                np.ascontiguousarray(lengths),
                np.ascontiguousarray(by_length),
            ),
        )

    # PyTensor keeps compiled code on disk under the name of the Op: without the sources in the key
    # it would go on running the kernels of an older version
    return hmm_log_likelihood, SOURCES


_hmm_log_likelihood = HMMLogLikelihood()


def hmm_logp(
    log_emission: Any,
    log_transition: Any,
    log_initial: Any,
    *,
    gap_index: Any = None,
    lengths: Any = None,
) -> TensorVariable:
    """Log-likelihood of a hidden Markov model with its states summed out.

    Use it in a PyMC model of your own, with any emission, in
    ``pm.Potential("y", hmm_logp(...).sum())`` or as the ``logp`` of a ``pm.CustomDist``. The
    gradient is exact. Potentials are taken as they
    are and nothing is normalised: ``log_initial = 0`` means no initial term. A missing observation
    is a 0 in `log_emission`.

    Parameters
    ----------
    log_emission : tensor ([run,] step, state)
        log p(y_t | z_t = k). Without the dim `run` it holds one run, or several end to end where
        `lengths` says so.
    log_transition : tensor ([gap,] state, state)
        From state (second to last dim) to state (last dim).
    log_initial : tensor (state)
        Log-potentials of a run's first state.
    gap_index : int array ([run,] step), optional
        Which transition matrix leads into each step. The entry of a run's first step, and those
        past its length, make no difference but must name a matrix too. The first matrix everywhere
        by default.
    lengths : int array (run), optional
        Number of steps of each run. With the dim `run` in `log_emission` what lies past the length
        is never looked at; without it the lengths must add up to the number of steps.

    Returns
    -------
    tensor (run), or a scalar where there is neither a dim `run` nor `lengths`

    Raises
    ------
    ValueError
        If a rank or a known shape does not fit, a length is under 1 or over what there is, or a gap
        index has no matrix.

    Notes
    -----
    The forward recursion is normalised at every step (Rabiner 1989, doi:10.1109/5.18626); the
    gradient is the vector of smoothed state and transition probabilities, by Fisher's identity
    (Cappé, Moulines & Rydén 2005, doi:10.1007/0-387-28982-8, section 10.1).
    """
    emission, transition = pt.as_tensor(log_emission), pt.as_tensor(log_transition)
    initial = pt.as_tensor(log_initial)
    _check_rank("log_emission", emission, (2, 3), "([run,] step, state)")
    _check_rank("log_transition", transition, (2, 3), "([gap,] state, state)")
    _check_rank("log_initial", initial, (1,), "(state)")
    _check_states(emission, transition, initial)
    if transition.ndim == 2:
        transition = transition[None]
    *grid, n_states = _static_shape(emission)
    layout, single = _layout(grid, gap_index, lengths, transition.type.shape[0])
    # data that are exchanged later must keep the size that the layout was made for
    emission = pt.specify_shape(emission, (*grid, None))
    if emission.ndim == 3:
        emission = emission.reshape((grid[0] * grid[1], n_states))
    outputs: Any = _hmm_log_likelihood(emission, transition, initial, *layout)
    log_likelihood = outputs[0]
    return log_likelihood[0] if single else log_likelihood


def _check_rank(name: str, x: TensorVariable, ranks: tuple[int, ...], dims: str) -> None:
    if x.ndim not in ranks:
        raise ValueError(f"{name} must have dims {dims}, but it has {x.ndim} dim(s)")


def _check_states(emission: Any, transition: Any, initial: Any) -> None:
    sizes = {
        "log_emission (its last dim)": emission.type.shape[-1],
        "log_transition (from)": transition.type.shape[-2],
        "log_transition (to)": transition.type.shape[-1],
        "log_initial": initial.type.shape[0],
    }
    known = {name: size for name, size in sizes.items() if size is not None}
    if len(set(known.values())) > 1:
        found = ", ".join(f"{name}: {size}" for name, size in known.items())
        raise ValueError(f"the number of states differs between the arguments ({found})")


def _static_shape(emission: TensorVariable) -> tuple[Any, ...]:
    """Shape of `log_emission` as numbers: the layout of the runs is data, fixed in the graph."""
    shape = emission.shape
    *known, n_states = emission.type.shape
    if None not in known:
        return (*known, shape[-1] if n_states is None else n_states)
    from pytensor.compile.mode import Mode

    try:
        grid = shape[:-1].eval(mode=Mode(linker="py", optimizer="None"))
    except Exception as error:
        raise ValueError(
            "log_emission must have a known number of runs and steps; declare its static shape "
            "with pytensor.tensor.specify_shape"
        ) from error
    return (*(int(n) for n in grid), shape[-1])


def _layout(
    grid: Sequence[int], gap_index: Any, lengths: Any, n_gaps: int | None
) -> tuple[Layout, bool]:
    """Where runs lie in the flattened rows, and whether there is just one without a name."""
    n_rows = int(np.prod(grid))
    gaps = np.zeros(grid, np.int64) if gap_index is None else _integers("gap_index", gap_index)
    if gaps.shape != tuple(grid):
        raise ValueError(
            f"gap_index must have the shape of log_emission without its states, {tuple(grid)}, "
            f"but has {gaps.shape}"
        )
    if gaps.min() < 0 or (n_gaps is not None and gaps.max() >= n_gaps):
        raise ValueError(
            f"gap_index must lie between 0 and {'?' if n_gaps is None else n_gaps - 1}, the last "
            f"transition matrix, but spans {gaps.min()} to {gaps.max()}"
        )
    n_runs, n_steps = grid if len(grid) == 2 else (1, grid[0])
    if lengths is None:
        counts = np.full(n_runs, n_steps, np.int64)
    else:
        counts = _integers("lengths", lengths)
        if counts.ndim != 1 or not counts.size or counts.min() < 1:
            raise ValueError(f"lengths must be a vector of numbers of at least 1, got {counts}")
    if len(grid) == 2:
        starts = np.arange(n_runs, dtype=np.int64) * n_steps
        if counts.shape != (n_runs,) or counts.max() > n_steps:
            raise ValueError(
                f"lengths must give {n_runs} numbers, one per run, of at most {n_steps}, got "
                f"{counts}"
            )
    else:
        starts = np.cumsum(counts) - counts
        if counts.sum() != n_rows:
            raise ValueError(
                f"lengths add up to {counts.sum()}, but log_emission has {n_rows} steps"
            )
    return lay_out(starts, counts, gaps.ravel()), len(grid) == 1 and lengths is None


def _integers(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must hold integers known when the model is built, got {values!r}")
    return array.astype(np.int64)
