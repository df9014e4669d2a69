"""Data that a model makes: on the grid of the data, with their holes and their beginnings."""

import numpy as np
import pytest
import xarray as xr
from synthetic import fit_at
from test_rows import grid

import bayesphase as bp
from bayesphase.model.replicate import realisations
from bayesphase.model.spec import specify


def fitted(emission, known=None, **parameters):
    values = np.random.default_rng(1).normal(size=(3, 30, 2))
    values[0, 10:14] = values[1, 5, 0] = values[2, :3, 1] = np.nan
    features = grid(values)
    spec = specify(
        features, 2, emission=emission, transition=bp.Sticky(), priors=None, known_states=known
    )
    shape = (2, 2)
    named = {name: np.full(shape, 0.1) for name in emission.dims} | {
        name: np.full(shape, value) for name, value in parameters.items()
    }
    named["initial_probs"] = np.array([0.5, 0.5])
    named["transition_probs"] = np.array([[0.8, 0.2], [0.1, 0.9]])
    return fit_at(spec, features, named, n_draws=30), features


def test_holes_and_beginnings_are_those_of_the_data():
    fit, features = fitted(bp.RandomWalk())
    made = bp.posterior_predictive(fit, draws=10, random_seed=1)
    assert made["features"].dims == ("sample", "run", "step", "feature")
    for sample in made["features"]:
        np.testing.assert_array_equal(np.isnan(sample), np.isnan(features))
        np.testing.assert_array_equal(sample[:2, 0], features[:2, 0])
        np.testing.assert_array_equal(sample[2, 3, 1], features[2, 3, 1])
    missing = np.isnan(features).all("feature").values
    np.testing.assert_array_equal((made["state"] == -1).all("sample"), missing)
    assert made["draw"].dims == ("sample",)
    assert len(np.unique(made["draw"])) == 10
    assert float(made["features"].std("sample")[:2, 1:3].min()) > 0


def test_the_same_seed_makes_the_same_data():
    fit, _ = fitted(bp.Gaussian())
    one, same, other = (bp.posterior_predictive(fit, draws=5, random_seed=s) for s in (1, 1, 2))
    xr.testing.assert_identical(one, same)
    assert not one["features"].equals(other["features"])
    with pytest.raises(ValueError, match="random_seed must be at least 0, got -1"):
        bp.posterior_predictive(fit, random_seed=-1)


def test_states_and_features_have_the_moments_of_the_model():
    fit, _ = fitted(bp.Gaussian(), mean=3.0, scale=2.0)
    made = bp.posterior_predictive(fit, draws=None, random_seed=3)
    assert made.sizes["sample"] == 30
    values = made["features"].values
    values = values[~np.isnan(values)]
    assert values.mean() == pytest.approx(3.0, abs=4 * 2.0 / np.sqrt(values.size))
    assert values.std() == pytest.approx(2.0, rel=4 / np.sqrt(2 * values.size))
    # run 1 lacks no checkpoint: one in five leaves state 0, one in ten state 1
    before, after = made["state"].values[:, 1, :-1], made["state"].values[:, 1, 1:]
    for state, expected in ((0, 0.2), (1, 0.1)):
        left = (after != before)[before == state]
        assert left.mean() == pytest.approx(
            expected, abs=4 * np.sqrt(expected * (1 - expected) / left.size)
        )


def test_known_states_are_kept():
    known = xr.DataArray(
        np.resize([1, -1, -1, 0], (1, 30)), dims=("run", "step"), coords={"run": ["run-1"]}
    )
    values = grid(np.zeros((3, 30, 2)))
    known = known.assign_coords(run=values["run"][1:2], step=values["step"])
    fit, _ = fitted(bp.Gaussian(), known)
    made = bp.posterior_predictive(fit, draws=6, random_seed=1)["state"].isel(run=1)
    told = known[0].values
    assert (made.values[:, told >= 0] == told[told >= 0]).all()
    assert len(np.unique(made.values[:, told < 0])) == 2


def test_what_runs_away_is_infinite_from_there():
    fit, features = fitted(bp.QuadraticDrift(), curvature=50.0)
    made = bp.posterior_predictive(fit, draws=5, random_seed=1)["features"]
    away = np.isinf(made)
    assert away.any()
    seen = ~np.isnan(features.values)
    for run in range(3):
        for feature in range(2):
            of_it = away.values[:, run, seen[run, :, feature], feature].astype(int)
            assert (np.diff(of_it, axis=1) >= 0).all()
    # and has no residual, while all others have
    for observed, replicated in realisations(fit, draws=2, random_seed=1):
        finite = np.isfinite(replicated["features"])
        assert np.isnan(replicated["residual"].where(~finite)).all()
        expected = ~np.isnan(observed["residual"]) & finite
        np.testing.assert_array_equal(~np.isnan(replicated["residual"]), expected)
