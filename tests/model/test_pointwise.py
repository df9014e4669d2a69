"""Densities under the draws of a fit, against leaving checkpoints out and runs on their own."""

import numpy as np
import pytest
import xarray as xr

import bayesphase as bp
from bayesphase.model.emissions import Gaussian
from bayesphase.model.forward_backward import forward_backward
from bayesphase.model.rows import rows_of
from bayesphase.model.transitions import Sticky


@pytest.fixture(scope="module")
def fitted():
    features = bp.simulate(n_states=2, n_runs=3, n_steps=12, n_features=2, random_seed=1)[
        "features"
    ]
    features = 3.0 + 10.0 * features
    features[0, 4, 1] = np.nan
    features[1, 9:] = np.nan
    return bp.fit(features, 2, draws=20, tune=50, chains=2, random_seed=1, progressbar=False)


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
