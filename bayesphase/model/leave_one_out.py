"""Leave-one-out densities: how likely a checkpoint is, given all others of its run.

With the filtered and predicted probabilities and the messages b of the backward pass (see
`forward_backward`), p(y_t | y_-t) is the sum over states of predicted times emission times b,
divided by the same sum without the emission. This is exact for given parameters, and not the
one-step prediction p(y_t | y_1..t-1), which leaves out all that came later.
"""

from typing import Any

import numpy as np

from bayesphase.model.forward_backward import (
    check,
    fill_lanes,
    floats,
    forward,
    gather,
    most_rows,
    new_group,
    weigh,
)
from bayesphase.model.lanes import Layout, running
from bayesphase.model.log_space import leave_one_out_run
from bayesphase.model.potentials import OPEN, TINY, new_step, scaled, take
from bayesphase.model.simd import (
    LANES,
    fill,
    inner,
    kernel,
    load,
    log,
    smaller,
    store,
    zero_below,
)


@inner
def leave_one_out_group(  # noqa: C901  # a call in the loop over steps costs more than a step
    index: int,
    n_rows: int,
    group: Any,
    potentials: Any,
    layout: Any,
    out: Any,
    log_likelihood: Any,
) -> None:
    """Write the log densities of the rows of a filtered group to `out` (row).

    What was lifted may be nothing in the likelihood and all of it without one row: where any way
    into a state is open and nearly closed, `log_likelihood` (run) becomes NaN.
    """
    weight, tops, norms, probs = group.weight, group.top, group.norm, group.probs
    by_length, lengths = layout.by_length, layout.lengths
    n_gaps, n_states, _ = potentials.transition.shape
    step = new_step(n_states, potentials)
    matrix, initial, rows = step.matrix, potentials.initial, group.rows
    message, ratio = np.ones((n_states, LANES)), np.empty((n_states, LANES))
    density, least = np.empty(LANES), np.full(LANES, np.inf)
    row, later = n_rows, 0
    for t in range(lengths[by_length[LANES * index]] - 1, -1, -1):
        active = running(index, t, by_length, lengths)
        after, row = row, row - active
        inverse = 1.0 / load(norms, (after,))
        for j in range(n_states):
            seen = load(weight, (j, after)) * inverse
            store(ratio, (j, 0), load(message, (j, 0)) * seen)
        for i in range(n_states):
            sent = fill(0.0)
            for j in range(n_states):
                sent = sent + load(matrix, (i, j, 0)) * load(ratio, (j, 0))
            store(message, (i, 0), sent)
        if later < active:  # runs whose last row this is: nothing comes after
            fill_lanes(message, later, active, 1.0)
            least[later:active] = np.inf
        later = active
        if n_gaps > 1:
            take(step, row, active, group, potentials, layout)
        before = row - running(index, t - 1, by_length, lengths)
        left = fill(0.0)
        for j in range(n_states):
            predicted = fill(initial[j])
            if t > 0:
                predicted = fill(0.0)
                for i in range(n_states):
                    filtered = load(probs, (i, before))
                    predicted = predicted + filtered * load(matrix, (i, j, 0))
                if not potentials.closed:
                    predicted = predicted / load(norms, (before,))
            lowest = zero_below(predicted, fill(OPEN), fill(1.0))
            lowest = predicted + (1.0 - lowest)
            store(least, (0,), smaller(lowest, load(least, (0,))))
            # the message of a state that can't be may be infinite
            store(message, (j, 0), zero_below(predicted, fill(OPEN), load(message, (j, 0))))
            left = left + predicted * load(message, (j, 0))
        value = load(tops, (row,)) + log(load(norms, (row,))) - log(left)
        store(density, (0,), value)
        for lane in range(active):
            out[rows[row + lane]] = density[lane]
    for lane in range(later):
        if least[lane] < TINY:
            log_likelihood[by_length[LANES * index + lane]] = np.nan


@kernel
def _leave_one_out(log_emission: Any, log_transition: Any, log_initial: Any, layout: Any) -> Any:
    check(log_emission, log_transition, log_initial, layout)
    n_rows, n_states = log_emission.shape
    n_runs = layout.lengths.shape[0]
    out, log_likelihood = np.full(n_rows, np.nan), np.empty(n_runs)
    potentials = scaled(log_transition, log_initial)
    group = new_group(n_states, most_rows(layout))
    for index in range((n_runs + LANES - 1) // LANES):
        n = gather(index, log_emission, layout, group)
        weigh(group, n)
        forward(index, group, potentials, layout, log_likelihood)
        leave_one_out_group(index, n, group, potentials, layout, out, log_likelihood)
    for run in range(n_runs):
        if not np.isfinite(log_likelihood[run]):
            rows = slice(layout.starts[run], layout.starts[run] + layout.lengths[run])
            leave_one_out_run(log_emission[rows], potentials, layout.gap_index[rows], out[rows])
    return out


def leave_one_out(
    log_emission: np.ndarray, log_transition: np.ndarray, log_initial: np.ndarray, layout: Layout
) -> np.ndarray:
    """Log density of every row given all the others of its run, nats.

    Arguments as in `forward_backward`.

    Returns
    -------
    ndarray (row), NaN in rows of no run and in runs whose log-likelihood is not finite
    """
    arrays = floats(log_emission, log_transition, log_initial)
    return _leave_one_out(*arrays, layout)
