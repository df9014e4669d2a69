"""The density of a run given others, as a ratio of normalising constants.

Against quadrature it is tested where it is used, in K-fold.
"""

import numpy as np
import pytest
from scipy.special import logsumexp

import bayesphase as bp
from bayesphase.model import held_out
from bayesphase.model.spec import specify


@pytest.fixture(scope="module")
def features():
    """Runs that are so alike that the mean over the draws is a good estimate."""
    x = bp.simulate(n_states=2, n_runs=6, n_steps=50, n_features=2, random_seed=1)["features"]
    return 100.0 + 7.0 * x


@pytest.fixture(scope="module")
def fits(features):
    priors = specify(features, 2, emission="gaussian", transition="sticky", priors=None).priors
    settings = {"priors": priors, "draws": 1000, "progressbar": False}
    without = bp.fit(
        features.drop_sel(run="run-2"), 2, emission="gaussian", random_seed=1, **settings
    )
    return without, bp.fit(features, 2, emission="gaussian", random_seed=2, **settings)


def test_it_is_the_mean_over_the_draws_where_that_is_good(features, fits):
    densities = bp.run_log_likelihood(fits[0], features.sel(run=["run-2"])).values
    mean = logsumexp(densities) - np.log(densities.size)
    assert densities.std() > 0.4
    value, error = held_out.log_predictive(*fits, "run-2")
    assert value == pytest.approx(mean, abs=0.06)
    assert error < 0.05
    assert held_out.log_predictive(*fits, "run-2") == (value, error)


def test_names_of_states_do_not_matter(fits):
    renamed = fits[0].copy(deep=True)
    for variable in renamed["posterior"].data_vars.values():
        axes = [i for i, dim in enumerate(variable.dims) if str(dim).startswith("state")]
        variable.values[:] = np.flip(variable.values, axes)
    value, _ = held_out.log_predictive(renamed, fits[1], "run-2")
    assert value == pytest.approx(held_out.log_predictive(*fits, "run-2")[0], abs=0.06)


def test_it_lies_between_the_means_of_the_two_fits(features, fits):
    """Jensen's inequality, for either posterior."""
    run = features.sel(run=["run-2"])
    lower, upper = (float(bp.run_log_likelihood(fit, run).mean()) for fit in fits)
    assert lower < held_out.log_predictive(*fits, "run-2")[0] < upper


def test_what_it_can_not_do(fits, monkeypatch):
    few = [fit.isel(draw=slice(20)) for fit in fits]
    assert np.isnan(held_out.log_predictive(*few, "run-2")).all()
    monkeypatch.setattr(held_out, "direct_density", lambda spec: None)  # as for PyMC's own priors
    assert np.isnan(held_out.log_predictive(*fits, "run-2")).all()
