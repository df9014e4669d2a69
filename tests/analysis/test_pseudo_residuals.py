"""Pseudo-residuals are normal and independent where the model holds, and not where it does not."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import chi2, norm
from synthetic import fit_at

import bayesphase as bp
from bayesphase.analysis._lagged import lagged_correlation
from bayesphase.analysis.pseudo_residuals import normal_quantiles
from bayesphase.model.replicate import draw_rows
from bayesphase.model.spec import specify

FAMILIES = [
    bp.Gaussian(),
    bp.StudentT(),
    bp.RandomWalk(df=None),
    bp.RandomWalk(),
    bp.AutoRegressive(),
    bp.AutoRegressive(df=None, differences=1),
    bp.QuadraticDrift(),
]
LEVEL = 0.01  # of all p-values of a test together


def from_the_model(emission, rng, *, n_runs=4, n_steps=400, missing=0.15):
    """Two phases that overlap, uneven steps and holes: features, what made them, and the states."""
    shape = (n_runs, n_steps, 2)
    values = rng.normal(size=shape)
    values[rng.random(shape) < missing] = np.nan
    features = xr.DataArray(
        values,
        dims=("run", "step", "feature"),
        coords={
            "run": [f"r{r}" for r in range(n_runs)],
            "step": np.cumsum(np.resize([10, 10, 20], n_steps)),
            "feature": ["x", "y"],
        },
    )
    spec = specify(features, 2, emission=emission, transition=bp.Sticky(), priors=None)
    place, rate = np.array([[-0.5, 0.3], [0.5, -0.4]]), np.full((2, 2), 0.3)
    if emission.name == "quadratic_drift":
        rate = -rate
    scale = np.array([[0.4, 0.6], [0.9, 0.5]])
    named = dict(zip(emission.dims, (place, scale, rate, np.full((2, 2), 1e-3)), strict=False))
    named["transition_probs"] = np.array([[0.9, 0.1], [0.2, 0.8]])
    named["initial_probs"] = np.array([0.7, 0.3])
    _, drawn = draw_rows(spec, named, rng)
    made = np.full(shape, np.nan)
    made[spec.rows.run, spec.rows.step] = np.where(spec.rows.observed, drawn, np.nan)
    features = features.copy(data=made)
    spec = specify(features, 2, emission=emission, transition=bp.Sticky(), priors=None)
    return spec, features, named


@pytest.mark.parametrize("emission", FAMILIES, ids=repr)
def test_they_are_normal_and_independent_if_the_model_holds(emission):
    spec, features, named = from_the_model(emission, np.random.default_rng(4))
    table = bp.pseudo_residuals(fit_at(spec, features, named, n_draws=2), draws=1)
    # 6 tests for each of the families: no more than one run of all in a hundred fails
    level = LEVEL / (6 * len(FAMILIES))
    assert (table["p_value"] > level).all()
    z = table["autocorrelation"] / table["autocorrelation_sd"]
    assert (chi2.sf((z**2).sum("lag"), z.sizes["lag"]) > level).all()
    assert (abs(z.sel(lag=1)) < norm.isf(level / 2)).all()
    residual = table["pseudo_residual"]
    assert float(residual.std()) == pytest.approx(1.0, abs=0.05)
    missing = np.isnan(features).transpose(*residual.dims)
    assert np.isnan(residual.values[missing.values]).all()
    lost = {"gaussian": 0, "student_t": 0}.get(emission.name, 1) + getattr(
        emission, "differences", 0
    )
    assert int((np.isnan(residual) & ~missing).sum()) == lost * 4 * 2


def test_another_noise_is_seen():
    """Student-t data under normal noise of the same spread."""
    spec, features, named = from_the_model(bp.StudentT(df=3.0), np.random.default_rng(5))
    wrong = spec._replace(emission=bp.Gaussian())
    table = bp.pseudo_residuals(fit_at(wrong, features, named))
    assert (table["p_value"] < LEVEL).all()
    assert (abs(table["pseudo_residual"]).max(("run", "step")) > 5).all()


def drifting(rng):
    t = np.arange(150)
    values = 0.05 * t[:, None] + 0.2 * rng.normal(size=(150, 2)).cumsum(axis=0)
    return xr.DataArray(
        values[None],
        dims=("run", "step", "feature"),
        coords={"run": ["a"], "step": 10 * t, "feature": ["x", "y"]},
    )


def quick_fit(features, n_states):
    return bp.fit(
        features,
        n_states,
        emission="gaussian",
        draws=50,
        tune=100,
        chains=2,
        n_restarts=2,
        random_seed=1,
        progressbar=False,
    )


def test_constant_means_are_flagged_on_a_drift_and_not_on_their_own_data():
    flagged = quick_fit(drifting(np.random.default_rng(6)), 3)
    table = bp.pseudo_residuals(flagged, lags=3)
    z = table["autocorrelation"] / table["autocorrelation_sd"]
    assert (z > 5).all()
    checks = bp.predictive_checks(flagged, random_seed=1)
    p = checks["p_value"].sel(check=checks["statistic"] == "autocorrelation")
    assert (p < 0.01).all()
    assert "autocorrelation of residuals within phases (x, y) is larger" in checks.attrs["verdict"]

    own = bp.simulate(n_states=3, n_runs=2, n_steps=150, n_features=2, random_seed=7)["features"]
    fit = quick_fit(own, 3)
    table = bp.pseudo_residuals(fit, lags=3)
    z = table["autocorrelation"] / table["autocorrelation_sd"]
    assert (abs(z) < 3.5).all()
    assert (table["p_value"] > 0.005).all()
    checks = bp.predictive_checks(fit, random_seed=1)
    p = checks["p_value"].sel(check=checks["statistic"] == "autocorrelation")
    assert (abs(p - 0.5) < 0.49).all()


def test_correlations_are_within_runs_and_over_their_own_checkpoints():
    residual = np.array([[1.0, 2.0, np.nan, 3.0], [5.0, -1.0, 4.0, np.nan]])[:, :, None]
    pairs = np.array([[1.0, 2.0], [2.0, 3.0], [5.0, -1.0], [-1.0, 4.0]])
    expected = (pairs[:, 0] * pairs[:, 1]).sum() / np.sqrt((pairs**2).sum(axis=0).prod())
    found, n_pairs = lagged_correlation(residual)
    assert found[0] == pytest.approx(expected)
    assert n_pairs.tolist() == [4]
    assert lagged_correlation(residual, lag=2)[1].tolist() == [2]
    assert lagged_correlation(residual, lag=4)[1].tolist() == [0]
    state = np.array([[0, 0, 0, 1], [1, 1, 1, -1]])
    # a checkpoint without this feature lies in between here, and pairs are in one state
    assert lagged_correlation(residual, state=state)[1].tolist() == [3]


@pytest.mark.parametrize("n", [20, 900])
def test_the_envelope_holds_all_points_as_often_as_it_says(n):
    rng = np.random.default_rng(8)
    draws = xr.DataArray(rng.normal(size=(1, n, 600)), dims=("run", "step", "feature"))
    draws = draws.assign_coords(feature=np.arange(600))
    quantiles = normal_quantiles(draws, ci_prob=0.9)
    assert quantiles.sizes["point"] <= 200
    inside = (quantiles["observed"] >= quantiles["lower"]) & (
        quantiles["observed"] <= quantiles["upper"]
    )
    held = (inside | quantiles["observed"].isnull()).all("point").mean()
    # of 600, and of the 2,000 that it is calibrated on
    assert float(held) == pytest.approx(0.9, abs=3.5 * np.sqrt(0.09 * (1 / 600 + 1 / 2000)))


def test_arguments_are_checked():
    spec, features, named = from_the_model(bp.Gaussian(), np.random.default_rng(9), n_steps=20)
    fit = fit_at(spec, features, named)
    for name in ("draws", "lags", "cores"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            bp.pseudo_residuals(fit, **{name: 0})
    assert bp.pseudo_residuals(fit, draws=7).attrs["n_draws"] == 7
    assert bp.pseudo_residuals(fit, draws=None).attrs["n_draws"] == 20
    assert bp.pseudo_residuals(fit, lags=4).sizes["lag"] == 4
