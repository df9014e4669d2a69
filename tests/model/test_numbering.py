import numpy as np
import pytest
from test_known import labels, small, spec_of
from test_rows import grid

from bayesphase.model.numbering import numbered
from bayesphase.model.rows import rows_of
from bayesphase.model.transitions import ContinuousTime, LeftToRight, Sticky


def in_order(structure, n_states, path, rng):
    """Number the parts of a path that go by random names."""
    rows = rows_of(grid(rng.normal(size=(1, len(path), 1))))
    chain, rows = structure.laid_out(rows, n_states)
    return numbered(rng.permutation(n_states)[path], rows, chain, n_states)


@pytest.mark.parametrize("n_states", [2, 4, 8])
@pytest.mark.parametrize("skip", [False, True])
def test_phases_are_numbered_in_the_order_of_time(n_states, skip):
    path = np.repeat(np.arange(n_states), 5)
    for seed in range(5):
        found = in_order(LeftToRight(skip=skip), n_states, path, np.random.default_rng(seed))
        np.testing.assert_array_equal(found, path)


def test_a_cycle_is_numbered_as_its_mask_says():
    """0 to 2 to 1 to 0, the only order allowed, from whichever state the run starts in."""
    mask = [[True, False, True], [True, True, False], [False, True, True]]
    path = np.tile(np.repeat([0, 2, 1], 4), 4)
    for seed in range(5):
        found = in_order(Sticky(allowed=mask), 3, path, np.random.default_rng(seed))
        follows = np.array(mask)[found[:-1], found[1:]]
        assert follows.all()


@pytest.mark.parametrize("structure", [Sticky(), ContinuousTime()])
def test_names_that_mean_nothing_are_left_as_they_are(structure):
    rows = rows_of(grid(np.random.default_rng(1).normal(size=(1, 6, 1))))
    chain, rows = structure.laid_out(rows, 3)
    states = np.array([2, 2, 0, 0, 1, 2])
    np.testing.assert_array_equal(numbered(states, rows, chain, 3), states)


def test_known_states_name_the_parts_that_they_lie_in():
    known = labels([[1, -1, -1, 0, 0], [-1] * 5])
    spec = spec_of(known, n_states=2)
    path = np.array([0, 0, 1, 1, 1, 0, 0, 1, 1])
    found = numbered(path, spec.rows, spec.transition, 2)
    np.testing.assert_array_equal(found, 1 - path)
    assert small().sizes["run"] == 2
    # and are right where the partition is not
    found = numbered(np.array([0, 0, 1, 0, 1, 0, 0, 1, 1]), spec.rows, spec.transition, 2)
    np.testing.assert_array_equal(found[[0, 3, 4]], [1, 0, 0])
