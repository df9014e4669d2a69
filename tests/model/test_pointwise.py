"""Leave-one-out densities of a fit, against leaving each checkpoint out of the features."""

import numpy as np
import pytest

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
