"""Forecasts of runs in progress: nothing looks ahead, intervals cover, closed forms are met."""

import numpy as np
import pytest
import xarray as xr
from forecast_data import EVENTS, features_of, fit_of, metrics_of, with_a_new_run
from scipy.stats import norm
from synthetic import fit_at

import bayesphase as bp
from bayesphase.analysis import _baselines
from bayesphase.analysis._finished import read_criterion
from bayesphase.analysis._metrics_ahead import Metrics, metric_ahead
from bayesphase.analysis._remaining import learn
from bayesphase.analysis._scoring import crps
from bayesphase.analysis.forecast_scores import _with_savings
from bayesphase.model.emissions import Gaussian
from bayesphase.model.spec import specify
from bayesphase.model.transitions import LeftToRight, Sticky


@pytest.fixture(scope="module")
def finished():
    raw = features_of(EVENTS)
    return fit_of(raw), metrics_of(EVENTS)


def test_nothing_looks_ahead_by_a_single_bit(finished):
    fit, metrics = finished
    rng = np.random.default_rng(1)
    new, known = features_of([350.0], labels=["new"]), with_a_new_run(metrics, 350.0)
    options = {"now": 120, "horizon": 100, "random_seed": 1, "draws": 10}
    table = bp.forecast(fit, new, metrics=known, **options)
    later = new.copy(data=new.values.copy())
    later[:, 13:] = 1e3 * rng.normal(size=later[:, 13:].shape)
    changed = known.copy(deep=True)
    for name in ("eval_accuracy", "eval_loss"):
        changed[name].loc[{"run": "new", "step": slice(130, None)}] = 0.99
    xr.testing.assert_identical(bp.forecast(fit, later, metrics=changed, **options), table)
    cut = new.sel(step=slice(None, 120))
    xr.testing.assert_identical(bp.forecast(fit, cut, metrics=changed, **options), table)
    # and what comes before does make a difference
    later[:, 12] += 5.0
    assert not bp.forecast(fit, later, metrics=changed, **options).equals(table)


def test_what_a_forecast_holds(finished):
    fit, metrics = finished
    new = features_of([350.0, 300.0], labels=["a", "b"])
    known = xr.concat([metrics, metrics_of([350.0], labels=["a"])], "run", data_vars="all")
    table = bp.forecast(fit, new, metrics=known, now=140, horizon=200, draws=20, random_seed=1)
    assert dict(table.sizes) == {"run": 2, "state": 2, "sample": 20, "ahead": 20, "feature": 2}
    assert (table["now"] == 140).all()
    for name, variable in table.data_vars.items():
        assert variable.attrs["long_name"], name
        assert variable.attrs["units"], name
    assert table["eval_loss"].attrs["units"] == "nats"
    assert "l2_norm" not in table
    np.testing.assert_allclose(table["phase_probability"].sum("state"), 1.0)
    assert (table["phase_probability"].sel(state=0) > 0.9).all()
    # they have not left the phase in which features fall, in their own units
    assert (table["entry_step"].sel(state=0) == 0).all()
    assert (table["entry_step"].sel(state=1) > 140).all()
    assert (table["converged_step"] > 140).all()
    near = table["features"].sel(ahead=10.0, feature="l2_norm").median("sample")
    np.testing.assert_allclose(near, new.sel(step=150, feature="l2_norm"), atol=0.5)
    # a run whose metrics are not recorded has forecasts of them all the same
    assert np.isfinite(table["eval_accuracy"]).all()
    again = bp.forecast(fit, new, metrics=known, now=140, horizon=200, draws=20, random_seed=1)
    xr.testing.assert_identical(again, table)
    alone = bp.forecast(fit, new, now=140, horizon=200, draws=20)
    assert set(alone) == {"phase_probability", "entry_step", "path", "features"}


def test_what_has_happened_is_known(finished):
    fit, metrics = finished
    new, known = features_of([210.0], labels=["new"]), with_a_new_run(metrics, 210.0)
    table = bp.forecast(fit, new, metrics=known, now=300, horizon=50, draws=10, random_seed=1)
    assert (table["converged_step"] == 210).all()
    assert (abs(table["entry_step"].sel(state=1) - 110) <= 30).all()
    assert (table["phase_probability"].sel(state=1) > 0.9).all()
    # all runs went the same way from there, so does this one
    expected = metrics["eval_loss"].sel(run="r0", step=[300, 340]).values  # it converged at 200
    np.testing.assert_allclose(
        table["eval_loss"].sel(ahead=[10, 50])[:, 0], [expected] * 10, rtol=0.02
    )


def test_intervals_are_quantiles_of_samples(finished):
    fit, metrics = finished
    new = features_of([350.0], labels=["new"])
    table = bp.forecast(fit, new, metrics=metrics, now=100, horizon=300, draws=40, random_seed=1)
    intervals = bp.forecast_intervals(table, ci_prob=(0.5, 0.8))
    np.testing.assert_allclose(intervals["quantile"], [0.1, 0.25, 0.5, 0.75, 0.9])
    for name in ("converged_step", "eval_loss", "entry_step", "features"):
        expected = np.quantile(
            table[name].transpose("sample", ...).values, intervals["quantile"], axis=0,
            method="inverted_cdf",
        )  # fmt: skip
        np.testing.assert_array_equal(
            intervals[name].transpose("quantile", *table[name].isel(sample=0).dims), expected
        )
    share = intervals["state_probability"].sel(run="new", state=1)
    by_then = table["entry_step"].sel(run="new", state=1) <= 100 + table["ahead"]
    np.testing.assert_allclose(share, by_then.mean("sample"))
    np.testing.assert_allclose(intervals["state_probability"].sum("state"), 1.0)
    xr.testing.assert_identical(
        bp.forecast_intervals(table, ci_prob=0.9), bp.forecast_intervals(table, ci_prob=(0.9,))
    )
    with pytest.raises(ValueError, match="ci_prob must be a number between 0 and 1"):
        bp.forecast_intervals(table, ci_prob=[0.5, 90])
    some = table.copy(deep=True)
    some["converged_step"][:10] = np.nan
    some["entry_step"][:] = np.nan
    intervals = bp.forecast_intervals(some)
    left = np.sort(some["converged_step"].values[10:, 0])
    assert float(intervals["converged_step"].sel(quantile=0.5)[0]) == left[14]
    assert np.isnan(intervals["entry_step"]).all()


def test_times_that_do_not_depend_on_anything_have_a_t_distribution():
    rng = np.random.default_rng(2)
    log_time = rng.normal(5.0, 0.5, 7)
    learned = learn(np.zeros((7, 1, 1)), np.zeros(1), np.exp(log_time), np.exp(log_time))
    # each is off what the others say, n / (n - 1) as far as it is off the mean of all
    off = (log_time - log_time.mean()) * 7 / 6
    middle, upper = learned.quantile(np.zeros((2, 1)), np.array([0.5, 0.9]))
    assert middle == pytest.approx(np.exp(log_time.mean()))
    # those whose others are as far from it count most
    near = np.exp(-0.5 * (off / 7 / 0.3) ** 2)
    scale = np.sqrt(near @ off**2 / near.sum())
    expected = log_time.mean() + scale * 1.439756  # of t with 6 degrees of freedom
    assert np.log(upper) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("n_runs", [4, 8])
def test_intervals_of_times_cover_as_they_say(n_runs):
    """Runs of two kinds, one of which takes longer, with a covariate that tells which."""
    rng = np.random.default_rng(n_runs)
    steps = np.arange(0.0, 40.0, 4.0)
    inside = []
    for _ in range(80):
        kind = rng.integers(0, 2, n_runs + 1)
        event = np.exp(rng.normal(4.0 + 0.8 * kind, 0.4))
        covariates = np.stack(
            np.broadcast_arrays(kind[:, None].astype(float), np.log1p(steps)), axis=-1
        )
        learned = learn(covariates[:-1], steps, event[:-1], event[:-1])
        bounds = learned.quantile(
            np.tile(covariates[-1, 0], (4, 1)), np.array([5, 25, 75, 95]) / 100
        )
        inside.append([bounds[1] < event[-1] < bounds[2], bounds[0] < event[-1] < bounds[3]])
    half, most = np.mean(inside, axis=0)
    error = 3 * np.sqrt(0.25 / 80)
    assert 0.5 - error < half < 0.5 + error + 0.1  # with few runs they are a little too wide
    assert most > 0.9 - 3 * np.sqrt(0.09 / 80)


def test_runs_in_which_it_did_not_happen_are_censored_and_not_late():
    rng = np.random.default_rng(3)
    log_time = rng.normal(4.0, 0.5, 60)
    end = np.exp(4.2)
    event = np.where(log_time < 4.2, np.exp(log_time), np.nan)
    last = np.minimum(np.exp(log_time), end)
    covariates, steps = np.zeros((60, 1, 1)), np.zeros(1)
    middle = np.array([0.5])
    learned = learn(covariates, steps, event, last).quantile(np.zeros((1, 1)), middle)
    assert np.log(learned[0]) == pytest.approx(4.0, abs=4 * 0.5 / np.sqrt(40))
    happened = ~np.isnan(event)
    dropped = learn(covariates[happened], steps, event[happened], last[happened])
    assert np.log(dropped.quantile(np.zeros((1, 1)), middle)[0]) < 3.85
    taken_for_late = learn(covariates, steps, last, last).quantile(np.zeros((1, 1)), middle)
    assert np.log(taken_for_late[0]) < 3.95
    spread = learn(covariates, steps, event, last).quantile(np.zeros((1, 1)), norm.cdf([1.0]))
    assert np.log(spread[0] / learned[0]) == pytest.approx(0.5, rel=0.25)
    assert learn(covariates[:3], steps, np.array([5.0, 7.0, np.nan]), np.full(3, 9.0)) is None


def test_a_fit_in_which_too_few_runs_converge_does_not_say_when(finished):
    fit, metrics = finished
    new = features_of([350.0], labels=["new"])
    never = metrics.copy(deep=True)
    never["eval_accuracy"][2:] = 0.5
    table = bp.forecast(fit, new, metrics=never, now=100, horizon=50, draws=5)
    assert np.isnan(table["converged_step"]).all()
    assert "eval_loss" not in table
    # also where the run itself has got there: there is no run whose way it could go
    known = with_a_new_run(metrics.where(metrics["step"] < 100), 90.0)
    alone = bp.forecast(fit, new, metrics=known, now=100, horizon=50, draws=5)
    assert (alone["converged_step"] == 90).all()
    assert "eval_loss" not in alone
    one = metrics.copy(deep=True)
    one["eval_accuracy"][3] = 0.5  # the slowest one is not seen to converge
    options = {"now": 100, "horizon": 50, "draws": 20, "random_seed": 1}
    both = [bp.forecast(fit, new, metrics=m, **options)["converged_step"] for m in (metrics, one)]
    # nothing but that it took longer than 590 is known: later than 420
    assert both[1].median() > both[0].median()


def ways(*runs, transition=None):
    """A fit of runs that go a way (state, checkpoints); the feature is the state."""
    paths = [np.repeat(*np.array(way).T) for way in runs]
    features = xr.DataArray(
        np.stack(paths)[..., None].astype(float),
        dims=("run", "step", "feature"),
        coords={
            "run": [f"r{i}" for i in range(len(paths))],
            "step": 10 * np.arange(len(paths[0])),
            "feature": ["at"],
        },
        name="features",
    )
    structure = transition or Sticky()
    spec = specify(features, 4, emission=Gaussian(), transition=structure, priors=None)
    named, _ = spec.transition.maximise(np.zeros((1, 4, 4)), np.ones(4))
    named |= {"mean": np.arange(4.0)[:, None], "scale": np.full((4, 1), 0.1)}
    return fit_at(spec, features, named, n_draws=200)


def entries_from(fit, *states):
    """Share of samples (state) in which a run that was in these states enters others, and when."""
    new = fit["observed_data"].to_dataset()["features"][:1, : len(states)]
    new = new.copy(data=np.array(states, float)[None, :, None]).assign_coords(run=["new"])
    table = bp.forecast(fit, new, draws=200, horizon=100, random_seed=1)
    return table["entry_step"][:, 0].notnull().mean("sample").values, table


def fork(**options):
    lengths = range(8, 18)
    return ways(
        *([(0, n), (1, 10), (3, 30 - n)] for n in lengths),
        *([(0, n), (2, 10), (3, 30 - n)] for n in lengths),
        **options,
    )


@pytest.mark.parametrize("transition", [Sticky(), LeftToRight(skip=True)], ids=repr)
def test_a_state_that_runs_like_it_skip_may_never_be_entered(transition):
    fit = fork(transition=transition)
    share, table = entries_from(fit, 0, 0, 0, 0)
    np.testing.assert_allclose(share, [1, 0.5, 0.5, 1], atol=5 * np.sqrt(0.25 / 200))
    # it goes one way or the other
    entered = table["entry_step"][:, 0].notnull().sel(state=[1, 2]).sum("state")
    assert (entered == 1).mean() > 0.95
    share, table = entries_from(fit, 0, 0, 0, 0, 1, 1)
    np.testing.assert_allclose(share, [1, 1, 0, 1], atol=0.1)
    share, table = entries_from(fit, 0, 0, 0, 0, 2, 2, 3, 3, 3)
    np.testing.assert_allclose(share, [1, 0, 1, 1], atol=0.1)
    if isinstance(transition, LeftToRight):
        assert share[1] == 0.0  # not a single one
    intervals = bp.forecast_intervals(table)
    assert (intervals["state_probability"].sel(run="new", state=3) > 0.9).all()
    found = intervals["entry_probability"].sel(run="new").fillna(0.0)
    np.testing.assert_array_equal(found, share)


def test_where_all_runs_go_all_ways_none_is_left_out_and_order_is_kept():
    rng = np.random.default_rng(3)
    runs = []
    for _ in range(8):
        a, b, c = rng.integers(5, 25, 3)
        runs.append([(0, a), (1, b), (2, c), (3, 80 - a - b - c)])
    for transition in (Sticky(), LeftToRight()):
        share, table = entries_from(ways(*runs, transition=transition), 0, 0, 0)
        np.testing.assert_array_equal(share, 1.0)
    assert (table["entry_step"].diff("state") >= 0).all()
    # two stop before they get to the last, and so may this one, which then enters it never
    short = [[(0, 10), (1, 20), (2, 50)], [(0, 12), (1, 68)]]
    share, table = entries_from(ways(*runs, *short, transition=LeftToRight()), 0, 0, 0)
    assert (np.diff(share) <= 0).all()
    np.testing.assert_allclose(share, [1, 1, 0.9, 0.8], atol=0.18)


def test_metrics_go_the_way_of_finished_runs():
    metrics = metrics_of([200.0, 300.0])
    now, ahead = np.array([100.0]), np.array([20.0, 60.0, 140.0, 250.0])
    labels = np.array(["r0", "r1"])
    known = Metrics(metrics, labels, np.array(["new"]), now, "eval_accuracy")
    event, time = np.array([200.0, 300.0]), np.array([[240.0], [240.0]])
    made = metric_ahead(known, "eval_loss", event, time, np.array([[0], [1]]), now, ahead)[:, 0]
    own = metrics_of([240.0], steps=now + ahead)["eval_loss"].values[0]
    # by the slower donor all is known, the faster was never as far from its convergence as 116.7
    np.testing.assert_allclose(made[1], own, rtol=0.02)
    np.testing.assert_allclose(made[0, 1:], own[1:], rtol=0.02)
    # a run that is off the donor comes back to it by the time of convergence
    worse = with_a_new_run(metrics, 240.0)
    worse["eval_loss"] = worse["eval_loss"] * xr.where(worse["run"] == "new", 1.5, 1.0)
    known = Metrics(worse, labels, np.array(["new"]), now, "eval_accuracy")
    made = metric_ahead(known, "eval_loss", event, time, np.array([[1], [1]]), now, ahead)[0, 0]
    expected = own * 1.5 ** np.maximum(1 - ahead / 140.0, 0.0)
    highest = float(worse["eval_loss"].where(worse["step"] <= 100).max())
    np.testing.assert_allclose(made, np.minimum(expected, max(highest, 3.01)), rtol=0.02)


def test_what_convergence_is():
    assert read_criterion("eval_loss<1e-2") == ("eval_loss", False, 0.01)
    assert read_criterion(" a > 0.9 ").reached(np.array([0.9, 0.91, np.nan])).tolist() == [
        False, True, False,
    ]  # fmt: skip
    for wrong in ("eval_loss", "a >= 3", "a > much", "a > nan", "", 0.9):
        with pytest.raises(ValueError, match="converged must be a metric, > or <, and a number"):
            read_criterion(wrong)


def test_what_can_not_be_forecast(finished):
    fit, metrics = finished
    new = features_of([350.0], labels=["new"])
    with pytest.raises(ValueError, match=r"the runs \['r1'\] are among those that were fitted"):
        bp.forecast(fit, features_of([350.0], labels=["r1"]), now=100)
    with pytest.raises(ValueError, match=r"now=-5 is before the first step of the features, \[0\]"):
        bp.forecast(fit, new, now=-5)
    with pytest.raises(ValueError, match=r"run 'new' has 0 checkpoint\(s\) with a feature"):
        bp.forecast(fit, new.where(False))
    with pytest.raises(ValueError, match="the fit has the features"):
        bp.forecast(fit, new.assign_coords(feature=["l2_norm", "else"]), now=100)
    with pytest.raises(ValueError, match="horizon must be at least 10 optimiser steps"):
        bp.forecast(fit, new, now=100, horizon=3)
    with pytest.raises(TypeError, match="horizon must be a number of optimiser steps, got 'far'"):
        bp.forecast(fit, new, now=100, horizon="far")
    with pytest.raises(ValueError, match="metrics has no 'accuracy' with dims"):
        bp.forecast(fit, new, metrics=metrics, converged="accuracy > 0.9", now=100)
    with pytest.raises(ValueError, match=r"metrics lacks the runs \['r4'\] of the fit"):
        bp.forecast(fit, new, metrics=metrics.isel(run=slice(4)), now=100)
    with pytest.raises(TypeError, match="metrics must be a Dataset"):
        bp.forecast(fit, new, metrics=metrics["eval_loss"], now=100)
    with pytest.raises(TypeError, match=r"expected the Dataset that bayesphase\.forecast returns"):
        bp.forecast_intervals(fit)
    with pytest.raises(ValueError, match=r"expected the table that bayesphase\.forecast returns"):
        bp.forecast_intervals(metrics)


def test_one_checkpoint_is_enough_and_holes_do_no_harm(finished):
    fit, metrics = finished
    new = features_of([350.0], labels=["new"])
    options = {"metrics": metrics, "horizon": 50, "draws": 10, "random_seed": 1}
    first = bp.forecast(fit, new, now=0, **options)
    np.testing.assert_allclose(first["phase_probability"], [[0.999, 0.001]], atol=1e-9)
    assert np.isfinite(first["converged_step"]).all()
    new[0, 5:9] = new[0, 10, 1] = np.nan
    holes = bp.forecast(fit, new, now=100, **options)
    assert np.isfinite(holes["features"]).all()
    assert (holes["phase_probability"].sel(state=0) > 0.9).all()


def test_the_score_is_that_of_the_definition():
    rng = np.random.default_rng(4)
    samples, value = rng.normal(size=30), 0.3
    pairs = np.abs(samples[:, None] - samples).mean() / 2
    assert crps(samples, value) == pytest.approx(np.abs(samples - value).mean() - pairs)
    assert crps(np.array([5.0]), 3.0) == 2.0
    many = norm.ppf((np.arange(4000) + 0.5) / 4000, 1.0, 2.0)
    z = (value - 1.0) / 2.0
    exact = 2.0 * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert crps(many, value) == pytest.approx(exact, rel=1e-3)


def test_what_one_would_try_first():
    event, last = np.array([100.0, 300.0, np.nan]), np.array([120.0, 320.0, 400.0])
    np.testing.assert_array_equal(_baselines.later_ones(event, 150.0), [300.0])
    np.testing.assert_array_equal(_baselines.mean(event, 50.0), [200.0])
    assert not _baselines.mean(event, 350.0).size
    hazard = _baselines.constant_hazard(event, last, 50.0)
    assert np.median(hazard) == pytest.approx(50.0 + np.log(2) * 800 / 2, rel=0.01)
    assert not _baselines.constant_hazard(np.full(3, np.nan), last, 50.0).size
    steps, rng = np.arange(0.0, 200.0, 10.0), np.random.default_rng(0)
    power = _baselines.Trend(steps, 5.0 * (steps + 1) ** -0.5, np.array([0.1, 5.0]), rng)
    assert np.median(power.crosses(0.25, 190.0, above=False)) == pytest.approx(399.0, rel=1e-6)
    assert np.median(power.at(399.0)) == pytest.approx(0.25)
    assert np.isinf(power.crosses(6.0, 190.0, above=True)).all()
    # it is below 0.5 already, and will not get above again
    assert (power.crosses(0.5, 190.0, above=False) == 190.0).all()
    assert np.isinf(power.crosses(0.5, 190.0, above=True)).all()
    share = 1 / (1 + np.exp(-(np.log1p(steps) - 6.0)))
    logistic = _baselines.Trend(steps, share, np.array([0.0, 1.0]), rng)
    expected = np.exp(6.0 + np.log(9.0)) - 1
    assert np.median(logistic.crosses(0.9, 190.0, above=True)) == pytest.approx(expected, rel=1e-6)
    assert (
        not _baselines.Trend(steps[:4], share[:4], share, rng).crosses(0.9, 40.0, above=True).size
    )
    # all that is known says what kind of metric it is
    falls = _baselines.Trend(steps, 1.0 - steps / 100, np.array([0.2, 5.0]), rng)
    assert np.isfinite(falls.at(300.0)).all()


@pytest.fixture(scope="module")
def scores():
    raw, metrics = features_of(EVENTS), metrics_of(EVENTS)
    metrics["eval_accuracy"][3] = 0.5  # one never converges
    labels = raw["run"].values.tolist()
    fits = {run: fit_of(raw.sel(run=[r for r in labels if r != run]), n_draws=20) for run in labels}
    table = bp.forecast_scores(
        bp.standardize(raw), metrics, 2, fits=fits, seen=[0.25, 0.75], draws=20, random_seed=1
    )
    return table, fits, raw, metrics


def test_scores_are_of_forecasts_that_could_have_been_made(scores):
    table, fits, raw, metrics = scores
    np.testing.assert_array_equal(
        table["step"].sel(event="converged"), [200, 260, 310, np.nan, 240]
    )
    # run r2 at a quarter of its way
    ahead = bp.forecast(
        fits["r2"], raw.sel(run=["r2"]), metrics=metrics, now=70, draws=20, random_seed=5
    )
    at = {"event": "converged", "run": "r2", "seen": 0.25, "forecaster": "forecast"}
    samples = np.minimum(np.sort(ahead["converged_step"].values[:, 0]), 2 * 590)
    assert float(table["crps"].sel(at)) == pytest.approx(crps(samples, 310.0))
    assert float(table["rank"].sel(at)) == np.mean(samples < 310)
    assert float(table["median"].sel(at)) == samples[9]
    at["forecaster"] = "mean"
    assert float(table["crps"].sel(at)) == pytest.approx(310 - np.mean([200, 260, 240]))
    at["forecaster"] = "empirical"
    assert float(table["crps"].sel(at)) == pytest.approx(crps(np.array([200.0, 240, 260]), 310))
    # nothing is to be forecast that has happened, and what happened late has no rank
    half = table["step"].sel(event="phase 1")
    assert (abs(half - np.array(EVENTS) / 2) <= 25).all()
    assert np.isnan(table["crps"].sel(event="phase 1", seen=0.75, run="r0")).all()
    never = table.sel(event="converged", run="r3")
    assert np.isnan(never["rank"]).all()
    assert np.isfinite(never["crps"].sel(forecaster=["forecast", "constant_hazard"])).all()
    assert np.isnan(table["saved"].sel(run="r3")).all()


def test_what_is_saved(scores):
    table = scores[0]
    for run in ("r0", "r2"):
        one = table.sel(event="converged", run=run, forecaster="forecast")
        off = (abs(one["median"] - one["step"]) / one["step"]).values
        for tolerance in table["tolerance"].values:
            near = off <= tolerance
            expected = 0.75 if near.all() else 0.25 if near[1] else 0.0
            at = {"tolerance": tolerance}
            assert float(one["saved"].sel(at)) == pytest.approx(expected)
            narrow = ((one["upper"] - one["lower"]) / 2 / one["median"] <= tolerance).values
            first = 0.75 if narrow[0] else 0.25 if narrow[1] else 0.0
            assert float(one["stopped"].sel(at)) == pytest.approx(first)
            if first:
                there = float(one["stopped_off"].sel(at))
                assert there == pytest.approx(off[0 if narrow[0] else 1])


def test_a_stop_is_judged_whatever_the_share_at_which_it_was():
    """1 - (1 - 0.1) is not 0.1."""
    seen = np.round(np.arange(0.1, 1.0, 0.1), 1)
    dims = ("event", "forecaster", "run", "seen")
    median = np.full((1, 1, len(seen), len(seen)), 120.0)
    wide = np.where(seen < seen[:, None], 100.0, 1.0)[None, None]  # run i is sure from share i on
    table = xr.Dataset(
        {
            "median": (dims, median), "lower": (dims, median - wide),
            "upper": (dims, median + wide), "step": (("event", "run"), np.full((1, 9), 100.0)),
        },
        coords={"event": ["converged"], "forecaster": ["forecast"], "seen": seen},
    )  # fmt: skip
    table = _with_savings(table).sel({"forecaster": "forecast", "tolerance": 0.1})
    np.testing.assert_allclose(table["stopped"], 1 - seen)
    np.testing.assert_allclose(table["stopped_off"], 0.2)


def test_metrics_are_scored_in_logarithms(scores):
    table, _, _, metrics = scores
    at = {"metric": "eval_loss", "run": "r4", "seen": 0.25, "metric_forecaster": "last"}
    h = table["steps_ahead"].sel(run="r4")
    for i, steps in enumerate(h.values):
        loss = metrics["eval_loss"].sel(run="r4")
        expected = abs(np.log(loss.sel(step=60 + steps) / loss.sel(step=60)))
        assert float(table["metric_crps"].sel(at).isel(ahead=i)) == pytest.approx(float(expected))


def test_a_metric_that_is_positive_in_all_other_runs_only_is_scored_as_it_is(scores):
    _, fits, raw, metrics = scores
    odd = metrics.copy(deep=True)
    odd["eval_loss"].loc[{"run": "r4", "step": 50}] = -1.0
    odd["eval_loss"].loc[{"run": "r4", "step": 20}] = np.inf
    options = {"fits": fits, "seen": [0.25], "draws": 5, "random_seed": 1}
    table = bp.forecast_scores(bp.standardize(raw), odd, 2, **options)
    at = {"metric": "eval_loss", "run": "r4", "seen": 0.25, "metric_forecaster": "last"}
    loss = odd["eval_loss"].sel(run="r4")
    for i, h in enumerate(table["steps_ahead"].sel(run="r4").values):
        expected = abs(float(loss.sel(step=60 + h) - loss.sel(step=60)))
        assert float(table["metric_crps"].sel(at).isel(ahead=i)) == pytest.approx(expected)


def test_what_can_not_be_scored(scores):
    _, fits, raw, metrics = scores
    with pytest.raises(ValueError, match="at least 3 runs and scored on another"):
        bp.forecast_scores(raw.isel(run=slice(3)), metrics, 2, fits=fits)
    with pytest.raises(ValueError, match="seen must hold shares between 0 and 1, got"):
        bp.forecast_scores(raw, metrics, 2, fits=fits, seen=[0.5, 1.0])
