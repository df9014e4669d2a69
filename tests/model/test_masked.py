import numpy as np
import pytest
from scipy.stats import beta, dirichlet

from bayesphase.model.masked import Masked
from bayesphase.model.transitions import Sticky

CYCLE = np.array(
    [[True, True, False, True], [False] * 2 + [True] * 2, [True] * 4, [False, True, True, False]]
)
COUNTS = np.array([[5.0, 1, 9, 2], [9, 9, 3, 1], [1, 2, 6, 1], [9, 0.5, 4, 9]])


def random_probs(rng, allowed):
    probs = np.where(allowed, rng.gamma(1.0, size=allowed.shape), 0.0)
    return probs / probs.sum(axis=1, keepdims=True)


def sticks_prior(chain, n_states):
    prior = chain.priors(n_states)["transition_sticks"].parameters
    return prior["alpha"], prior["beta"]


def test_sticks_and_probabilities_are_each_others_inverse():
    rng = np.random.default_rng(1)
    chain = Masked(CYCLE, COUNTS)
    probs = random_probs(rng, CYCLE)
    sticks = chain._to_sticks(probs)
    assert sticks.shape == (2 + 1 + 3 + 1,)
    back = chain._from_sticks(sticks, np)
    np.testing.assert_allclose(back, probs, rtol=1e-12)
    assert (back[~CYCLE] == 0).all()


def test_the_first_stick_is_to_stay():
    chain = Masked(np.tril(np.triu(np.ones((3, 3), bool)), 1), np.full((3, 3), 1.0))
    probs = chain._from_sticks(np.array([0.9, 0.7]), np)
    np.testing.assert_allclose(probs, [[0.9, 0.1, 0], [0, 0.7, 0.3], [0, 0, 1]], rtol=1e-14)


def test_the_density_of_sticks_is_that_of_dirichlet_rows():
    """Their densities differ by the Jacobian, what was left before each share was broken off."""
    rng = np.random.default_rng(2)
    chain = Masked(CYCLE, COUNTS)
    probs = random_probs(rng, CYCLE)
    of_rows = sum(
        dirichlet.logpdf(p[a], c[a]) for p, a, c in zip(probs, CYCLE, COUNTS, strict=True)
    )
    sticks, (alpha, beta_) = chain._to_sticks(probs), sticks_prior(chain, 4)
    left = []
    for row, (p, a) in enumerate(zip(probs, CYCLE, strict=True)):
        order = sorted(np.flatnonzero(a), key=lambda j, row=row: (j != row, j))
        left += [p[order[i:]].sum() for i in range(len(order) - 1)]
    jacobian = np.sum(np.log(left))
    of_sticks = beta.logpdf(sticks, alpha, beta_).sum()
    assert of_rows + jacobian == pytest.approx(of_sticks, rel=1e-12)


def test_a_mask_of_everything_is_no_mask():
    chain = Masked(np.ones((3, 3), bool), Sticky()._pseudo_counts(3))
    rng = np.random.default_rng(3)
    expected, first = 9 * rng.random((1, 3, 3)), 3 * rng.random(3)
    for found, plain in zip(
        chain.maximise(expected, first)[0].values(),
        Sticky().maximise(expected, first)[0].values(),
        strict=True,
    ):
        np.testing.assert_allclose(found, plain, rtol=1e-14)
    assert chain.maximise(expected, first)[1] == pytest.approx(
        Sticky().maximise(expected, first)[1]
    )


def test_maximise_finds_the_maximum_and_never_leaves_the_mask():
    rng = np.random.default_rng(4)
    chain = Masked(CYCLE, COUNTS)
    expected, first = np.where(CYCLE, 9 * rng.random((1, 4, 4)), 0.0), 4 * rng.random(4)

    def objective(probs, initial):
        value = np.sum((expected[0] + COUNTS)[CYCLE] * np.log(probs[CYCLE]))
        return value + np.sum((first + 1.0) * np.log(initial))

    best, log_prior = chain.maximise(expected, first)
    assert (best["transition_probs"][~CYCLE] == 0).all()
    top = objective(best["transition_probs"], best["initial_probs"])
    fit = np.sum(expected[0][CYCLE] * np.log(best["transition_probs"][CYCLE]))
    fit += np.sum(first * np.log(best["initial_probs"]))
    assert fit + log_prior == pytest.approx(top, rel=1e-12)
    for size in (0.3, 0.01):
        for _ in range(20):
            moved = chain.jitter(rng, best, size)
            assert (moved["transition_probs"][~CYCLE] == 0).all()
            np.testing.assert_allclose(
                chain._from_sticks(moved["transition_sticks"], np),
                moved["transition_probs"],
                rtol=1e-12,
            )
            assert objective(moved["transition_probs"], moved["initial_probs"]) < top


def test_potentials_are_minus_infinity_where_nothing_can_happen():
    chain = Masked(CYCLE, COUNTS, first=2)
    named, _ = chain.maximise(np.zeros((1, 4, 4)), np.zeros(4))
    log_transition, log_initial = chain.log_potentials(named, np)
    np.testing.assert_array_equal(np.isfinite(log_transition[0]), CYCLE)
    np.testing.assert_array_equal(log_initial, [-np.inf, -np.inf, 0.0, -np.inf])
    np.testing.assert_array_equal(named["initial_probs"], [0, 0, 1, 0])
    assert set(chain.priors(4)) == {"transition_sticks"}
    assert not chain.exchangeable(4).any()


@pytest.mark.parametrize(
    ("allowed", "error", "message"),
    [
        (
            [[True, False]],
            ValueError,
            r"allowed must be square, \(state, state\), got shape \(1, 2",
        ),
        ([[True, True], [False, False]], ValueError, r"leaves the states \[1\] without any succ"),
        ([[1, 0], [0, 1]], TypeError, "allowed must hold True and False only"),
        ([[True], [True, False]], ValueError, "allowed must have rows of one length"),
        ([True, True], ValueError, r"square, \(state, state\), got shape \(2,\)"),
    ],
)
def test_masks_that_can_not_be_used(allowed, error, message):
    with pytest.raises(error, match=message):
        Sticky(allowed=allowed)


def test_a_mask_is_kept_as_tuples_whatever_it_was_given_as():
    mask = ((True, False), (True, True))
    assert Sticky(allowed=mask) == Sticky(allowed=[[True, False], [True, True]])
    assert Sticky(allowed=np.array(mask)).allowed == mask
