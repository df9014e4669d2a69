import numpy as np
import pytensor.tensor as pt
import pytest
from scipy.stats import dirichlet

from bayesphase.model.transitions import Sticky


def test_maximise_is_the_posterior_mean():
    expected = np.array([[[5.0, 1.0], [0.0, 0.0]]])
    best, _ = Sticky(concentration=1.0, stickiness=4.0).maximise(expected, np.array([3.0, 0.0]))
    np.testing.assert_allclose(best["transition_probs"], [[10 / 12, 2 / 12], [1 / 6, 5 / 6]])
    np.testing.assert_allclose(best["initial_probs"], [4 / 5, 1 / 5])


def test_maximise_finds_the_maximum():
    """Of the expected log density with the log prior that it returns, which is monotone in EM."""
    rng = np.random.default_rng(1)
    transition = Sticky(concentration=0.5, stickiness=3.0)
    expected, first_states = 9 * rng.random((1, 3, 3)), 4 * rng.random(3)

    def objective(probs, initial):
        counts = transition._pseudo_counts(3)
        return np.sum((expected[0] + counts) * np.log(probs)) + np.sum(
            (first_states + 1.0) * np.log(initial)
        )

    best, log_prior = transition.maximise(expected, first_states)
    top = objective(best["transition_probs"], best["initial_probs"])
    fit = np.sum(expected[0] * np.log(best["transition_probs"])) + np.sum(
        first_states * np.log(best["initial_probs"])
    )
    assert fit + log_prior == pytest.approx(top, rel=1e-12)
    for size in (0.3, 0.01):
        for _ in range(20):
            moved = transition.jitter(rng, best, size)
            assert objective(moved["transition_probs"], moved["initial_probs"]) < top


def test_default_priors_are_those_of_the_parameters():
    priors = Sticky(concentration=2.0, stickiness=7.0).priors(3)
    np.testing.assert_array_equal(
        priors["transition_probs"].parameters["a"], [[9, 2, 2], [2, 9, 2], [2, 2, 9]]
    )
    np.testing.assert_array_equal(priors["initial_probs"].parameters["a"], [1, 1, 1])
    assert dirichlet.mean([9, 2, 2])[0] == pytest.approx(9 / 13)


def test_log_potentials_are_logarithms_with_one_gap():
    named = {
        "initial_probs": np.array([0.25, 0.75]),
        "transition_probs": np.array([[0.5, 0.5], [0.125, 0.875]]),
    }
    log_transition, log_initial = Sticky().log_potentials(named, np)
    assert log_transition.shape == (1, 2, 2)
    np.testing.assert_allclose(np.exp(log_transition[0]), named["transition_probs"])
    np.testing.assert_allclose(np.exp(log_initial), named["initial_probs"])
    graph = Sticky().log_potentials({name: pt.as_tensor(x) for name, x in named.items()}, pt)
    np.testing.assert_allclose(graph[0].eval(), log_transition)


def test_jitter_stays_on_the_simplex():
    named = {"initial_probs": np.full(3, 1 / 3), "transition_probs": np.full((3, 3), 1 / 3)}
    moved = Sticky().jitter(np.random.default_rng(2), named, 0.5)
    for name, value in moved.items():
        np.testing.assert_allclose(value.sum(axis=-1), 1.0)
        assert (value > 0).all()
        assert np.abs(value - named[name]).max() > 0.01


@pytest.mark.parametrize(
    "arguments", [{"concentration": 0.0}, {"stickiness": -1.0}, {"concentration": np.nan}]
)
def test_impossible_pseudo_counts(arguments):
    with pytest.raises(
        ValueError, match="concentration must be positive and stickiness at least 0"
    ):
        Sticky(**arguments)
