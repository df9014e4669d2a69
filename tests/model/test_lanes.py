from itertools import pairwise

import numpy as np
from exact import few_examples
from hypothesis import given
from hypothesis import strategies as st

from bayesphase.model.lanes import LANES, end_to_end, in_lane_order, lay_out


def test_the_example():
    rows, begins = in_lane_order(end_to_end([3, 2]))
    np.testing.assert_array_equal(rows, [0, 3, 1, 4, 2])
    np.testing.assert_array_equal(begins, [0, 5])


def test_the_longest_run_comes_first_and_rows_of_no_run_are_left_out():
    layout = lay_out([7, 1], [2, 4], np.zeros(10, int))
    rows, _ = in_lane_order(layout)
    np.testing.assert_array_equal(rows, [1, 7, 2, 8, 3, 4])


@few_examples
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3 * LANES))
def test_every_row_has_one_place_and_steps_follow_one_another(lengths):
    layout = end_to_end(lengths)
    rows, begins = in_lane_order(layout)
    np.testing.assert_array_equal(np.sort(rows), np.arange(sum(lengths)))
    assert len(begins) == -(-len(lengths) // LANES) + 1
    assert begins[-1] == len(rows)
    run = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(len(rows)) - layout.starts[run]
    for first, stop in pairwise(begins):
        group = rows[first:stop]
        assert len(np.unique(run[group])) <= LANES
        assert (np.diff(step[group]) >= 0).all()
        # of a run that goes on, the lane stays the same
        lanes = np.concatenate([np.arange(n) for n in np.bincount(step[group])])
        for r in np.unique(run[group]):
            assert len(np.unique(lanes[run[group] == r])) == 1
