"""Chains that some transitions are closed to, in probability space and out of it.

However small the probabilities that matter are, results are those of log space, and runs are only
done in log space where that is needed.
"""

import numpy as np
import pytest
from exact import Problem, log_space, random_problem, runs, with_unreachable_state

from bayesphase.model.forward_backward import (
    forward,
    forward_backward,
    gather,
    most_rows,
    new_group,
    weigh,
)
from bayesphase.model.lanes import end_to_end
from bayesphase.model.leave_one_out import leave_one_out
from bayesphase.model.potentials import scaled
from bayesphase.model.simd import LANES, kernel


@kernel
def _filtered(log_emission, log_transition, log_initial, layout):
    """Log-likelihoods by the fast recursion alone, NaN where it hands the run over."""
    log_likelihood = np.empty(layout.lengths.shape[0])
    potentials = scaled(log_transition, log_initial)
    group = new_group(log_initial.shape[0], most_rows(layout))
    for index in range((log_likelihood.shape[0] + LANES - 1) // LANES):
        n = gather(index, log_emission, layout, group)
        weigh(group, n)
        forward(index, group, potentials, layout, log_likelihood)
    return log_likelihood


def _log(probs):
    with np.errstate(divide="ignore"):
        return np.log(probs)


def left_to_right(n_states, *, stay=0.95, skip=False):
    """Log-potentials that start in the first state and never go back."""
    steps = np.triu(np.ones((n_states, n_states)), 1)
    steps = steps if skip else np.tril(steps, 1)
    steps *= (1.0 - stay) / np.maximum(steps.sum(axis=1, keepdims=True), 1.0)
    probs = steps + np.diag(1.0 - steps.sum(axis=1))
    return _log(probs)[None], _log(np.eye(n_states)[0])


def phases(rng, paths, *, distance, n_features=14):
    """Log-emission (row, state) of normal features whose means are `distance` apart."""
    state = np.concatenate(paths)
    n_states = state.max() + 1
    means = distance * rng.normal(size=(n_states, n_features))
    y = means[state] + rng.normal(size=(len(state), n_features))
    return -0.5 * ((y[:, None] - means) ** 2).sum(axis=-1)


def _assert_as_in_log_space(problem):
    found = forward_backward(*problem)
    for r, (run, start) in enumerate(zip(runs(problem), problem.layout.starts, strict=True)):
        log_likelihood, state_probs, expected = log_space(run)
        assert found.log_likelihood[r] == pytest.approx(log_likelihood, rel=1e-12)
        own = found.state_probs[start : start + len(state_probs)]
        np.testing.assert_allclose(own, state_probs, atol=1e-9)
        np.testing.assert_allclose(found.expected_transitions[r], expected, atol=1e-8)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("distance", [0.1, 1.0, 10.0, 100.0])
def test_phases_however_far_apart_need_no_log_space(distance, skip):
    """States lie up to 100,000 nats apart here."""
    rng = np.random.default_rng(1)
    paths = [np.repeat(np.arange(4), lengths) for lengths in rng.integers(5, 60, (11, 4))]
    problem = Problem(
        phases(rng, paths, distance=distance),
        *left_to_right(4, skip=skip),
        end_to_end([len(path) for path in paths]),
    )
    assert np.isfinite(_filtered(*problem)).all()
    _assert_as_in_log_space(problem)


@pytest.mark.parametrize("size", [1.0, 30.0, 300.0])
@pytest.mark.parametrize("skip", [False, True])
def test_features_that_do_not_follow_the_phases(size, skip):
    """Log-emissions at random, so that every filter is wrong and every smoother undoes it."""
    rng = np.random.default_rng(2)
    lengths = [150, 3, 80, 40]
    problem = Problem(
        size * rng.normal(size=(sum(lengths), 4)), *left_to_right(4, skip=skip), end_to_end(lengths)
    )
    _assert_as_in_log_space(problem)


@pytest.mark.parametrize("back", [-40.0, -35.0, -1.0, 0.0, 1.0, 40.0])
def test_a_filter_that_is_sure_and_wrong(back):
    """One row says that state 0 was left, and later ones, more or less, that it was not.

    Whatever the first says, in nats, and at most 40 more are left to those that follow.
    """
    says = np.arange(20.0, 800.0, 13.0)
    log_emission = np.zeros((len(says), 9, 2))
    log_emission[:, 2, 1] = says
    log_emission[:, 4:8, 0] = (says[:, None] + back) / 4
    problem = Problem(log_emission.reshape(-1, 2), *left_to_right(2), end_to_end([9] * len(says)))
    filtered = _filtered(*problem)
    assert np.isfinite(filtered[says < 250.0]).all()
    if back >= 0.0:  # what was lost is most of what there is
        assert np.isnan(filtered[says > 400.0]).all()
    kept = np.isfinite(filtered)
    exact = [log_space(run)[0] for run in runs(problem)]
    np.testing.assert_allclose(filtered[kept], np.array(exact)[kept], rtol=1e-13)
    _assert_as_in_log_space(problem)


@pytest.mark.parametrize("rare", [1e-310, 1e-160, 1e-140, 1e-70, 1e-50])
def test_a_detour_through_a_way_that_is_nearly_closed(rare):
    """The only way to the end leads through a transition of the given probability, or worse."""
    probs = np.array([[1.0, rare, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    log_emission = np.zeros((3, 12, 3))
    log_emission[0, 6:, 2] = 200.0
    log_emission[1, 6:, 2] = 20.0
    log_emission[2, 3, :2] = -400.0
    problem = Problem(
        log_emission.reshape(-1, 3), _log(probs)[None], _log(np.eye(3)[0]), end_to_end([12] * 3)
    )
    _assert_as_in_log_space(problem)


def test_long_runs_on_a_ring():
    """Rounding and doubt do not add up: two of three states may follow each."""
    rng = np.random.default_rng(3)
    probs = 0.9 * np.eye(3) + 0.1 * np.roll(np.eye(3), 1, axis=1)
    n = 20_000
    for size in (0.5, 3.0, 30.0):
        path = np.cumsum(rng.random(n) < 0.1) % 3
        emission = size * (rng.normal(size=(n, 3)) + np.eye(3)[path])
        problem = Problem(emission, _log(probs)[None], _log(np.ones(3) / 3), end_to_end([n]))
        found, exact = (
            forward_backward(*problem),
            forward_backward(*with_unreachable_state(problem)),
        )
        assert np.isfinite(_filtered(*problem)).all() or size == 30.0
        np.testing.assert_allclose(found.log_likelihood, exact.log_likelihood, rtol=1e-12)
        np.testing.assert_allclose(found.state_probs, exact.state_probs[:, :3], atol=1e-9)
        np.testing.assert_allclose(
            found.expected_transitions, exact.expected_transitions[:, :, :3, :3], atol=1e-7
        )


def _without_each(problem):
    """Log density of every row given the others, by leaving each out."""
    whole = log_space(problem)[0]
    out = []
    for row in range(len(problem.log_emission)):
        emission = problem.log_emission.copy()
        emission[row] = 0.0
        out.append(whole - log_space(problem._replace(log_emission=emission))[0])
    return out


@pytest.mark.parametrize("back", [-100.0, 0.0, 380.0, 390.0, 395.0])
def test_a_row_left_out_that_alone_spoke_against_a_state(back):
    """Two rows rule state 0 out, and either would be outdone by what follows."""
    log_emission = np.zeros((12, 2))
    log_emission[2, 0], log_emission[5, 0] = -400.0, -300.0
    log_emission[8, 0] = back
    problem = Problem(log_emission, *left_to_right(2), end_to_end([12]))
    np.testing.assert_allclose(leave_one_out(*problem), _without_each(problem), atol=1e-9)


@pytest.mark.parametrize("size", [1.0, 100.0])
def test_leaving_rows_out_of_phases(size):
    problem = random_problem(np.random.default_rng(4), n_states=3, lengths=[30], size=size)
    problem = problem._replace(log_transition=left_to_right(3)[0], log_initial=left_to_right(3)[1])
    np.testing.assert_allclose(leave_one_out(*problem), _without_each(problem), atol=1e-9)
