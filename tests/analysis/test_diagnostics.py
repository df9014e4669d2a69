import arviz_stats
import numpy as np
import pytest
import xarray as xr
from synthetic import fit_from_paths, synthetic_fit

from bayesphase.analysis.diagnostics import R_HAT_APART, diagnose

INVARIANT = [
    "log posterior density",
    "log-likelihood of a run",
    "number of switches in a run",
    "first switch in a run",
    "last switch in a run",
    "number of states in a run",
    "share of a run in one state",
]
PARAMETERS = ["initial_probs", "transition_probs", "mean", "scale"]
STATISTICS = ["r_hat", "ess_bulk", "ess_tail"]


@pytest.fixture
def fit():
    """Four chains of independent draws, with nothing to complain about."""
    return sampled(synthetic_fit(n_chains=4, n_draws=400, n_states=3, jitter=2.0))


def sampled(fit):
    """Replace what is the same in all draws of a synthetic fit by independent draws."""
    rng = np.random.default_rng(1)
    noise = {
        "posterior": ("initial_probs", "transition_probs", "mean", "scale"),
        "sample_stats": ("lp",),
        "log_likelihood": ("run_log_likelihood",),
    }
    for group, names in noise.items():
        ds = fit[group].to_dataset()
        ds = ds.assign({name: ds[name] + rng.normal(0, 0.01, ds[name].shape) for name in names})
        fit[group] = xr.DataTree(ds)
    return fit


def changed(fit, variable, change):
    """Copy a fit with one variable, named "group/name", changed in place by a function."""
    fit = fit.copy(deep=True)
    change(fit[variable].values)
    return fit


def renamed(fit, order, chain):
    """Give the states of one chain other numbers, as a chain that was not relabelled has."""
    fit = fit.copy(deep=True)
    for name in PARAMETERS:
        v = fit["posterior"][name]
        for dim in {"state", "state_next"} & set(v.dims):
            values = v.isel(chain=chain).isel({dim: order}).transpose(*v.dims[1:]).values
            v[{"chain": chain}] = values
    path = fit["paths"]["state"].values
    path[chain] = np.append(np.argsort(order), -1)[path[chain]]
    return fit


def test_a_good_fit(fit):
    table = diagnose(fit)
    assert table["quantity"].values.tolist() == INVARIANT + PARAMETERS
    assert table["label_invariant"].values.tolist() == [True] * 7 + [False] * 4
    assert table.attrs["believable"] is True
    said = table.attrs["verdict"]
    assert said.startswith("The sampler has converged. The chains agree on everything that does")
    smallest = float(table[["ess_bulk", "ess_tail"]].to_array().min())
    assert f"Effective sample sizes are at least {smallest:.0f}." in said
    assert "States can be told apart in nearly all draws." in said
    assert said.endswith("All 12 searches for a starting point found the same mode.")


def test_quantities_are_named(fit):
    table = diagnose(fit)
    assert all({"long_name", "units"} <= set(v.attrs) for v in table.data_vars.values())


def test_statistics_are_those_of_arviz(fit):
    table = diagnose(fit)
    arrays = {
        "log posterior density": fit["sample_stats"]["lp"],
        "log-likelihood of a run": fit["log_likelihood"]["run_log_likelihood"],
        **{name: fit["posterior"][name] for name in PARAMETERS},
    }
    for name, values in arrays.items():
        ds = values.to_dataset(name="x")
        row = table.sel(quantity=name)
        assert row["r_hat"] == arviz_stats.rhat(ds)["x"].max()
        assert row["ess_bulk"] == arviz_stats.ess(ds, method="bulk")["x"].min()
        assert row["ess_tail"] == arviz_stats.ess(ds, method="tail")["x"].min()


def test_switches_are_those_of_loops_over_paths():
    fit = sampled(synthetic_fit(n_chains=2, n_draws=40, n_states=4, jitter=9.0, missing=0.3))
    state = fit["paths"]["state"].values
    found = np.zeros((5, *state.shape[:3]))
    for c, d, r in np.ndindex(state.shape[:3]):
        path = state[c, d, r]
        path = path[path >= 0]
        at = np.flatnonzero(np.diff(path))
        visits = np.unique(path, return_counts=True)[1]
        ends = (at[0], at[-1] + 1) if len(at) else 2 * [len(path)]
        found[:, c, d, r] = len(at), *ends, len(visits), visits.max() / len(path)
    table = diagnose(fit)
    for name, values in zip(INVARIANT[2:], found, strict=True):
        ds = xr.Dataset({"x": (("chain", "draw", "run"), values)})
        row = table.sel(quantity=name)
        np.testing.assert_allclose(row["r_hat"], arviz_stats.rhat(ds)["x"].max())
        np.testing.assert_allclose(row["ess_bulk"], arviz_stats.ess(ds, method="bulk")["x"].min())


def test_what_never_varies_has_no_statistics():
    # one state: no switch ever; all else but lp is the same in all draws
    fit = fit_from_paths(np.zeros((4, 400, 2, 40), int))
    noise = np.random.default_rng(0).normal(size=(4, 400))
    fit["sample_stats"]["lp"] = fit["sample_stats"]["lp"] + noise
    table = diagnose(fit)
    constant = table.drop_sel(quantity="log posterior density")
    assert constant[STATISTICS].to_array().isnull().all()
    assert table.sel(quantity="log posterior density")[STATISTICS].to_array().notnull().all()
    assert table.attrs["believable"] is True
    assert "told apart" not in table.attrs["verdict"]


def test_one_chain():
    table = diagnose(sampled(synthetic_fit(n_chains=1, n_draws=400, n_runs=1)))
    assert table.attrs["believable"] is False
    assert table.attrs["verdict"].startswith(
        "Do not trust this fit yet. There is one chain only, so nothing can tell whether it has"
    )
    assert table["r_hat"].isnull().all()
    assert table["ess_bulk"].sel(quantity="mean") > 100


def test_chains_in_different_modes(fit):
    def sink(lp):
        lp[3] -= 50

    fit = changed(fit, "sample_stats/lp", sink)
    table = diagnose(fit)
    assert table.attrs["believable"] is False
    said = table.attrs["verdict"]
    assert "The chains disagree about the log posterior density (R-hat " in said
    assert "they sit in different modes" in said
    assert "Their mean log densities are [-90.0, -90.0, -90.0, -140.0] nats; do not average" in said
    np.testing.assert_allclose(table["chain_log_density"], [-90, -90, -90, -140], atol=0.01)


def test_chains_with_other_boundaries(fit):
    # as probable, but the first run of the last chain is in its first state for longer
    def stay(state):
        state[3, :, 0] = np.where(np.arange(40) < 30, 0, 1)

    table = diagnose(changed(fit, "paths/state", stay))
    assert table.attrs["believable"] is False
    assert "The chains disagree about the " in table.attrs["verdict"]
    apart = table["r_hat"] > R_HAT_APART
    assert set(table["quantity"].values[apart.values]) == {
        "number of switches in a run",
        "first switch in a run",
        "last switch in a run",
        "number of states in a run",
        "share of a run in one state",
    }


def test_chains_whose_switches_agree_but_for_one_in_the_middle():
    """As many switches, the first and the last at the same steps, in other states meanwhile."""
    paths = np.zeros((4, 400, 2, 40), int)
    paths[..., 10:30], paths[..., 30:] = 1, 2
    paths[..., 15:20] = 0
    paths[3, ..., 15:20], paths[3, ..., 20:25] = 1, 0
    paths[3, ..., 20:22] = 1
    table = diagnose(sampled(fit_from_paths(paths)))
    r_hat = table["r_hat"]
    assert r_hat.sel(quantity=INVARIANT[2:5]).isnull().all()
    assert r_hat.sel(quantity="share of a run in one state") > R_HAT_APART
    assert table.attrs["believable"] is False


def test_chains_that_never_move_from_different_places(fit):
    # no variance within any chain: R-hat is infinite there, which is not "nothing to say"
    paths = np.zeros((4, 400, 2, 40), int)
    for chain, start in enumerate((10, 10, 20, 20)):
        paths[chain, ..., start:] = 1
    table = diagnose(sampled(fit_from_paths(paths)))
    assert table["r_hat"].sel(quantity="first switch in a run") == np.inf
    assert table.attrs["believable"] is False
    assert "they sit in different modes" in table.attrs["verdict"]


def test_chains_that_nearly_agree(fit):
    def shift(lp):
        lp[3] += 0.6 * lp.std()

    table = diagnose(changed(fit, "sample_stats/lp", shift))
    assert 1.01 < table["r_hat"].sel(quantity="log posterior density") < R_HAT_APART
    assert table.attrs["believable"] is False
    said = table.attrs["verdict"]
    assert "The chains nearly agree (R-hat of the log posterior density is 1.0" in said
    assert "draw more" in said


def test_too_few_effective_draws():
    fit = sampled(synthetic_fit(n_chains=4, n_draws=90))
    table = diagnose(fit)
    smallest = table["ess_bulk"].idxmin("quantity").item()
    size = float(table["ess_bulk"].min())
    assert size < 400
    assert table.attrs["believable"] is False
    assert (
        f"The {smallest} has an effective sample size of {size:.0f}, and 400 are wanted"
        in table.attrs["verdict"]
    )


def test_divergences(fit):
    def diverge(diverging):
        diverging[1, :7] = True

    table = diagnose(changed(fit, "sample_stats/diverging", diverge))
    assert table["n_divergences"] == 7
    assert table.attrs["believable"] is False
    assert "7 draws diverged" in table.attrs["verdict"]


@pytest.mark.parametrize(("share", "believable"), [(0.04, True), (0.25, False)])
def test_ambiguous_labels(fit, share, believable):
    def blur(ambiguity):
        ambiguity[:] = 0.5  # up to here names are clear
        ambiguity[:, : int(share * 400)] = 0.51

    table = diagnose(changed(fit, "sample_stats/label_ambiguity", blur))
    assert table["share_ambiguous"] == share
    assert table.attrs["believable"] is believable
    said = table.attrs["verdict"]
    assert ("In 25% of the draws two states could swap names" in said) is not believable
    assert ("3 states may be more than the data tell apart" in said) is not believable
    assert ("States can be told apart in nearly all draws" in said) is believable


def test_restarts(fit):
    def scatter(log_density):
        log_density[:] = -80
        log_density[[2, 7]] = -80.05  # what EM leaves undone: the same mode
        log_density[[3, 4]] = -105.5, -92.5

    table = diagnose(changed(fit, "restarts/log_density", scatter))
    assert (table["n_restarts"], table["n_best_restarts"]) == (12, 10)
    assert table["gap_to_next_mode"] == 12.5
    assert table.attrs["verdict"].endswith(
        "10 of 12 searches for a starting point ended in the best mode found; the next is 12.5 "
        "nats lower."
    )
    # a mode so far below says nothing against the chains, which sit in the best
    assert table.attrs["believable"] is True
    assert diagnose(fit)["gap_to_next_mode"].isnull()


def test_a_mode_that_is_nearly_as_good_is_a_problem(fit):
    def near(log_density):
        log_density[:] = -80
        log_density[5:] = -83.5

    table = diagnose(changed(fit, "restarts/log_density", near))
    assert table.attrs["believable"] is False
    assert "the next is 3.5 nats lower. That one may matter as much" in table.attrs["verdict"]


def test_searches_are_told_with_what_was_tried(fit):
    def one(log_density):
        log_density[1:] = log_density[0] - 100

    fit = changed(fit, "restarts/log_density", one)
    fit["restarts"].attrs = {"n_tried": 60, "priors": "default"}
    assert (
        diagnose(fit)
        .attrs["verdict"]
        .endswith(
            "1 of 12 searches for a starting point, the most promising of 60, ended in the best "
            "mode found; the next is 100.0 nats lower (under the default priors). There may be a "
            "better one: raise n_restarts."
        )
    )


def test_residuals_that_hang_together_are_pointed_out():
    noise = np.random.default_rng(3).normal(size=(2, 400, 1))
    paths = np.zeros((4, 400, 2, 400), int)
    white = sampled(fit_from_paths(paths, features=noise))
    drift = sampled(fit_from_paths(paths, features=noise.cumsum(axis=1)))
    assert abs(diagnose(white)["residual_autocorrelation"]) < 0.1
    assert "too sure" not in diagnose(white).attrs["verdict"]
    table = diagnose(drift)
    residual = drift["residuals"]["standardized"]
    first, second = residual.values[:, :-1], residual.values[:, 1:]
    expected = (first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum())
    assert float(table["residual_autocorrelation"]) == pytest.approx(expected)
    assert f"have a correlation of {expected:.2f} where it assumes none" in table.attrs["verdict"]
    assert table.attrs["believable"] is True


def test_residuals_are_correlated_among_neighbours_that_are_there_and_in_one_phase():
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(2, 2_000, 1))
    paths = np.zeros((4, 50, 2, 2_000), int)
    for step in range(1, 2_000):
        noise[:, step] = 0.5 * noise[:, step - 1] + np.sqrt(0.75) * noise[:, step]
    fit = sampled(fit_from_paths(paths, features=noise))
    fit["residuals"]["standardized"].values[rng.random(noise.shape) < 0.5] = np.nan
    found = float(diagnose(fit)["residual_autocorrelation"])
    # of 1,000 pairs the correlation has a standard error of 0.03
    assert found == pytest.approx(0.5, abs=0.1)


def test_tails_count_too(fit):
    def heavy(lp):
        # long excursions, rare enough for the bulk not to see them
        lp[:, 100:115] += 50.0

    table = diagnose(changed(fit, "sample_stats/lp", heavy))
    sizes = table.sel(quantity="log posterior density")
    assert sizes["ess_tail"] < 400 < sizes["ess_bulk"]
    assert table.attrs["believable"] is False
    assert (
        f"effective sample size of {float(sizes['ess_tail']):.0f}, and 400"
        in (table.attrs["verdict"])
    )


def test_numbers_of_states_do_not_matter_to_what_is_label_invariant(fit):
    swapped = renamed(fit, [1, 0, 2], chain=2)
    before, after = diagnose(fit), diagnose(swapped)
    xr.testing.assert_equal(
        after.sel(quantity=INVARIANT)[STATISTICS], before.sel(quantity=INVARIANT)[STATISTICS]
    )
    assert before["r_hat"].sel(quantity="mean") < 1.03
    assert after["r_hat"].sel(quantity="mean") > R_HAT_APART
    # all chains renamed alike are no worse than before
    for chain in (0, 1, 3):
        swapped = renamed(swapped, [1, 0, 2], chain=chain)
    xr.testing.assert_equal(diagnose(swapped)[STATISTICS], before[STATISTICS])


def test_chains_that_disagree_about_parameters_only(fit):
    # another spread around the same centre: only the tails see it
    def spread(mean):
        centre = mean[3].mean(axis=0)
        mean[3] = centre + 3 * (mean[3] - centre)

    table = diagnose(changed(fit, "posterior/mean", spread))
    assert table.attrs["believable"] is False
    assert "The chains agree on everything that does not depend on names" in table.attrs["verdict"]
    assert "The mean has an effective sample size of" in table.attrs["verdict"]


def test_errors(fit):
    with pytest.raises(TypeError, match=r"expected the DataTree .* got dict"):
        diagnose({"3": fit})
    del fit["paths"]
    with pytest.raises(ValueError, match=r"no variable 'state' in a group 'paths'"):
        diagnose(fit)


def test_rounding_makes_no_variance():
    fit = fit_from_paths(np.zeros((4, 400, 2, 40), int), features=np.full((2, 40, 1), 0.1))
    assert diagnose(fit)["ess_bulk"].sel(quantity="mean").isnull()


def test_too_few_draws_to_judge():
    table = diagnose(sampled(synthetic_fit(n_chains=4, n_draws=3)))
    assert table.attrs["believable"] is False
    assert "R-hat is unknown: the draws are too few" in table.attrs["verdict"]


def test_a_fit_without_its_sample_stats(fit):
    del fit["sample_stats"]
    with pytest.raises(ValueError, match=r"lacks the groups \['sample_stats'\]"):
        diagnose(fit)
