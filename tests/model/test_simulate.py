import numpy as np
import pytest
from scipy.stats import chisquare

from bayesphase.model.lanes import end_to_end
from bayesphase.model.rows import check_features
from bayesphase.model.simulate import draw_states, simulate

TRANSITION = np.array([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5], [0.3, 0.3, 0.4]])
INITIAL = np.array([0.2, 0.5, 0.3])


def test_states_have_the_chains_frequencies():
    data = simulate(
        n_states=3,
        n_runs=2000,
        n_steps=20,
        transition_probs=TRANSITION,
        initial_probs=INITIAL,
        random_seed=1,
    )
    path = data["path"].values
    first = np.bincount(path[:, 0], minlength=3)
    assert chisquare(first, 2000 * INITIAL).pvalue > 0.01
    pairs = np.zeros((3, 3))
    np.add.at(pairs, (path[:, :-1].ravel(), path[:, 1:].ravel()), 1)
    assert pairs[1, 0] == 0
    for row, probs in zip(pairs, TRANSITION, strict=True):
        possible = probs > 0
        assert chisquare(row[possible], row.sum() * probs[possible]).pvalue > 0.01


def test_features_have_their_states_moments():
    mean, scale = np.array([[0.0, 5.0], [3.0, -2.0]]), np.array([[0.5, 1.0], [2.0, 0.1]])
    data = simulate(
        n_states=2,
        n_runs=20,
        n_steps=1000,
        n_features=2,
        mean=mean,
        scale=scale,
        transition_probs=np.full((2, 2), 0.5),
        random_seed=2,
    )
    for k in range(2):
        inside = data["features"].values[data["path"].values == k]
        error = scale[k] / np.sqrt(len(inside))
        assert (np.abs(inside.mean(axis=0) - mean[k]) < 4 * error).all()
        np.testing.assert_allclose(inside.std(axis=0), scale[k], rtol=0.03)


def test_by_default_runs_go_left_to_right_from_the_first_state():
    data = simulate(n_states=4, n_runs=50, n_steps=100, random_seed=3)
    path = data["path"].values
    assert (path[:, 0] == 0).all()
    assert set(np.diff(path, axis=1).ravel()) == {0, 1}
    assert path.max() == 3
    np.testing.assert_allclose(data["transition_probs"].sum("state_next"), 1.0)


def test_what_comes_out_can_be_fitted():
    data = simulate(n_states=2, n_runs=3, n_steps=5, n_features=4, step_size=7, random_seed=4)
    assert check_features(data["features"]) is not None
    assert dict(data.sizes) == {
        "run": 3, "step": 5, "feature": 4, "state": 2, "state_next": 2,
    }  # fmt: skip
    np.testing.assert_array_equal(data["step"], [0, 7, 14, 21, 28])
    assert data["path"].dims == ("run", "step")
    assert data["mean"].dims == data["scale"].dims == ("state", "feature")


def test_seeds_make_runs_reproducible():
    one, same, other = (simulate(random_seed=seed) for seed in (5, 5, 6))
    assert one.identical(same)
    assert not one.equals(other)
    assert one.identical(simulate(random_seed=np.random.default_rng(5)))


def test_more_states_than_steps():
    data = simulate(n_states=5, n_runs=2, n_steps=3, random_seed=7)
    np.testing.assert_array_equal(data["path"], [[0, 1, 2], [0, 1, 2]])


def test_each_gap_has_its_own_transitions():
    swap = np.array([np.eye(2), np.eye(2)[::-1]])
    layout = end_to_end([4, 3], [0, 1, 0, 1, 1, 1, 1])
    states = draw_states(np.random.default_rng(8), swap, np.array([1.0, 0.0]), layout)
    np.testing.assert_array_equal(states, [0, 1, 1, 0, 0, 1, 0])


@pytest.mark.parametrize("name", ["n_states", "n_runs", "n_steps", "n_features", "step_size"])
def test_sizes_under_one(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        simulate(**{name: 0})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": np.zeros((2, 3))}, r"mean must have shape \(3, 3\), got \(2, 3\)"),
        ({"initial_probs": [0.5, 0.5]}, r"initial_probs must have shape \(3,\), got \(2,\)"),
        ({"initial_probs": [0.5, 0.5, 0.5]}, "initial_probs must be probabilities .* sums 1.5"),
        ({"initial_probs": [1.5, -0.5, 0.0]}, "must be probabilities, got values from -0.5 to 1.5"),
        ({"initial_probs": [np.nan, 0.5, 0.5]}, "initial_probs must be probabilities"),
        ({"transition_probs": np.eye(4)}, r"transition_probs must have shape \(3, 3\)"),
        ({"transition_probs": np.ones((3, 3))}, r"transition_probs must be .* sums \[3. 3. 3.\]"),
        ({"scale": np.ones(2)}, r"scale must have shape \(3, 3\), got \(2,\)"),
        ({"scale": -1.0}, "scale must be positive, got -1.0"),
    ],
)
def test_parameters_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate(**arguments)


def test_rounding_draws_no_state_of_probability_zero():
    """Tenths add up to less than 1, and a uniform number may lie between."""

    class Largest:
        def random(self, n):
            return np.full(n, np.nextafter(1.0, 0.0))

    row = np.append(np.full(10, 0.1), 0.0)
    assert row.cumsum()[-1] < 1.0
    states = draw_states(Largest(), np.tile(row, (1, 11, 1)), row, end_to_end([4]))
    np.testing.assert_array_equal(states, 9)
