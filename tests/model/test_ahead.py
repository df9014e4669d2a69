"""Checkpoints to come, against closed forms of chains, walks, decays and means."""

import numpy as np
import pytest
from scipy.linalg import expm
from synthetic import fit_at
from test_rows import grid
from test_transfer import with_offsets

from bayesphase.model.ahead import filtered_in_fit, gap_ahead, look_ahead
from bayesphase.model.emissions import (
    AutoRegressive,
    FullGaussian,
    Gaussian,
    QuadraticDrift,
    RandomWalk,
    StudentT,
)
from bayesphase.model.forward_backward import forward_backward
from bayesphase.model.spec import specify
from bayesphase.model.transitions import ContinuousTime, LeftToRight, Sticky

N = 1500


def fitted(emission, *, transition=None, n_states=1, n_draws=N, probs=None, **parameters):
    """A fit of two features at given parameters, all draws the same."""
    features = grid(np.random.default_rng(0).normal(size=(2, 12, 2)))
    spec = specify(
        features, n_states, emission=emission, transition=transition or Sticky(), priors=None
    )
    named, _ = spec.transition.maximise(np.zeros((1, n_states, n_states)), np.zeros(n_states))
    if probs is not None:
        named["transition_probs"] = np.array(probs)
    for name, value in parameters.items():
        array = np.asarray(value, float)
        if name == "rates" or array.ndim == 2:
            named[name] = array
        else:
            named[name] = np.broadcast_to(array, (n_states, 2)).copy()
    return fit_at(spec, features, named, n_draws=n_draws)


def going_on(fit, values, *, n_ahead=20, gap=10.0, steps=None, seed=1):
    features = grid(np.asarray(values, float)[None])
    features = features.assign_coords(run=["new"])
    if steps is not None:
        features = features.assign_coords(step=steps)
    return look_ahead(
        fit, features, n_ahead=n_ahead, gap=gap, draws=None, random_seed=seed, cores=1
    )


def mean_is(samples, expected, sd):
    assert np.abs(samples.mean(axis=0) - expected).max() < 5 * np.max(sd) / np.sqrt(len(samples))


def test_time_in_a_phase_is_geometric():
    probs = [[0.9, 0.1], [0.0, 1.0]]
    fit = fitted(
        Gaussian(), transition=LeftToRight(), n_states=2, probs=probs, mean=[[0.0, 0], [9, 9]],
        scale=0.5,
    )  # fmt: skip
    ahead = going_on(fit, np.zeros((4, 2)))
    np.testing.assert_allclose(ahead.probability[:, 0], [[1.0, 0.0]] * N, atol=1e-12)
    np.testing.assert_array_equal(ahead.entered[:, 0], [[0.0, np.nan]] * N)
    assert ahead.now == [30.0]
    still = (ahead.states[:, 0] == 0).mean(axis=0)
    expected = 0.9 ** np.arange(1, 21)
    assert np.abs(still - expected).max() < 5 * 0.5 / np.sqrt(N)
    # features are where their phases are, and none comes back
    there = ahead.states[:, 0] == 1
    assert np.abs(ahead.features[:, 0, :, 0] - 9.0 * there).max() < 0.5 * 5.5
    assert (np.diff(ahead.states[:, 0], axis=1) >= 0).all()


def test_in_continuous_time_it_is_the_gap_that_counts():
    rates = np.array([[0.0, 0.02], [0.01, 0.0]])
    fit = fitted(
        Gaussian(), transition=ContinuousTime(), n_states=2, rates=rates,
        mean=[[0.0, 0], [9, 9]], scale=0.5,
    )  # fmt: skip
    ahead = going_on(fit, np.zeros((4, 2)), gap=25.0, n_ahead=3)
    for h in range(3):
        expected = expm((rates - np.diag(rates.sum(axis=1))) * 25.0 * (h + 1))[0, 1]
        share = (ahead.states[:, 0, h] == 1).mean()
        assert abs(share - expected) < 5 * 0.5 / np.sqrt(N)


def test_a_random_walk_goes_on_from_where_it_was_last_seen():
    fit = fitted(RandomWalk(df=None), drift=[0.3, -0.1], scale=[0.5, 2.0])
    values = np.array([[0.0, 0.0], [1.0, 5.0], [2.0, np.nan]])
    ahead = going_on(fit, values).features[:, 0]
    h = np.arange(1, 21)
    # the second feature is one checkpoint further behind
    for d, (begin, drift, scale, lag) in enumerate(((2.0, 0.3, 0.5, 0), (5.0, -0.1, 2.0, 1))):
        sd = scale * np.sqrt(h + lag)
        mean_is(ahead[:, :, d], begin + drift * (h + lag), sd)
        np.testing.assert_allclose(ahead[:, :, d].std(axis=0), sd, rtol=5 / np.sqrt(2 * N))
    # what comes is a path: the changes are independent
    np.testing.assert_allclose(np.diff(ahead[:, :, 0]).std(), 0.5, rtol=0.03)


def test_a_law_of_motion_is_followed():
    fit = fitted(
        QuadraticDrift(), drift=[0.1, 0.0], slope=[-0.2, 0.0], curvature=[0.0, -0.05], scale=1e-9,
        n_draws=3,
    )  # fmt: skip
    ahead = going_on(fit, [[3.0, 2.0], [2.5, 1.0]]).features[:, 0]
    y = np.array([2.5, 1.0])
    for h in range(20):
        y = y + np.array([0.1 - 0.2 * y[0], -0.05 * y[1] ** 2])
        np.testing.assert_allclose(ahead[:, h], [y] * 3, atol=1e-6)
    # one that runs away is infinite from there
    fit = fitted(QuadraticDrift(), drift=0.0, slope=0.0, curvature=5.0, scale=0.1, n_draws=3)
    away = going_on(fit, [[3.0, 2.0], [2.5, 1.0]]).features
    assert np.isposinf(away[..., -1, :]).all()


def test_reversion_and_speeds_that_last():
    rate, scale = 0.3, 0.4
    fit = fitted(AutoRegressive(df=None), level=1.0, rate=rate, scale=scale)
    ahead = going_on(fit, [[0.0, 0.0], [4.0, -4.0]]).features[:, 0]
    h = np.arange(1, 21)
    sd = scale * np.sqrt((1 - np.exp(-2 * rate * h)) / (2 * rate))
    mean_is(ahead[:, :, 0], 1.0 + 3.0 * np.exp(-rate * h), sd)
    np.testing.assert_allclose(ahead[:, :, 1].std(axis=0), sd, rtol=5 / np.sqrt(2 * N))
    fit = fitted(AutoRegressive(differences=1), level=0.0, rate=1e-9, scale=1e-9, n_draws=3)
    values = [[0.0, 0.0], [1.0, 1.0], [3.0, np.nan]]
    ahead = going_on(fit, values).features[:, 0]
    np.testing.assert_allclose(ahead[:, :, 0], [3.0 + 2.0 * h] * 3, atol=1e-5)
    np.testing.assert_allclose(ahead[:, :, 1], [2.0 + h] * 3, atol=1e-5)
    # of one observation there is no speed
    assert np.isnan(going_on(fit, [[1.0, 1.0]]).features).all()


@pytest.mark.parametrize("emission", [Gaussian(), StudentT(df=5.0), FullGaussian()], ids=repr)
def test_levels_do_not_depend_on_the_past(emission):
    parameters = {"mean": [2.0, -1.0], "scale": [0.5, 3.0]}
    if emission.name == "full_gaussian":
        parameters["correlation_shares"] = [[0.9]]
    # densities of the last are slow, draw by draw
    fit = fitted(emission, n_draws=500 if emission.name == "full_gaussian" else N, **parameters)
    drawn = going_on(fit, np.zeros((1, 2)), n_ahead=4).features.reshape(-1, 2)
    spread = np.sqrt(5 / 3) if emission.tails == 5.0 else 1.0
    mean_is(drawn, [2.0, -1.0], 3.0 * spread)
    np.testing.assert_allclose(drawn.std(axis=0), spread * np.array([0.5, 3.0]), rtol=0.06)
    expected = 0.8 if emission.name == "full_gaussian" else 0.0
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(expected, abs=5 / np.sqrt(len(drawn)))


def test_a_run_keeps_its_offset():
    fit = with_offsets(grid(np.random.default_rng(1).normal(size=(3, 8, 2))), 1, n_draws=500)
    values = np.full((6, 2), 1.5)
    ahead = going_on(fit, values, n_ahead=3).features[:, 0]
    precision = 6 / 0.5**2 + 1 / 0.7**2
    sd = np.sqrt(0.5**2 + 1 / precision)
    mean_is(ahead, 6 * 1.5 / 0.5**2 / precision, sd)
    np.testing.assert_allclose(ahead.std(axis=0), sd, rtol=5 / np.sqrt(2 * 500))
    # of which a checkpoint to come has as much as the next
    between = np.cov(ahead[:, 0].T, ahead[:, 2].T)[0, 2]
    assert between == pytest.approx(1 / precision, abs=5 * sd**2 / np.sqrt(500))


def test_a_feature_that_was_never_seen():
    values = np.array([[1.0, np.nan], [2.0, np.nan]])
    walk = fitted(RandomWalk(), drift=0.0, scale=1.0, n_draws=3)
    ahead = going_on(walk, values).features
    assert np.isnan(ahead[..., 1]).all()
    assert np.isfinite(ahead[..., 0]).all()
    levels = fitted(Gaussian(), mean=0.0, scale=1.0, n_draws=3)
    assert np.isfinite(going_on(levels, values).features).all()


def test_finished_runs_are_filtered_too():
    fit = fitted(Gaussian(), n_states=2, mean=[[0.0, 0], [1, 1]], scale=0.5, n_draws=4)
    probability = filtered_in_fit(fit, draws=2)
    assert probability.shape == (2, 12, 2)
    features = fit["observed_data"]["features"]
    spec = specify(features, 2, emission=Gaussian(), transition=Sticky(), priors=None)
    named = {str(k): v.values[0, 0] for k, v in fit["posterior"].to_dataset().items()}
    log_emission = spec.emission.log_density(spec.rows.values, spec.rows, named, np)
    smoothed = forward_backward(
        log_emission, *spec.transition.log_potentials(named, np), spec.rows.layout
    )
    # past and present are all there is at the end
    np.testing.assert_allclose(probability[0, -1], smoothed.state_probs[11], rtol=1e-9)
    np.testing.assert_allclose(probability.sum(axis=2), 1.0)


def test_finished_runs_are_filtered_as_those_in_progress_are():
    """Neither labels nor offsets that were learned from what came later are made use of."""
    features = grid(np.random.default_rng(0).normal(size=(2, 30, 2)))
    known = features.isel(feature=0, drop=True).copy(data=np.tile(np.arange(30) // 15, (2, 1)))
    plain, labelled = (
        specify(
            features, 2, emission=Gaussian(), transition=Sticky(), priors=None, known_states=states
        )
        for states in (None, known)
    )
    named = {
        "initial_probs": np.array([0.7, 0.3]),
        "transition_probs": np.array([[0.8, 0.2], [0.1, 0.9]]),
        "mean": np.array([[0.0, 0], [1, 1]]),
        "scale": np.full((2, 2), 0.5),
    }
    one, other = (
        filtered_in_fit(fit_at(spec, features, named, n_draws=2), draws=2)
        for spec in (plain, labelled)
    )
    np.testing.assert_array_equal(one, other)
    # of offsets what counts is what the past says of them, at 20 checkpoints of each run
    one, other = (
        filtered_in_fit(with_offsets(features, n_draws=4, offset=np.full((2, 2), at)), draws=4)
        for at in (0.0, 5.0)
    )
    np.testing.assert_array_equal(one, other)
    there = ~np.isnan(one).any(axis=2)
    assert (there.sum(axis=1) == 20).all()
    assert there[:, [0, -1]].all()
    np.testing.assert_allclose(one[there].sum(axis=1), 1.0)


def on_steps(steps, *, transition=None):
    """Runs of one state whose checkpoints are at `steps` (run, checkpoint) of a common grid."""
    steps = [np.asarray(one) for one in steps]
    grid_steps = np.unique(np.concatenate(steps))
    features = grid(np.full((len(steps), len(grid_steps), 1), np.nan))
    features = features.assign_coords(step=grid_steps)
    rng = np.random.default_rng(0)
    for run, own in enumerate(steps):
        features[run, np.isin(grid_steps, own), 0] = rng.normal(size=len(own))
    spec = specify(features, 2, emission=Gaussian(), transition=transition or Sticky(), priors=None)
    named, _ = spec.transition.maximise(np.zeros((1, 2, 2)), np.zeros(2))
    return fit_at(
        spec, features, {**named, "mean": np.zeros((2, 1)), "scale": np.ones((2, 1))}, n_draws=2
    )


def test_checkpoints_to_come_are_as_far_apart_as_those_of_a_run():
    """Not as those of all runs together: a transition is from a checkpoint to the run's next."""
    even = np.arange(0, 2000, 100)
    assert gap_ahead(on_steps([even, even + 50])) == 100.0
    assert gap_ahead(on_steps([even, even])) == 100.0
    later = 2 ** np.arange(2, 14)
    with pytest.warns(UserWarning, match="continuous_time"):
        assert gap_ahead(on_steps([later, later])) == 2.0**11
    assert gap_ahead(on_steps([later, later], transition=ContinuousTime())) == np.median(
        np.diff(later)
    )
