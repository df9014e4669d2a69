import numpy as np
import pytest
import xarray as xr
from test_rows import grid

from bayesphase.model.known import aligned
from bayesphase.model.spec import specify
from bayesphase.model.transitions import LeftToRight, Sticky


def small():
    values = np.random.default_rng(1).normal(size=(2, 5, 2))
    values[1, 2] = np.nan
    return grid(values)


def labels(values, *, run=("r0", "r1"), step=(0, 10, 20, 30, 40)):
    coords = {"run": list(run), "step": list(step)}
    return xr.DataArray(np.asarray(values), dims=("run", "step"), coords=coords)


def spec_of(known, structure=None, n_states=3):
    return specify(
        small(),
        n_states,
        emission="gaussian",
        transition=structure or Sticky(),
        priors=None,
        known_states=known,
    )


def test_labels_may_cover_a_part_in_any_order_and_form():
    part = labels([[np.nan, 2.0], [1.0, -1.0]], run=["r1", "r0"], step=[30, 40])
    found = aligned(part.transpose("step", "run"), small(), 3)
    assert found.dims == ("run", "step")
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, [[-1, -1, -1, 1, -1], [-1, -1, -1, -1, 2]])


def test_only_unknown_states_can_be_renumbered():
    known = labels(np.full((2, 5), -1))
    assert spec_of(known).transition.exchangeable(3).all()
    known[0, 3] = 1
    np.testing.assert_array_equal(spec_of(known).transition.exchangeable(3), [True, False, True])
    assert not spec_of(known, LeftToRight()).transition.exchangeable(3).any()


def test_matrices_are_as_many_as_kinds_of_knowledge():
    known = labels([[0, -1, -1, 1, -1], [-1, -1, -1, -1, 2]])
    rows = spec_of(known).rows
    # out of state 0, into any, into 1, into 2
    assert rows.layout.gap_index.max() == 3
    assert len(np.unique(rows.layout.gap_index[[1, 3, 8]])) == 3
    np.testing.assert_array_equal(rows.layout.gap_index[[2, 4, 6, 7]], rows.layout.gap_index[2])


BAD = {
    "array": (np.zeros((2, 5), int), TypeError, "must be an xarray.DataArray .* got ndarray"),
    "dims": (labels(np.zeros((2, 5), int)).rename(run="seed"), ValueError, r"dims \(run, step\)"),
    "no labels": (
        labels(np.zeros((2, 5), int)).drop_vars("run"),
        ValueError,
        "known_states has no coordinate 'run'",
    ),
    "twice": (
        labels(np.zeros((2, 5), int), run=["r0", "r0"]),
        ValueError,
        r"run labels that occur twice: \['r0'\]",
    ),
    "another run": (
        labels(np.zeros((2, 5), int), run=["r0", "seed 7"]),
        ValueError,
        r"run labels that the features do not have: \['seed 7'\]",
    ),
    "another step": (
        labels(np.zeros((2, 5), int), step=[0, 10, 20, 30, 41]),
        ValueError,
        r"step labels that the features do not have: \[41\]",
    ),
    "no state": (
        labels([[3, -2, 0, 1, 2], [-1] * 5]),
        ValueError,
        r"must lie between 0 and 2, or be -1 .* got \[-2, 3\]",
    ),
    "fraction": (labels(np.full((2, 5), 0.5)), TypeError, r"whole numbers, got \[0.5"),
    "truth": (labels(np.zeros((2, 5), bool)), TypeError, "numbers of states, got dtype bool"),
    "text": (labels(np.full((2, 5), "a")), TypeError, "numbers of states, got dtype <U1"),
    "no checkpoint": (
        labels([[-1] * 5, [-1, -1, 1, -1, -1]]),
        ValueError,
        "run r1 is in state 1 at step 20, where it has no checkpoint; put -1 there",
    ),
}


@pytest.mark.parametrize(("known", "error", "message"), BAD.values(), ids=BAD)
def test_labels_that_can_not_be_used(known, error, message):
    with pytest.raises(error, match=message):
        spec_of(known)


def test_labels_that_contradict_the_transitions():
    known = labels([[-1] * 5, [-1, 1, -1, -1, 0]])
    message = "run r1 is in state 0 at step 40, which the transitions do not allow"
    with pytest.raises(ValueError, match=message):
        spec_of(known, LeftToRight(skip=True))
    known = labels([[-1, 2, -1, -1, -1], [-1] * 5])
    message = "run r0 is in state 2 at step 10, which the transitions do not allow"
    with pytest.raises(ValueError, match=message):
        spec_of(known, LeftToRight())  # from 0 in one step
    spec_of(known, LeftToRight(skip=True))
