"""Drivers of switches: gradients against finite differences, evidence against scipy's densities."""

import numpy as np
import pytest
from exact import Problem, enumerate_run
from scipy.stats import multivariate_normal, norm
from synthetic import fit_at
from test_emissions import parameters_of
from test_forecast import EVERY_FAMILY, chain_at, small, spec_of
from test_rows import grid

from bayesphase.model.drivers import first_switches, switch_drivers
from bayesphase.model.emissions import FullGaussian, Gaussian, QuadraticDrift
from bayesphase.model.lanes import end_to_end
from bayesphase.model.transitions import ContinuousTime, Sticky
from bayesphase.model.vine import shares_of


def problem(emission, *, transition=None, n_states=3, seed=3):
    rng = np.random.default_rng(seed)
    features = small(rng)
    spec = spec_of(features, emission, transition, n_states=n_states)
    return features, spec, {**chain_at(spec, rng), **parameters_of(emission, rng, 2, n_states)}


def log_filtered(spec, named, values, row):
    """Log p(state of the row | features of its run up to there), all paths added up."""
    rows = spec.rows
    start = rows.layout.starts[rows.layout.starts <= row][-1]
    log_emission = spec.emission.log_density(values, rows, named, np)[start : row + 1]
    layout = end_to_end([row + 1 - start], rows.layout.gap_index[start : row + 1])
    potentials = spec.transition.log_potentials(named, np)
    posterior = enumerate_run(Problem(log_emission, *potentials, layout))
    return np.log(posterior.state_probs[-1])


def difference(function, values, row, feature, width=1e-5):
    ends = []
    for sign in (1, -1):
        moved = values.copy()
        moved[row, feature] += sign * width
        ends.append(function(moved))
    return (ends[0] - ends[1]) / (2 * width)


@pytest.mark.parametrize("emission", EVERY_FAMILY, ids=repr)
def test_densities_of_features_add_up_and_their_slopes_are_right(emission):
    _, spec, named = problem(emission)
    rows = spec.rows
    density = emission.density_by_feature(rows, named)
    whole = emission.log_density(rows.values, rows, named, np)
    np.testing.assert_allclose(np.nansum(density, axis=2), whole, atol=1e-12)
    score = emission.score(rows, named)
    np.testing.assert_array_equal(np.isnan(score), np.isnan(density))
    for row, feature in np.ndindex(rows.values.shape):
        slope = difference(
            lambda v, row=row: emission.log_density(v, rows, named, np)[row],
            rows.values,
            row,
            feature,
        )
        found = np.nan_to_num(score[row, :, feature])  # what has no density has no slope
        np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("transition", [Sticky(), ContinuousTime()], ids=repr)
@pytest.mark.parametrize("emission", EVERY_FAMILY, ids=repr)
def test_the_gradient_is_that_of_the_log_probability_of_the_next_state(emission, transition):
    """Each feature has a gradient of its own: no sum over features is taken off from any."""
    features, spec, named = problem(emission, transition=transition)
    fit = fit_at(spec, features, named, n_draws=12)
    drivers = switch_drivers(fit, draws=None, window=1, cores=1)
    paths = fit["paths"]["state"].values[0][:, spec.rows.run, spec.rows.step]
    at = 0
    for path in paths:
        switches = first_switches(spec.rows, path, spec.n_states)
        for edge, row in zip(switches.edge, switches.begin, strict=True):
            there = edge % spec.n_states
            slopes = [
                difference(
                    lambda v, row=row, k=there: log_filtered(spec, named, v, row)[k],
                    spec.rows.values,
                    row,
                    feature,
                )
                for feature in range(2)
            ]
            found = np.nan_to_num(drivers.gradient[at])
            np.testing.assert_allclose(found, slopes, rtol=1e-5, atol=1e-6)
            assert drivers.edge[at] == edge
            at += 1
    assert at == len(drivers.edge) > 5


def test_the_gradient_of_full_gaussians_is_the_formula_of_the_paper():
    """|S_k⁻¹ (m_k - z_t) - sum_h p(h | z_1..t) S_h⁻¹ (m_h - z_t)|, and not |its sum|."""
    rng = np.random.default_rng(4)
    features = grid(rng.normal(size=(1, 6, 3)))
    spec = spec_of(features, FullGaussian())
    named = {**chain_at(spec, rng), **parameters_of(FullGaussian(), rng, 3, 2)}
    correlation = FullGaussian().derive(named, 3, np)["correlation"]
    covariance = named["scale"][:, :, None] * correlation * named["scale"][:, None, :]
    fit = fit_at(spec, features, named, n_draws=1)
    fit["paths/state"][:] = [0, 0, 0, 1, 1, 1]
    drivers = switch_drivers(fit, draws=None, window=1, cores=1)
    z, p = features.values[0, 3], np.exp(log_filtered(spec, named, spec.rows.values, 3))
    pull = [np.linalg.solve(covariance[k], named["mean"][k] - z) for k in range(2)]
    np.testing.assert_allclose(
        np.abs(drivers.gradient[0]), np.abs(pull[1] - p[0] * pull[0] - p[1] * pull[1])
    )
    density = [multivariate_normal(named["mean"][k], covariance[k]).logpdf(z) for k in range(2)]
    assert drivers.log_odds[0].sum() == pytest.approx(density[1] - density[0])


def by_hand(path, values, emission=None, **named):
    """A fit of one draw with a path and parameters of one's own; (run, step, feature) values."""
    features = grid(np.asarray(values, float))
    spec = spec_of(features, emission or Gaussian())
    chain = {"initial_probs": np.array([0.5, 0.5]), "transition_probs": np.full((2, 2), 0.5)}
    fit = fit_at(spec, features, {**chain, **named}, n_draws=1)
    fit["paths/state"][0, 0] = path
    return fit


LEVELS = {"mean": np.array([[0.0, 0.0], [3.0, -1.0]]), "scale": np.array([[1.0, 2.0], [0.5, 1.0]])}


def test_log_odds_are_density_ratios_of_features_and_changes_those_of_their_means():
    values = np.array([[0.1, 0.5], [-0.1, np.nan], [2.0, -2.0], [3.0, np.nan], [5.0, 0.0]])[None]
    path = [[0, 0, 1, 1, 1]]
    for window, until in ((1, 3), (2, 4), (10, 5)):
        fit = by_hand(path, values, **LEVELS)
        drivers = switch_drivers(fit, draws=None, window=window, cores=1)
        seen = values[0, 2:until]
        mean, scale = LEVELS["mean"], LEVELS["scale"]
        ratio = norm(mean[1], scale[1]).logpdf(seen) - norm(mean[0], scale[0]).logpdf(seen)
        np.testing.assert_allclose(drivers.log_odds, [np.nanmean(ratio, axis=0)])
    np.testing.assert_allclose(drivers.change, [[10 / 3 - 0.0, -1.0 - 0.5]])
    assert drivers.edge.tolist() == [1]


def test_log_odds_do_not_saturate_where_the_gradient_does():
    """The surer the switch, the smaller the gradient, and the larger the evidence."""
    found = []
    for far in (1.0, 2.0, 4.0, 8.0):
        named = {"mean": np.array([[0.0], [far]]), "scale": np.ones((2, 1))}
        fit = by_hand([[0, 0, 1]], [[[0.0], [0.0], [far]]], **named)
        drivers = switch_drivers(fit, draws=None, window=1, cores=1)
        found.append((abs(drivers.gradient[0, 0]), drivers.log_odds[0, 0]))
    gradients, odds = np.transpose(found)
    np.testing.assert_allclose(odds, 0.5 * np.array([1.0, 2.0, 4.0, 8.0]) ** 2)
    assert gradients[-1] < 1e-12 < gradients[1]


def test_the_first_switch_over_each_edge_counts():
    rows = spec_of(grid(np.random.default_rng(0).normal(size=(2, 6, 1))), Gaussian()).rows
    path = np.array([0, 1, 0, 1, 1, 0, 1, 1, 0, 0, 1, 1], np.int8)
    switches = first_switches(rows, path, 2)
    np.testing.assert_array_equal(switches.edge, [1, 2, 1, 2])
    np.testing.assert_array_equal(switches.begin, [1, 2, 10, 8])
    np.testing.assert_array_equal(switches.left, [0, 1, 8, 6])
    np.testing.assert_array_equal(switches.end, [2, 3, 12, 10])


def test_parts_of_full_gaussians_do_not_depend_on_the_order_of_features():
    rng = np.random.default_rng(5)
    root = np.linalg.cholesky(np.array([[1.0, 0.8, 0.3], [0.8, 1.0, -0.1], [0.3, -0.1, 1.0]]))
    rows = spec_of(grid(rng.normal(size=(1, 4, 3))), FullGaussian()).rows

    def parts(order):
        correlation = (root @ root.T)[np.ix_(order, order)]
        turned = rows._replace(values=rows.values[:, order])
        named = {
            "mean": np.array([[0.1, -0.2, 0.3]])[:, order],
            "scale": np.array([[1.0, 2.0, 0.5]])[:, order],
            "correlation_shares": shares_of(np.linalg.cholesky(correlation)[None]),
        }
        return FullGaussian().density_by_feature(turned, named)

    order = [2, 0, 1]
    np.testing.assert_allclose(parts(order), parts([0, 1, 2])[:, :, order])


def test_without_correlation_parts_of_full_gaussians_are_those_of_the_features():
    rng = np.random.default_rng(6)
    rows = spec_of(grid(rng.normal(size=(1, 4, 3))), FullGaussian()).rows
    named = parameters_of(Gaussian(), rng, 3, 2)
    flat = {**named, "correlation_shares": np.full((2, 3), 0.5)}
    for function in ("density_by_feature", "score"):
        np.testing.assert_allclose(
            getattr(FullGaussian(), function)(rows, flat),
            getattr(Gaussian(), function)(rows, named),
        )


def test_offsets_of_runs_are_taken_off():
    """Two runs that differ by their offsets alone have the same drivers, but for no change."""
    values = np.random.default_rng(7).normal(size=(1, 8, 2))
    offset = np.array([[0.0, 0.0], [5.0, -3.0]])
    features = grid(np.concatenate([values, values]) + offset[:, None])
    emission = QuadraticDrift(offsets=True)
    spec = spec_of(features, emission)
    rng = np.random.default_rng(8)
    named = {**chain_at(spec, rng), **parameters_of(emission, rng, 2, 2)}
    named |= {"offset": offset, "offset_scale": np.ones(2)}
    fit = fit_at(spec, features, named, n_draws=1)
    fit["paths/state"][0, 0] = [[0, 0, 0, 0, 1, 1, 1, 1]] * 2
    drivers = switch_drivers(fit, draws=None, window=3, cores=1)
    for values in drivers[1:]:
        np.testing.assert_allclose(values[0], values[1], rtol=1e-9)
    assert len(drivers.edge) == 2


def test_filtered_probabilities_are_normalised_far_out():
    """Densities that underflow leave a gradient that is 0, not NaN."""
    named = {"mean": np.array([[0.0], [1e4]]), "scale": np.ones((2, 1))}
    fit = by_hand([[0, 0, 1]], [[[0.0], [0.0], [1e4]]], **named)
    assert switch_drivers(fit, draws=None, window=1, cores=1).gradient[0, 0] == 0.0
