"""The density of a run given others, as a ratio of normalising constants.

Against quadrature it is tested where it is used, in K-fold.
"""

import exact_evidence
import numpy as np
import pytest
import xarray as xr
from scipy.special import logsumexp

import bayesphase as bp
from bayesphase.model import held_out
from bayesphase.model.spec import recorded, specify


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
    value, error = held_out.log_predictive(*fits)
    assert value == pytest.approx(mean, abs=0.06)
    assert error < 0.05
    assert held_out.log_predictive(*fits) == (value, error)


def test_names_of_states_do_not_matter(fits):
    renamed = fits[0].copy(deep=True)
    for variable in renamed["posterior"].data_vars.values():
        axes = [i for i, dim in enumerate(variable.dims) if str(dim).startswith("state")]
        variable.values[:] = np.flip(variable.values, axes)
    value, _ = held_out.log_predictive(renamed, fits[1])
    assert value == pytest.approx(held_out.log_predictive(*fits)[0], abs=0.06)


def test_it_lies_between_the_means_of_the_two_fits(features, fits):
    """Jensen's inequality, for either posterior."""
    run = features.sel(run=["run-2"])
    lower, upper = (float(bp.run_log_likelihood(fit, run).mean()) for fit in fits)
    assert lower < held_out.log_predictive(*fits)[0] < upper


def test_states_that_no_other_run_is_in_have_one_name_of_several():
    """Against the sum over all paths: without the run, draws name its states in either order."""
    y = np.array([[0.1, -0.1, 0.05, 0.0], [5.0, 5.1, -5.0, -5.1]])
    coords = {"run": ["one state", "two others"], "step": np.arange(4), "feature": ["x"]}
    x = xr.DataArray(y[..., None], dims=("run", "step", "feature"), coords=coords)
    priors = {
        "mean": bp.Prior("Normal", mu=0.0, sigma=5.0),
        "scale": bp.Prior("InverseGamma", alpha=3.0, beta=0.5),
    }
    settings = {"emission": "gaussian", "priors": priors, "draws": 2000, "progressbar": False}
    without = bp.fit(x.isel(run=[0]), 3, random_seed=1, **settings)
    with_it = bp.fit(x, 3, random_seed=2, **settings)
    value, error = held_out.log_predictive(without, with_it)
    spec = recorded(with_it)
    a = {
        name: np.asarray(spec.priors[f"{name}_probs"].parameters["a"])
        for name in ("initial", "transition")
    }
    prior = (0.0, 5.0, 3.0, 0.5)
    both = exact_evidence.log_evidence(y.ravel(), **a, priors=[prior] * 3, starts=(0, 4))
    exact = both - exact_evidence.log_evidence(y[0], **a, priors=[prior] * 3)
    assert error < 0.1
    assert value == pytest.approx(exact, abs=0.15)


def test_what_it_can_not_do(fits):
    few = [fit.isel(draw=slice(10)) for fit in fits]
    assert np.isnan(held_out.log_predictive(*few)).all()
