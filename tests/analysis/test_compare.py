"""The table of a comparison: ArviZ's numbers where ArviZ has any, and at any size."""

import warnings

import arviz_stats
import numpy as np
import pytest
import xarray as xr
from closed_forms import NormalMean, quietly
from scipy.optimize import minimize_scalar
from scipy.special import softmax

import bayesphase as bp
from bayesphase.analysis.compare import METHODS, stacking_weights


@pytest.fixture(scope="module")
def fits():
    """Three fits of the same features: the true posterior, and two that are off."""
    right = NormalMean(lengths=(6, 4, 9, 5, 7, 7, 3)).fit(1000)
    return {"right": right, **{f"off by {by}": moved(right, by) for by in (0.4, -0.5)}}


def moved(fit, by):
    fit = fit.copy(deep=True)
    fit["posterior"]["mean"].values[:] += by
    densities = bp.run_log_likelihood(fit, fit["observed_data"]["features"])
    fit["log_likelihood"] = xr.DataTree(densities.to_dataset())
    return fit


def of_arviz(estimates, method):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return arviz_stats.compare(estimates, method=method, round_to="none")
        except TypeError:  # ArviZ 0.8 never rounds
            return arviz_stats.compare(estimates, method=method)


@pytest.mark.parametrize("by", ["run", "checkpoint"])
@pytest.mark.parametrize("method", ["stacking", "pseudo-bma"])
def test_the_numbers_are_those_of_arviz(fits, by, method):
    table = bp.compare(fits, by=by, method=method)
    estimates = {name: bp.loo(fit, by=by) for name, fit in fits.items()}
    theirs = of_arviz(estimates, method).loc[table.index]
    n = next(iter(estimates.values())).n_data_points
    np.testing.assert_array_equal(table["rank"], [0, 1, 2])
    np.testing.assert_allclose(table["elpd"], theirs["elpd"])
    np.testing.assert_allclose(table["p"], theirs["p"])
    np.testing.assert_allclose(np.abs(table["elpd_diff"]), np.abs(theirs["elpd_diff"]), atol=1e-12)
    np.testing.assert_allclose(table["dse"], theirs["dse"] * np.sqrt(n / (n - 1)), atol=1e-12)
    np.testing.assert_allclose(table["weight"], theirs["weight"], atol=5e-3)
    assert table["weight"].sum() == pytest.approx(1)
    assert (table["elpd_diff"] <= 0).all()
    assert table.index[0] == "right"
    assert list(table) == ["rank", "elpd", "p", "elpd_diff", "weight", "se", "dse", "warning"]


def test_bootstrapped_weights_are_less_sure_than_the_others(fits):
    estimates = {name: bp.loo(fit) for name, fit in fits.items()}
    plain = bp.compare(estimates, method="pseudo-bma")["weight"]
    bootstrapped = bp.compare(estimates, method="bb-pseudo-bma")["weight"]
    np.testing.assert_allclose(
        bootstrapped,
        of_arviz(estimates, "BB-pseudo-BMA").loc[bootstrapped.index]["weight"],
        atol=0.04,
    )
    assert 0 < -np.sum(plain * np.log(plain)) < -np.sum(bootstrapped * np.log(bootstrapped))


def test_two_models_are_stacked_as_their_one_weight_says():
    rng = np.random.default_rng(1)
    elpd_i = rng.normal(-3.0, 1.0, (30, 2))

    def loss(w):
        return -np.log(w * np.exp(elpd_i[:, 0]) + (1 - w) * np.exp(elpd_i[:, 1])).sum()

    best = minimize_scalar(loss, bounds=(0, 1), method="bounded", options={"xatol": 1e-10})
    weights = stacking_weights(elpd_i)
    assert 0.05 < best.x < 0.95
    np.testing.assert_allclose(weights, [best.x, 1 - best.x], atol=1e-3)


def test_models_that_are_best_for_some_runs_share_the_weight():
    """As far apart as whole runs are: exp(elpd_i) is 0 or infinite."""
    elpd_i = np.full((8, 3), -9000.0)
    elpd_i[:6, 0] = elpd_i[6:, 1] = 4000.0
    np.testing.assert_allclose(stacking_weights(elpd_i), [0.75, 0.25, 0.0], atol=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_no_other_weights_have_a_better_score(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(2, 40), rng.integers(1, 7)
    elpd_i = rng.normal(0, rng.choice([0.1, 1.0, 30.0]), shape) + rng.normal(0, 1e4, (shape[0], 1))
    weights = stacking_weights(elpd_i)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()

    def score(w):
        relative = np.exp(elpd_i - elpd_i.max(axis=1, keepdims=True))
        with np.errstate(divide="ignore"):
            return np.log(relative @ w).sum()

    others = rng.dirichlet(np.ones(shape[1]), 200)
    for other in [*others, *np.eye(shape[1]), *(0.99 * weights + 0.01 * others)]:
        assert score(other) <= score(weights) + 1e-4


def test_models_that_predict_alike_share_alike(fits):
    twins = {"one": fits["right"], "other": fits["right"], "third": fits["off by -0.5"]}
    for method in METHODS:
        weight = bp.compare(twins, method=method)["weight"]
        assert weight["one"] == pytest.approx(weight["other"])
    assert bp.compare(twins)["dse"]["other"] == 0


def test_weights_by_elpd_are_its_softmax(fits):
    table = bp.compare(fits, method="pseudo-bma")
    np.testing.assert_allclose(table["weight"], softmax(table["elpd"]))


def test_estimates_are_taken_as_they_are(fits):
    for function in (bp.loo, bp.waic):
        estimates = {name: quietly(function, fit) for name, fit in fits.items()}
        table = bp.compare(estimates)
        assert table["elpd"]["right"] == estimates["right"].elpd
        assert table["se"]["right"] == estimates["right"].se
    mixed = {"right": bp.loo(fits["right"]), "off by 0.4": fits["off by 0.4"]}
    assert bp.compare(mixed)["elpd"].tolist() == bp.compare(fits)["elpd"][list(mixed)].tolist()


def test_a_single_model_has_all_the_weight(fits):
    table = bp.compare({"right": fits["right"]})
    assert table["weight"].tolist() == [1.0]
    assert table["elpd_diff"].tolist() == [0.0]


def test_folds_of_different_sizes_are_pointed_out():
    x = bp.simulate(n_states=1, n_runs=4, n_steps=15, n_features=1, random_seed=2)["features"]
    settings = {"draws": 200, "tune": 100, "chains": 2, "n_restarts": 2, "progressbar": False}
    fit = bp.fit(x, 1, emission="gaussian", random_seed=1, **settings)
    each = quietly(bp.kfold, x, 1, emission="gaussian", random_seed=1, **settings)
    halves = quietly(bp.kfold, x, 1, emission="gaussian", folds=2, random_seed=1, **settings)
    loo = quietly(bp.loo, fit)
    table = bp.compare({"loo": loo, "kfold": each})
    # two estimates of one quantity
    assert table["elpd_diff"].min() > -0.3
    with pytest.warns(UserWarning, match=r"numbers of folds are {'loo': 4, 'halves': 2}"):
        bp.compare({"loo": loo, "halves": halves})


def test_an_unreliable_estimate_is_named(fits):
    spoiled = fits["right"].copy(deep=True)
    densities = spoiled["log_likelihood"]["run_log_likelihood"].values
    densities[..., 1] -= np.random.default_rng(1).exponential(3.0, densities.shape[:2])
    with pytest.warns(UserWarning, match=r"fit 'bad': 1 of 7 runs \('run 1'\) have a Pareto"):
        table = bp.compare({"bad": spoiled, "right": fits["right"]})
    assert table["warning"].to_dict() == {"right": False, "bad": True}


def test_the_table_can_be_plotted(fits):
    plots = pytest.importorskip("arviz_plots")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plots.plot_compare(bp.compare(fits), relative_scale=True, backend="none")


def test_fits_of_other_data_are_refused(fits):
    right = fits["right"]

    def changed(**changes):
        return {"right": right, "other": NormalMean(**changes).fit(100)}

    with pytest.raises(ValueError, match=r"'right' and 'other' .* \(the runs \['run 0', .* and \["):
        bp.compare(changed(lengths=(5, 5)))
    with pytest.raises(ValueError, match=r"'right' and 'other' .* \(9 and 8 steps, not the same"):
        bp.compare(changed(lengths=(6, 4, 8, 5, 7, 7, 3)))
    with pytest.raises(ValueError, match=r"'right' and 'other' .* \(41 of 63 values\): fit both"):
        bp.compare(changed(lengths=(6, 4, 9, 5, 7, 7, 3), seed=2))
    renamed = right.copy(deep=True)
    for group in ("observed_data", "posterior"):
        renamed[group] = xr.DataTree(renamed[group].to_dataset().assign_coords(feature=["y"]))
    with pytest.raises(ValueError, match=r"\(the features \['metric0'\] and \['y'\]\)"):
        bp.compare({"right": right, "renamed": renamed})
    elsewhere = bp.loo(NormalMean(lengths=(6, 4, 9, 5, 7, 7, 3), seed=2).fit(100))
    with pytest.raises(ValueError, match="'right' and 'elsewhere' are of different data: fit both"):
        bp.compare({"right": right, "elsewhere": elsewhere})


def test_errors(fits):
    right = fits["right"]
    with pytest.raises(ValueError, match=r"method must be one of .* got 'bma'"):
        bp.compare(fits, method="bma")
    with pytest.raises(ValueError, match=r"by must be one of .* got 'step'"):
        bp.compare(fits, by="step")
    with pytest.raises(TypeError, match=r"fits must be fits by name, .* got DataTree"):
        bp.compare(right)
    with pytest.raises(ValueError, match="fits is empty"):
        bp.compare({})
    with pytest.raises(TypeError, match=r"'a' must be a fit or what .* got float"):
        bp.compare({"a": 3.0})
    by_checkpoint = bp.loo(right, by="checkpoint")
    with pytest.raises(ValueError, match="'a' is by run, but 'b' by checkpoint"):
        bp.compare({"a": right, "b": by_checkpoint})
    with pytest.raises(ValueError, match="'a' is of kind 'loo', but 'b' of kind 'waic'"):
        bp.compare({"a": right, "b": quietly(bp.waic, right)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = arviz_stats.loo(right, pointwise=True)
    with pytest.raises(ValueError, match="'a' does not say what it left out, of which data"):
        bp.compare({"a": theirs})
    bare = right.copy()
    del bare["observed_data"]
    with pytest.raises(ValueError, match="the fit 'a' lacks the group 'observed_data'"):
        bp.compare({"a": bare})
