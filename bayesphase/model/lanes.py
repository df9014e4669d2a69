"""How runs and their rows are laid out, for users and for the recursions.

Users, and all code outside the compiled kernels, have runs end to end, hmmlearn's way, so that
runs of any length need no padding. The recursions take one step of eight runs at a time. They want
what belongs to one step side by side: *lane order* sorts the runs by length, the longest first,
puts eight of them into a group, and lays out a group step by step, each step with a row of every
run that still goes on.

    run 0: a0 a1 a2    run 1: b0 b1    ->    a0 b0 a1 b1 a2
"""

from typing import Any, NamedTuple

import numpy as np

from bayesphase.model.simd import LANES, inlined, kernel


class Layout(NamedTuple):
    """How runs lie in the rows; all int64.

    `gap_index` (row) is the transition matrix that leads into a row, `starts` (run) the first row
    of a run, `lengths` (run) its number of rows, and `by_length` (run) the runs, longest first.
    """

    gap_index: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    by_length: np.ndarray


def lay_out(starts: np.ndarray, lengths: np.ndarray, gap_index: np.ndarray) -> Layout:
    """Lay out runs that begin anywhere, with rows between them that belong to no run."""
    starts, lengths, gap_index = (np.asarray(x, np.int64) for x in (starts, lengths, gap_index))
    return Layout(gap_index, starts, lengths, np.argsort(-lengths, kind="stable"))


def end_to_end(lengths: np.ndarray, gap_index: np.ndarray | None = None) -> Layout:
    """Lay runs of the given `lengths` (run) end to end, with one transition matrix by default."""
    lengths = np.asarray(lengths, np.int64)
    if gap_index is None:
        gap_index = np.zeros(lengths.sum(), np.int64)
    return lay_out(np.cumsum(lengths) - lengths, lengths, gap_index)


@inlined
def running(group: int, t: int, by_length: Any, lengths: Any) -> int:
    """Count the runs of a group that have a row at step `t`: they are the first of its lanes."""
    first = LANES * group
    n = min(LANES, by_length.shape[0] - first)
    while n > 0 and lengths[by_length[first + n - 1]] <= t:
        n -= 1
    return n


@kernel
def lane_order(group: Any, layout: Any, rows: Any) -> int:
    """Write the rows of a group in lane order into `rows`; returns their number."""
    by_length, lengths = layout.by_length, layout.lengths
    n = 0
    for t in range(lengths[by_length[LANES * group]]):
        for lane in range(running(group, t, by_length, lengths)):
            rows[n] = layout.starts[by_length[LANES * group + lane]] + t
            n += 1
    return n


def in_lane_order(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Rows (row) of all groups, one after the other, in lane order, and where each group begins.

    The latter (group + 1) ends with the number of rows.
    """
    rows = np.empty(int(layout.lengths.sum()), np.int64)
    begins = [0]
    for group in range(-(-len(layout.by_length) // LANES)):
        begins.append(begins[-1] + lane_order(group, layout, rows[begins[-1] :]))
    return rows, np.array(begins)
