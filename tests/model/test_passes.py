"""The kernels that do emission and recursions in one go, against the general ones.

Those are tested against enumeration, and the densities of the families against SciPy.
"""

import numpy as np
import pytest
from test_rows import grid

from bayesphase.model import passes
from bayesphase.model.decoding import sample_paths
from bayesphase.model.emissions import (
    AutoRegressive,
    Gaussian,
    QuadraticDrift,
    RandomWalk,
    StudentT,
)
from bayesphase.model.forward_backward import forward_backward
from bayesphase.model.lanes import end_to_end
from bayesphase.model.leave_one_out import leave_one_out
from bayesphase.model.lines import flat_lines
from bayesphase.model.rows import rows_of

SHAPES = [
    {"shape": (1, 40, 3)},
    {"shape": (3, 30, 2), "ragged": True},
    {"shape": (11, 25, 5), "ragged": True, "missing": 0.3},
    {"shape": (8, 30, 1), "missing": 0.2},
    {"shape": (9, 75, 3), "missing": 0.1},  # longer than a block of rows
]
OTHERS = [
    StudentT(),
    RandomWalk(df=None),
    RandomWalk(),
    AutoRegressive(differences=1),
    QuadraticDrift(),
]
CASES = [(Gaussian(), shape, False) for shape in SHAPES]
CASES += [(family, SHAPES[1], False) for family in OTHERS]
CASES += [(family, SHAPES[2], True) for family in OTHERS]
CASES += [(QuadraticDrift(df=None), SHAPES[3], False), (QuadraticDrift(), SHAPES[4], False)]
CASES += [(RandomWalk(df=None), SHAPES[4], True), (QuadraticDrift(df=None), SHAPES[1], True)]
CASES += [(StudentT(), SHAPES[4], False)]
every_case = pytest.mark.parametrize(("emission", "kind", "uneven"), CASES)


def problem(emission, *, shape, ragged=False, missing=0.0, uneven=False, n_states=3, rare=0.1):
    """Rows as a family sees them, lines and potentials, and the log-emission of its class."""
    rng = np.random.default_rng(1)
    values = 5.0 + 2.0 * rng.normal(size=shape)
    values[rng.random(shape) < missing] = np.nan
    if ragged:
        for run in range(shape[0]):
            values[run, shape[1] - run :] = np.nan
    features = grid(values)
    if uneven:
        steps = np.cumsum(np.resize([10, 10, 30, 20], shape[1]))
        features = features.assign_coords(step=steps)
    rows = rows_of(features)
    observed = emission.observe(rows)
    spread = observed.series.spread
    place = observed.series.location + spread * rng.normal(size=(n_states, shape[2]))
    scale = spread * rng.uniform(0.5, 2, place.shape)
    rate = np.exp(rng.normal(-1, 0.5, place.shape))
    bend = rng.normal(size=place.shape) / spread
    named = dict(zip(emission.dims, (place, scale, rate, bend), strict=False))
    transition = rng.dirichlet(np.ones(n_states), n_states)
    transition[0] *= rare
    initial = rng.dirichlet(np.ones(n_states))
    if rare < 1e-100:  # no run gets away without that, and all are done in log space
        initial = np.array([1.0, *np.full(n_states - 1, 1e-200)])
    potentials = np.log(transition)[None], np.log(initial)
    log_emission = emission.log_density(rows.values, rows, named, np)
    unit = observed.series.observed @ np.log(spread)  # the kernels' density is of scaled features
    lines = emission.lines(named, observed)
    return rows, observed, named, (lines, *potentials), log_emission + unit[:, None]


def weights_of(emission, rows, named):
    """What a value weighs beside the probability of its state (row, state, feature)."""
    by_state = tuple(named[name][None] for name in emission.dims)
    deviation, scale, known = emission.innovations(rows.values, rows, by_state, np)
    df = emission.tails
    weight = 1.0 if df is None else (df + 1) / (df + (deviation / scale) ** 2)
    return weight * known[:, None, :]


@pytest.mark.parametrize("rare", [0.1, 1e-150])
@every_case
def test_expectations_are_those_of_the_general_kernels(emission, kind, uneven, rare):
    rows, observed, named, given, log_emission = problem(emission, **kind, uneven=uneven, rare=rare)
    expected = passes.expect(observed.data, *given)
    smoothed = forward_backward(log_emission, *given[1:], rows.layout)
    close = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(expected.log_likelihood, smoothed.log_likelihood, **close)
    first_states = smoothed.state_probs[rows.layout.starts].sum(axis=0)
    np.testing.assert_allclose(expected.first_states, first_states, **close)
    transitions = smoothed.expected_transitions.sum(axis=0)
    np.testing.assert_allclose(expected.transitions, transitions, **close)
    series, probs = observed.series, smoothed.state_probs[:, :, None]
    counts = (probs * series.observed[:, None, :]).sum(axis=0)
    np.testing.assert_allclose(expected.sums.counts.sum(axis=0), counts, **close)
    weighted = probs * weights_of(emission, rows, named)
    y = series.values / series.spread
    x = np.zeros(y.shape)
    if series.previous.size:
        x = (series.previous - series.location) / series.spread
    elif not series.gap.size:
        y = (series.values - series.location) / series.spread
    sums = {"weights": 1 + 0 * y, "values": y, "squares": y**2}
    sums |= {"previous": x, "previous_squares": x**2, "products": x * y}
    if emission.name == "quadratic_drift":
        sums |= {"previous_cubes": x**3, "previous_fourths": x**4, "square_products": x**2 * y}
    for name, of_rows in sums.items():
        total = (weighted * of_rows[:, None, :]).sum(axis=0)
        np.testing.assert_allclose(getattr(expected.sums, name).sum(axis=0), total, **close)


@pytest.mark.parametrize("far", [1e-3, 1e20, 1e60])
def test_tails_reach_as_far_as_doubles_do(far):
    # the kernel takes logarithms of products
    rows, observed, named, given, _ = problem(StudentT(), shape=(3, 20, 7), missing=0.1)
    named = named | {"scale": named["scale"] / far}
    lines = observed.log_emission(StudentT().lines(named, observed))
    density = StudentT().log_density(rows.values, rows, named, np)
    np.testing.assert_allclose(lines, density + observed.unit[:, None], rtol=1e-12)
    assert np.isfinite(passes.expect(observed.data, *given).log_likelihood).all()


def test_every_gap_may_be_different():
    emission = QuadraticDrift()
    steps = np.cumsum(np.arange(1, 31))
    rng = np.random.default_rng(5)
    values = 5.0 + rng.normal(size=(3, 30, 2))
    values[rng.random(values.shape) < 0.3] = np.nan
    rows = rows_of(grid(values).assign_coords(step=steps))
    observed = emission.observe(rows)
    assert len(observed.family.gaps) > 40
    named = dict(zip(emission.dims, rng.uniform(0.01, 0.5, (4, 2, 2)), strict=True))
    found = observed.log_emission(emission.lines(named, observed))
    density = emission.log_density(rows.values, rows, named, np)
    np.testing.assert_allclose(found, density + observed.unit[:, None], rtol=1e-10, atol=1e-10)


def test_sums_are_kept_by_gap():
    _, observed, _, given, log_emission = problem(RandomWalk(), **SHAPES[0], uneven=True)
    sums = passes.expect(observed.data, *given).sums
    probs = forward_backward(log_emission, *given[1:], observed.data.layout).state_probs
    assert len(observed.family.gaps) == 3
    for gap, counts in zip(observed.family.gaps, sums.counts, strict=True):
        here = (observed.series.gap == gap) & observed.series.observed
        np.testing.assert_allclose(counts, probs.T @ here, rtol=1e-9, atol=1e-12)


@every_case
def test_sums_of_known_states(emission, kind, uneven):
    rows, observed, _, _, _ = problem(emission, **kind, uneven=uneven)
    weights = np.random.default_rng(2).dirichlet(np.ones(3), len(rows.values))
    flat = flat_lines(observed.family, (3, kind["shape"][2]))
    added = passes.sum_up(observed.data, flat, weights)
    seen = weights.T @ observed.series.observed
    np.testing.assert_allclose(added.sums.counts.sum(axis=0), seen, atol=1e-12)
    np.testing.assert_allclose(added.sums.weights.sum(axis=0), seen, atol=1e-12)
    np.testing.assert_allclose(added.first_states, weights[rows.layout.starts].sum(axis=0))


@pytest.mark.parametrize("rare", [0.1, 1e-150])
@every_case
def test_paths_and_densities_are_those_of_the_general_kernels(emission, kind, uneven, rare):
    rows, observed, _, given, log_emission = problem(emission, **kind, uneven=uneven, rare=rare)
    states = np.empty(len(rows.values), np.int8)
    log_likelihood = np.empty(len(rows.layout.starts))
    uniforms = np.random.default_rng(3).random(len(rows.values))
    passes.draw_paths(observed.data, *given, uniforms, states, log_likelihood)
    general = sample_paths(log_emission, *given[1:], rows.layout, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(states, general[0])
    np.testing.assert_allclose(log_likelihood, general[1], rtol=1e-10)
    out = np.empty(len(rows.values))
    passes.leave_one_out(observed.data, *given, out)
    expected = leave_one_out(log_emission, *given[1:], rows.layout)
    np.testing.assert_allclose(out, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("rare", [0.1, 1e-150])
@every_case
def test_one_step_predictions_add_up_to_the_likelihood_of_every_beginning(
    emission, kind, uneven, rare
):
    rows, observed, _, given, log_emission = problem(emission, **kind, uneven=uneven, rare=rare)
    out = np.empty(len(rows.values))
    passes.one_step(observed.data, *given, out)
    for start, length in zip(rows.layout.starts, rows.layout.lengths, strict=True):
        for n in (1, 2, length // 2, length):
            beginning = log_emission[start : start + n]
            whole = forward_backward(beginning, *given[1:], end_to_end([n])).log_likelihood[0]
            np.testing.assert_allclose(out[start : start + n].sum(), whole, rtol=1e-9, atol=1e-9)
