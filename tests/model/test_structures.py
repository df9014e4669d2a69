"""What holds for every structure of transitions, with and without known states."""

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from exact import Problem, enumerate_run, runs
from pymc.model.transform.conditioning import remove_value_transforms
from pytensor.compile.mode import Mode
from scipy.linalg import expm
from scipy.stats import norm
from test_exponential import generator
from test_rows import grid

from bayesphase.model.build import build_from, build_model
from bayesphase.model.decoding import sample_paths, viterbi
from bayesphase.model.forward_backward import forward_backward
from bayesphase.model.leave_one_out import leave_one_out
from bayesphase.model.likelihood import hmm_logp
from bayesphase.model.spec import specify
from bayesphase.model.transitions import ContinuousTime, LeftToRight, Sticky, StickyHDP

PLAIN = Mode(linker="py", optimizer="fast_compile")
CYCLE = ((True, True, False), (False, True, True), (True, False, True))
STRUCTURES = {
    "sticky": Sticky(),
    "mask": Sticky(allowed=CYCLE, stickiness=1.0),
    "left to right": LeftToRight(stickiness=1.0),
    "with skips": LeftToRight(skip=True, stickiness=1.0),
    "continuous time": ContinuousTime(),
    "sticky hdp": StickyHDP(stickiness=1.0),
}
every_structure = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
known_or_not = pytest.mark.parametrize("anchored", [False, True], ids=["unknown", "known"])
# PyMC 6 compiles with numba, which says that it calls our Python function as it is
python_draws = pytest.mark.filterwarnings("ignore:Numba will use object mode")


def small_features(rng):
    """Three runs on an uneven grid, with missing values and checkpoints."""
    values = rng.normal(size=(3, 6, 2))
    values[0, 1, 1] = values[0, 3] = values[1, 4:] = values[2, 0] = np.nan
    return grid(values, step=[0, 1, 2, 5, 10, 30])


def labels(features):
    """Known states that every structure here can go through: a first one, neighbours, a last."""
    known = xr.full_like(features.isel(feature=0, drop=True), -1, dtype=int)
    known[0, 0], known[0, 4], known[0, 5] = 0, 1, 2
    known[1, 2] = 1
    return known


def spec_of(structure, features, anchored):
    return specify(
        features,
        3,
        emission="gaussian",
        transition=structure,
        priors=None,
        known_states=labels(features) if anchored else None,
    )


def point(rng, chain):
    """Parameters by name, natural and free ones."""
    start, _ = chain.maximise(np.zeros((1, 3, 3)), np.zeros(3))
    named = {"mean": rng.normal(size=(3, 2)), "scale": rng.uniform(0.3, 2.0, (3, 2))}
    return {**chain.jitter(rng, start, 0.7), **named}


def slow_way(spec, named, features):
    """Pose the problem without our potentials: matrices by SciPy, known states as emissions."""
    rows = spec.rows
    terms = norm.logpdf(rows.values[:, None], named["mean"], named["scale"])
    log_emission = np.where(rows.observed[:, None], terms, 0.0).sum(axis=-1)
    if spec.known_states is not None:
        known = spec.known_states.values[rows.run, rows.step]
        log_emission[(known[:, None] >= 0) & (known[:, None] != np.arange(3))] = -np.inf
    layout = rows.layout._replace(gap_index=np.arange(len(rows.gap)))
    if "rates" in named:
        matrices = np.stack([expm(generator(named["rates"]) * gap) for gap in rows.gap])
    else:
        matrices = np.repeat(named["transition_probs"][None], len(rows.gap), axis=0)
    with np.errstate(divide="ignore"):
        return Problem(log_emission, np.log(matrices), np.log(named["initial_probs"]), layout)


def ours(spec, named):
    log_emission = spec.emission.log_density(spec.rows.values, spec.rows, named, np)
    return Problem(log_emission, *spec.transition.log_potentials(named, np), spec.rows.layout)


@every_structure
@known_or_not
def test_likelihood_and_smoothing_are_exact(structure, anchored):
    rng = np.random.default_rng(1)
    features = small_features(rng)
    spec = spec_of(structure, features, anchored)
    named = point(rng, spec.transition)
    smoothed = forward_backward(*ours(spec, named))
    truths = [enumerate_run(run) for run in runs(slow_way(spec, named, features))]
    np.testing.assert_allclose(
        smoothed.log_likelihood, [truth.log_likelihood for truth in truths], rtol=1e-10
    )
    probs = np.concatenate([truth.state_probs for truth in truths])
    np.testing.assert_allclose(smoothed.state_probs, probs, atol=1e-10)
    np.testing.assert_allclose(
        smoothed.expected_transitions.sum(axis=(0, 1)),
        sum(truth.expected_transitions.sum(axis=0) for truth in truths),
        atol=1e-10,
    )


@every_structure
@known_or_not
def test_model_has_this_likelihood_and_its_gradient(structure, anchored):
    """The gradient in the sampler's coordinates, priors and Jacobians included."""
    rng = np.random.default_rng(2)
    features = small_features(rng)
    spec = spec_of(structure, features, anchored)
    named = point(rng, spec.transition)
    model = build_from(spec, features["feature"].values)
    free = {variable.name: named[variable.name] for variable in model.free_RVs}
    bare = remove_value_transforms(model)
    likelihood = bare.compile_logp(vars=[bare["features"]], mode=PLAIN)(free)
    exact = sum(enumerate_run(run).log_likelihood for run in runs(slow_way(spec, named, features)))
    assert likelihood == pytest.approx(exact, rel=1e-10)

    value, slope = model.compile_logp(mode=PLAIN), model.compile_dlogp(mode=PLAIN)
    at = {name: x + 0.3 * rng.normal(size=x.shape) for name, x in model.initial_point(1).items()}
    gradient, found = slope(at), 0
    for variable in model.value_vars:
        numeric = np.zeros(at[variable.name].size)
        for i in range(numeric.size):
            step = 1e-5 * np.eye(numeric.size)[i].reshape(at[variable.name].shape)
            up, down = ({**at, variable.name: at[variable.name] + s} for s in (step, -step))
            numeric[i] = (value(up) - value(down)) / 2e-5
        own = gradient[found : found + numeric.size]
        np.testing.assert_allclose(own, numeric, rtol=1e-5, atol=1e-5)
        found += numeric.size
    assert found == gradient.size


@every_structure
@known_or_not
def test_paths_are_drawn_from_their_posterior(structure, anchored):
    rng = np.random.default_rng(3)
    features = small_features(rng)
    spec = spec_of(structure, features, anchored)
    named = point(rng, spec.transition)
    problem, n = ours(spec, named), 3000
    drawn = np.stack([sample_paths(*problem, rng=rng)[0] for _ in range(n)])
    slow = list(runs(slow_way(spec, named, features)))
    for run, start, length in zip(
        slow, spec.rows.layout.starts, spec.rows.layout.lengths, strict=True
    ):
        truth = enumerate_run(run)
        own = drawn[:, start : start + length]
        code = 3 ** np.arange(length)[::-1]
        counts = np.bincount(own @ code, minlength=3**length)
        expected = np.zeros(3**length)
        expected[truth.paths @ code] = truth.path_probs
        assert (counts[expected == 0] == 0).all()
        error = np.sqrt(expected * (1 - expected) / n)
        assert (
            np.abs(counts / n - expected) <= 5 * error + 2 / n
        ).all()  # 2: rare paths come singly
        best = viterbi(*problem)[start : start + length]
        np.testing.assert_array_equal(best, truth.paths[truth.path_probs.argmax()])


@every_structure
@known_or_not
def test_a_left_out_checkpoint_keeps_what_is_known_of_it(structure, anchored):
    rng = np.random.default_rng(4)
    features = small_features(rng)
    spec = spec_of(structure, features, anchored)
    named = point(rng, spec.transition)
    problem = slow_way(spec, named, features)
    densities = []
    for run in runs(problem):
        whole = enumerate_run(run).log_likelihood
        for row in range(len(run.log_emission)):
            without = run.log_emission.copy()
            without[row] = np.where(np.isfinite(without[row]), 0.0, -np.inf)
            densities.append(
                whole - enumerate_run(run._replace(log_emission=without)).log_likelihood
            )
    np.testing.assert_allclose(leave_one_out(*ours(spec, named)), densities, atol=1e-9)


@every_structure
@known_or_not
def test_em_never_goes_down(structure, anchored):
    """On the transitions alone, given the emission."""
    rng = np.random.default_rng(5)
    spec = spec_of(structure, small_features(rng), anchored)
    chain, rows = spec.transition, spec.rows
    log_emission = 2.0 * rng.normal(size=(len(rows.values), 3))
    named, log_prior = chain.maximise(np.zeros((1, 3, 3)), np.zeros(3))
    densities = []
    for _ in range(40):
        potentials = chain.log_potentials(named, np)
        smoothed = forward_backward(log_emission, *potentials, rows.layout)
        densities.append(smoothed.log_likelihood.sum() + log_prior)
        named, log_prior = chain.maximise(
            smoothed.expected_transitions.sum(axis=0),
            smoothed.state_probs[rows.layout.starts].sum(axis=0),
            named,
        )
    changes = np.diff(densities)
    # the M-step of shared weights climbs another density, in which the weights are summed out
    assert abs(changes[-1]) < 1e-6 if chain.spare else changes.min() > -1e-9
    assert densities[-1] - densities[0] > 0.01


@python_draws
@every_structure
@known_or_not
def test_predictive_draws_never_do_what_is_ruled_out(structure, anchored):
    """States lie a hundred standard deviations apart, so that a feature tells its state."""
    rng = np.random.default_rng(6)
    features = small_features(rng)
    spec = spec_of(structure, features, anchored)
    named = point(rng, spec.transition)
    allowed, starts = spec.transition.possible(3)
    model = build_from(spec, features["feature"].values)
    named["mean"], named["scale"] = np.repeat([[0.0], [100.0], [200.0]], 2, axis=1), np.ones((3, 2))
    posterior = xr.Dataset(
        {
            name: (
                ("chain", "draw", *dims),
                np.broadcast_to(named[name], (1, 200, *named[name].shape)),
            )
            for name, dims in model.named_vars_to_dims.items()
            if name in {variable.name for variable in model.free_RVs}
        },
        # all of them, or PyMC draws anew what it takes for variables of another model
        coords={"chain": [0], **{name: list(labels) for name, labels in model.coords.items()}},
    )
    drawn = pm.sample_posterior_predictive(
        posterior, model=model, random_seed=1, progressbar=False
    )["posterior_predictive"]["features"].values[0, ..., 0]
    states = np.rint(drawn / 100).astype(int)
    firsts = np.isin(np.arange(states.shape[1]), spec.rows.layout.starts)
    assert starts[states[:, firsts]].all()
    follows = np.flatnonzero(~firsts)
    assert allowed[states[:, follows - 1], states[:, follows]].all()
    if anchored:
        known = spec.known_states.values[spec.rows.run, spec.rows.step]
        assert (states[:, known >= 0] == known[known >= 0]).all()
        # each checkpoint is drawn given all that is known, also of later ones
        problem = slow_way(spec, named, features)
        problem.log_emission[np.isfinite(problem.log_emission)] = 0.0
        truths = [enumerate_run(run).state_probs for run in runs(problem)]
        shares = np.stack([(states == k).mean(axis=0) for k in range(3)], axis=1)
        assert np.abs(shares - np.concatenate(truths)).max() < 5 * np.sqrt(0.25 / 200)


@python_draws
@every_structure
def test_prior_draws_of_probabilities_respect_the_mask(structure):
    features = small_features(np.random.default_rng(7))
    model = build_model(features, 3, emission="gaussian", transition=structure)
    prior = pm.sample_prior_predictive(draws=50, model=model, random_seed=1)
    probs = prior["prior"]["transition_probs"].values
    allowed, starts = spec_of(structure, features, False).transition.possible(3)
    np.testing.assert_allclose(probs.sum(axis=-1), 1.0)
    assert (probs[..., ~allowed] == 0).all()
    # sparse ones may be 0 to the last digit
    assert (probs[..., allowed] > 0).all() or isinstance(structure, StickyHDP)
    assert (prior["prior"]["initial_probs"].values[..., ~starts] == 0).all()
    assert np.isfinite(prior["prior_predictive"]["features"].values).all()


def test_in_continuous_time_an_empty_checkpoint_changes_nothing():
    """Dropped, so that its gap grows, it is the same as a row in which nothing was observed."""
    rng = np.random.default_rng(8)
    features = grid(rng.normal(size=(2, 6, 2)), step=[0, 1, 2, 5, 10, 30])
    with_all = spec_of(ContinuousTime(), features, False)
    named = point(rng, with_all.transition)
    empty = features.copy()
    empty[0, 3] = empty[1, 1] = np.nan
    dropped = spec_of(ContinuousTime(), empty, False)
    assert len(dropped.rows.values) == 10
    problem = ours(with_all, named)
    gone = np.isnan(empty.values).all(axis=-1)[with_all.rows.run, with_all.rows.step]
    problem.log_emission[gone] = 0.0
    np.testing.assert_allclose(
        forward_backward(*ours(dropped, named)).log_likelihood,
        forward_backward(*problem).log_likelihood,
        rtol=1e-12,
    )
    # and so does the public likelihood
    found = hmm_logp(
        problem.log_emission,
        *problem[1:3],
        gap_index=with_all.rows.layout.gap_index,
        lengths=with_all.rows.layout.lengths,
    ).eval(mode=PLAIN)
    np.testing.assert_allclose(found, forward_backward(*problem).log_likelihood, rtol=1e-12)


@pytest.mark.parametrize("structure", [LeftToRight(), LeftToRight(skip=True), ContinuousTime()])
def test_one_state_has_no_transitions(structure):
    features = small_features(np.random.default_rng(9))
    model = build_model(features, 1, emission="gaussian", transition=structure)
    assert {variable.name for variable in model.free_RVs} == {"mean", "scale"}
    known = xr.zeros_like(features.isel(feature=0, drop=True), dtype=int).isel(step=[1, 2], run=[0])
    again = build_model(features, 1, emission="gaussian", transition=structure, known_states=known)
    at = model.initial_point(1)
    values = [m.compile_logp(mode=PLAIN)(at) for m in (model, again)]
    assert values[0] == pytest.approx(values[1], rel=1e-14)


def test_a_mask_for_another_number_of_states():
    features = small_features(np.random.default_rng(10))
    with pytest.raises(ValueError, match=r"each of the 2 states, got shape \(3, 3\)"):
        build_model(features, 2, emission="gaussian", transition=Sticky(allowed=CYCLE))


def test_a_mask_of_everything_is_the_plain_structure():
    features = small_features(np.random.default_rng(11))
    full = Sticky(allowed=np.ones((3, 3), bool))
    assert type(spec_of(full, features, False).transition) is Sticky


@pytest.mark.parametrize("skip", [1, "yes", None])
def test_skip_is_true_or_false(skip):
    with pytest.raises(TypeError, match="skip must be True or False, got"):
        LeftToRight(skip=skip)


def test_a_mask_that_leaves_no_choice_has_nothing_to_sample():
    features = small_features(np.random.default_rng(12))
    turns = Sticky(allowed=((False, True), (True, False)))
    model = build_model(features, 2, emission="gaussian", transition=turns)
    assert {variable.name for variable in model.free_RVs} == {"initial_probs", "mean", "scale"}
    assert np.isfinite(model.compile_logp(mode=PLAIN)(model.initial_point(1)))
    np.testing.assert_array_equal(model["transition_probs"].eval(mode=PLAIN), [[0, 1], [1, 0]])
    spec = specify(features, 2, emission="gaussian", transition=turns, priors=None)
    start, _ = spec.transition.maximise(np.ones((1, 2, 2)), np.ones(2))
    moved = spec.transition.jitter(np.random.default_rng(1), start, 0.1)
    np.testing.assert_array_equal(moved["transition_probs"], [[0, 1], [1, 0]])
