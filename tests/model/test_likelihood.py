import json
import warnings
from pathlib import Path
from zlib import crc32

import arviz_stats
import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from exact import Problem, enumerate_run, random_problem, runs
from pytensor.compile.mode import Mode, get_default_mode
from scipy.optimize import check_grad
from scipy.stats import norm

from bayesphase.model.forward_backward import forward_backward
from bayesphase.model.lanes import end_to_end
from bayesphase.model.likelihood import hmm_logp

EXACT = {"rtol": 1e-10, "atol": 1e-10}
REFERENCE = Path(__file__).parents[1] / "data" / "posteriordb_hmm_example.json"
QUICK = Mode(linker="py", optimizer="fast_compile")
compiled_too = pytest.mark.parametrize(
    "mode", [QUICK, get_default_mode(), "NUMBA"], ids=["python", "default", "numba"]
)


def value_and_gradient(*potentials, mode=QUICK, weight=None, **layout):
    """Log-likelihoods, and the gradients of their sum (weighted by run) in the three potentials."""
    inputs = [pt.tensor(dtype="float64", shape=np.shape(x)) for x in potentials]
    logp = hmm_logp(*inputs, **layout)
    gradients = pt.grad((logp if weight is None else weight * logp).sum(), inputs)
    return pytensor.function(inputs, [logp, *gradients], mode=mode)(*potentials)


def exact(problem, weight):
    """Log-likelihoods by run, and gradients, by enumeration."""
    truth = [enumerate_run(run) for run in runs(problem)]
    return (
        [t.log_likelihood for t in truth],
        np.concatenate([w * t.state_probs for w, t in zip(weight, truth, strict=True)]),
        sum(w * t.expected_transitions for w, t in zip(weight, truth, strict=True)),
        sum(w * t.state_probs[0] for w, t in zip(weight, truth, strict=True)),
    )


def assert_all_close(result, expected):
    for one, other in zip(result, expected, strict=True):
        np.testing.assert_allclose(one, other, **EXACT)


@compiled_too
def test_a_single_run_is_a_scalar(mode):
    problem = random_problem(np.random.default_rng(1), n_states=4, lengths=[7])
    result = value_and_gradient(
        problem.log_emission, problem.log_transition[0], problem.log_initial, mode=mode
    )
    values, emission, transition, initial = exact(problem, [1.0])
    assert result[0].shape == ()
    assert_all_close(result, (values[0], emission, transition[0], initial))


@pytest.mark.parametrize(
    "kind",
    [
        {"n_states": 1, "lengths": [3, 2]},
        {"n_states": 2, "lengths": [7, 1, 4], "n_gaps": 2},
        {"n_states": 3, "lengths": [2, 6], "n_gaps": 3},
        {"n_states": 4, "lengths": [5, 5]},
    ],
)
def test_runs_end_to_end(kind):
    problem = random_problem(np.random.default_rng(2), **kind)
    weight = np.arange(1.0, len(kind["lengths"]) + 1)
    result = value_and_gradient(
        *problem[:3], weight=weight, gap_index=problem.layout.gap_index, lengths=kind["lengths"]
    )
    assert_all_close(result, exact(problem, weight))


@compiled_too
def test_runs_on_a_grid_of_ragged_lengths(mode):
    """What lies past a run's length is not looked at, be it NaN, and has no gradient."""
    lengths = [6, 2, 4]
    problem = random_problem(np.random.default_rng(3), n_states=3, lengths=lengths, n_gaps=2)
    inside = np.arange(6) < np.array(lengths)[:, None]
    grid, gaps = np.full((3, 6, 3), np.nan), np.zeros((3, 6), int)
    grid[inside], gaps[inside] = problem.log_emission, problem.layout.gap_index
    weight = np.array([1.0, -2.0, 0.5])
    result = value_and_gradient(
        grid, *problem[1:3], mode=mode, weight=weight, gap_index=gaps, lengths=lengths
    )
    values, emission, transition, initial = exact(problem, weight)
    assert not result[1][~inside].any()
    result[1] = result[1][inside]
    assert_all_close(result, (values, emission, transition, initial))


def test_a_full_grid_needs_no_lengths():
    problem = random_problem(np.random.default_rng(4), n_states=2, lengths=[5, 5, 5])
    grid = problem.log_emission.reshape(3, 5, 2)
    values, emission, transition, initial = exact(problem, np.ones(3))
    result = value_and_gradient(grid, problem.log_transition, problem.log_initial)
    assert_all_close(result, (values, emission.reshape(3, 5, 2), transition, initial))


@pytest.mark.parametrize("broken", [-np.inf, np.nan])
def test_an_impossible_or_undefined_run_has_no_gradient(broken):
    problem = random_problem(np.random.default_rng(5), n_states=2, lengths=[3, 4])
    problem.log_emission[1] = broken
    value, *gradients = value_and_gradient(*problem[:3], lengths=[3, 4])
    alone = enumerate_run(list(runs(problem))[1])
    np.testing.assert_allclose(value, [broken, alone.log_likelihood], **EXACT)
    assert not gradients[0][:3].any()
    np.testing.assert_allclose(gradients[0][3:], alone.state_probs, **EXACT)
    np.testing.assert_allclose(gradients[2], alone.state_probs[0], **EXACT)


def test_gradient_through_parameters_equals_finite_differences():
    """The chain rule through softmax transitions and a normal emission of a drifting feature."""
    rng = np.random.default_rng(6)
    y = rng.normal(size=(40, 1)) + np.linspace(0, 3, 40)[:, None]
    x = pt.vector()
    mean, log_scale, logits = x[:3], x[3:6], x[6:].reshape((3, 3))
    emission = pm.logp(pm.Normal.dist(mean, pt.exp(log_scale)), y)
    logp = hmm_logp(
        pt.specify_shape(emission, (40, 3)),
        pt.special.log_softmax(logits, axis=1),
        -np.log(3.0) * np.ones(3),
        lengths=[25, 15],
    ).sum()
    value = pytensor.function([x], logp, mode=QUICK)
    gradient = pytensor.function([x], pt.grad(logp, x), mode=QUICK)
    point = rng.normal(size=15)
    assert check_grad(value, gradient, point) < 1e-5 * np.linalg.norm(gradient(point))


def test_any_float_or_integer_type_will_do():
    problem = random_problem(np.random.default_rng(7), n_states=2, lengths=[4])
    single = [pt.as_tensor(x.astype("float32")) for x in (problem.log_emission, problem[1][0])]
    logp = hmm_logp(*single, np.zeros(2, int), gap_index=np.zeros(4, "int8"))
    rounded = [x.astype("float32").astype("float64") for x in problem[:2]]
    rounded = Problem(*rounded, np.zeros(2), problem.layout)
    assert logp.eval(mode=QUICK) == pytest.approx(enumerate_run(rounded).log_likelihood, rel=1e-12)


@pytest.mark.parametrize("n_runs", [None, 2])
def test_the_number_of_states_may_be_known_only_when_it_runs(n_runs):
    """As in a PyMC model whose states are a dim: its coordinates may change later."""
    y = np.random.default_rng(9).normal(size=(6,) if n_runs is None else (n_runs, 6))
    mean = pt.vector()
    emission = pm.logp(pm.Normal.dist(mean, 1.0), y[..., None])
    assert emission.type.shape[-1] is None
    assert None not in emission.type.shape[:-1]
    logp = hmm_logp(emission, np.zeros((2, 2)), np.zeros(2)).sum()
    expected = np.logaddexp(*norm.logpdf(y, np.reshape([0, 1], (2, *[1] * y.ndim)))).sum()
    assert logp.eval({mean: [0.0, 1.0]}, mode=QUICK) == pytest.approx(expected, rel=1e-12)


def test_unknown_static_shapes_are_read_off_the_data():
    y = pytensor.shared(np.random.default_rng(8).normal(size=6))
    emission = pm.logp(pm.Normal.dist(np.array([0.0, 1.0]), 1.0), y[:, None])
    logp = hmm_logp(emission, np.zeros((2, 2)), np.zeros(2))
    function = pytensor.function([], logp, mode=QUICK)
    expected = np.logaddexp(*norm.logpdf(y.get_value(), [[0], [1]])).sum()
    assert function() == pytest.approx(expected, rel=1e-12)
    y.set_value(np.ones(6))
    assert function() == pytest.approx(6 * np.logaddexp(*norm.logpdf(1.0, [0, 1])), rel=1e-12)
    for size in (5, 7):  # the layout of the runs was made for six rows
        y.set_value(np.ones(size))
        with pytest.raises((AssertionError, ValueError)):
            function()


def test_kernel_is_a_part_of_the_key_of_compiled_code():
    """Or PyTensor would run a kernel that it compiled for an older version."""
    from pytensor.link.numba.dispatch.basic import numba_funcify_default_op_cache_key

    from bayesphase.model import likelihood

    node = hmm_logp(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros(2)).owner.inputs[0].owner
    _, version = numba_funcify_default_op_cache_key(node.op, node)
    sources = sorted(Path(likelihood.__file__).parent.glob("*.py"))
    assert version == crc32(b"".join(path.read_bytes() for path in sources))


FINE = {
    "log_emission": np.zeros((2, 5, 3)),
    "log_transition": np.zeros((2, 3, 3)),
    "log_initial": np.zeros(3),
}
BAD = {
    "flat emission": ({"log_emission": np.zeros(5)}, r"log_emission must have dims \(\[run,\] "),
    "deep transition": ({"log_transition": np.zeros((1, 2, 3, 3))}, "log_transition must have"),
    "scalar initial": ({"log_initial": 0.0}, r"log_initial must have dims \(state\), but it has 0"),
    "initial size": ({"log_initial": np.zeros(2)}, r"number of states differs .*log_initial: 2"),
    "emission size": ({"log_emission": np.zeros((2, 5, 4))}, r"log_emission \(its last dim\): 4"),
    "not square": ({"log_transition": np.zeros((3, 4))}, r"log_transition \(to\): 4"),
    "gap shape": ({"gap_index": np.zeros(5, int)}, r"gap_index .*\(2, 5\), but has \(5,\)"),
    "gap range": ({"gap_index": np.full((2, 5), 2)}, "between 0 and 1, .* spans 2 to 2"),
    "gap sign": ({"gap_index": np.full((2, 5), -1)}, "spans -1 to -1"),
    "gap float": ({"gap_index": np.zeros((2, 5))}, "gap_index must hold integers known when"),
    "gap graph": ({"gap_index": pt.lmatrix()}, "gap_index must hold integers known when"),
    "length float": ({"lengths": [2.0, 3.0]}, "lengths must hold integers"),
    "length 0": ({"lengths": [0, 5]}, r"lengths must be a vector of numbers of at least 1, got \["),
    "no length": ({"lengths": np.zeros(0, int)}, "lengths must be a vector"),
    "scalar length": ({"lengths": 5}, "lengths must be a vector"),
    "length past": (
        {"lengths": [6, 5]},
        r"lengths must give 2 numbers, one per run, of at most 5, got \[6 5\]",
    ),
    "length count": ({"lengths": [5, 5, 5]}, "lengths must give 2 numbers"),
    "length sum": (
        {"log_emission": np.zeros((9, 3)), "lengths": [5, 5]},
        "lengths add up to 10, but log_emission has 9 steps",
    ),
    "unknown size": ({"log_emission": pt.matrix()}, "known number of runs and steps; declare"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_arguments_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        hmm_logp(**{**FINE, **changes})


def reference_model(y):
    """The model of posteriordb's hmm_example, in plain PyMC."""
    with pm.Model() as model:
        theta = pm.Dirichlet("theta", np.ones((2, 2)))
        mu = pm.Normal(
            "mu", [3.0, 10.0], 1.0, transform=pm.distributions.transforms.ordered, initval=[3, 10]
        )
        emission = pm.logp(pm.Normal.dist(mu, 1.0), y[:, None])
        pm.Potential("y", hmm_logp(emission, pt.log(theta), np.zeros(2)))
    return model


def assert_posterior_is_the_reference(posterior, reference):
    """Every mean within four Monte Carlo standard errors of both."""
    ours = {
        f"{ours}[{k + 1}]": posterior[name].values[(..., *at, k)]
        for ours, name, at in (
            ("theta1", "theta", (0,)),
            ("theta2", "theta", (1,)),
            ("mu", "mu", ()),
        )
        for k in range(2)
    }
    assert set(ours) == set(reference)
    for name, draws in ours.items():
        stated = reference[name]
        error = np.hypot(
            float(arviz_stats.mcse(draws, method="mean")), stated["sd"] / np.sqrt(stated["draws"])
        )
        assert abs(draws.mean() - stated["mean"]) < 4 * error, name
        assert draws.std() == pytest.approx(stated["sd"], rel=0.1), name
        # or the standard error would let anything pass
        assert error < 0.05 * stated["sd"], name


def test_posterior_of_a_plain_pymc_model_is_posteriordbs():
    nutpie = pytest.importorskip("nutpie")
    known = json.loads(REFERENCE.read_text())
    compiled = nutpie.compile_pymc_model(reference_model(np.array(known["y"])))
    result = nutpie.sample(
        compiled, draws=2000, tune=500, chains=4, seed=1, progress_bar=False, save_warmup=False
    )
    assert_posterior_is_the_reference(result.posterior, known["reference"])


def small_model():
    rng = np.random.default_rng(9)
    y = rng.normal(np.repeat([0.0, 5.0], 15), 1.0)[:, None]
    with pm.Model() as model:
        mu = pm.Normal("mu", [1.0, 4.0], 2.0)
        emission = pm.logp(pm.Normal.dist(mu, 1.0), y)
        log_transition = np.log([[0.9, 0.1], [0.1, 0.9]])
        pm.Potential("y", hmm_logp(emission, log_transition, np.log([0.5, 0.5])))
    return model, y, log_transition


def small_posterior_mean(y, log_transition):
    """By quadrature on a grid, with our own kernel, which other tests hold to enumeration."""
    axes = np.linspace(-1.5, 1.5, 61), np.linspace(3.5, 6.5, 61)
    log_density = np.empty((61, 61))
    for (i, a), (j, b) in ((p, q) for p in enumerate(axes[0]) for q in enumerate(axes[1])):
        problem = norm.logpdf(y, [a, b]), log_transition[None], np.log([0.5, 0.5])
        log_density[i, j] = forward_backward(*problem, end_to_end([30])).log_likelihood[0]
        log_density[i, j] += norm.logpdf([a, b], [1.0, 4.0], 2.0).sum()
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    return density.sum(axis=1) @ axes[0], density.sum(axis=0) @ axes[1], log_density.max()


def test_find_map_and_pymcs_own_sampler():
    model, y, log_transition = small_model()
    mean_0, mean_1, top = small_posterior_mean(y, log_transition)
    with warnings.catch_warnings():  # that it will return a tree some day
        warnings.simplefilter("ignore", FutureWarning)
        point = pm.find_MAP(model=model, progressbar=False)
    log_density = model.compile_logp()({"mu": point["mu"]})
    assert log_density == pytest.approx(top, abs=0.01)
    assert log_density >= top - 1e-6
    result = pm.sample(
        300,
        tune=300,
        chains=2,
        cores=1,
        model=model,
        nuts_sampler="pymc",
        random_seed=1,
        progressbar=False,
        compute_convergence_checks=False,
    )
    draws = result.posterior["mu"].values
    for k, expected in enumerate((mean_0, mean_1)):
        error = float(arviz_stats.mcse(draws[..., k], method="mean"))
        assert error < 0.05
        assert abs(draws[..., k].mean() - expected) < 4 * error
