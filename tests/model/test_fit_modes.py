"""Fits of several modes, and their weights against the sum over all paths."""

import exact_evidence
import numpy as np
import pytest
from scipy.special import logsumexp
from test_evidence import features_of, model_of
from test_rows import grid

import bayesphase as bp
from bayesphase.model.initial import Start
from bayesphase.model.modes import number_modes
from bayesphase.model.spec import specify

# three groups, and two states: the one in the middle goes with either of the others
RNG = np.random.default_rng(0)
GROUPS = np.repeat([0, 1, 2], 5)  # with fewer, chains wander from one to the other
VALUES = np.array([0.0, 4.0, 8.6])[GROUPS] + 0.3 * RNG.normal(size=len(GROUPS))
TWO_WAYS = {"late": (GROUPS > 1).astype(int), "early": (GROUPS > 0).astype(int)}


@pytest.fixture(scope="module")
def fits():
    return bp.fit_modes(
        features_of(VALUES), 2, emission="gaussian", tune=500, random_seed=1, progressbar=False
    )


def nearest(paths):
    """Which of the two ways (path) a path of two states is nearer to, whatever their names."""
    distance = {}
    for name, way in TWO_WAYS.items():
        different = (paths != way).sum(axis=-1)
        distance[name] = np.minimum(different, len(way) - different)
    return np.where(distance["early"] < distance["late"], "early", "late")


def test_each_fit_stays_in_its_mode(fits):
    assert list(fits)[:2] == ["mode 0", "mode 1"]
    early = [(nearest(fits[f"mode {i}"]["paths"]["state"].values) == "early") for i in range(2)]
    # a path in passing may be nearer to the other way
    assert sorted(share.mean().round(2) for share in early) == [0.0, 1.0]
    restarts = fits["mode 0"]["restarts"].to_dataset()
    assert restarts["log_density"].equals(fits["mode 1"]["restarts"]["log_density"])
    assert (restarts["mode"].diff("restart") >= 0).all()
    assert [fit.attrs["mode"] for fit in fits.values()] == list(range(len(fits)))


def test_weights_are_the_sums_over_the_paths_of_each_mode(fits):
    paths, logs = exact_evidence.by_path(**model_of(fits["mode 0"]))
    table = bp.mode_weights({name: fits[name] for name in ("mode 0", "mode 1")}, random_seed=1)
    which = nearest(paths)
    for name in ("mode 0", "mode 1"):
        own = nearest(fits[name]["paths"]["most_likely"].values)
        exact = np.exp(logsumexp(logs[which == own]) - logsumexp(logs))
        row = table.sel(mode=name)
        assert 0.1 < exact < 0.9
        assert float(row["mcse"]) < 0.02
        # paths that are near neither are in no mode, and hold a hundredth or two
        assert abs(float(row["probability"]) - exact) < 0.02 + 3.0 * float(row["mcse"])
    both = logsumexp(table["log_evidence"].values)
    assert both == pytest.approx(logsumexp(logs), abs=0.05)
    assert table.attrs["believable"] is True


def test_a_fit_of_one_mode_is_not_taken_for_the_posterior(fits):
    said = bp.diagnose(fits["mode 1"]).attrs
    assert said["believable"] is False
    assert "All chains were started in mode 1 of those that 12 searches found" in said["verdict"]
    said = bp.diagnose(fits["mode 0"]).attrs
    assert said["believable"] is False
    assert "bayesphase.fit_modes fits both apart" in said["verdict"]


def test_chains_of_both_modes_are_said_to_disagree(fits):
    """The planted posterior, as a sampler that starts anywhere would see it."""
    mixed = fits["mode 0"].copy(deep=True)
    for group in ("posterior", "paths", "log_likelihood", "sample_stats"):
        for name, other in fits["mode 1"][group].to_dataset().items():
            if "chain" in other.dims:
                mixed[group][name].values[2:] = other.values[2:]
    table = bp.diagnose(mixed)
    assert table.attrs["believable"] is False
    assert "they sit in different modes" in table.attrs["verdict"]
    with pytest.warns(UserWarning, match="The chains disagree about the"):
        bp.log_evidence(mixed, random_seed=1)


def test_the_first_is_the_fit_that_one_has_without_it():
    x = features_of(VALUES)
    quick = {"draws": 50, "tune": 50, "chains": 1, "random_seed": 3, "progressbar": False}
    fits = bp.fit_modes(x, 2, emission="gaussian", n_modes=1, **quick)
    assert list(fits) == ["mode 0"]
    np.testing.assert_array_equal(
        fits["mode 0"]["posterior"]["mean"],
        bp.fit(x, 2, emission="gaussian", **quick)["posterior"]["mean"],
    )


def test_modes_that_there_are_not():
    x = features_of(VALUES)
    with pytest.raises(ValueError, match=r"mode must lie between 0 and 0, .* found, got 1"):
        bp.fit(x, 1, emission="gaussian", mode=1, n_restarts=1)
    with pytest.raises(ValueError, match="mode must be at least 0, got -1"):
        bp.fit(x, 1, emission="gaussian", mode=-1)
    with pytest.raises(ValueError, match="n_modes must be at least 1, got 0"):
        bp.fit_modes(x, 1, emission="gaussian", n_modes=0)


def test_names_of_states_make_no_other_mode():
    values = np.concatenate([np.zeros(5), np.ones(5)])[None, :, None]
    spec = specify(grid(values), 2, emission="gaussian", transition="sticky", priors=None)
    stay = np.array([[0.9, 0.1], [0.1, 0.9]])

    def start(log_density, means):
        parameters = {
            "initial_probs": np.full(2, 0.5),
            "transition_probs": stay,
            "mean": np.array(means)[:, None],
            "scale": np.full((2, 1), 0.2),
        }
        return Start(log_density, parameters)

    starts = [
        start(-1.0, [0.0, 1.0]),
        start(-1.01, [1.0, 0.0]),
        start(-1.02, [0.0, 9.0]),  # as probable, but with one state for all
        start(-3.0, [0.0, 1.0]),
    ]
    assert number_modes(starts, spec) == [0, 0, 1, 2]
