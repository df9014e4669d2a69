"""Leave-one-out densities: the likelihood of the run over that without the row's observation."""

import numpy as np
import pytest
from exact import few_examples, random_problem, runs, with_unreachable_state
from hypothesis import given
from test_forward_backward import SMALL, in_both_spaces, problems

from bayesphase.model.forward_backward import forward_backward
from bayesphase.model.leave_one_out import leave_one_out


def one_by_one(problem):
    """Leave out every row in turn: an observation that is missing is a 0 in `log_emission`."""
    densities = []
    for run in runs(problem):
        whole = forward_backward(*run).log_likelihood[0]
        for row in range(len(run.log_emission)):
            without = run.log_emission.copy()
            without[row] = 0.0
            rest = forward_backward(*run._replace(log_emission=without)).log_likelihood[0]
            densities.append(whole - rest)
    return np.array(densities)


@in_both_spaces
@pytest.mark.parametrize("kind", SMALL)
def test_equals_leaving_out_each_row(kind, posed):
    problem = random_problem(np.random.default_rng(1), **kind)
    np.testing.assert_allclose(leave_one_out(*posed(problem)), one_by_one(problem), atol=1e-10)


@few_examples
@given(problem=problems())
def test_equals_leaving_out_each_row_of_any_problem(problem):
    np.testing.assert_allclose(leave_one_out(*problem), one_by_one(problem), rtol=1e-9, atol=1e-9)


def test_a_row_far_out_under_the_state_that_its_neighbours_are_sure_of():
    """Its density is that of the unlikely observation, however well another state explains it."""
    log_emission = np.zeros((9, 2))
    log_emission[:, 1] = -2000.0
    log_emission[4] = [-1500.0, 0.0]
    stay = np.log([[[1 - 1e-12, 1e-12], [1e-12, 1 - 1e-12]]])
    problem = random_problem(np.random.default_rng(0), n_states=2, lengths=[9])
    problem = problem._replace(
        log_emission=log_emission, log_transition=stay, log_initial=np.log([0.5, 0.5])
    )
    # through the other state for one step: two switches
    np.testing.assert_allclose(leave_one_out(*problem)[4], 2 * np.log(1e-12), rtol=1e-6)
    np.testing.assert_allclose(leave_one_out(*problem), one_by_one(problem), atol=1e-9)


def test_undefined_runs_have_no_densities():
    problem = random_problem(np.random.default_rng(2), n_states=3, lengths=[6, 5])
    alone = leave_one_out(*list(runs(problem))[1])
    problem.log_emission[2] = np.nan
    out = leave_one_out(*problem)
    assert np.isnan(out[:6]).all()
    np.testing.assert_array_equal(out[6:], alone)


def test_the_two_spaces_agree_on_long_runs():
    problem = random_problem(np.random.default_rng(3), n_states=3, lengths=[400, 300, 300])
    np.testing.assert_allclose(
        leave_one_out(*problem), leave_one_out(*with_unreachable_state(problem)), atol=1e-10
    )
