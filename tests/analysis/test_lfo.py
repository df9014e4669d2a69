"""Leave-future-out: densities of what comes next are exact, and what they are of is said."""

import numpy as np
import pytest
import xarray as xr
from closed_forms import OneState, one_state, quietly
from scipy.special import logsumexp

import bayesphase as bp
from bayesphase.model import future
from bayesphase.model.spec import specify

QUICK = {"draws": 100, "tune": 100, "chains": 2, "n_restarts": 2, "progressbar": False}


class Forecasts(OneState):
    """Log densities of blocks by quadrature over mean and scale."""

    def lfo(self, run, origin, horizon):
        """Log density of a run's block after the position `origin`, given all runs up to there."""
        known = self.log_likelihood(self.values[:, : origin + 1])
        block = self.log_likelihood(self.values[run, origin + 1 : origin + 1 + horizon])
        return logsumexp(self.log_prior + known + block) - logsumexp(self.log_prior + known)

    def log_likelihood(self, values):
        z = (values.reshape(-1, 1, 1) - self.mu) * np.exp(-self.log_scale)
        each = -0.5 * z**2 - self.log_scale - 0.5 * np.log(2 * np.pi)
        return np.nansum(each, axis=0)


def exact(features, result, horizon):
    truth, steps = Forecasts(features), features["step"].values.tolist()
    runs = features["run"].values.tolist()
    units = zip(result.elpd_i["run"].values, result.elpd_i["origin"].values, strict=True)
    return np.array([truth.lfo(runs.index(r), steps.index(o), horizon) for r, o in units])


@pytest.fixture(scope="module")
def features():
    x = one_state(3)
    x[:, 8:] += 1.5  # so that draws of one fit do not serve for all that come after
    x[2, 5:7] = np.nan
    return x


@pytest.fixture(scope="module")
def fitted(features):
    return bp.fit(features, 1, emission="gaussian", random_seed=1, progressbar=False)


@pytest.mark.parametrize("horizon", [1, 3])
def test_every_step_is_predicted_exactly(features, fitted, horizon):
    result = bp.lfo(
        fitted, horizon=horizon, n_origins=None, min_steps=4, random_seed=1, progressbar=False
    )
    error = result.elpd_i - exact(features, result, horizon)
    assert abs(error).max() < 0.1
    assert abs(error.mean()) < 0.02
    # draws of one fit serve for several origins, and not for all
    assert 1 < result.elpd_i.attrs["n_refits"] < 11
    assert not result.elpd_i["refitted"].all()
    assert not result.warning


def test_it_is_what_fits_to_the_past_say(features, fitted):
    """Priors, grid and seeds are those of fits made by hand; a run begins when it has two steps."""
    steps = [0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 26, 33, 41, 50, 60]
    features = features.assign_coords(step=steps).copy(deep=True)
    features[1, :3] = np.nan
    whole = bp.fit(features, 1, emission="random_walk", random_seed=2, **QUICK)
    settings = {"draws": 500, "progressbar": False}
    result = bp.lfo(whole, horizon=2, n_origins=2, min_steps=4, random_seed=7, **settings)
    found = {
        (r, o): float(e)
        for r, o, e in zip(
            *(result.elpd_i[n].values for n in ("run", "origin")), result.elpd_i, strict=True
        )
    }
    assert set(found) == {(r, o) for o in (3, 41) for r in ("run-0", "run-1", "run-2")} - {
        ("run-1", 3)
    }
    model = {"emission": "random_walk", "transition": "sticky"}
    spec = specify(features, 1, priors=None, **model)
    priors, features = spec.priors, features.assign_attrs(step_unit=spec.rows.step_unit)
    seeds = np.random.SeedSequence(7).generate_state(2)
    for seed, (origin, runs) in zip(seeds, {3: [0, 2], 41: [0, 1, 2]}.items(), strict=True):
        past = features.isel(run=runs).where(features["step"] <= origin)
        settings = {**QUICK, "draws": 500, "random_seed": int(seed)}
        fit = bp.fit(past, 1, priors=priors, **{**model, **settings})
        till = features.isel(run=runs)
        last = int(np.flatnonzero(features["step"] == origin)[0]) + 2
        ahead = till.where(features["step"] <= features["step"][last])
        density = bp.run_log_likelihood(fit, ahead) - bp.run_log_likelihood(fit, past)
        for run, x in zip(till["run"].values, density.transpose("run", ...).values, strict=True):
            expected = logsumexp(x) - np.log(x.size)
            assert found[run, origin] == pytest.approx(expected, abs=1e-9)
    assert result.elpd_i.attrs["n_refits"] == 2
    assert result.elpd_i["refitted"].all()


def test_a_block_far_from_all_before_is_predicted_exactly():
    """Where a phase begins, the mean of its density over the draws is no estimate."""
    features = one_state(3)
    features[1, 8:] += 6.0
    fitted = bp.fit(features, 1, emission="gaussian", random_seed=1, progressbar=False)
    result = bp.lfo(fitted, horizon=4, n_origins=1, min_steps=8, random_seed=1, progressbar=False)
    truth = exact(features, result, 4)
    assert result.elpd_i["bridged"].values.tolist() == [False, True, False]
    assert result.pareto_k[1] > 0.7
    np.testing.assert_allclose(result.elpd_i, truth, atol=0.06)
    assert not result.warning


def test_two_states_are_predicted_as_fits_to_the_past_say():
    """Weighted draws against those of a fit at every origin, states summed out."""
    x = bp.simulate(n_states=2, n_runs=3, n_steps=40, n_features=2, random_seed=1)["features"]
    fit = bp.fit(x, 2, emission="gaussian", random_seed=1, draws=1000, progressbar=False)
    # many draws: the first block after the first origin is in the tail of what is predicted
    settings = {"horizon": 2, "min_steps": 28, "draws": 8000, "progressbar": False}
    weighted = bp.lfo(fit, n_origins=None, random_seed=1, **settings)
    used = weighted.elpd_i.where(~weighted.elpd_i["refitted"], drop=True)
    assert used.size >= 3
    origins = np.unique(used["origin"])[:2]
    for origin in origins:
        at = int(np.flatnonzero(x["step"] == origin)[0])
        alone = bp.lfo(fit, n_origins=1, random_seed=2, **{**settings, "min_steps": at + 1})
        assert alone.elpd_i["refitted"].all()
        same = weighted.elpd_i[weighted.elpd_i["origin"] == origin]
        np.testing.assert_allclose(same, alone.elpd_i, atol=0.1)


def test_what_comes_later_makes_no_difference(features, fitted):
    """But through the priors, which are the fit's."""
    changed = fitted.copy(deep=True)
    changed["observed_data"]["features"].values[:, 12:] += 100.0
    settings = {**QUICK, "n_origins": 3, "min_steps": 4, "random_seed": 1}
    a, b = (quietly(bp.lfo, fit, **settings) for fit in (fitted, changed))
    early = a.elpd_i["step"].values < 120
    assert early.any()
    np.testing.assert_allclose(a.elpd_i[early], b.elpd_i[early], rtol=1e-9)
    assert (b.elpd_i[~early] < a.elpd_i[~early] - 3.0).all()


def test_models_are_compared_by_it(fitted, features):
    other = bp.fit(features, 2, emission="gaussian", random_seed=1, **QUICK)
    settings = {**QUICK, "n_origins": 2, "random_seed": 1}
    elpds = {"1": quietly(bp.lfo, fitted, **settings), "2": quietly(bp.lfo, other, **settings)}
    table = bp.compare(elpds)
    assert table.loc["1", "elpd"] == elpds["1"].elpd
    assert (elpds["1"].kind, elpds["1"].n_samples) == ("lfo_cv", 200)
    assert "lfo" in str(elpds["1"])
    with pytest.raises(ValueError, match="'1' is by block, but '2' by run"):
        bp.compare({"1": elpds["1"], "2": quietly(bp.loo, other)})
    apart = quietly(bp.lfo, other, **{**settings, "horizon": 2})
    with pytest.raises(ValueError, match="'1' and '2' predict different blocks: use the same"):
        bp.compare({"1": elpds["1"], "2": apart})


def test_what_stays_unreliable_is_named(fitted, monkeypatch):
    monkeypatch.setattr(future, "log_predictive", lambda *_: (np.nan, np.nan))
    with pytest.warns(
        UserWarning, match=r"2 of 2 blocks \(1 of 'run-0', 1 of 'run-1'\) have a density that few"
    ):
        result = bp.lfo(fitted, **{**QUICK, "draws": 5}, n_origins=1, min_steps=6, random_seed=1)
    assert result.warning
    assert np.isfinite(result.elpd)
    assert not result.elpd_i["bridged"].any()


def test_errors(fitted, features):
    with pytest.raises(TypeError, match=r"expected the DataTree that .* returns, got dict"):
        bp.lfo({"1": fitted})
    with pytest.raises(ValueError, match="min_steps and horizon must leave an origin on the 15"):
        bp.lfo(fitted, min_steps=10, horizon=6)
    with pytest.raises(ValueError, match=r"n_origins must be at most 4, .* got 5"):
        bp.lfo(fitted, min_steps=10, horizon=2, n_origins=5)
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        bp.lfo(fitted, horizon=0)
    with pytest.raises(ValueError, match="n_origins must be at most 11"):
        bp.lfo(fitted, min_steps=4, n_origins=20)
    told = fitted.copy(deep=True)
    told["observed_data"]["known_states"] = xr.DataArray(
        np.where(features["step"] == 0, 0, -1) + np.zeros((3, 1), int), dims=("run", "step")
    )
    with pytest.raises(ValueError, match="the fit was told some states"):
        bp.lfo(told)
    late = features.copy()
    late[:, :10] = np.nan
    late[0, :2] = features[0, :2]
    few = bp.fit(late, 1, emission="gaussian", random_seed=1, **QUICK)
    with pytest.raises(ValueError, match="no run has two checkpoints up to an origin and one"):
        bp.lfo(few, min_steps=4, n_origins=1)
    with pytest.raises(ValueError, match="n_states must lie between 1 and") as raised:
        bp.lfo(
            bp.fit(features, 7, emission="gaussian", random_seed=1, **QUICK),
            min_steps=2,
            n_origins=1,
        )
    assert raised.value.__notes__ == ["This was the fit to what is known at step 10."]
