import numpy as np
import pytest
from exact import (
    Problem,
    enumerate_run,
    few_examples,
    log_space,
    random_problem,
    runs,
    with_unreachable_state,
)
from hmmlearn.hmm import GaussianHMM
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from bayesphase.model.decoding import sample_paths, viterbi
from bayesphase.model.forward_backward import forward_backward
from bayesphase.model.lanes import end_to_end, lay_out

EXACT = {"rtol": 1e-10, "atol": 1e-10}
SMALL = [
    {"n_states": 1, "lengths": [5]},
    {"n_states": 2, "lengths": [7]},
    {"n_states": 3, "lengths": [1, 6, 2], "n_gaps": 2},
    {"n_states": 4, "lengths": [7, 3], "n_gaps": 3},
    {"n_states": 4, "lengths": [5, 5, 1], "missing": 0.7},
    {"n_states": 3, "lengths": [6, 4], "n_gaps": 2, "size": 60.0},
]
in_both_spaces = pytest.mark.parametrize(
    "posed", [lambda problem: problem, with_unreachable_state], ids=["scaled", "log"]
)


@st.composite
def problems(draw):
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    return random_problem(
        np.random.default_rng(draw(st.integers(0, 2**32))),
        n_states=draw(st.integers(1, 4)),
        lengths=lengths,
        n_gaps=draw(st.integers(1, 3)),
        size=draw(st.sampled_from([0.1, 3.0, 300.0])),
    )


@in_both_spaces
@pytest.mark.parametrize("kind", SMALL)
def test_equals_the_sum_over_all_paths(kind, posed):
    problem = random_problem(np.random.default_rng(1), **kind)
    n = kind["n_states"]
    result = forward_backward(*posed(problem))
    truth = [enumerate_run(run) for run in runs(problem)]
    np.testing.assert_allclose(result.log_likelihood, [t.log_likelihood for t in truth], **EXACT)
    np.testing.assert_allclose(
        result.state_probs[:, :n], np.concatenate([t.state_probs for t in truth]), **EXACT
    )
    np.testing.assert_allclose(
        result.expected_transitions[:, :, :n, :n], [t.expected_transitions for t in truth], **EXACT
    )
    assert not result.state_probs[:, n:].any()
    assert not result.expected_transitions[..., n:].any()
    assert not result.expected_transitions[:, :, n:].any()


def test_gradient_equals_finite_differences():
    problem = random_problem(np.random.default_rng(2), n_states=3, lengths=[5, 4], n_gaps=2)
    result = forward_backward(*problem)
    first_states = result.state_probs[problem.layout.starts].sum(axis=0)
    gradients = result.state_probs, result.expected_transitions.sum(axis=0), first_states
    h = 1e-5
    for position, gradient in enumerate(gradients):
        for index in np.ndindex(gradient.shape):
            ends = []
            for sign in (-1, 1):
                moved = [x.copy() for x in problem[:3]]
                moved[position][index] += sign * h
                ends.append(forward_backward(*moved, problem.layout).log_likelihood.sum())
            assert (ends[1] - ends[0]) / (2 * h) == pytest.approx(gradient[index], abs=1e-8)


def hmmlearn_pair(rng, n_states, lengths):
    """One model as hmmlearn has it and as we do, on the same observations."""
    peer = GaussianHMM(n_states, covariance_type="diag", init_params="")
    peer.startprob_ = rng.dirichlet(np.ones(n_states))
    peer.transmat_ = rng.dirichlet(np.ones(n_states) + 5 * np.eye(n_states)[0], n_states)
    peer.means_ = rng.normal(size=(n_states, 2))
    peer.covars_ = rng.uniform(0.3, 2.0, (n_states, 2))
    x = rng.normal(size=(sum(lengths), 2))
    problem = Problem(
        peer._compute_log_likelihood(x),
        np.log(peer.transmat_)[None],
        np.log(peer.startprob_),
        end_to_end(lengths),
    )
    return peer, x, problem


@pytest.mark.parametrize("lengths", [[500], [200, 1, 299]])
def test_agrees_with_hmmlearn(lengths):
    peer, x, problem = hmmlearn_pair(np.random.default_rng(3), 5, lengths)
    score, posteriors = peer.score_samples(x, lengths)
    result = forward_backward(*problem)
    assert result.log_likelihood.sum() == pytest.approx(score, rel=1e-12)
    np.testing.assert_allclose(result.state_probs, posteriors, **EXACT)
    np.testing.assert_array_equal(viterbi(*problem), peer.decode(x, lengths)[1])


@in_both_spaces
def test_a_hundred_thousand_steps(posed):
    peer, x, problem = hmmlearn_pair(np.random.default_rng(4), 4, [100_000])
    score, posteriors = peer.score_samples(x)
    result = forward_backward(*posed(problem))
    assert result.log_likelihood[0] == pytest.approx(score, rel=1e-12)
    np.testing.assert_allclose(result.state_probs[:, :4], posteriors, rtol=1e-7, atol=1e-9)
    assert result.expected_transitions.sum() == pytest.approx(99_999, rel=1e-10)
    states, log_likelihood = sample_paths(*posed(problem), rng=np.random.default_rng(0))
    assert log_likelihood[0] == result.log_likelihood[0]
    assert np.mean(states[:, None] == np.arange(4)) == 0.25  # every row has one of the states
    assert not np.diff(viterbi(*posed(problem)) - viterbi(*problem)).any()


@pytest.mark.parametrize("size", [1e3, 1e5])
@pytest.mark.parametrize("offset", [-1e5, 0.0, 1e5])
def test_log_densities_of_any_size(size, offset):
    rng = np.random.default_rng(5)
    problem = random_problem(rng, n_states=3, lengths=[400], n_gaps=2)
    problem = problem._replace(log_emission=offset + size * rng.uniform(-1, 1, (400, 3)))
    log_likelihood, state_probs, expected = log_space(problem)
    result = forward_backward(*problem)
    np.testing.assert_allclose(result.log_likelihood, [log_likelihood], rtol=1e-12)
    np.testing.assert_allclose(result.state_probs, state_probs, atol=1e-7)
    np.testing.assert_allclose(result.expected_transitions[0], expected, atol=1e-6)


def test_a_sharp_step_that_a_smoother_must_undo():
    """The filter is sure of a state by 2100 nats, and later steps say that it was another."""
    log_emission = np.zeros((6, 2))
    log_emission[:3, 0], log_emission[3:, 1] = 700.0, 900.0
    stay = np.array([[[0.0, -3000.0], [-np.inf, 0.0]]])
    problem = Problem(log_emission, stay, np.zeros(2), end_to_end([6]))
    truth = enumerate_run(problem)
    result = forward_backward(*problem)
    assert truth.state_probs[0, 1] > 0.99  # or the case is not the one meant
    np.testing.assert_allclose(result.log_likelihood, [truth.log_likelihood], rtol=1e-14)
    np.testing.assert_allclose(result.state_probs, truth.state_probs, **EXACT)
    np.testing.assert_allclose(result.expected_transitions[0], truth.expected_transitions, **EXACT)
    np.testing.assert_array_equal(viterbi(*problem), truth.paths[truth.path_probs.argmax()])


@pytest.mark.parametrize("tiny", [0.0, 5e-324, 1e-320, 1e-300, 1e-101, 1e-99, 1e-16])
def test_transitions_at_the_edge_of_the_simplex(tiny):
    rng = np.random.default_rng(6)
    transition = np.array([[1 - tiny, tiny, 0.0], [tiny, 1 - 2 * tiny, tiny], [0.0, tiny, 1.0]])
    with np.errstate(divide="ignore"):
        log_transition, log_initial = np.log(transition)[None], np.log([1.0 - tiny, tiny, 0.0])
    problem = Problem(20 * rng.normal(size=(6, 3)), log_transition, log_initial, end_to_end([6]))
    truth = enumerate_run(problem)
    result = forward_backward(*problem)
    np.testing.assert_allclose(result.log_likelihood, [truth.log_likelihood], **EXACT)
    np.testing.assert_allclose(result.state_probs, truth.state_probs, **EXACT)
    np.testing.assert_allclose(result.expected_transitions[0], truth.expected_transitions, **EXACT)
    np.testing.assert_array_equal(viterbi(*problem), truth.paths[truth.path_probs.argmax()])


@pytest.mark.parametrize("rare", [-100.0, -229.0, -231.0, -700.0, -740.25, -800.0, -1e6])
@pytest.mark.parametrize("place", ["transition", "initial"])
def test_a_way_that_is_all_but_closed_and_must_be_taken(rare, place):
    """Near exp(-740) doubles have a few bits left, too few for the probability of a switch."""
    log_emission = np.array([[0.0, -np.inf], [-1e7, 1.25], [0.0, 0.5]])
    potentials = np.array([[[0.0, rare], [-1.0, -0.5]]]), np.array([0.0, -5.0])
    if place == "initial":
        log_emission = log_emission[1:]
        potentials = potentials[0], np.array([0.0, rare])
    problem = Problem(log_emission, *potentials, end_to_end([len(log_emission)]))
    truth, result = enumerate_run(problem), forward_backward(*problem)
    np.testing.assert_allclose(result.log_likelihood, [truth.log_likelihood], rtol=1e-14)
    np.testing.assert_allclose(result.state_probs, truth.state_probs, **EXACT)
    np.testing.assert_allclose(result.expected_transitions[0], truth.expected_transitions, **EXACT)


def test_emissions_of_minus_infinity_rule_paths_out():
    problem = random_problem(np.random.default_rng(7), n_states=3, lengths=[6, 5])
    problem.log_emission[2, 0] = problem.log_emission[7, 1:] = -np.inf
    result = forward_backward(*problem)
    truth = [enumerate_run(run) for run in runs(problem)]
    np.testing.assert_allclose(result.log_likelihood, [t.log_likelihood for t in truth], **EXACT)
    np.testing.assert_allclose(
        result.state_probs, np.concatenate([t.state_probs for t in truth]), **EXACT
    )
    states, _ = sample_paths(*problem, rng=np.random.default_rng(0))
    assert states[2] != 0
    assert states[7] == 0


@pytest.mark.parametrize(("broken", "value"), [(-np.inf, -np.inf), (np.nan, np.nan)])
@pytest.mark.parametrize("row", [0, 3, 5])
def test_an_impossible_or_undefined_run_leaves_the_others_alone(broken, value, row):
    problem = random_problem(np.random.default_rng(8), n_states=3, lengths=[6, 5])
    alone = forward_backward(*list(runs(problem))[1])
    problem.log_emission[row] = broken
    result = forward_backward(*problem)
    np.testing.assert_array_equal(result.log_likelihood, [value, alone.log_likelihood[0]])
    assert not result.state_probs[:6].any()
    assert not result.expected_transitions[0].any()
    np.testing.assert_array_equal(result.state_probs[6:], alone.state_probs)
    states, log_likelihood = sample_paths(*problem, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(log_likelihood, result.log_likelihood)
    for path in (states, viterbi(*problem)):
        assert (path[:6] == -1).all()
        assert (path[6:] >= 0).all()


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_a_single_nan_gives_nan(argument):
    problem = random_problem(np.random.default_rng(9), n_states=3, lengths=[6])
    problem[argument].flat[1] = np.nan
    result = forward_backward(*problem)
    assert np.isnan(result.log_likelihood).all()
    assert not result.state_probs.any()


def test_initial_states_that_contradict_the_transitions_are_impossible():
    with np.errstate(divide="ignore"):
        potentials = np.zeros((3, 2)), np.log(np.eye(2)[None]), np.log([1.0, 0.0])
    potentials[0][2, 0] = -np.inf  # no way from state 0 to state 1
    result = forward_backward(*potentials, end_to_end([3]))
    assert result.log_likelihood[0] == -np.inf
    assert not result.state_probs.any()


def test_a_state_never_visited_gets_no_weight():
    problem = random_problem(np.random.default_rng(10), n_states=3, lengths=[50], missing=0.0)
    problem.log_emission[:, 1] -= 1e4
    result = forward_backward(*problem)
    kept = [0, 2]
    without = forward_backward(
        problem.log_emission[:, kept],
        problem.log_transition[:, kept][:, :, kept],
        problem.log_initial[kept],
        problem.layout,
    )
    np.testing.assert_allclose(result.log_likelihood, without.log_likelihood, **EXACT)
    np.testing.assert_allclose(result.state_probs[:, kept], without.state_probs, **EXACT)
    assert not result.state_probs[:, 1].any()


def test_rows_of_no_run_are_never_looked_at():
    rng = np.random.default_rng(11)
    problem = random_problem(rng, n_states=3, lengths=[4, 2], n_gaps=2)
    grid, gaps = np.full((10, 3), np.nan), np.ones(10, np.int64)
    grid[:4], grid[5:7] = problem.log_emission[:4], problem.log_emission[4:]
    gaps[:4], gaps[5:7] = problem.layout.gap_index[:4], problem.layout.gap_index[4:]
    padded = problem._replace(
        log_emission=grid, layout=lay_out([0, 5], problem.layout.lengths, gaps)
    )
    result, expected = forward_backward(*padded), forward_backward(*problem)
    np.testing.assert_array_equal(result.log_likelihood, expected.log_likelihood)
    np.testing.assert_array_equal(result.expected_transitions, expected.expected_transitions)
    np.testing.assert_array_equal(result.state_probs[[0, 1, 2, 3, 5, 6]], expected.state_probs)
    assert not result.state_probs[[4, 7, 8, 9]].any()
    np.testing.assert_array_equal(viterbi(*padded)[[4, 7, 8, 9]], -1)
    np.testing.assert_array_equal(viterbi(*padded)[[0, 1, 2, 3, 5, 6]], viterbi(*problem))


@in_both_spaces
@pytest.mark.parametrize("kind", SMALL[1:])
def test_viterbi_is_the_best_of_all_paths(kind, posed):
    problem = random_problem(np.random.default_rng(12), **kind)
    best = [t.paths[t.path_probs.argmax()] for t in map(enumerate_run, runs(problem))]
    np.testing.assert_array_equal(viterbi(*posed(problem)), np.concatenate(best))


@in_both_spaces
def test_sampled_paths_have_the_posterior_frequencies(posed):
    """Whole paths are counted: right frequencies of single states would not be enough."""
    problem = random_problem(
        np.random.default_rng(13), n_states=2, lengths=[4, 3], n_gaps=2, size=0.7
    )
    rng, n_draws = np.random.default_rng(14), 20_000
    draws = np.array([sample_paths(*posed(problem), rng=rng)[0] for _ in range(n_draws)])
    truth = [enumerate_run(run) for run in runs(problem)]
    # runs are independent: count the pair of paths
    probs = np.outer(truth[0].path_probs, truth[1].path_probs).ravel()
    code = draws @ 2 ** np.arange(6, -1, -1)
    counts = np.bincount(code, minlength=2**7)
    assert chisquare(counts, n_draws * probs).pvalue > 0.01
    # the test has the power to tell: independent states would fail it
    marginal = np.concatenate([t.state_probs for t in truth])
    independent = np.array(
        [np.prod(marginal[range(7), [c >> s & 1 for s in range(6, -1, -1)]]) for c in range(128)]
    )
    assert chisquare(counts, n_draws * independent).pvalue < 1e-6


def test_scaled_and_log_space_draw_the_same_paths():
    problem = random_problem(np.random.default_rng(15), n_states=4, lengths=[300, 200], n_gaps=2)
    one = sample_paths(*problem, rng=np.random.default_rng(1))
    other = sample_paths(*with_unreachable_state(problem), rng=np.random.default_rng(1))
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_allclose(one[1], other[1], rtol=1e-12)


def test_sampling_is_reproducible():
    problem = random_problem(np.random.default_rng(16), n_states=3, lengths=[100])
    one, same, other = (
        sample_paths(*problem, rng=np.random.default_rng(seed))[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_arguments_that_disagree_are_refused():
    problem = random_problem(np.random.default_rng(17), n_states=3, lengths=[4, 2])
    with pytest.raises(ValueError, match="disagree in shape"):
        forward_backward(problem.log_emission[:, :2], *problem[1:])
    with pytest.raises(ValueError, match="disagree in shape"):
        forward_backward(*problem[:2], problem.log_initial[:2], problem.layout)
    with pytest.raises(ValueError, match="past the end"):
        forward_backward(*problem[:3], problem.layout._replace(lengths=np.array([4, 3])))
    with pytest.raises(ValueError, match="past the end"):
        forward_backward(*problem[:3], problem.layout._replace(gap_index=np.full(6, 1)))


@few_examples
@given(problem=problems(), seed=st.integers(0, 2**32))
def test_numbering_of_states_does_not_matter(problem, seed):
    order = np.random.default_rng(seed).permutation(len(problem.log_initial))
    renumbered = Problem(
        problem.log_emission[:, order],
        problem.log_transition[:, order][:, :, order],
        problem.log_initial[order],
        problem.layout,
    )
    one, other = forward_backward(*problem), forward_backward(*renumbered)
    np.testing.assert_allclose(other.log_likelihood, one.log_likelihood, **EXACT)
    np.testing.assert_allclose(other.state_probs, one.state_probs[:, order], **EXACT)
    np.testing.assert_allclose(
        other.expected_transitions, one.expected_transitions[:, :, order][..., order], **EXACT
    )


@few_examples
@given(problem=problems(), seed=st.integers(0, 2**32))
def test_order_of_runs_does_not_matter(problem, seed):
    gap_index, starts, lengths, _ = problem.layout
    order = np.random.default_rng(seed).permutation(len(lengths))
    rows = np.concatenate([np.arange(starts[r], starts[r] + lengths[r]) for r in order])
    moved = problem._replace(
        log_emission=problem.log_emission[rows], layout=end_to_end(lengths[order], gap_index[rows])
    )
    one, other = forward_backward(*problem), forward_backward(*moved)
    np.testing.assert_array_equal(other.log_likelihood, one.log_likelihood[order])
    np.testing.assert_array_equal(other.state_probs, one.state_probs[rows])
    np.testing.assert_array_equal(other.expected_transitions, one.expected_transitions[order])


@few_examples
@given(problem=problems(), seed=st.integers(0, 2**32))
def test_a_constant_added_to_a_row_is_added_to_the_log_likelihood(problem, seed):
    constant = 1e3 * np.random.default_rng(seed).normal(size=len(problem.log_emission))
    raised = problem._replace(log_emission=problem.log_emission + constant[:, None])
    one, other = forward_backward(*problem), forward_backward(*raised)
    added = np.add.reduceat(constant, problem.layout.starts)
    np.testing.assert_allclose(other.log_likelihood, one.log_likelihood + added, atol=1e-9)
    np.testing.assert_allclose(other.state_probs, one.state_probs, atol=1e-9)


@few_examples
@given(problem=problems())
def test_a_missing_row_at_the_end_can_be_dropped(problem):
    """Where transitions are normalised, a last row without observation says nothing."""
    gap_index, starts, lengths, _ = problem.layout
    transition = problem.log_transition - np.logaddexp.reduce(
        problem.log_transition, axis=2, keepdims=True
    )
    last = starts + lengths - 1
    emission = np.insert(problem.log_emission, last + 1, 0.0, axis=0)
    longer = Problem(
        emission,
        transition,
        problem.log_initial,
        end_to_end(lengths + 1, np.insert(gap_index, last + 1, 0)),
    )
    one = forward_backward(*problem._replace(log_transition=transition))
    other = forward_backward(*longer)
    np.testing.assert_allclose(other.log_likelihood, one.log_likelihood, **EXACT)
    kept = np.delete(np.arange(len(emission)), longer.layout.starts + lengths)
    np.testing.assert_allclose(other.state_probs[kept], one.state_probs, **EXACT)


def ruled_out(rng, *, size, spread, lengths=(150, 40, 90)):
    """A problem with known states: matrices with some columns only, or, after a first row, rows."""
    problem = random_problem(rng, n_states=3, lengths=lengths, n_gaps=1, missing=0.1, size=1.0)
    opened = [np.ones((3, 3), bool)]
    opened += [np.broadcast_to(np.arange(3) == k, (3, 3)) for k in range(3)]
    opened += [np.broadcast_to(np.arange(3)[:, None] == k, (3, 3)) for k in range(3)]
    base = spread * rng.normal(size=(3, 3))
    gap_index = rng.choice(4, p=[0.7, 0.1, 0.1, 0.1], size=sum(lengths))
    starts = problem.layout.starts
    gap_index[starts + 1] = rng.integers(4, 7, size=len(starts))
    return problem._replace(
        log_emission=size * problem.log_emission,
        log_transition=np.where(opened, base, -np.inf),
        layout=end_to_end(lengths, gap_index),
    )


@pytest.mark.parametrize("size", [1.0, 30.0, 300.0])
@pytest.mark.parametrize("spread", [1.0, 100.0, 800.0])
def test_states_that_are_ruled_out(size, spread):
    """However far apart they are, and whatever is lost out of log space."""
    for seed in range(5):
        problem = ruled_out(np.random.default_rng(seed), size=size, spread=spread)
        found = forward_backward(*problem)
        for r, (run, start) in enumerate(zip(runs(problem), problem.layout.starts, strict=True)):
            log_likelihood, state_probs, expected = log_space(run)
            assert found.log_likelihood[r] == pytest.approx(log_likelihood, rel=1e-11)
            own = found.state_probs[start : start + len(state_probs)]
            np.testing.assert_allclose(own, state_probs, atol=1e-9)
            np.testing.assert_allclose(found.expected_transitions[r], expected, atol=1e-8)
