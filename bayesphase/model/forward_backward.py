"""The recursions of a hidden Markov model: filter and smoother.

=================  =======================  ====================================================
argument           dims                     meaning
=================  =======================  ====================================================
`log_emission`     (row, state)             log p(y_t | z_t = k), up to any constant per row
`log_transition`   (gap, state, state)      log-potentials, from state i (second) to j (third)
`log_initial`      (state)                  log-potentials of the first state of every run
`layout`           `lanes.Layout`           where runs lie in the rows
=================  =======================  ====================================================

Nothing is assumed to be normalised. Eight runs at a time are filtered in probability space with a
rescaling at every step (Rabiner 1989, doi:10.1109/5.18626), which is fast, and exact as long as
nothing that matters is too small for a double. Where transitions are closed, probabilities that
come near 0 but are not are lifted, and a second measure beside the filtered one adds up how much
of it may come from having been lifted. Where that is more than rounding, the run is done again in
log space, which is slower and always exact. In the kernels rows are in lane order (see `lanes`)
and run along the last axis.
"""

from typing import Any, NamedTuple

import numpy as np

from bayesphase.model.lanes import Layout, lane_order, running
from bayesphase.model.log_space import smooth_run
from bayesphase.model.potentials import (
    ADDED,
    LIFTED,
    NEGLIGIBLE,
    OPEN,
    TINY,
    new_step,
    reset,
    scaled,
    take,
)
from bayesphase.model.simd import (
    LANES,
    LN2,
    aligned,
    exp,
    fill,
    inner,
    kernel,
    larger,
    load,
    log,
    smaller,
    split,
    store,
    zero_below,
)

# rows past the last that vectors may touch
PAD = 4 * LANES


@inner
def padded(n_rows: int) -> int:
    """Columns to make room for, a whole number of vectors."""
    return (n_rows + PAD + LANES - 1) // LANES * LANES


class Smoothed(NamedTuple):
    """What the forward and backward passes know.

    `log_likelihood` (run); `state_probs` (row, state), p(z_t = k | y) of the run, 0 in rows that
    belong to no run; `expected_transitions` (run, gap, state, state), the sum over steps of
    p(z_t-1 = i, z_t = j | y). The last two are the derivatives of the first with respect to
    `log_emission` and `log_transition`.
    """

    log_likelihood: np.ndarray
    state_probs: np.ndarray
    expected_transitions: np.ndarray


class Group(NamedTuple):
    """Where one group of runs is worked on; the last axis holds rows in lane order.

    `rows` (row) are their places outside; `weight` (state, row) is first the log-emission, then the
    emission divided by the largest of its row, whose log is `top` (row); `norm` (row) is
    p(y_t | y_1..t-1) in these units; `probs` (state, row) are filtered, then smoothed. Filtered
    ones are still to be divided by `norm`, unless some ways are closed.
    """

    rows: np.ndarray
    weight: np.ndarray
    top: np.ndarray
    norm: np.ndarray
    probs: np.ndarray


@inner
def new_group(n_states: int, n_rows: int) -> Any:
    """Room for the largest group, of `n_rows`."""
    n = padded(n_rows)
    return Group(
        np.empty(n, np.int64),
        aligned(n_states * n).reshape((n_states, n)),
        aligned(n),
        aligned(n),
        aligned(n_states * n).reshape((n_states, n)),
    )


@inner
def weigh(group: Any, n_rows: int) -> None:
    """Take emissions out of log space, the largest of a row to 1.

    Where there is none, or one is NaN or infinite, a weight is NaN.
    """
    weight, tops = group.weight, group.top
    n_states = weight.shape[0]
    for row in range(0, n_rows + LANES, LANES):
        top = load(weight, (0, row))
        for k in range(1, n_states):
            top = larger(load(weight, (k, row)), top)
        for k in range(n_states):
            store(weight, (k, row), exp(load(weight, (k, row)) - top))
        store(tops, (row,), top)


@inner
def forward(  # noqa: C901  # a call in the loop over steps costs more than a step
    index: int, group: Any, potentials: Any, layout: Any, log_likelihood: Any
) -> None:
    """Filter the runs of a group; the log-likelihood of a run that needs log space is NaN.

    `doubt` is the part of the filtered probabilities that may come from having been lifted.
    Least and largest values are kept in registers: a choice that is stored where one of its sides
    came from becomes a masked store, which is slow on some processors.
    """
    weight, tops, norms, probs = group.weight, group.top, group.norm, group.probs
    by_length, lengths = layout.by_length, layout.lengths
    n_gaps, n_states, _ = potentials.transition.shape
    step = new_step(n_states, potentials)
    matrix, initial, closed = step.matrix, potentials.initial, potentials.closed
    prediction = np.empty((matrix.shape[1], LANES))
    doubt, seen = np.zeros((n_states, LANES)), np.empty((n_states, LANES))
    ends = np.empty((3, LANES))
    scale, total, least, most = fill(1.0), fill(potentials.initial_top), fill(np.inf), fill(0.0)
    product, power = fill(1.0), fill(0.0)  # of all norms: mantissa, and exponent of 2
    row, before, active = 0, 0, running(index, 0, by_length, lengths)
    for t in range(lengths[by_length[LANES * index]]):
        if n_gaps > 1:  # a call costs more than the rest of a step
            take(step, row, active, group, potentials, layout)
        for j in range(0, prediction.shape[0], 2):
            one = other = fill(0.0)
            for i in range(n_states):
                last = load(probs, (i, before))
                one = one + last * load(matrix, (i, j, 0))
                other = other + last * load(matrix, (i, j + 1, 0))
            store(prediction, (j, 0), one)
            store(prediction, (j + 1, 0), other)
        norm = fill(0.0)
        for j in range(n_states):
            predicted = fill(initial[j])
            if t > 0:
                predicted = load(prediction, (j, 0)) * scale
            joint = predicted * load(weight, (j, row))
            if closed:
                lifted = smaller(predicted, fill(ADDED))
                for i in range(n_states):
                    lifted = lifted + load(doubt, (i, 0)) * load(matrix, (i, j, 0))
                store(seen, (j, 0), lifted * load(weight, (j, row)))
                joint = zero_below(predicted, fill(OPEN), larger(fill(OPEN), joint))
            store(probs, (j, row), joint)
            norm = norm + joint
        inverse = 1.0 / norm
        if closed:
            doubts = fill(0.0)
            for j in range(n_states):
                joint = load(probs, (j, row))
                filtered = larger(fill(LIFTED), joint * inverse)
                store(probs, (j, row), zero_below(joint, fill(OPEN), filtered))
                part = load(seen, (j, 0)) * inverse
                store(doubt, (j, 0), part)
                doubts = doubts + part
            most = larger(doubts, most)
        else:  # the next step divides its sums: to begin with them it need not wait
            scale = inverse
        store(norms, (row,), norm)
        least = smaller(least, norm)  # NaN once norms are
        exponent, product = split(product * norm)
        power, total = power + exponent, total + load(tops, (row,))
        if t > 0:
            total = total + load(step.top, (0,))
        before, row = row, row + active
        still = running(index, t + 1, by_length, lengths)
        if still < active:  # runs whose last row this was
            store(ends, (0, 0), total + (log(product) + power * LN2))
            store(ends, (1, 0), least)
            store(ends, (2, 0), most)
        for lane in range(still, active):
            sure = ends[1, lane] > TINY and ends[2, lane] < NEGLIGIBLE
            log_likelihood[by_length[LANES * index + lane]] = ends[0, lane] if sure else np.nan
        active = still


@inner
def backward(  # noqa: C901  # a call in the loop over steps costs more than a step
    index: int, n_rows: int, group: Any, potentials: Any, layout: Any, expected: Any
) -> None:
    """Smooth the filtered runs of a group; adds to `expected` (run, gap, state, state).

    A message b is passed on from row to row: the smoothed probabilities are the filtered ones
    times b, and those of two neighbours i and j are filtered_i A_ij (w_j b_j / norm).
    """
    weight, norms, probs = group.weight, group.norm, group.probs
    by_length, lengths = layout.by_length, layout.lengths
    n_gaps, n_states, _ = potentials.transition.shape
    step = new_step(n_states, potentials)
    matrix = step.matrix
    message, ratio = np.ones((n_states, LANES)), np.empty((n_states, LANES))
    pairs = np.zeros((n_states, n_states, LANES))
    part = np.empty((2, LANES))
    row, later, scale = n_rows, 0, 1.0 / load(norms, (n_rows,))
    for t in range(lengths[by_length[LANES * index]] - 1, -1, -1):
        active = running(index, t, by_length, lengths)
        after, row = row, row - active
        if n_gaps > 1:
            _change(pairs, step, after, later, index, group, potentials, layout, expected)
        inverse, scale = scale, 1.0 / load(norms, (row,))
        for j in range(n_states):
            seen = load(weight, (j, after)) * inverse
            store(ratio, (j, 0), load(message, (j, 0)) * seen)
        for i in range(n_states):
            filtered = load(probs, (i, row))
            if not potentials.closed:
                filtered = filtered * scale
            sent = fill(0.0)
            for j in range(n_states):
                q = load(ratio, (j, 0))
                sent = sent + load(matrix, (i, j, 0)) * q
                store(pairs, (i, j, 0), load(pairs, (i, j, 0)) + filtered * q)
            # of a state that can't be, it may be infinite
            store(message, (i, 0), zero_below(filtered, fill(OPEN), sent))
            if later == LANES:
                store(probs, (i, row), filtered * sent)
            else:  # the neighbours in memory are of later steps, and done
                store(part, (0, 0), filtered * sent)
                store(part, (1, 0), filtered)  # nothing comes after
                for lane in range(active):
                    probs[i, row + lane] = part[0 if lane < later else 1, lane]
        if later < active:  # runs whose last row this is: nothing of the above holds for them
            fill_lanes(message, later, active, 1.0)
            fill_lanes(pairs.reshape((n_states * n_states, LANES)), later, active, 0.0)
        later = active
    for lane in range(later):
        run = by_length[LANES * index + lane]
        _flush(pairs, step, lane, expected[run, step.gap[lane]])
    for k in range(n_states):  # so that sums over rows may take two vectors at a time
        store(probs, (k, n_rows), fill(0.0))
        store(probs, (k, n_rows + LANES), fill(0.0))


@inner
def fill_lanes(array: Any, first: int, stop: int, value: float) -> None:
    """Put a value into some lanes of `array` (..., lane)."""
    for i in range(array.shape[0]):
        for lane in range(first, stop):
            array[i, lane] = value


@inner
def _change(
    pairs: Any,
    step: Any,
    row: int,
    active: int,
    index: int,
    group: Any,
    potentials: Any,
    layout: Any,
    expected: Any,
) -> None:
    """Do what `take` does, moving what lanes have gathered before their matrices change."""
    for lane in range(active):
        gap = layout.gap_index[group.rows[row + lane]]
        if gap != step.gap[lane]:
            run = layout.by_length[LANES * index + lane]
            _flush(pairs, step, lane, expected[run, step.gap[lane]])
            reset(step, lane, gap, potentials)


@inner
def _flush(pairs: Any, step: Any, lane: int, expected: Any) -> None:
    """Move what a lane has gathered to the `expected` transitions of its run and gap."""
    matrix = step.matrix
    n_states = expected.shape[0]
    for i in range(n_states):
        for j in range(n_states):
            expected[i, j] += pairs[i, j, lane] * matrix[i, j, lane]
            pairs[i, j, lane] = 0.0


@inner
def gather(index: int, log_emission: Any, layout: Any, group: Any) -> int:
    """Bring the rows of `log_emission` (row, state) that belong to a group into its `weight`."""
    n_rows = lane_order(index, layout, group.rows)
    for k in range(log_emission.shape[1]):
        for row in range(n_rows):
            group.weight[k, row] = log_emission[group.rows[row], k]
        for row in range(n_rows, n_rows + PAD):
            group.weight[k, row] = 0.0
    return n_rows


@inner
def check(log_emission: Any, log_transition: Any, log_initial: Any, layout: Any) -> None:
    """Refuse arguments that would be read or written past their ends."""
    n_rows, n_states = log_emission.shape
    if log_transition.shape[1:] != (n_states, n_states) or log_initial.shape[0] != n_states:
        raise ValueError("log_emission, log_transition and log_initial disagree in shape")
    if layout.gap_index.shape[0] != n_rows:
        raise ValueError("log_emission and gap_index disagree in shape")
    for run in range(layout.lengths.shape[0]):
        if layout.starts[run] + layout.lengths[run] > n_rows:
            raise ValueError("lengths point past the end of log_emission")
    for gap in layout.gap_index:
        if gap >= log_transition.shape[0]:
            raise ValueError("gap_index points past the end of log_transition")


@inner
def most_rows(layout: Any) -> int:
    """Rows of the largest group."""
    most, n_rows = 0, 0
    for place in range(layout.by_length.shape[0]):
        if place % LANES == 0:
            n_rows = 0
        n_rows += layout.lengths[layout.by_length[place]]
        most = max(most, n_rows)
    return most


@kernel
def forward_backward_kernel(
    log_emission: Any, log_transition: Any, log_initial: Any, layout: Any
) -> Any:
    """Log-likelihood of every run and its derivatives; see `forward_backward`."""
    check(log_emission, log_transition, log_initial, layout)
    n_rows, n_states = log_emission.shape
    n_gaps, n_runs = log_transition.shape[0], layout.lengths.shape[0]
    log_likelihood = np.empty(n_runs)
    probs = np.zeros((n_rows, n_states))
    expected = np.zeros((n_runs, n_gaps, n_states, n_states))
    potentials = scaled(log_transition, log_initial)
    group = new_group(n_states, most_rows(layout))
    for index in range((n_runs + LANES - 1) // LANES):
        n = gather(index, log_emission, layout, group)
        weigh(group, n)
        forward(index, group, potentials, layout, log_likelihood)
        backward(index, n, group, potentials, layout, expected)
        for row in range(n):
            for k in range(n_states):
                probs[group.rows[row], k] = group.probs[k, row]
    for run in range(n_runs):
        if not np.isfinite(log_likelihood[run]):
            rows = slice(layout.starts[run], layout.starts[run] + layout.lengths[run])
            log_likelihood[run] = smooth_run(
                log_emission[rows], potentials, layout.gap_index[rows], probs[rows], expected[run]
            )
    return log_likelihood, probs, expected


def floats(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Make arrays of doubles, as the kernels take them."""
    return tuple(np.ascontiguousarray(a, np.float64) for a in arrays)


def forward_backward(
    log_emission: np.ndarray, log_transition: np.ndarray, log_initial: np.ndarray, layout: Layout
) -> Smoothed:
    """Log-likelihood, smoothed state probabilities and expected transitions.

    Parameters
    ----------
    log_emission : ndarray (row, state)
    log_transition : ndarray (gap, state, state)
    log_initial : ndarray (state)
    layout : Layout

    Returns
    -------
    Smoothed
    """
    potentials = floats(log_emission, log_transition, log_initial)
    return Smoothed(*forward_backward_kernel(*potentials, layout))
