import numpy as np
import pytest
from exact import few_examples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bayesphase.model.relabel import permutations, rename

STARTS = np.array([0, 40])
TRUTH = np.repeat([0, 1, 2, 0, 2], [15, 15, 10, 20, 20])


def draws_around(rng, truth, *, n_draws=50, n_states=3, noise=0.1):
    """Paths that leave the truth at random rows, and the same with every draw's own numbers."""
    paths = np.tile(truth, (n_draws, 1))
    flipped = rng.random(paths.shape) < noise
    paths[flipped] = rng.integers(n_states, size=flipped.sum())
    numbers = np.stack([rng.permutation(n_states) for _ in range(n_draws)])
    own = np.take_along_axis(numbers, paths, axis=1)
    return paths.astype(np.int8), own.astype(np.int8), numbers


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.4])
def test_a_planted_permutation_per_draw_is_found(noise):
    paths, own, numbers = draws_around(np.random.default_rng(1), TRUTH, noise=noise)
    order, ambiguity = permutations(own, 3, STARTS)
    np.testing.assert_array_equal(order, numbers)
    np.testing.assert_array_equal(rename(own, order), paths)
    assert rename(own, order).dtype == np.int8
    assert ((ambiguity >= 0) & (ambiguity < 1)).all()


def test_states_are_numbered_in_the_order_of_first_entry():
    """By the share of the run that had passed, averaged over the runs that enter a state."""
    paths = np.array([[2] * 3 + [0] * 7 + [2] * 10 + [1] * 6 + [0] * 4], np.int8)
    order, _ = permutations(paths, 3, np.array([0, 10]))
    # entries: state 2 at 0 and 0, state 0 at 0.3 and 0.8, state 1 at 0.5
    np.testing.assert_array_equal(order, [[2, 1, 0]])


def test_a_state_that_is_never_entered_comes_last():
    paths, own, _ = draws_around(np.random.default_rng(2), TRUTH, noise=0.0)
    numbers = np.stack([np.random.default_rng(i).permutation(4) for i in range(len(paths))])
    own = np.take_along_axis(numbers, paths.astype(int), axis=1).astype(np.int8)
    order, ambiguity = permutations(own, 4, STARTS)
    np.testing.assert_array_equal(order, numbers)
    np.testing.assert_array_equal(ambiguity, 0.0)


def test_two_states_that_are_never_entered_can_not_be_told_apart():
    paths, _, _ = draws_around(np.random.default_rng(3), TRUTH, noise=0.0)
    order, ambiguity = permutations(paths, 5, STARTS)
    np.testing.assert_array_equal(rename(paths, order), paths)
    np.testing.assert_array_equal(ambiguity, 1.0)


def test_crisp_paths_are_not_ambiguous():
    _, own, _ = draws_around(np.random.default_rng(4), TRUTH, noise=0.0)
    np.testing.assert_array_equal(permutations(own, 3, STARTS)[1], 0.0)


def test_ambiguity_counts_what_would_match_after_the_best_swap():
    paths = np.tile(np.repeat([0, 1, 2], [5, 5, 4]), (9, 1)).astype(np.int8)
    paths[0, :2], paths[0, 5:7] = 1, 0  # six of ten rows match, four would after a swap
    paths[1, 10] = 0
    ambiguity = permutations(paths, 3, np.array([0]))[1]
    # the second: one row of state 2 is in state 0, 5 + 3 match, 1 would after a swap
    np.testing.assert_allclose(ambiguity, [4 / 6, 1 / 8, 0, 0, 0, 0, 0, 0, 0])


def test_an_outlier_in_the_middle_does_not_set_the_names():
    """The middle draw is the first pivot only: the others settle what is called what."""
    typical = np.repeat([0, 1, 2], [5, 5, 10])
    paths = np.tile(typical, (9, 1)).astype(np.int8)
    paths[4] = np.repeat([1, 0, 2], [4, 6, 10])
    order, ambiguity = permutations(paths, 3, np.array([0]))
    np.testing.assert_array_equal(_mode(rename(paths, order)), typical)
    assert ambiguity[4] == pytest.approx(1 / 9)


def _mode(paths):
    return np.array([np.bincount(column).argmax() for column in paths.T])


def test_a_single_state():
    order, ambiguity = permutations(np.zeros((4, 10), np.int8), 1, np.array([0]))
    np.testing.assert_array_equal(order, np.zeros((4, 1)))
    np.testing.assert_array_equal(ambiguity, 0.0)


@st.composite
def noisy_draws(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    # every state has its own number of rows: ties are broken by number, which is not invariant
    truth = np.repeat([0, 1, 2, 0, 2], [15, 11, 10, 20, 24])
    noise = draw(st.sampled_from([0.0, 0.02, 0.1]))
    return draws_around(rng, truth, n_draws=draw(st.integers(15, 30)), noise=noise)


@few_examples
@given(drawn=noisy_draws())
def test_relabelling_twice_changes_nothing(drawn):
    once = rename(drawn[1], permutations(drawn[1], 3, STARTS)[0])
    order, _ = permutations(once, 3, STARTS)
    np.testing.assert_array_equal(order, np.tile(np.arange(3), (len(once), 1)))


@few_examples
@given(drawn=noisy_draws())
def test_numbers_that_draws_come_with_do_not_matter(drawn):
    paths, own, _ = drawn
    one, other = permutations(paths, 3, STARTS), permutations(own, 3, STARTS)
    np.testing.assert_array_equal(rename(own, other[0]), rename(paths, one[0]))
    np.testing.assert_array_equal(other[1], one[1])


@few_examples
@given(
    paths=hnp.arrays(np.int8, st.tuples(st.integers(1, 8), st.just(12)), elements=st.integers(0, 3))
)
def test_any_paths_at_all(paths):
    order, ambiguity = permutations(paths, 4, np.array([0, 5]))
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(4), (len(paths), 1)))
    renamed = rename(paths, order)
    np.testing.assert_array_equal(np.take_along_axis(order, renamed.astype(int), axis=1), paths)
    assert ((ambiguity >= 0) & (ambiguity <= 1)).all()


def test_only_free_states_are_renumbered():
    """State 1 keeps its number; 0 and 2 are matched, and numbered by entry, among themselves."""
    truth = np.repeat([1, 2, 0, 1], [10, 8, 7, 5])
    paths = np.stack([truth, np.array([2, 1, 0])[truth], truth]).astype(np.int8)
    free = np.array([True, False, True])
    order, ambiguity = permutations(paths, 3, np.array([0]), free=free)
    np.testing.assert_array_equal(order[:, 1], 1)
    np.testing.assert_array_equal(rename(paths, order), np.tile(np.array([2, 1, 0])[truth], (3, 1)))
    np.testing.assert_array_equal(ambiguity, 0.0)


@pytest.mark.parametrize("free", [[False] * 3, [False, True, False]])
def test_nothing_is_renumbered_where_nothing_is_free(free):
    paths = np.array([[2, 2, 0, 1], [0, 0, 1, 2]], np.int8)
    order, ambiguity = permutations(paths, 3, np.array([0]), free=np.array(free))
    np.testing.assert_array_equal(order, [[0, 1, 2], [0, 1, 2]])
    np.testing.assert_array_equal(ambiguity, 0.0)
