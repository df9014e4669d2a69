"""The posterior of the number of states: Bayes' rule, its errors, what is said, what is found."""

import warnings

import numpy as np
import pytest
import xarray as xr
from synthetic import fit_from_paths, synthetic_fit

import bayesphase as bp
from bayesphase.analysis import counts
from bayesphase.analysis.counts import state_counts
from bayesphase.analysis.evidence import log_evidence


def named(fit, n_states):
    fit.attrs["n_states"] = n_states
    return fit


@pytest.fixture
def fits():
    """Fits of one, two and three states of the same features."""
    return {str(k): named(synthetic_fit(n_states=3), k) for k in (1, 2, 3)}


@pytest.fixture
def known(monkeypatch):
    """Give evidences instead of estimating them: mapping of n_states to log and error."""

    def give(table, believable=True, wider=None, pareto_k=0.3):
        def canned(fit, **_):
            log, error = table[fit.attrs["n_states"]]
            log_wider, error_wider = (wider or table)[fit.attrs["n_states"]]
            return xr.Dataset(
                {
                    "log_evidence": log,
                    "mcse": error,
                    "log_evidence_wider": log_wider,
                    "mcse_wider": error_wider,
                    "pareto_k": pareto_k,
                },
                attrs={"believable": believable},
            )

        monkeypatch.setattr(counts, "log_evidence", canned)

    return give


def test_probabilities_are_bayes_rule(fits, known):
    known({1: (-1000.0, 0.0), 2: (-990.0, 0.0), 3: (-991.0, 0.0)})
    table = state_counts(fits)
    odds = np.exp([-10.0, 0.0, -1.0])
    np.testing.assert_allclose(table["probability"], odds / odds.sum())
    assert table["n_states"].values.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(table["mcse"], 0.0)
    table = state_counts(fits, prior={1: 0.0, 2: 1.0, 3: 3.0, 4: 9.0})
    odds = odds * [0.0, 1.0, 3.0]
    np.testing.assert_allclose(table["probability"], odds / odds.sum())


def test_errors_are_those_of_the_evidences(fits, known):
    logs, errors = np.array([-1.0, 0.0, -0.5]), np.array([0.02, 0.01, 0.04])
    known(dict(zip((1, 2, 3), zip(logs, errors, strict=True), strict=True)))
    drawn = logs + errors * np.random.default_rng(1).normal(size=(200_000, 3))
    odds = np.exp(drawn)
    expected = (odds / odds.sum(axis=1, keepdims=True)).std(axis=0)
    np.testing.assert_allclose(state_counts(fits)["mcse"], expected, rtol=0.02)


def test_variants_are_compared(fits, known):
    known({1: (-5.0, 0.1), 2: (0.0, 0.1), 3: (-5.0, 0.1)})
    table = state_counts(
        {f"wide {k}": fit for k, fit in fits.items()}
        | {f"default {k}": fit for k, fit in fits.items() if k != "1"}
    )
    assert dict(table.sizes) == {"variant": 2, "n_states": 3}
    assert table["variant"].values.tolist() == ["wide", "default"]
    assert np.isnan(table["probability"].sel(variant="default", n_states=1))
    np.testing.assert_allclose(table["probability"].sum("n_states"), 1.0)
    assert "does not depend on which of these priors is used" in table.attrs["verdict"]


def test_the_verdict_says_how_sure_it_is(fits, known):
    known({1: (-50.0, 0.1), 2: (-9.0, 0.1), 3: (0.0, 0.1)})
    table = state_counts(fits)
    assert table.attrs["believable"] is True
    assert table.attrs["verdict"] == (
        "3 states are the most probable, with probability 1.00. More than 3 were not tried: they "
        "may be more probable still. Under wider priors it is 3, with probability 1.00. The number "
        "does not depend on which of these priors is used."
    )
    known({1: (-50.0, 0.1), 2: (0.3, 0.1), 3: (0.0, 0.1)}, believable=False)
    table = state_counts(fits)
    assert table.attrs["believable"] is False
    assert table.attrs["verdict"].startswith(
        "Do not trust this yet: the evidence of 1, 2, 3 is not sure. 2 states are the most "
        "probable, with probability 0.57, which does not settle it."
    )


def test_the_number_under_wider_priors_is_told(fits, known):
    logs = {1: (-5.0, 0.1), 2: (0.0, 0.1), 3: (-5.0, 0.1)}
    wider = {1: (-5.0, 0.1), 2: (-9.0, 0.1), 3: (-13.0, 0.3)}
    known(logs, wider=wider)
    table = state_counts(fits)
    odds = np.exp([-5.0, -9.0, -13.0])
    np.testing.assert_allclose(table["probability_wider"], odds / odds.sum())
    np.testing.assert_allclose(table["log_evidence_mcse_wider"], [0.1, 0.1, 0.3])
    assert table.attrs["verdict"].endswith(
        "Under wider priors it is 1, with probability 0.98. The number depends on the prior."
    )
    known(logs, wider=wider, pareto_k=0.8)
    table = state_counts(fits)
    assert table.attrs["verdict"].endswith(
        "Do not trust that: priors of 1, 2, 3 states are too far apart for these draws (k-hat "
        "above 0.7). Fit them as a variant."
    )
    known(logs, wider={k: (np.nan, np.nan) for k in logs}, pareto_k=np.nan)
    table = state_counts(fits)
    assert table["probability_wider"].isnull().all()
    np.testing.assert_allclose(table["probability"].sum(), 1.0)
    assert table.attrs["verdict"].endswith(
        "Under wider priors it is not known: compare fits under at least two."
    )


def test_visited_states_are_those_of_all_runs_together(known):
    known({4: (0.0, 0.1)})
    paths = np.array(
        [
            [[0, 0, 1], [2, 2, 2]],  # three, in two runs
            [[0, 0, 1], [1, 1, -1]],
            [[0, 0, 1], [3, 0, -1]],
            [[0, 0, 0], [0, 0, -1]],
        ]
    )
    fit = named(fit_from_paths(paths, n_states=4), 4)
    table = state_counts({"4": fit})
    assert table["n_states"].values.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(table["visited_probability"], [0.25, 0.25, 0.5, 0.0])
    np.testing.assert_array_equal(np.isnan(table["probability"]), [True, True, True, False])


def test_columns_are_named(fits, known):
    known({k: (0.0, 0.1) for k in (1, 2, 3)})
    table = state_counts(fits)
    assert all({"long_name", "units"} <= set(v.attrs) for v in table.data_vars.values())


def test_bad_fits_are_named(fits):
    with pytest.raises(TypeError, match="fits must be fits by name"):
        state_counts(fits["1"])
    with pytest.raises(TypeError, match="got dict without any"):
        state_counts({})
    with pytest.raises(TypeError, match="expected the DataTree"):
        state_counts({"1": None})
    other = named(synthetic_fit(n_states=3, random_seed=9), 4)
    with pytest.raises(ValueError, match="the fit '4' is of other features than '1'"):
        state_counts({**fits, "4": other})
    with pytest.raises(ValueError, match="two fits of 2 states have the variant ''"):
        state_counts({**fits, " 2": fits["2"]})
    with pytest.raises(ValueError, match="the fit '1' does not say its number of states"):
        state_counts({"1": synthetic_fit()})


@pytest.mark.parametrize(
    ("prior", "error", "match"),
    [
        ([1, 1, 1], TypeError, "prior must map numbers of states to probabilities"),
        ({1: 0.5, 2: 0.5}, ValueError, r"prior has no probability of \[3\] states"),
        ({1: 0.5, 2: 0.5, 3: -1}, ValueError, "prior must be numbers of at least 0, got -1"),
        ({1: 0, 2: 0, 3: 0}, ValueError, "prior is 0 for all numbers of states"),
    ],
)
def test_bad_priors_are_named(fits, prior, error, match):
    with pytest.raises(error, match=match):
        state_counts(fits, prior=prior)


def simulated(n_states, random_seed):
    mean = 2.0 * np.arange(n_states)[:, None] * np.array([1.0, -1.0])
    data = bp.simulate(
        n_states=n_states, n_runs=2, n_steps=60, n_features=2, mean=mean, random_seed=random_seed
    )
    assert len(np.unique(data["path"])) == n_states, "runs left out a state: take another seed"
    return data["features"]


@pytest.fixture(scope="module")
def one_fit():
    return bp.fit(
        simulated(2, 1), 2, emission="gaussian", draws=300, random_seed=1, progressbar=False
    )


def test_an_evidence_that_can_be_believed(one_fit):
    table = log_evidence(one_fit, random_seed=1)
    assert table.attrs["believable"] is True
    assert table.attrs["n_states"] == 2
    assert table.attrs["method"] == "bridge"
    assert table.attrs["verdict"].startswith(
        f"The log evidence is {float(table['log_evidence']):.2f} with a standard error of"
    )
    assert 0 < float(table["mcse"]) < 0.1
    assert int(table["n_renumberings"]) == 2
    assert all({"long_name", "units"} <= set(v.attrs) for v in table.data_vars.values())
    xr.testing.assert_identical(log_evidence(one_fit, random_seed=1, cores=1), table)


def test_an_evidence_from_too_few_draws(one_fit):
    few = one_fit.copy()
    few["posterior"] = xr.DataTree(one_fit["posterior"].to_dataset().isel(draw=slice(22)))
    with pytest.warns(UserWarning, match="Do not trust this evidence of 2 states yet"):
        table = log_evidence(few, random_seed=1)
    assert table.attrs["believable"] is False
    assert "independent ones, and 100 are needed" in table.attrs["verdict"]


def test_an_evidence_from_chains_that_disagree(one_fit):
    apart = one_fit.copy()
    stats = one_fit["sample_stats"].to_dataset()
    apart["sample_stats"] = xr.DataTree(stats.assign(lp=stats["lp"] + 50.0 * stats["chain"]))
    with pytest.warns(UserWarning, match="The chains disagree about the log posterior density"):
        log_evidence(apart, random_seed=1)


def test_an_evidence_from_draws_that_diverged(one_fit):
    stats = one_fit["sample_stats"].to_dataset().copy(deep=True)
    for n, doubted in ((1, False), (20, True)):
        stats["diverging"].values.ravel()[:n] = True
        diverged = one_fit.copy()
        diverged["sample_stats"] = xr.DataTree(stats)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            table = log_evidence(diverged, random_seed=1)
        assert table.attrs["believable"] is not doubted
        assert ("20 of 1200 draws diverged" in table.attrs["verdict"]) is doubted


def test_other_modes_are_mentioned(one_fit):
    two = one_fit.copy()
    two["restarts"] = xr.DataTree(xr.Dataset({"log_density": ("restart", [0.0, -3.0])}))
    table = log_evidence(two, random_seed=1)
    assert "found another mode 3.0 nats lower" in table.attrs["verdict"]


@pytest.mark.slow
@pytest.mark.parametrize(("n_states", "random_seed"), [(1, 11), (2, 22), (3, 13)])
def test_the_number_that_data_were_drawn_from_is_found(n_states, random_seed):
    features = simulated(n_states, random_seed)
    wide = {"mean": bp.Prior("Normal", mu=features.mean().item(), sigma=10.0)}
    fits = bp.fit_range(
        features,
        range(1, 5),
        emission="gaussian",
        variants={"default": {}, "wide": {"priors": wide}},
        draws=500,
        random_seed=1,
        workers=1,
        progressbar=False,
    )
    table = state_counts(fits, random_seed=1)
    assert (table["probability"].argmax("n_states") + 1 == n_states).all()
    assert (table["probability"].sel(n_states=n_states) > 0.5).all()
    assert (table["mcse"] < 0.05).all()
    most = table["visited_probability"].sel(variant="default").argmax("n_states") + 1
    assert n_states <= int(most) <= 4
