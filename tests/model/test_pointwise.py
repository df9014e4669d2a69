"""Densities under the draws of a fit, against leaving checkpoints out and runs on their own."""

import numpy as np
import pytest
import xarray as xr
from test_rows import grid

import bayesphase as bp
from bayesphase.model.emissions import Gaussian
from bayesphase.model.forward_backward import forward_backward
from bayesphase.model.pointwise import likelihood_of_rows, likelihood_of_stretches
from bayesphase.model.rows import rows_of
from bayesphase.model.spec import specify
from bayesphase.model.transitions import Sticky


@pytest.fixture(scope="module")
def fitted():
    features = bp.simulate(n_states=2, n_runs=3, n_steps=12, n_features=2, random_seed=1)[
        "features"
    ]
    features = 3.0 + 10.0 * features
    features[0, 4, 1] = np.nan
    features[1, 9:] = np.nan
    return bp.fit(
        features,
        2,
        emission="gaussian",
        draws=20,
        tune=50,
        chains=2,
        random_seed=1,
        progressbar=False,
    )


def log_likelihood(features, parameters):
    """Log-likelihood of each run."""
    rows = rows_of(features)
    log_emission = Gaussian().log_density(rows.values, rows, parameters, np)
    potentials = Sticky().log_potentials(parameters, np)
    return forward_backward(log_emission, *potentials, rows.layout).log_likelihood


def test_it_is_the_likelihood_over_that_without_the_checkpoint(fitted):
    result = bp.checkpoint_log_likelihood(fitted, cores=1)
    features = fitted["observed_data"]["features"]
    for chain, draw in ((0, 0), (1, 13)):
        point = fitted["posterior"].to_dataset().isel(chain=chain, draw=draw)
        parameters = {str(name): value.values for name, value in point.items()}
        whole = log_likelihood(features, parameters)
        for run in range(3):
            for step in range(12):
                value = result.isel(chain=chain, draw=draw, run=run, step=step)
                if np.isnan(features[run, step]).all():
                    assert np.isnan(value)
                    continue
                # in the middle of a run a checkpoint is left out by what it says, not by its place
                rows = rows_of(features)
                row = np.flatnonzero((rows.run == run) & (rows.step == step))
                log_emission = Gaussian().log_density(rows.values, rows, parameters, np)
                log_emission[row] = 0.0
                potentials = Sticky().log_potentials(parameters, np)
                rest = forward_backward(log_emission, *potentials, rows.layout).log_likelihood
                np.testing.assert_allclose(value, (whole - rest)[run], atol=1e-9)


def test_it_is_laid_out_as_the_features_are(fitted):
    result = bp.checkpoint_log_likelihood(fitted)
    assert result.dims == ("chain", "draw", "run", "step")
    assert result.attrs["units"] == "nats"
    np.testing.assert_array_equal(result["run"], fitted["observed_data"]["run"])
    observed = ~np.isnan(fitted["observed_data"]["features"]).all("feature")
    np.testing.assert_array_equal(~np.isnan(result.isel(chain=0, draw=0)), observed)


def test_bad_cores_are_named(fitted):
    with pytest.raises(ValueError, match="cores must be at least 1, got 0"):
        bp.checkpoint_log_likelihood(fitted, cores=0)


def test_the_runs_of_the_fit_have_the_likelihood_that_is_in_it(fitted):
    result = bp.run_log_likelihood(fitted, fitted["observed_data"]["features"], cores=1)
    xr.testing.assert_allclose(result, fitted["log_likelihood"]["run_log_likelihood"], rtol=1e-12)
    assert result.dims == ("chain", "draw", "run")
    assert result.attrs["units"] == "nats"


@pytest.fixture
def others():
    """New runs: another length, other steps, a value missing."""
    x = bp.simulate(n_states=2, n_runs=4, n_steps=9, n_features=2, step_size=7, random_seed=5)
    x = -40.0 + 25.0 * x["features"].assign_coords(run=["a", "b", "c", "d"])
    x[0, 3, 0] = np.nan
    x[2, 5:] = np.nan
    return x


def test_other_runs_have_the_likelihood_of_the_model(fitted, others):
    result = bp.run_log_likelihood(fitted, others)
    assert result["run"].values.tolist() == ["a", "b", "c", "d"]
    for chain, draw in ((0, 3), (1, 13)):
        point = fitted["posterior"].to_dataset().isel(chain=chain, draw=draw)
        parameters = {str(name): value.values for name, value in point.items()}
        expected = log_likelihood(others, parameters)
        np.testing.assert_allclose(result[chain, draw], expected, rtol=1e-10)


def test_features_are_known_by_their_labels(fitted, others):
    xr.testing.assert_identical(
        bp.run_log_likelihood(fitted, others[:, :, ::-1]), bp.run_log_likelihood(fitted, others)
    )
    renamed = others.assign_coords(feature=["a", "b"])
    with pytest.raises(ValueError, match=r"the fit has the features \[.*\], but features has \['a"):
        bp.run_log_likelihood(fitted, renamed)


def test_a_run_need_not_have_all_features(fitted, others):
    bare = others[:1].copy()
    bare[..., 1] = np.nan
    result = bp.run_log_likelihood(fitted, bare)
    point = fitted["posterior"].to_dataset().isel(chain=0, draw=0)
    parameters = {str(name): value.values for name, value in point.items()}
    without = {name: v[:, :1] if name in ("mean", "scale") else v for name, v in parameters.items()}
    np.testing.assert_allclose(result[0, 0], log_likelihood(bare[..., :1], without), rtol=1e-10)


def test_other_runs_that_can_not_be_used_are_named(fitted, others):
    with pytest.raises(TypeError, match=r"features must be an xarray\.DataArray"):
        bp.run_log_likelihood(fitted, others.values)
    with pytest.raises(ValueError, match=r"run 'a' has 1 checkpoint"):
        bp.run_log_likelihood(fitted, others[:1, :1])
    with pytest.raises(ValueError, match="cores must be at least 1, got 0"):
        bp.run_log_likelihood(fitted, others, cores=0)


@pytest.mark.parametrize("transition", ["sticky", "continuous_time"])
@pytest.mark.parametrize("emission", ["gaussian", "autoregressive"])
def test_stretches_are_the_likelihood_over_that_of_what_came_before(emission, transition):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(2, 9, 2)).cumsum(axis=1)
    values[0, 3, 1] = values[1, 4] = np.nan
    features = grid(values, step=[0, 1, 2, 4, 5, 8, 9, 13, 14])
    spec = specify(features, 2, emission=emission, transition=transition, priors=None)
    n, shape = 3, (3, 2, 2)
    drawn = {name: np.exp(rng.normal(size=shape)) for name in spec.emission.dims}
    drawn |= {"initial_probs": rng.dirichlet([1, 1], n)}
    drawn |= {"transition_probs": rng.dirichlet([1, 1], (n, 2))}
    drawn |= {"rates": np.exp(rng.normal(-2, 1, shape)) * (1 - np.eye(2))}
    # of the first run, which has nine rows, and of the second, which has eight
    starts, stops = np.array([[0, 9], [2, 11], [3, 9]]), np.array([[9, 17], [8, 12], [3, 10]])
    found = likelihood_of_stretches(spec, drawn, starts, stops, cores=1)

    def of_beginning(run, n):
        rows = np.flatnonzero(spec.rows.run == run)[:n]
        beginning = features.isel(run=[run], step=slice(int(spec.rows.step[rows[-1]]) + 1))
        rows = rows_of(beginning, units_of=spec.rows)
        return likelihood_of_rows(spec, rows, drawn)[:, 0]

    np.testing.assert_allclose(found[:, 0, 0], of_beginning(0, 9))
    np.testing.assert_allclose(found[:, 0, 1], of_beginning(1, 8))
    np.testing.assert_allclose(found[:, 1, 0], of_beginning(0, 8) - of_beginning(0, 2))
    np.testing.assert_allclose(found[:, 1, 1], of_beginning(1, 3) - of_beginning(1, 2))
    np.testing.assert_array_equal(found[:, 2, 0], 0.0)


def test_a_run_of_density_0_leaves_the_others_as_they_are():
    features = grid(np.tile([[0.0], [1.0], [2.0]], (2, 1, 1)))
    spec = specify(features, 1, emission="gaussian", transition="sticky", priors=None)
    one = np.ones((1, 1))
    drawn = {"initial_probs": one, "transition_probs": one[None]}
    drawn |= {"mean": one[None], "scale": one[None]}
    clean = likelihood_of_stretches(spec, drawn, np.array([0, 3]), np.array([3, 6]))
    spec.rows.values[0] = np.inf
    with np.errstate(all="ignore"):
        found = likelihood_of_stretches(spec, drawn, np.array([0, 3]), np.array([3, 6]))
    assert not np.isfinite(found[0, 0])
    assert found[0, 1] == clean[0, 1]
