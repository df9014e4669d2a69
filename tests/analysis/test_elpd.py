"""LOO and WAIC against closed forms, quadrature and, slowly, against fits without a unit."""

import warnings

import arviz_stats
import numpy as np
import pytest
import xarray as xr
from closed_forms import NormalMean, OneState, UnknownMean, one_state, quietly
from synthetic import synthetic_fit

import bayesphase as bp
from bayesphase.analysis._elpd import smoothed

UNITS = ["run", "checkpoint"]


@pytest.fixture(scope="module")
def conjugate():
    return NormalMean()


@pytest.fixture(scope="module")
def conjugate_fit(conjugate):
    return conjugate.fit()


@pytest.fixture(scope="module")
def two_states():
    return UnknownMean()


@pytest.fixture(scope="module")
def two_states_fit(two_states):
    return two_states.fit()


@pytest.mark.parametrize("by", UNITS)
def test_loo_equals_its_closed_form(conjugate, conjugate_fit, by):
    result = bp.loo(conjugate_fit, by=by)
    np.testing.assert_allclose(result.elpd_i, conjugate.loo(by), atol=0.01)
    assert result.elpd == pytest.approx(conjugate.loo(by).sum(), abs=0.01)


@pytest.mark.parametrize("by", UNITS)
def test_loo_equals_quadrature_with_two_states(two_states, two_states_fit, by):
    """Each unit is left out of the posterior and of the sums over the states, one by one."""
    expected = two_states.loo(by)
    result = bp.loo(two_states_fit, by=by)
    np.testing.assert_allclose(result.elpd_i, expected, atol=0.05)
    assert result.elpd == pytest.approx(expected.sum(), abs=0.1)
    # to leave units out is no small matter here: it is more than those errors
    assert result.p > 0.3


@pytest.mark.parametrize("by", UNITS)
def test_waic_equals_its_closed_form(conjugate, conjugate_fit, by):
    lppd, p = conjugate.waic(by)
    result = bp.waic(conjugate_fit, by=by)
    np.testing.assert_allclose(result.elpd_i, lppd - p, atol=2e-3)
    assert result.p == pytest.approx(p.sum(), abs=2e-3)
    assert result.elpd == pytest.approx((lppd - p).sum(), abs=5e-3)


def test_waic_is_made_of_its_elements():
    rng = np.random.default_rng(1)
    fit = synthetic_fit()
    densities = -90.0 + rng.normal(0, 0.3, (2, 50, 3))
    fit["log_likelihood"]["run_log_likelihood"].values[:] = densities
    flat = densities.reshape(100, 3)
    elpd_i = np.log(np.exp(flat).mean(axis=0)) - flat.var(axis=0, ddof=1)
    result = bp.waic(fit)
    np.testing.assert_allclose(result.elpd_i, elpd_i, rtol=1e-12)
    assert result.p == pytest.approx(flat.var(axis=0, ddof=1).sum())
    assert result.elpd == pytest.approx(elpd_i.sum())
    assert result.se == pytest.approx(np.sqrt(3 * elpd_i.var(ddof=1)))
    assert (result.kind, result.scale, result.n_samples, result.n_data_points) == (
        "waic",
        "log",
        100,
        3,
    )


def test_waic_and_loo_agree_where_no_unit_matters_much(conjugate_fit):
    a, b = (function(conjugate_fit, by="checkpoint") for function in (bp.loo, bp.waic))
    assert a.elpd == pytest.approx(b.elpd, abs=0.02)


def test_loo_is_that_of_arviz_where_chains_mix_perfectly(conjugate_fit):
    theirs = arviz_stats.loo(conjugate_fit, var_name="run_log_likelihood", reff=1.0, pointwise=True)
    ours = bp.loo(conjugate_fit)
    np.testing.assert_allclose(ours.elpd_i, theirs.elpd_i, atol=1e-3)
    np.testing.assert_allclose(ours.pareto_k, theirs.pareto_k, atol=0.05)
    # ArviZ 0.8 divides by the number of units, and not by one less, which matters with few
    assert ours.se == pytest.approx(np.sqrt(4 * theirs.elpd_i.values.var(ddof=1)), rel=1e-3)


@pytest.mark.parametrize("by", UNITS)
def test_how_states_are_named_does_not_matter(two_states_fit, by):
    renamed = two_states_fit.copy(deep=True)
    posterior = renamed["posterior"].to_dataset()
    swapped = np.random.default_rng(1).random(posterior.sizes["draw"]) < 0.5
    for variable in posterior.data_vars.values():
        axes = [i - 2 for i, d in enumerate(variable.dims) if d.startswith("state")]
        values = variable.values[:, swapped]
        variable[{"draw": np.flatnonzero(swapped)}] = np.flip(values, [a + 2 for a in axes])
    renamed["posterior"] = xr.DataTree(posterior)
    assert not np.allclose(renamed["posterior"]["mean"], two_states_fit["posterior"]["mean"])
    likelihood = bp.run_log_likelihood(renamed, renamed["observed_data"]["features"])
    renamed["log_likelihood"] = xr.DataTree(likelihood.to_dataset())
    for function in (bp.loo, bp.waic):
        a, b = (quietly(function, fit, by=by) for fit in (two_states_fit, renamed))
        np.testing.assert_allclose(a.elpd_i, b.elpd_i, rtol=1e-9)
        assert a.p == pytest.approx(b.p)
        if a.pareto_k is not None:
            np.testing.assert_allclose(a.pareto_k, b.pareto_k, atol=1e-6)


def test_units_have_their_labels(conjugate, conjugate_fit):
    by_run = bp.loo(conjugate_fit)
    assert by_run.elpd_i.dims == by_run.pareto_k.dims == ("run",)
    assert by_run.elpd_i["run"].values.tolist() == conjugate.features["run"].values.tolist()
    by_checkpoint = bp.loo(conjugate_fit, by="checkpoint")
    assert by_checkpoint.elpd_i.dims == by_checkpoint.pareto_k.dims == ("checkpoint",)
    assert by_checkpoint.n_data_points == conjugate.features.notnull().sum()
    grid = by_checkpoint.elpd_i.set_index(checkpoint=["run", "step"]).unstack("checkpoint")
    present = conjugate.features.notnull().all("feature")
    np.testing.assert_array_equal(grid.notnull(), present)
    for result in (by_run, by_checkpoint, bp.waic(conjugate_fit, by="checkpoint")):
        assert result.elpd_i.attrs["units"] == "nats"
        assert result.elpd_i.attrs["unit"] == result.elpd_i.dims[0]


def spoiled():
    """A fit whose second run is far more probable under some draws than under others."""
    fit = synthetic_fit(n_draws=500)
    densities = fit["log_likelihood"]["run_log_likelihood"].values
    rng = np.random.default_rng(1)
    densities[:] += rng.normal(0, 0.1, densities.shape)
    densities[..., 1] -= rng.exponential(3.0, densities.shape[:2])
    return fit


def test_units_that_can_not_be_left_out_are_named():
    with pytest.warns(
        UserWarning,
        match=r"1 of 3 runs \('seed1'\) have a Pareto k-hat above 0\.67: .* bayesphase\.kfold",
    ):
        result = bp.loo(spoiled())
    assert result.warning
    assert result.good_k == pytest.approx(1 - 1 / 3)
    with pytest.warns(UserWarning, match=r"1 of 3 runs \('seed1'\) have a variance .* above 0\.4"):
        result = bp.waic(spoiled())
    assert result.warning


@pytest.mark.parametrize("spread", [10.0, 1e4])
def test_weights_that_one_draw_has_all_of_are_not_called_good(spread):
    """Older versions of ArviZ do so where the others' are 0 to the last digit."""
    rng = np.random.default_rng(1)
    logs = xr.DataArray(rng.normal(size=(2, 500, 3)), dims=("chain", "draw", "run"))
    logs[..., 1] *= spread
    logs[..., 2] = -7.0
    smooth, pareto_k = smoothed(logs)
    assert pareto_k[0] < 0.7
    assert not pareto_k[1] <= 0.7
    assert pareto_k[2] == -np.inf
    assert np.isfinite(smooth).all()
    fit = synthetic_fit(n_draws=500)
    logs[..., 2] = logs[..., 0]
    fit["log_likelihood"]["run_log_likelihood"].values[:] = -100.0 + logs.values
    with pytest.warns(UserWarning, match=r"\('seed1'\) have a Pareto k-hat"):
        bp.loo(fit)


def test_checkpoints_are_counted_by_run(two_states_fit):
    with pytest.warns(UserWarning, match=r"\d of 26 checkpoints \(\d of 'run-\d'.*\) have a var"):
        bp.waic(_with_outlier(two_states_fit), by="checkpoint")


def _with_outlier(fit):
    fit = fit.copy(deep=True)
    fit["observed_data"]["features"].values[2, 4] = 25.0
    return fit


def test_nothing_is_known_about_the_error_of_a_single_unit():
    fit = NormalMean(lengths=(12,)).fit(2000)
    assert all(np.isnan(quietly(function, fit).se) for function in (bp.loo, bp.waic))


def test_khat_can_be_plotted(conjugate_fit):
    plots = pytest.importorskip("arviz_plots")
    for by in UNITS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plots.plot_khat(bp.loo(conjugate_fit, by=by), backend="none")


@pytest.mark.parametrize("function", [bp.loo, bp.waic])
def test_errors(function, conjugate_fit):
    with pytest.raises(ValueError, match=r"by must be one of \['run', 'checkpoint'\], got 'step'"):
        function(conjugate_fit, by="step")
    with pytest.raises(TypeError, match=r"expected the DataTree that .* returns, got dict"):
        function({"2": conjugate_fit})
    with pytest.raises(ValueError, match=r"the fit lacks the groups \['log_likelihood'\]"):
        function(conjugate_fit.filter(lambda node: node.name != "log_likelihood"))
    with pytest.raises(ValueError, match="the fit has 20 draws in all, expected at least 25"):
        function(conjugate_fit.isel(draw=slice(10)))
    impossible = conjugate_fit.copy(deep=True)
    impossible["log_likelihood"]["run_log_likelihood"].values[0, 3, 2] = -np.inf
    with pytest.raises(ValueError, match=r"1 of 4 runs \('run 2'\) have a density of 0"):
        function(impossible)


def test_loo_of_a_real_fit_equals_quadrature():
    features = one_state()
    fit = bp.fit(features, 1, emission="gaussian", random_seed=1, progressbar=False)
    np.testing.assert_allclose(quietly(bp.loo, fit).elpd_i, OneState(features).loo(), atol=0.08)


@pytest.mark.slow
def test_loo_equals_fits_without_the_unit():
    """Runs are left out whole; of checkpoints the last of a run, which shortens it by one.

    To leave another checkpoint out of the features would leave its place out, too.
    """
    data = bp.simulate(n_states=2, n_runs=8, n_steps=40, n_features=2, random_seed=1)
    features = data["features"]
    spec_priors = _priors(features)
    settings = {"priors": spec_priors, "draws": 2000, "progressbar": False}
    fit = bp.fit(features, 2, emission="gaussian", random_seed=1, **settings)
    by_run, by_checkpoint = quietly(bp.loo, fit), quietly(bp.loo, fit, by="checkpoint")
    exact, last = [], []
    for run in range(8):
        rest = bp.fit(
            features.drop_isel(run=run), 2, emission="gaussian", random_seed=2, **settings
        )
        density = bp.run_log_likelihood(rest, features.isel(run=[run]))
        exact.append(_log_mean_exp(density.values))
        shorter = features.copy()
        shorter[run, -1] = np.nan
        rest = bp.fit(shorter, 2, emission="gaussian", random_seed=3, **settings)
        whole, part = (bp.run_log_likelihood(rest, x.isel(run=[run])) for x in (features, shorter))
        last.append(_log_mean_exp((whole - part).values))
    sure = by_run.pareto_k.values < 0.7
    assert sure.sum() >= 4
    np.testing.assert_allclose(by_run.elpd_i[sure], np.array(exact)[sure], atol=0.25)
    at_end = by_checkpoint.elpd_i.where(by_checkpoint.elpd_i["step"] == 390, drop=True)
    np.testing.assert_allclose(at_end, last, atol=0.03)


def _priors(features):
    from bayesphase.model.spec import specify

    return specify(features, 2, emission="gaussian", transition="sticky", priors=None).priors


def _log_mean_exp(x):
    return x.max() + np.log(np.exp(x - x.max()).mean())
