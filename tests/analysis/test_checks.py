"""Predictive checks: statistics by hand, p-values that mean what they say, one's own functions."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import kstest
from synthetic import fit_at

import bayesphase as bp
from bayesphase.analysis.statistics import STATISTICS
from bayesphase.model.replicate import draw_rows
from bayesphase.model.spec import specify

PRIORS = {
    "initial_probs": bp.Prior("Dirichlet", a=np.ones(2)),
    "transition_probs": bp.Prior("Dirichlet", a=1.0 + 20.0 * np.eye(2)),
    "mean": bp.Prior("Normal", mu=0.0, sigma=1.0),
    "scale": bp.Prior("InverseGamma", alpha=10.0, beta=9.0),
}


def small_data():
    """Two runs: "a" goes 0 0 1 1 1 0, "b" 1 1 1 without a checkpoint in between."""
    state = np.array([[0, 0, 1, 1, 1, 0], [1, 1, -1, 1, -1, -1]])
    residual = np.arange(12.0).reshape(2, 6, 1) - 4.0
    residual[state == -1] = np.nan
    return xr.Dataset(
        {
            "features": (("run", "step", "feature"), residual + 1.0),
            "residual": (("run", "step", "feature"), residual),
            "state": (("run", "step"), state),
        },
        coords={"run": ["a", "b"], "step": [0, 10, 20, 40, 50, 60], "feature": ["x"]},
        attrs={"n_states": 3},
    )


def test_statistics_by_hand():
    found = {name: statistic.function(small_data()) for name, statistic in STATISTICS.items()}
    pairs = np.array([[-4, -3], [-2, -1], [-1, 0], [2, 3], [3, 5]])
    expected = pairs.prod(axis=1).sum() / np.sqrt((pairs**2).sum(axis=0).prod())
    assert found["autocorrelation"].values == pytest.approx(expected)
    assert found["largest_residual"].values == 5.0
    assert found["n_switches"] == 1.0  # 2 and 0
    # a: 0 from 0 to 20 and from 60 to the end, which is 60, 1 from 20 to 60; b: 1 from 0 to 40
    np.testing.assert_array_equal(found["mean_dwell"], [10.0, 40.0, np.nan])
    np.testing.assert_array_equal(found["longest_dwell"], [20.0, 40.0, np.nan])


def spec_of(features, emission):
    return specify(
        features,
        2,
        emission=emission,
        transition=bp.Sticky(),
        priors=PRIORS if emission.name == "gaussian" else None,
    )


def drawn(rng, emission, named, n_steps=40):
    blank = xr.DataArray(
        rng.normal(size=(2, n_steps, 2)),
        dims=("run", "step", "feature"),
        coords={"run": ["a", "b"], "step": 10 * np.arange(n_steps), "feature": ["x", "y"]},
    )
    _, values = draw_rows(spec_of(blank, emission), named, rng)
    return blank.copy(data=values.reshape(blank.shape))


def known_parameters(emission):
    named = dict(
        zip(
            emission.dims,
            (np.array([[-0.5, 0.3], [0.5, -0.4]]), np.array([[0.4, 0.6], [0.9, 0.5]])),
            strict=False,
        )
    )
    named["initial_probs"] = np.array([0.5, 0.5])
    named["transition_probs"] = np.array([[0.9, 0.1], [0.2, 0.8]])
    return named


def highest(data):
    return float(data["features"].max())


def roughness(data):
    return abs(data["features"].diff("step")).mean(("run", "step"))


def test_p_values_mean_what_they_say_at_known_parameters():
    """Exactly uniform where no path matters; about 1/2 and more concentrated than that elsewhere.

    With 9 replications a p-value has 10 values of equal probability. Over data sets, their
    distribution is compared with the uniform one by Kolmogorov and Smirnov at a level of 0.01, a
    uniform number being added to each rank.
    """
    n_sets, n_draws = 40, 9
    emission, rng = bp.Gaussian(), np.random.default_rng(10)
    named, found = known_parameters(emission), []
    for seed in range(n_sets):
        features = drawn(rng, emission, named)
        fit = fit_at(
            spec_of(features, emission), features, named, n_draws=n_draws, random_seed=seed
        )
        table = bp.predictive_checks(
            fit, draws=None, statistics={"highest": highest, "rough": roughness}, random_seed=seed
        )
        found.append(table["p_value"])
    p = xr.concat(found, "set", coords="minimal", compat="override")
    for check in ("highest", "rough x", "rough y"):
        rank = p.sel(check=p["check"] == check).values.ravel() * n_draws
        assert kstest((rank + rng.random(n_sets)) / (n_draws + 1), "uniform").pvalue > 0.01
    error = p.std("set") / np.sqrt(n_sets)
    assert (abs(p.mean("set") - 0.5) < 4 * error).all()
    rare = ((p <= 0.05) | (p >= 0.95)).mean("set")
    assert (rare <= 0.2 + 3 * np.sqrt(0.2 * 0.8 / n_sets)).all()


def draw_from_the_prior(rng):
    p = {name: prior.parameters for name, prior in PRIORS.items()}
    return {
        "initial_probs": rng.dirichlet(p["initial_probs"]["a"]),
        "transition_probs": np.stack([rng.dirichlet(a) for a in p["transition_probs"]["a"]]),
        "mean": rng.normal(p["mean"]["mu"], p["mean"]["sigma"], (2, 2)),
        "scale": p["scale"]["beta"] / rng.gamma(p["scale"]["alpha"], size=(2, 2)),
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_p_values_under_the_prior_predictive(capsys):
    """Parameters from the prior, data from the model, a fit each: 1/2 on average, and not extreme.

    And exactly: the statistic of the data under a single draw ranks uniformly among those of data
    that the model makes with the same draw (both pairs of data and parameters have one
    distribution), so that one is larger than another half of the time.
    """
    n_sets, rng, found, larger = 150, np.random.default_rng(11), [], []
    for seed in range(n_sets):
        features = drawn(rng, bp.Gaussian(), draw_from_the_prior(rng))
        fit = bp.fit(
            features,
            2,
            emission="gaussian",
            priors=PRIORS,
            draws=200,
            tune=200,
            chains=2,
            n_restarts=4,
            random_seed=seed,
            progressbar=False,
        )
        table = bp.predictive_checks(fit, draws=50, random_seed=seed)
        of_all = ~table["statistic"].isin(["mean_dwell", "longest_dwell"])  # of numbered states
        table = table.sel(check=of_all)
        found.append(table["p_value"])
        both = table.isel(sample=25)
        ties = 0.5 * (both["replicated"] == both["observed"])
        larger.append((both["replicated"] > both["observed"]) + ties)
    p, larger = (xr.concat(x, "set", coords="minimal", compat="override") for x in (found, larger))
    rare = ((p <= 0.05) | (p >= 0.95)).mean("set")
    z = (p.mean("set") - 0.5) / (p.std("set") / np.sqrt(n_sets))
    z_larger = (larger.mean("set") - 0.5) / (0.5 / np.sqrt(n_sets))
    with capsys.disabled():
        for check in p["check"].values:
            at = {"check": check}
            print(  # noqa: T201
                f"\n{check}: mean p {float(p.sel(at).mean()):.3f} (z = {float(z.sel(at)):.1f}), "
                f"outside 5% to 95% in {float(rare.sel(at)):.3f}, larger under one draw in "
                f"{float(larger.sel(at).mean()):.3f}"
            )
    assert (abs(z) < 3.5).all()
    assert (abs(z_larger) < 3.5).all()
    assert (rare <= 0.2 + 3 * np.sqrt(0.2 * 0.8 / n_sets)).all()


@pytest.fixture(scope="module")
def fit():
    emission = bp.RandomWalk()
    named = known_parameters(emission)
    features = drawn(np.random.default_rng(12), emission, named)
    return fit_at(spec_of(features, emission), features, named, n_draws=20)


def test_the_table_holds_what_it_was_made_from(fit):
    table = bp.predictive_checks(fit, draws=10, ci_prob=0.5, random_seed=1)
    assert table.sizes == {"check": 9, "sample": 10}
    assert table["units"].sel(check="mean_dwell phase 1") == "optimiser steps"
    one = table.sel(check="largest_residual y")
    larger = (one["replicated"] > one["observed"]).mean()
    assert float(one["p_value"]) == float(larger)
    k = float(larger) * 10
    share = (k + 0.5) / 11
    assert float(one["mcse"]) >= np.sqrt(share * (1 - share) / 10) * 0.999
    assert (table["mcse"] > 0).all()
    assert table.attrs["ci_prob"] == 0.5
    for name in ("observed", "replicated"):
        assert (table[f"{name}_lower"] <= table[f"{name}_median"]).all()
        assert (table[f"{name}_median"] <= table[f"{name}_upper"]).all()
    again = bp.predictive_checks(fit, draws=10, ci_prob=0.5, random_seed=1)
    xr.testing.assert_identical(table, again)


def test_the_observed_path_is_that_of_the_draw(fit):
    seen = []
    bp.predictive_checks(fit, draws=None, statistics={"look": lambda d: seen.append(d) or 0.0})
    observed = seen[::2]
    for draw, data in enumerate(observed):
        np.testing.assert_array_equal(data["state"], fit["paths"]["state"][0, draw])
        np.testing.assert_array_equal(data["features"], fit["observed_data"]["features"])


def test_a_statistic_that_is_not_defined_leaves_its_draws_out(fit):
    def sometimes(data):
        return np.nan if data["state"].values[0, 0] == 1 else np.inf

    table = bp.predictive_checks(fit, statistics={"odd": sometimes}, random_seed=1).sel(check="odd")
    defined = ~np.isnan(table["observed"]) & ~np.isnan(table["replicated"])
    assert int(table["n_draws"]) == int(defined.sum()) < 20
    never = bp.predictive_checks(fit, statistics={"none": lambda _: np.nan}).sel(check="none")
    assert int(never["n_draws"]) == 0
    assert np.isnan(never["p_value"])


@pytest.mark.parametrize(
    ("statistics", "error", "message"),
    [
        ({"n_switches": highest}, ValueError, "there is a statistic 'n_switches' already"),
        ({"mine": 3.0}, TypeError, "statistic 'mine' must be a function of a Dataset, got 3.0"),
        ({"mine": lambda d: d["features"].values}, TypeError, r"ndarray of shape \(2, 40, 2\)"),
        ({"mine": lambda d: d["features"]}, ValueError, "has the dims .'run', 'step', 'feature'."),
        (
            {"mine": lambda d: d["features"][0, 0] if d["state"][0, 0] == 1 else 1.0},
            ValueError,
            "statistic 'mine' must have one shape",
        ),
    ],
)
def test_functions_that_are_no_statistics_are_named(fit, statistics, error, message):
    with pytest.raises(error, match=message):
        bp.predictive_checks(fit, statistics=statistics, random_seed=1)


def test_other_arguments_are_checked(fit):
    with pytest.raises(TypeError, match="expected the DataTree that"):
        bp.predictive_checks(fit["paths"].to_dataset())
    with pytest.raises(ValueError, match="ci_prob must be a number between 0 and 1"):
        bp.predictive_checks(fit, ci_prob=90)
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        bp.predictive_checks(fit, draws=0)
