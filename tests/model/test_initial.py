from pathlib import Path

import numpy as np
import pytest
from scipy.stats import invgamma
from test_rows import grid

import bayesphase as bp
from bayesphase.model import initial
from bayesphase.model.emissions import Gaussian, QuadraticDrift
from bayesphase.model.forward_backward import forward_backward
from bayesphase.model.initial import starting_points
from bayesphase.model.rows import rows_of
from bayesphase.model.simulate import simulate
from bayesphase.model.spec import specify
from bayesphase.model.transitions import Sticky

DATA = Path(__file__).parents[2] / "data"


def easy(random_seed=1):
    """Runs whose states lie far apart, with missing values and a missing checkpoint."""
    data = simulate(
        n_states=3,
        n_runs=4,
        n_steps=60,
        n_features=2,
        mean=np.array([[0.0, 0.0], [8.0, 0.0], [8.0, 8.0]]),
        random_seed=random_seed,
    )
    features = data["features"].copy()
    features[0, 10] = np.nan
    features[1, ::7, 1] = np.nan
    return rows_of(features), data


def find(rows, n_states, *, emission=None, transition=None, n_restarts=4, seed=1, cores=None):
    return starting_points(
        rows,
        n_states,
        emission=emission or Gaussian(),
        transition=transition or Sticky(),
        n_restarts=n_restarts,
        rng=np.random.default_rng(seed),
        cores=cores,
    )


def smooth(rows, parameters):
    log_emission = Gaussian().log_density(rows.values, rows, parameters, np)
    return forward_backward(log_emission, *Sticky().log_potentials(parameters, np), rows.layout)


def test_planted_states_are_found():
    rows, data = easy()
    starts = find(rows, 3)
    best = starts[0].parameters
    truth = data["path"].values[rows.run, rows.step]
    found = smooth(rows, best).state_probs.argmax(axis=1)
    # states have no order yet
    names = np.array([found[truth == state][0] for state in range(3)])
    np.testing.assert_array_equal(found, names[truth])
    np.testing.assert_allclose(best["mean"][names], data["mean"], atol=0.3)
    np.testing.assert_allclose(best["scale"], 0.5, rtol=0.25)
    assert {name: value.shape for name, value in best.items()} == {
        "initial_probs": (3,),
        "transition_probs": (3, 3),
        "mean": (3, 2),
        "scale": (3, 2),
    }


def test_the_best_comes_first():
    rows, _ = easy()
    densities = [start.log_density for start in find(rows, 4, n_restarts=6)]
    assert len(densities) == 6
    assert densities == sorted(densities, reverse=True)


def test_a_second_mode_is_seen_however_often_the_best_is_found():
    """The middle of three groups goes with either of the others, one way being less probable."""
    rng = np.random.default_rng(0)
    values = np.repeat([0.0, 4.0, 8.6], 4) + 0.3 * rng.normal(size=12)
    rows = rows_of(grid(values.reshape(1, 12, 1)))
    densities = np.array([start.log_density for start in find(rows, 2, n_restarts=12)])
    assert (densities > densities[0] - 0.1).sum() >= 6
    gaps = densities[0] - densities
    assert ((gaps > 0.1) & (gaps < 3.0)).any()


def test_the_same_seed_finds_the_same_modes():
    rows, _ = easy()
    one, same, other = (find(rows, 4, n_restarts=2, seed=seed) for seed in (1, 1, 2))
    for a, b in zip(one, same, strict=True):
        assert a.log_density == b.log_density
        for name in a.parameters:
            np.testing.assert_array_equal(a.parameters[name], b.parameters[name])
    assert any((one[0].parameters[name] != other[0].parameters[name]).any() for name in ("mean",))


class Recorded:
    """Keeps what every M-step was given and what it made of it."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        object.__setattr__(self, "steps", [])

    def maximise(self, *arguments):
        found = super().maximise(*arguments)
        self.steps.append((arguments[1], found))
        return found


class RecordedGaussian(Recorded, Gaussian):
    pass


class RecordedSticky(Recorded, Sticky):
    pass


@pytest.mark.parametrize("n_states", [2, 4])
def test_no_step_of_em_goes_down(n_states):
    """Every M-step from what some parameters made expect is at least as good as they were.

    The density is the one that the M-steps maximise: likelihood, and the priors that they use.
    """
    rows, _ = easy(3)
    emission, transition = RecordedGaussian(), RecordedSticky()
    find(rows, n_states, emission=emission, transition=transition, n_restarts=2, cores=1)
    counts = transition._pseudo_counts(n_states)
    log_likelihoods, densities, compared, climbed = [], [], 0, 0.0
    for (expected, (of_emission, _)), (_, (of_transition, _)) in zip(
        emission.steps, transition.steps, strict=True
    ):
        log_likelihood = smooth(rows, {**of_emission, **of_transition}).log_likelihood.sum()
        mean, scale = of_emission["mean"], of_emission["scale"]
        density = (
            log_likelihood
            + invgamma.logpdf(scale, emission._shape, scale=emission._unit * rows.spread).sum()
            + np.log(scale).sum()
            - 0.5 * 1e-3 * (((mean - rows.location) / scale) ** 2).sum()
            + (counts * np.log(of_transition["transition_probs"])).sum()
            + np.log(of_transition["initial_probs"]).sum()
        )
        # the parameters that this step came from have the log-likelihood that it was given (here
        # of the scaled features)
        given = expected.log_likelihood.sum() - (rows.observed @ np.log(rows.spread)).sum()
        came_from = np.flatnonzero(np.isclose(log_likelihoods, given, rtol=1e-12, atol=1e-8))
        if came_from.size:
            compared += 1
            climbed += density - densities[came_from[-1]]
            assert density >= densities[came_from[-1]] - 1e-8
        log_likelihoods.append(log_likelihood)
        densities.append(density)
    assert compared > 10  # or steps were not recognised
    assert climbed > 1.0


def test_more_states_than_distinct_checkpoints_stay_finite():
    rows = rows_of(grid(np.repeat([0.0, 1.0], 5).reshape(1, 10, 1)))
    for start in find(rows, 4, n_restarts=2):
        assert np.isfinite(start.log_density)
        for value in start.parameters.values():
            assert np.isfinite(value).all()
        assert (start.parameters["scale"] > 0).all()


def test_one_state():
    rows, _ = easy()
    start = find(rows, 1, n_restarts=1)[0]
    np.testing.assert_array_equal(start.parameters["transition_probs"], [[1.0]])
    observed = np.where(rows.observed, rows.values, np.nan)
    np.testing.assert_allclose(start.parameters["mean"][0], np.nanmean(observed, axis=0))


def test_no_restart_is_refused():
    with pytest.raises(ValueError, match="n_restarts must be at least 1, got 0"):
        find(easy()[0], 2, n_restarts=0)


def test_single_features_have_the_best_offsets_that_any_climb_found(monkeypatch):
    """Each has modes of its own: without the exchange the best climb is far below this one."""
    features = bp.features(bp.open_metrics(DATA / "modular_addition.nc"))
    emission = QuadraticDrift(offsets=True)
    spec = specify(features, 3, emission=emission, transition="sticky", priors=None)
    options = {"emission": emission, "transition": spec.transition, "n_restarts": 3}
    with_exchange = find(spec.rows, 3, **options)
    monkeypatch.setattr(initial, "_crossed", lambda best, others, rows: best)
    without = find(spec.rows, 3, **options)
    assert with_exchange[0].log_density > without[0].log_density + 100.0
    others = [start.log_density for start in with_exchange[1:]]
    assert others == [start.log_density for start in without[1:]]
