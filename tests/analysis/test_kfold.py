"""K-fold by run: held-out densities are exact, and what they are of is said."""

import numpy as np
import pytest
import xarray as xr
from closed_forms import OneState, one_state, quietly
from scipy.special import logsumexp

import bayesphase as bp
from bayesphase.model import held_out
from bayesphase.model.spec import specify

QUICK = {"draws": 200, "tune": 100, "chains": 2, "n_restarts": 2, "progressbar": False}


def test_each_run_is_predicted_by_the_others_exactly():
    features = one_state(6)
    result = bp.kfold(
        features, 1, emission="gaussian", random_seed=1, draws=1000, progressbar=False
    )
    exact = OneState(features).loo()
    np.testing.assert_allclose(result.elpd_i, exact, atol=0.05)
    assert result.elpd == pytest.approx(exact.sum(), abs=0.1)
    assert result.se == pytest.approx(np.sqrt(6 * exact.var(ddof=1)), rel=0.05)
    assert (result.kind, result.n_folds, result.n_data_points) == ("loo_kfold", 6, 6)
    assert (result.pareto_k < 0.7).all()
    assert not result.warning


@pytest.mark.parametrize("folds", [6, 2])
def test_runs_far_from_the_others_are_predicted_exactly(folds):
    """Their density varies by dozens of nats over the draws, so that its mean is no estimate."""
    features = one_state(6, apart=1.0)
    result = bp.kfold(
        features, 1, emission="gaussian", folds=folds, random_seed=1, draws=1000, progressbar=False
    )
    exact = OneState(features).loo(folds)
    bridged = result.elpd_i["bridged"].values
    np.testing.assert_array_equal(bridged, ~(result.pareto_k.values <= result.good_k))
    assert bridged.sum() >= 2
    assert result.pareto_k.max() > 1.5
    np.testing.assert_allclose(result.elpd_i[bridged], exact[bridged], atol=0.05)
    np.testing.assert_allclose(result.elpd_i, exact, atol=0.3)
    assert not result.warning


def test_it_is_what_fits_without_each_fold_say():
    features = one_state(5, apart=0.0).assign_coords(run=list("edcba"))
    settings = {**QUICK, "draws": 1000}
    result = bp.kfold(features, 1, emission="gaussian", folds=2, random_seed=7, **settings)
    assert not result.elpd_i["bridged"].any()
    priors = specify(features, 1, emission="gaussian", transition="sticky", priors=None).priors
    seeds = np.random.SeedSequence(7).generate_state(7)
    for seed, runs in zip(seeds, ("eca", "db"), strict=False):
        rest = features.drop_sel(run=list(runs))
        fit = bp.fit(rest, 1, emission="gaussian", random_seed=int(seed), priors=priors, **settings)
        density = bp.run_log_likelihood(fit, features.sel(run=list(runs)))
        expected = logsumexp(density, axis=(0, 1)) - np.log(2000)
        np.testing.assert_allclose(result.elpd_i.sel(run=list(runs)), expected, rtol=1e-10)
    assert result.n_samples == 2000
    assert result.elpd_i["run"].values.tolist() == list("edcba")
    assert result.elpd_i.attrs["unit"] == "run"


def test_each_run_has_a_fit_of_its_own_up_to_ten():
    settings = {**QUICK, "draws": 25, "chains": 1}
    for n_runs, folds in ((10, 10), (11, 10)):
        result = quietly(
            bp.kfold, one_state(n_runs), 1, emission="gaussian", random_seed=1, **settings
        )
        assert result.n_folds == folds
        assert result.n_data_points == n_runs


def test_one_seed_gives_one_answer():
    a, b = (
        quietly(bp.kfold, one_state(4), 1, emission="gaussian", folds=2, random_seed=3, **QUICK)
        for _ in range(2)
    )
    xr.testing.assert_identical(a.elpd_i, b.elpd_i)


def test_what_stays_unreliable_is_named(monkeypatch):
    few = {**QUICK, "draws": 4}
    with pytest.warns(
        UserWarning, match=r"4 of 4 runs \(.*'run-2'.*\) have a held-out density that"
    ):
        result = bp.kfold(one_state(4), 1, emission="gaussian", random_seed=1, **few)
    assert result.warning
    monkeypatch.setattr(held_out, "log_predictive", lambda *_: (-30.0, 0.6))
    with pytest.warns(UserWarning, match=r"of 4 runs \('run-0', .*\) have a held-out density"):
        result = bp.kfold(one_state(4, apart=2.0), 1, emission="gaussian", random_seed=1, **QUICK)
    np.testing.assert_array_equal(result.elpd_i == -30.0, result.elpd_i["bridged"])


def test_a_run_may_lack_a_feature():
    features = bp.simulate(n_states=1, n_runs=3, n_steps=20, n_features=2, random_seed=1)
    features = features["features"]
    features[1, :, 0] = np.nan
    result = bp.kfold(features, 1, emission="gaussian", random_seed=1, **QUICK)
    assert np.isfinite(result.elpd_i).all()


def test_errors():
    features = one_state(4)
    for folds in (5, 0, 1):
        with pytest.raises(ValueError, match=r"folds must .*" + str(folds)):
            bp.kfold(features, 1, emission="gaussian", folds=folds)
    with pytest.raises(TypeError, match="folds must be an integer"):
        bp.kfold(features, 1, emission="gaussian", folds="all")
    with pytest.raises(ValueError, match="left out one fold at a time, and there is only"):
        bp.kfold(features[:1], 1, emission="gaussian")
    with pytest.raises(TypeError, match="sampling"):
        bp.kfold(features, 1, emission="gaussian", sampling="nutpie")
    with pytest.raises(TypeError, match="features must be an xarray"):
        bp.kfold(features.values, 1, emission="gaussian")
    lonely = xr.concat([features, features.assign_coords(feature=["other"])], "feature")
    lonely[1:, :, 1] = np.nan
    with pytest.raises(ValueError, match="feature 'other' is NaN everywhere") as raised:
        bp.kfold(lonely, 1, emission="gaussian", **QUICK)
    assert raised.value.__notes__ == ["This was the fit without the runs ['run-0']."]
