"""Detours: the regressions against closed forms, scipy and simulation, the table by hand."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from scipy.special import log_ndtr
from synthetic import fit_from_paths

from bayesphase.analysis import _shares, _survival
from bayesphase.analysis.detours import detours


def times(steps, last=None, runs=None):
    """A table of convergence; NaN steps are censored at `last`."""
    steps = np.asarray(steps, float)
    last = np.full(steps.shape, 10_000.0) if last is None else np.asarray(last, float)
    runs = [f"seed{i}" for i in range(len(steps))] if runs is None else runs
    return xr.Dataset(
        {"step": ("run", steps), "last_step": ("run", last)}, coords={"run": list(runs)}
    )


# Regression of log times


def test_without_censoring_effects_have_a_t_distribution_about_least_squares():
    """Up to the priors, which are worth little where runs are many."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (60, 2)).astype(float)
    log_time = 7.0 + x @ [0.5, -0.2] + 0.25 * rng.normal(size=60)
    draws = _survival.sample_effects(
        np.tile(x, (20_000, 1, 1)), log_time, np.zeros(60, bool), rng=rng
    )
    design = np.column_stack([np.ones(60), x])
    best, residual, _, _ = np.linalg.lstsq(design, log_time)
    error = np.sqrt(np.linalg.inv(design.T @ design).diagonal() * residual / 57)
    quantiles = [0.05, 0.25, 0.5, 0.75, 0.95]
    for d in range(2):
        expected = best[1 + d] + error[1 + d] * stats.t(57).ppf(quantiles)
        found = np.quantile(draws.effect[:, d], quantiles)
        np.testing.assert_allclose(found, expected, atol=0.06 * error[1 + d])
    assert draws.sigma.mean() == pytest.approx(np.sqrt(residual[0] / 57), rel=0.03)


def by_quadrature(x, log_time, censored):
    """Posterior mean and sd of the effect of one predictor, on a grid of all three unknowns."""
    intercept, effect, log_sigma = np.meshgrid(
        np.linspace(-6, 9, 101), np.linspace(-9, 9, 101), np.linspace(-2.5, 2.0, 51), indexing="ij"
    )
    sigma = np.exp(log_sigma)
    prior = stats.invgamma(0.5, scale=0.5 * 0.3**2)
    log_p = stats.norm(0, 10 * sigma).logpdf(effect)
    log_p += prior.logpdf(sigma**2) + 2 * log_sigma
    for one, y, unseen in zip(x, log_time, censored, strict=True):
        z = (y - intercept - effect * one) / sigma
        log_p += log_ndtr(-z) if unseen else -0.5 * z**2 - log_sigma
    p = np.exp(log_p - log_p.max())
    mean = (p * effect).sum() / p.sum()
    return mean, np.sqrt((p * (effect - mean) ** 2).sum() / p.sum())


def test_with_censoring_effects_are_those_of_the_exact_posterior():
    x = np.array([0.0, 0, 0, 0, 0, 1, 1, 1, 1])
    log_time = np.array([0.0, 0.2, -0.1, 0.3, 0.1, 0.6, 0.9, 0.7, 1.0])
    censored = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1], bool)
    draws = _survival.sample_effects(
        np.tile(x[:, None], (8_000, 1, 1)), log_time, censored, rng=np.random.default_rng(1)
    ).effect[:, 0]
    mean, sd = by_quadrature(x, log_time, censored)
    assert draws.mean() == pytest.approx(mean, abs=0.03)
    assert draws.std() == pytest.approx(sd, rel=0.08)
    as_if_converged = _survival.sample_effects(
        np.tile(x[:, None], (8_000, 1, 1)), log_time, ~(x < 2), rng=np.random.default_rng(1)
    ).effect[:, 0]
    assert draws.mean() > as_if_converged.mean() + 0.05


@pytest.mark.parametrize("with_it", [True, False])
def test_where_none_of_a_group_has_had_the_event_effects_are_still_those_of_the_posterior(with_it):
    """The prior of the effect, 10 sigmas wide, is all that holds it: chains that fill in are slow.

    Given sigma and the intercept of the others, the effect is that prior times the chance of having
    seen nothing so far.
    """
    x = np.repeat([0.0, 1.0], [12, 4])
    log_time = np.concatenate([np.linspace(-0.5, 0.5, 12), np.full(4, 0.2)])
    censored = np.repeat([False, True], [12, 4])
    if not with_it:
        x = 1.0 - x
    draws = _survival.sample_effects(
        np.tile(x[:, None], (6_000, 1, 1)), log_time, censored, rng=np.random.default_rng(1)
    )
    # of those with the event: normal-inverse-gamma if nothing were known of the others
    rng = np.random.default_rng(2)
    n, sum_sq = 12, (log_time[:12] ** 2).sum()
    sigma = np.sqrt(0.5 * (0.3**2 + sum_sq) / rng.standard_gamma(0.5 * n, 100_000))
    level = sigma * rng.standard_normal(100_000) / np.sqrt(n)
    # where x is 0 for the others, the intercept is flat and the effect normal, and the same if 1
    away = 10 * sigma * rng.standard_normal(100_000)
    weight = np.exp(4 * log_ndtr((level + away - 0.2) / sigma))
    kept = rng.random(100_000) < weight
    expected = (away if with_it else -away)[kept]
    found = draws.effect[:, 0]
    for q in (0.05, 0.25, 0.5, 0.75, 0.95):
        error = np.quantile(expected, min(q + 0.02, 0.99)) - np.quantile(expected, q - 0.02)
        assert np.quantile(found, q) == pytest.approx(np.quantile(expected, q), abs=error)


def test_censored_times_are_above_where_they_were_last_seen():
    rng = np.random.default_rng(2)
    least, centre, sigma = np.array([0.0, 30.0, -40.0]), np.zeros((5000, 3)), np.ones((5000, 1))
    drawn = _survival._above(least, centre, sigma, rng)
    assert (drawn >= least).all()
    assert drawn[:, 0].mean() == pytest.approx(np.sqrt(2 / np.pi), abs=0.04)
    # far out, what is above is exponential with rate z
    assert (drawn[:, 1] - 30).mean() == pytest.approx(1 / 30, rel=0.06)
    assert drawn[:, 2].mean() == pytest.approx(0.0, abs=0.06)


def test_an_effect_of_something_that_no_run_has_is_drawn_from_its_prior():
    rng = np.random.default_rng(3)
    x = np.zeros((20_000, 6, 1))
    draws = _survival.sample_effects(x, rng.normal(size=6), np.zeros(6, bool), rng=rng)
    np.testing.assert_allclose((draws.effect[:, 0] / draws.sigma).std(), 10.0, rtol=0.03)


# Regression of times on shares


def with_intercept(shares, time):
    """Least squares the textbook way: an intercept, and the shares of all states but the first."""
    design = np.column_stack([np.ones(len(time)), shares[:, 1:]])
    best = np.linalg.lstsq(design, time)[0]
    return design, best, time - design @ best


def random_shares(rng, n_runs, n_states):
    return rng.dirichlet(np.ones(n_states), n_runs)


def test_least_squares_are_those_with_an_intercept():
    rng = np.random.default_rng(4)
    shares, time = random_shares(rng, 15, 4), rng.normal(100, 20, 15)
    found = _shares.regress(shares[None], time)
    design, best, residual = with_intercept(shares, time)
    total = ((time - time.mean()) ** 2).sum()
    r2 = 1 - (residual**2).sum() / total
    assert found.r2[0] == pytest.approx(r2)
    assert found.adjusted_r2[0] == pytest.approx(1 - (1 - r2) * 14 / 11)
    f = r2 / 3 / ((1 - r2) / 11)
    assert found.p_overall[0] == pytest.approx(stats.f(3, 11).sf(f))
    level = np.append(best[0], best[0] + best[1:])
    np.testing.assert_allclose(found.coefficient[0], level - level.mean())
    # of state 2: its contrast with the mean of the levels, by the covariance of the coefficients
    contrast = np.array([0.0, -1 / 4, 3 / 4, -1 / 4])
    variance = (residual**2).sum() / 11
    error = np.sqrt(contrast @ np.linalg.inv(design.T @ design) @ contrast * variance)
    t = (level[2] - level.mean()) / error
    assert found.p_value[0, 2] == pytest.approx(2 * stats.t(11).sf(abs(t)))


def test_p_values_of_two_states_are_those_of_a_correlation():
    """Also where the correlation is negative, where the published code has p-values up to 2."""
    rng = np.random.default_rng(5)
    for sign in (1, -1):
        share = rng.random(12)
        time = 50 + sign * 30 * share + rng.normal(0, 10, 12)
        found = _shares.regress(np.column_stack([1 - share, share])[None], time)
        expected = stats.pearsonr(share, time)
        np.testing.assert_allclose(found.p_value[0], expected.pvalue)
        assert found.p_overall[0] == pytest.approx(expected.pvalue)
        assert found.r2[0] == pytest.approx(expected.statistic**2)
        assert np.sign(found.coefficient[0]).tolist() == [-sign, sign]
        assert 0 <= found.p_value.min() <= found.p_value.max() <= 1


def test_p_values_are_uniform_where_shares_say_nothing():
    rng = np.random.default_rng(6)
    shares = np.stack([random_shares(rng, 10, 3) for _ in range(2000)])
    found = _shares.regress(shares, rng.normal(size=10))
    for p in (found.p_overall, found.p_value[:, 0], found.p_value[:, 2]):
        assert stats.kstest(p, "uniform").pvalue > 0.001


def test_r2_by_run_is_of_runs_that_are_left_out():
    rng = np.random.default_rng(7)
    shares, time = random_shares(rng, 9, 3), rng.normal(size=9)
    off, from_mean = np.empty(9), np.empty(9)
    for run in range(9):
        others = np.arange(9) != run
        _, best, _ = with_intercept(shares[others], time[others])
        off[run] = time[run] - np.append(1, shares[run, 1:]) @ best
        from_mean[run] = time[run] - time[others].mean()
    found = _shares.regress(shares[None], time)
    assert found.r2_by_run[0] == pytest.approx(1 - (off**2).sum() / (from_mean**2).sum())
    # noise is explained in-sample, and not by run
    many = np.stack([random_shares(rng, 9, 5) for _ in range(300)])
    of_noise = _shares.regress(many, time)
    assert np.median(of_noise.r2) > 0.4
    assert np.median(of_noise.r2_by_run) < 0


def test_a_state_that_no_run_is_in_changes_nothing():
    rng = np.random.default_rng(8)
    shares, time = random_shares(rng, 8, 3), rng.normal(size=8)
    more = np.insert(shares, 1, 0.0, axis=1)
    without, with_it = _shares.regress(shares[None], time), _shares.regress(more[None], time)
    for a, b in zip(without, with_it, strict=True):
        np.testing.assert_allclose(np.delete(b, 1, axis=1) if b.ndim == 2 else b, a)
    assert np.isnan(with_it.coefficient[0, 1])


def test_too_few_runs_leave_what_needs_more_unknown():
    shares = np.array([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])
    found = _shares.regress(shares[None], np.array([1.0, 2.0]))
    assert found.r2[0] == pytest.approx(1.0)
    for name in ("adjusted_r2", "r2_by_run", "p_overall", "coefficient", "p_value"):
        assert np.isnan(getattr(found, name)).all()
    constant = _shares.regress(np.tile([[0.5, 0.5]], (1, 4, 1)), np.ones(4))
    for name in ("r2", "adjusted_r2", "r2_by_run", "p_overall", "p_value"):
        assert np.isnan(getattr(constant, name)).all()


@pytest.mark.parametrize("time", [0.1, 4560.0])
def test_times_that_are_all_the_same_leave_nothing_to_explain(time):
    shares = random_shares(np.random.default_rng(9), 12, 3)
    found = _shares.regress(shares[None], np.full(12, time))
    np.testing.assert_allclose(found.coefficient, 0.0, atol=1e-9)
    for name in ("r2", "adjusted_r2", "r2_by_run", "p_overall", "p_value"):
        assert np.isnan(getattr(found, name)).all()


def test_r2_by_run_does_not_depend_on_where_time_begins():
    """One run alone is in state 2, of which the others say nothing."""
    rng = np.random.default_rng(10)
    shares = random_shares(rng, 9, 3)
    shares[1:, 2] = 0.0
    shares /= shares.sum(axis=1, keepdims=True)
    time = 5.0 + shares[:, 1] + 0.1 * rng.normal(size=9)
    one, other = (_shares.regress(shares[None], time + later).r2_by_run for later in (0, 1e4))
    np.testing.assert_allclose(one, other, rtol=1e-6)


# The table


def planted(rng, *, n_runs=24, n_draws=60, delay=2.0, never=0):
    """Runs go 0 -> 2, or take a detour over 1 that makes them `delay` times as long; 3 is the end.

    State 4 is visited by all, but only after convergence. `never` of those on the detour do not
    converge within 1000 checkpoints.
    """
    detour = np.arange(n_runs) % 2 == 1
    length = 150 * np.where(detour, delay, 1.0) * np.exp(0.15 * rng.normal(size=n_runs))
    converged = np.round(length).astype(int)
    stuck = np.flatnonzero(detour)[:never]
    converged[stuck] = 1000
    at = np.arange(1000)
    path = np.zeros((n_runs, 1000), int)
    path[:, 40:] = np.where(detour, 1, 2)[:, None]
    for r, end in enumerate(converged):
        path[r, end - 50 : end] = 2
        path[r, end:] = np.where(at[end:] < end + 100, 3, 4)
    path[stuck, 40:] = 1
    state = np.tile(path, (n_draws, 1, 1))
    steps = 10.0 * converged
    steps[stuck] = np.nan
    return fit_from_paths(state, n_states=5), times(steps, np.full(n_runs, 9990.0)), detour


def test_a_planted_detour_is_found_with_its_effect():
    fit, table, detour = planted(np.random.default_rng(19))
    result = detours(fit, convergence=table, random_seed=1)
    np.testing.assert_array_equal(result["optional"], [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(result["visited"].sel(state=1), detour)
    log_time = np.log(table["step"].values)
    expected = np.exp(log_time[detour].mean() - log_time[~detour].mean())
    assert 1.7 < expected < 2.3
    assert result["effect"].sel(state=1).item() == pytest.approx(expected, rel=0.03)
    assert result["effect_lower"].sel(state=1) < expected < result["effect_upper"].sel(state=1)
    assert result["effect_lower"].sel(state=1) > 1.5
    assert result["detour"].sel(state=1) > 0.99
    assert result["effect"].isnull().values.tolist() == [True, False, True, True, True]
    assert result["detour"].drop_sel(state=1).max() == 0
    # a state that is entered at convergence counts, one that is entered later does not
    assert (result["visited"].sel(state=3) == 1).all()
    assert (result["visited"].sel(state=4) == 0).all()
    assert result.attrs == {"ci_prob": 0.9, "n_converged": 24, "n_censored": 0}


def test_a_shortcut_is_no_detour():
    fit, table, _ = planted(np.random.default_rng(10), delay=0.75)
    result = detours(fit, convergence=table, random_seed=1).sel(state=1)
    assert result["optional"] == 1
    assert result["effect_lower"] < 0.75 < result["effect_upper"] < 1
    assert result["detour"] < 0.01


def test_the_ways_of_a_fork_are_alternatives():
    """Each run takes one of two states; the effect of one is the inverse of that of the other."""
    rng = np.random.default_rng(18)
    slow = np.arange(20) % 2 == 1
    path = np.zeros((20, 100), int)
    path[:, 10:] = np.where(slow, 1, 2)[:, None]
    steps = 500 * np.where(slow, 1.6, 1.0) * np.exp(0.1 * rng.normal(size=20))
    fit = fit_from_paths(np.tile(path, (400, 1, 1)))
    result = detours(fit, convergence=times(steps), ci_prob=0.99, random_seed=1)
    for state, effect in ((1, 1.6), (2, 1 / 1.6)):
        one = result.sel(state=state)
        assert one["effect_lower"] < effect < one["effect_upper"] < 1.3 * effect
    assert (result["detour"] > 0.5).values.tolist() == [False, True, False]


def test_runs_that_never_converge_make_the_effect_larger_and_less_sure():
    """As times of 9,990 steps they would pull it to a value that nobody has seen."""
    rng = np.random.default_rng(11)
    fit, table, _ = planted(rng, never=4)
    result = detours(fit, convergence=table, random_seed=1).sel(state=1)
    assert result.attrs["n_censored"] == 4
    left_out = fit_from_paths(
        fit["paths"]["state"].values[:, :, ~np.isnan(table["step"])],
        runs=table["run"].values[~np.isnan(table["step"])],
        n_states=5,
    )
    of_converged = detours(left_out, convergence=table, random_seed=1).sel(state=1)
    assert result["effect"] > of_converged["effect"]
    spread = [np.log(r["effect_upper"] / r["effect_lower"]) for r in (result, of_converged)]
    assert spread[0] > spread[1]


def test_a_state_that_only_runs_are_in_which_never_converge_is_a_detour():
    """A trap: all runs that converge skip it. One that all of these need is no option."""
    path = np.zeros((6, 20), int)
    path[:4, 5:] = 2
    path[4:, 5:] = 1
    steps = [100, 110, 95, 105, np.nan, np.nan]
    table = times(steps, [190] * 6)
    result = detours(fit_from_paths(np.tile(path, (300, 1, 1))), convergence=table, random_seed=1)
    np.testing.assert_array_equal(result["optional"], [0, 1, 0])
    assert result["detour"].sel(state=1) > 0.9


def test_states_that_are_not_sure_make_effects_less_sure():
    fit, table, detour = planted(np.random.default_rng(12))
    unsure = fit.copy(deep=True)
    state = unsure["paths/state"].values
    mistaken = np.random.default_rng(13).random((state.shape[1], len(detour))) < 0.2
    state[0][mistaken] = np.where(state[0][mistaken] == 1, 2, state[0][mistaken])
    sure, less_sure = (
        detours(f, convergence=table, random_seed=1).sel(state=1) for f in (fit, unsure)
    )
    width = [float(r["effect_upper"] - r["effect_lower"]) for r in (sure, less_sure)]
    assert width[1] > 1.2 * width[0]
    assert 0.7 < less_sure["visited"].values[detour].mean() < 0.9


def test_shares_are_of_time_and_of_runs_that_converged():
    fit, table, _ = planted(np.random.default_rng(14), never=2, n_draws=2)
    result = detours(fit, convergence=table, random_seed=1)
    state = fit["paths"]["state"].values[0, 0]
    shares = np.stack([(state[:, :-1] == k).mean(axis=1) for k in range(5)], axis=1)
    converged = table["step"].notnull().values
    time = table["step"].values[converged]
    expected = _shares.regress(shares[converged][None], time)
    for name in ("r2", "adjusted_r2", "r2_by_run", "p_overall"):
        assert result[name].item() == pytest.approx(getattr(expected, name)[0])
        assert result[f"{name}_lower"].item() == pytest.approx(getattr(expected, name)[0])
    np.testing.assert_allclose(result["share_effect"], expected.coefficient[0])
    np.testing.assert_allclose(result["share_p_value"], expected.p_value[0])
    assert all({"long_name", "units"} <= set(v.attrs) for v in result.data_vars.values())


def test_order_and_number_of_other_runs_do_not_matter():
    fit, table, _ = planted(np.random.default_rng(15), n_draws=20)
    more = xr.concat([table, times([50.0], [60.0], runs=["another"])], "run")
    xr.testing.assert_identical(
        detours(fit, convergence=more.isel(run=slice(None, None, -1)), random_seed=1),
        detours(fit, convergence=table, random_seed=1),
    )


@pytest.mark.slow
def test_intervals_of_effects_cover_as_they_state():
    """Over planted effects, a third of the runs censored: 90% intervals hold 90% of them."""
    rng = np.random.default_rng(16)
    hits = []
    for _ in range(200):
        x = rng.integers(0, 2, (20, 2)).astype(float)
        effect = rng.normal(0, 0.5, 2)
        log_time = 5 + x @ effect + 0.3 * rng.normal(size=20)
        limit = np.quantile(log_time, rng.uniform(0.6, 1.0))
        censored = log_time > limit
        draws = _survival.sample_effects(
            np.tile(x, (1000, 1, 1)), np.minimum(log_time, limit), censored, rng=rng
        ).effect
        lower, upper = np.quantile(draws, [0.05, 0.95], axis=0)
        hits += ((lower < effect) & (effect < upper)).tolist()
    assert abs(np.mean(hits) - 0.9) < 4 * np.sqrt(0.09 / len(hits))


def test_errors():
    fit, table, _ = planted(np.random.default_rng(17), n_draws=2, n_runs=4)
    with pytest.raises(TypeError, match=r"must be the Dataset that bayesphase.convergence returns"):
        detours(fit, convergence=table["step"])
    with pytest.raises(ValueError, match=r"says nothing of the runs \['seed2', 'seed3'\]"):
        detours(fit, convergence=table.isel(run=[0, 1]))
    with pytest.raises(ValueError, match="no run converged"):
        detours(fit, convergence=times([np.nan] * 4))
    with pytest.raises(ValueError, match=r"run 'seed1' converged or was last seen at step 0"):
        detours(fit, convergence=times([5, 0, 5, 5]))
    with pytest.raises(ValueError, match="ci_prob must be a number between 0 and 1"):
        detours(fit, convergence=table, ci_prob=90)
    with pytest.raises(TypeError, match=r"expected the DataTree"):
        detours(table, convergence=table)
    with pytest.raises((TypeError, ValueError), match="random_seed"):
        detours(fit, convergence=table, random_seed=-1)
