"""New runs read with the posterior of others: as if they had been among them, and no look ahead."""

import numpy as np
import pytest
import xarray as xr
from exact import Problem, enumerate_run
from scipy.stats import multivariate_normal
from synthetic import fit_at
from test_emissions import FAMILIES, parameters_of
from test_rows import grid

import bayesphase as bp
from bayesphase.model.emissions import FullGaussian, Gaussian, QuadraticDrift, RandomWalk
from bayesphase.model.lanes import end_to_end
from bayesphase.model.spec import recorded, specify
from bayesphase.model.transitions import ContinuousTime, LeftToRight, Sticky, StickyHDP

EVERY_FAMILY = [Gaussian(), FullGaussian(), *FAMILIES]
STEPS = [0, 10, 20, 40, 50]


def runs(rng, n=3):
    """Runs of five and four checkpoints at uneven steps, with holes."""
    values = rng.normal(size=(n, 5, 2))
    values[0, 2, 0] = values[1, 1, 1] = values[n - 1, 3, 1] = np.nan
    values[1, 4] = np.nan
    return grid(values).assign_coords(step=STEPS)


def fitted(features, emission, transition, rng, *, known=None, n_draws=400):
    """A fit whose draws all have the same parameters, which are returned as well."""
    spec = specify(
        features, 2, emission=emission, transition=transition, priors=None, known_states=known
    )
    start, _ = spec.transition.maximise(np.zeros((1, 2, 2)), np.zeros(2))
    named = {
        **spec.transition.jitter(rng, start, 0.7),
        **parameters_of(emission, rng, features.sizes["feature"], n_states=2),
    }
    return fit_at(spec, features, named, n_draws=n_draws), spec, named


def exactly(spec, named, run, n_rows=None):
    """Probabilities (row, state) of the states of one run's first rows, by adding up all paths."""
    start, length = spec.rows.layout.starts[run], spec.rows.layout.lengths[run]
    rows = slice(start, start + (length if n_rows is None else n_rows))
    with np.errstate(divide="ignore"):
        log_transition, log_initial = spec.transition.log_potentials(named, np)
    log_emission = spec.emission.log_density(spec.rows.values, spec.rows, named, np)[rows]
    known = getattr(spec.transition, "known", None)
    if known is not None and known[start] >= 0:
        log_emission[0, np.arange(2) != known[start]] = -np.inf
    gap_index = spec.rows.layout.gap_index[rows]
    layout = end_to_end([len(gap_index)], gap_index)
    return enumerate_run(Problem(log_emission, log_transition, log_initial, layout))


@pytest.mark.parametrize(
    ("emission", "transition"),
    [
        *((emission, Sticky()) for emission in EVERY_FAMILY),
        (Gaussian(), ContinuousTime()),
        (QuadraticDrift(), ContinuousTime()),
        (QuadraticDrift(), LeftToRight()),
        (Gaussian(), StickyHDP()),
    ],
    ids=repr,
)
def test_a_new_run_is_smoothed_and_filtered_as_one_of_the_fit_is(emission, transition):
    rng = np.random.default_rng(1)
    features = runs(rng)
    _, spec, named = fitted(features, emission, transition, rng, n_draws=1)
    # of the fit without the last run, under the same parameters
    others = fit_at(spec_without(spec, features), features[:2], named, n_draws=400)
    decoded = bp.decode(others, features[2:], filtered=True, random_seed=1)
    truth = exactly(spec, named, 2)
    np.testing.assert_allclose(
        decoded["log_likelihood"]["run_log_likelihood"], truth.log_likelihood, rtol=1e-9
    )
    share = bp.phase_probabilities(decoded)[0].values
    assert np.abs(share - truth.state_probs).max() < 4 * 0.5 / np.sqrt(400)
    best = truth.paths[truth.path_probs.argmax()]
    np.testing.assert_array_equal(bp.most_likely_path(decoded)[0], best)
    filtered = decoded["filtered"]["phase_probability"][0].values
    for n_rows in range(1, 6):
        expected = exactly(spec, named, 2, n_rows).state_probs[-1]
        np.testing.assert_allclose(filtered[n_rows - 1], expected, rtol=1e-9, atol=1e-12)


def spec_without(spec, features):
    return specify(
        features[:2],
        2,
        emission=spec.emission,
        transition=spec.structure,
        priors=None,
        # two runs have other gaps, but time goes on as it did
        step_unit=spec.rows.step_unit,
    )


def test_the_runs_of_the_fit_are_decoded_as_they_were():
    rng = np.random.default_rng(2)
    features = runs(rng)
    fit, spec, named = fitted(features, RandomWalk(), Sticky(), rng)
    decoded = bp.decode(fit, features[:, :, ::-1], random_seed=3)
    assert set(decoded.children) == {"posterior", "paths", "log_likelihood", "residuals"} | {
        "observed_data"
    }
    xr.testing.assert_equal(decoded["observed_data"]["features"], features)
    xr.testing.assert_identical(decoded["posterior"]["drift"], fit["posterior"]["drift"])
    for run in range(3):
        truth, length = exactly(spec, named, run), spec.rows.layout.lengths[run]
        share = bp.phase_probabilities(decoded)[run, :length].values
        assert np.abs(share - truth.state_probs).max() < 4 * 0.5 / np.sqrt(400)
    # a table, a figure's data and the model of what was decoded
    assert bp.boundaries(decoded)["visited"].shape == (3, 2)
    assert recorded(decoded).rows.step_unit == spec.rows.step_unit
    again = bp.decode(fit, features, random_seed=3)
    xr.testing.assert_identical(again["paths"].to_dataset(), decoded["paths"].to_dataset())
    few = bp.decode(fit, features, draws=7, random_seed=3)
    assert few["paths"].sizes["draw"] == few["posterior"].sizes["draw"] == 7


def test_time_goes_on_in_the_units_of_the_fit():
    """A new run with checkpoints twice as far apart drifts twice as far between them."""
    rng = np.random.default_rng(3)
    features = runs(rng)
    fit, spec, named = fitted(features, RandomWalk(), ContinuousTime(), rng)
    sparse = features[:1, ::2].assign_coords(run=["new"])
    decoded = bp.decode(fit, sparse, random_seed=1)
    lag = np.diff([0.0, 20.0, 50.0]) / spec.rows.step_unit
    path = bp.most_likely_path(decoded)[0].values
    known = decoded["observed_data"]["features"][0, :, 1].values
    expected = np.diff(known) - named["drift"][path[1:], 1] * lag
    expected /= named["scale"][path[1:], 1] * np.sqrt(lag)
    np.testing.assert_allclose(decoded["residuals"]["standardized"][0, 1:, 1], expected)
    assert recorded(decoded).rows.step_unit == spec.rows.step_unit


def test_known_states_of_new_runs_are_kept_and_not_known_before():
    rng = np.random.default_rng(4)
    features = runs(rng)
    fit, _, named = fitted(features, Gaussian(), Sticky(), rng)
    known = xr.DataArray(
        [[1, -1, -1, 0, -1]], dims=("run", "step"), coords={"run": ["r2"], "step": STEPS}
    )
    decoded = bp.decode(fit, features[2:], known_states=known, filtered=True, random_seed=1)
    states = decoded["paths"]["state"].values
    assert (states[..., 0] == 1).all()
    assert (states[..., 3] == 0).all()
    filtered = decoded["filtered"]["phase_probability"][0].values
    np.testing.assert_array_equal(filtered[[0, 3]], [[0, 1], [1, 0]])
    unknown = bp.decode(fit, features[2:], filtered=True)["filtered"]["phase_probability"][0]
    assert not np.allclose(filtered[1], unknown[1])  # it is known where the run began
    later = known.copy(data=[[1, -1, -1, -1, 1]])
    other = bp.decode(fit, features[2:], known_states=later, filtered=True)["filtered"]
    np.testing.assert_array_equal(other["phase_probability"][0, :3], filtered[:3])
    # a fit that was told states has told them of its own runs
    told = known.assign_coords(run=["r0"])
    fit, spec, named = fitted(features, Gaussian(), Sticky(), rng, known=told)
    decoded = bp.decode(fit, features[:1], random_seed=1)
    free = exactly(spec_without(spec, features), named, 0)
    share = bp.phase_probabilities(decoded)[0].values
    assert np.abs(share - free.state_probs).max() < 4 * 0.5 / np.sqrt(400)


@pytest.mark.parametrize(
    "emission", [Gaussian(), FullGaussian(), QuadraticDrift(), Gaussian(offsets=True)], ids=repr
)
def test_filtered_probabilities_do_not_look_ahead_by_a_single_bit(emission):
    rng = np.random.default_rng(5)
    features = runs(rng)
    if emission.offsets:
        fit, new = with_offsets(features), features[2:]
    else:
        fit, new = fitted(features, emission, Sticky(), rng, n_draws=5)[0], features[2:]
    changed = new.copy(data=new.values.copy())
    changed[0, 3:] += 1e3 * rng.normal(size=(2, 2))  # holes stay where they are
    one, other = (bp.decode(fit, x, filtered=True, random_seed=1) for x in (new, changed))
    before, after = (tree["filtered"]["phase_probability"][0, :3] for tree in (one, other))
    np.testing.assert_array_equal(before, after)
    # it is not that it makes no difference at all
    assert not one["log_likelihood"].equals(other["log_likelihood"])


def with_offsets(features, n_states=2, n_draws=5, **values):
    """A fit of a model whose runs have offsets."""
    shape = (n_states, features.sizes["feature"])
    spec = specify(
        features, n_states, emission=Gaussian(offsets=True), transition=Sticky(), priors=None
    )
    named = {
        "initial_probs": np.full(n_states, 1 / n_states),
        "transition_probs": np.full((n_states, n_states), 1 / n_states),
        "mean": np.arange(n_states)[:, None] + np.zeros(shape),
        "scale": np.full(shape, 0.5),
        "offset_scale": np.full(shape[1], 0.7),
        "offset": np.zeros((features.sizes["run"], shape[1])),
        **values,
    }
    fit = fit_at(spec, features, named, n_draws=n_draws)
    return fit


def test_what_is_known_counts_from_then_on_where_runs_have_offsets():
    rng = np.random.default_rng(6)
    features = runs(rng)
    fit, new = with_offsets(features, n_draws=50), features[2:]
    known = xr.full_like(new.isel(feature=0, drop=True), -1, dtype=int)
    for states in ([1, -1, -1, -1, -1], [-1, -1, 0, -1, -1]):
        known[0] = states
        decoded = bp.decode(fit, new, known_states=known, filtered=True, random_seed=1)
        there = decoded["filtered"]["phase_probability"][0].values
        plain = bp.decode(fit, new, filtered=True, random_seed=1)["filtered"]["phase_probability"]
        at = int(np.argmax(np.array(states) >= 0))
        np.testing.assert_array_equal(there[at], np.arange(2) == states[at])
        np.testing.assert_array_equal(there[:at], plain[0, :at])  # and not before
        np.testing.assert_allclose(there.sum(axis=1), 1.0)


def test_offsets_of_new_runs_are_drawn_from_their_posterior():
    """With one state it is a normal mean with a normal prior."""
    rng = np.random.default_rng(6)
    features = grid(rng.normal(size=(3, 8, 2)))
    new = grid(1.5 + 0.5 * rng.normal(size=(1, 8, 2))).assign_coords(run=["new"])
    new[0, 2, 1] = np.nan
    fit = with_offsets(features, 1, n_draws=500)
    decoded = bp.decode(fit, new, random_seed=1)
    offset = decoded["posterior"]["offset"].sel(run="new")[0].values
    count = new.notnull().sum("step")[0].values
    precision = count / 0.5**2 + 1 / 0.7**2
    mean = new.sum("step")[0].values / 0.5**2 / precision
    error = 4 / np.sqrt(precision * len(offset))
    assert (np.abs(offset.mean(axis=0) - mean) < error).all()
    np.testing.assert_allclose(offset.std(axis=0), precision**-0.5, rtol=0.1)
    # the likelihood is that of features whose offset is integrated out
    expected = sum(
        multivariate_normal(np.zeros(n), 0.5**2 * np.eye(n) + 0.7**2).logpdf(x[~np.isnan(x)])
        for n, x in zip(count, new[0].values.T, strict=True)
    )
    log_likelihood = decoded["log_likelihood"]["run_log_likelihood"]
    assert float(log_likelihood.mean()) == pytest.approx(expected, abs=0.03)


def test_features_are_put_on_the_scale_of_the_fit():
    rng = np.random.default_rng(7)
    metrics = xr.Dataset(
        {
            name: (("run", "step"), at + by * rng.normal(size=(3, 6)).cumsum(axis=1))
            for name, at, by in (("weight_mean", 50.0, 5.0), ("bias_mean", -1.0, 0.1))
        },
        coords={"run": ["a", "b", "c"], "step": 10 * np.arange(6)},
    )
    x = bp.features(metrics.sel(run=["a", "b"]))
    fit, *_ = fitted(x, QuadraticDrift(), Sticky(), rng, n_draws=20)
    new = metrics.sel(run=["c"])
    scaled = bp.features(new, standardize="reference", reference=x)
    paths = bp.decode(fit, scaled, random_seed=1)
    seen = paths["observed_data"]["features"]
    xr.testing.assert_equal(seen, scaled)
    for given in (bp.features(new, standardize=None), bp.features(new)):
        other = bp.decode(fit, given, random_seed=1)
        xr.testing.assert_allclose(other["observed_data"]["features"], seen, rtol=1e-12)
        xr.testing.assert_equal(other["paths"]["state"], paths["paths"]["state"])
    by_run = bp.features(metrics, standardize="run")
    fit, *_ = fitted(by_run, QuadraticDrift(), Sticky(), rng, n_draws=2)
    with pytest.raises(ValueError, match="standardized within each run, so that there is no scale"):
        bp.decode(fit, by_run)
    fit, *_ = fitted(bp.features(metrics, standardize=None), RandomWalk(), Sticky(), rng, n_draws=2)
    with pytest.raises(ValueError, match="standardized, but those of the fit are not"):
        bp.decode(fit, by_run)


def test_what_can_not_be_decoded():
    rng = np.random.default_rng(8)
    features = runs(rng)
    fit, *_ = fitted(features, QuadraticDrift(), Sticky(), rng, n_draws=4)
    with pytest.raises(ValueError, match=r"the fit has the features \['f0', 'f1'\]"):
        bp.decode(fit, features.assign_coords(feature=["f0", "other"]))
    with pytest.raises(ValueError, match=r"run 'r0' has 0 checkpoint\(s\) with a feature"):
        bp.decode(fit, features[:1].where(False))
    with pytest.raises(ValueError, match="is infinite in run 'r0' at step 10"):
        bp.decode(fit, features[:1].copy(data=infinite(features[:1])))
    with pytest.raises(TypeError, match=r"features must be an xarray\.DataArray"):
        bp.decode(fit, features.values)
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        bp.decode(fit, features, draws=0)
    fit.attrs = {}
    with pytest.raises(ValueError, match="the fit does not say what its model was"):
        bp.decode(
            xr.DataTree.from_dict({"observed_data": fit["observed_data"].to_dataset()}), features
        )


def infinite(features):
    values = features.values.copy()
    values[0, 1, 0] = np.inf
    return values


@pytest.mark.parametrize("transition", [Sticky(), ContinuousTime()], ids=repr)
def test_a_single_checkpoint_says_as_much_as_one_can(transition):
    rng = np.random.default_rng(9)
    features = runs(rng)
    fit, spec, named = fitted(features, Gaussian(), transition, rng, n_draws=400)
    decoded = bp.decode(fit, features[:1, :1], filtered=True, random_seed=1)
    expected = exactly(spec, named, 0, 1).state_probs[0]
    np.testing.assert_allclose(decoded["filtered"]["phase_probability"][0, 0], expected)
    assert np.abs(bp.phase_probabilities(decoded)[0, 0].values - expected).max() < 0.1
    # a feature that a run lacks says nothing
    without = features[:1].where(features["feature"] != "f1")
    lacks = bp.decode(fit, without)
    assert lacks["paths"]["state"].shape == (1, 400, 1, 5)
    # and all that needs the model can be made of either
    for tree in (decoded, lacks):
        again = recorded(tree)
        np.testing.assert_array_equal(again.rows.location, spec.rows.location)
        np.testing.assert_array_equal(again.rows.spread, spec.rows.spread)
        assert again.priors.keys() == spec.priors.keys()
        log_likelihood = bp.checkpoint_log_likelihood(tree)
        assert np.isfinite(log_likelihood.where(bp.phase_probabilities(tree)[..., 0] >= 0, 0)).all()
        assert np.isfinite(bp.run_log_likelihood(tree, features)).all()
        assert bp.training_map(tree)["state"].size == 2
