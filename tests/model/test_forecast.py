"""Forecasts of the next checkpoint, against every path added up and densities integrated."""

import numpy as np
import pytest
import xarray as xr
from exact import Problem, enumerate_run
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import norm
from test_emissions import FAMILIES, parameters_of
from test_rows import grid

from bayesphase.model.emissions import FullGaussian, Gaussian
from bayesphase.model.forecast import log_predicted_states, log_tails, normal_quantile
from bayesphase.model.lanes import end_to_end
from bayesphase.model.spec import specify
from bayesphase.model.transitions import ContinuousTime, LeftToRight, Sticky

EVERY_FAMILY = [Gaussian(), FullGaussian(), *FAMILIES]


def small(rng, missing=True):
    """Two runs of five and four checkpoints at uneven steps, with holes."""
    values = rng.normal(size=(2, 5, 2))
    if missing:
        values[0, 2, 0] = values[0, 0, 1] = values[1, 1, 1] = np.nan
    values[1, 4] = np.nan
    return grid(values).assign_coords(step=[0, 10, 20, 40, 50])


def spec_of(features, emission, transition=None, known=None, n_states=2):
    return specify(
        features,
        n_states,
        emission=emission,
        transition=transition or Sticky(),
        priors=None,
        known_states=known,
    )


def chain_at(spec, rng):
    start, _ = spec.transition.maximise(
        np.zeros((1, spec.n_states, spec.n_states)), np.zeros(spec.n_states)
    )
    return spec.transition.jitter(rng, start, 0.7)


def one_draw(named):
    return {name: value[None] for name, value in named.items()}


def density_of_one(spec, named, row, feature):
    """Density of a single feature of a row, as its value, times that of the run before."""
    rows = spec.rows
    start = rows.layout.starts[rows.layout.starts <= row][-1]
    seen = rows.observed.copy()
    seen[row] = False
    seen[row, feature] = True
    rows = rows._replace(observed=seen)
    potentials = spec.transition.log_potentials(named, np)

    def density(value):
        values = rows.values.copy()
        values[row, feature] = value
        log_emission = spec.emission.log_density(values, rows, named, np)[start : row + 1]
        layout = end_to_end([row + 1 - start], rows.layout.gap_index[start : row + 1])
        return np.exp(enumerate_run(Problem(log_emission, *potentials, layout)).log_likelihood)

    return density


@pytest.mark.parametrize("emission", EVERY_FAMILY, ids=repr)
def test_tails_are_integrals_of_the_density_of_the_next_feature(emission):
    rng = np.random.default_rng(1)
    features = small(rng)
    spec = spec_of(features, emission)
    named = {**chain_at(spec, rng), **parameters_of(emission, rng, 2, n_states=2)}
    lower, upper = log_tails(spec, one_draw(named))
    _, _, known = emission.innovations(
        spec.rows.values, spec.rows, tuple(named[n][None] for n in emission.dims), np
    )
    np.testing.assert_array_equal(np.isnan(lower), ~known)
    np.testing.assert_array_equal(np.isnan(upper), ~known)
    for row, feature in np.argwhere(known):
        density = density_of_one(spec, named, row, feature)
        at = spec.rows.values[row, feature]
        below, above = quad(density, -np.inf, at)[0], quad(density, at, np.inf)[0]
        share = below / (below + above)
        assert np.exp(lower[row, feature]) == pytest.approx(share, abs=1e-6)
        assert np.exp(upper[row, feature]) == pytest.approx(1.0 - share, abs=1e-6)


@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize(
    "transition",
    [Sticky(), LeftToRight(), LeftToRight(skip=True), ContinuousTime()],
    ids=lambda t: t.name,
)
def test_states_are_predicted_by_all_paths_up_to_there(transition, anchored):
    rng = np.random.default_rng(2)
    features = small(rng)
    known = None
    if anchored:
        labels = np.full((2, 5), -1)
        labels[0, [0, 3]] = 0, 1
        labels[1, 1] = 1
        known = xr.DataArray(
            labels, dims=("run", "step"), coords=features[..., 0].drop_vars("feature").coords
        )
    spec = spec_of(features, Gaussian(), transition, known, n_states=3)
    named = {**chain_at(spec, rng), **parameters_of(Gaussian(), rng, 2)}
    (predicted,) = np.exp(log_predicted_states(spec, [named]))
    rows = spec.rows
    log_emission = spec.emission.log_density(rows.values, rows, named, np)
    if anchored:
        told = labels[rows.run, rows.step][:, None]
        log_emission[(told >= 0) & (told != np.arange(3))] = -np.inf
    with np.errstate(divide="ignore"):
        # the chain without what is known, which is said by the emissions
        plain = spec_of(features, Gaussian(), transition, None, n_states=3).transition
        log_transition, log_initial = plain.log_potentials(named, np)
    layout = spec_of(features, Gaussian(), transition, None, n_states=3).rows.layout
    for start, length in zip(layout.starts, layout.lengths, strict=True):
        for row in range(start, start + length):
            upto = log_emission[start : row + 1].copy()
            upto[-1] = np.where(np.isinf(upto[-1]), -np.inf, 0.0)
            gaps = end_to_end([len(upto)], layout.gap_index[start : row + 1])
            truth = enumerate_run(Problem(upto, log_transition, log_initial, gaps))
            np.testing.assert_allclose(predicted[row], truth.state_probs[-1], atol=1e-12)


def test_probabilities_are_averaged_over_draws_and_not_quantiles():
    rng = np.random.default_rng(3)
    spec = spec_of(small(rng), Gaussian())
    draws = [{**chain_at(spec, rng), **parameters_of(Gaussian(), rng, 2, 2)} for _ in range(20)]
    each = np.array([log_tails(spec, one_draw(named)) for named in draws])
    stacked = {name: np.stack([named[name] for named in draws]) for name in draws[0]}
    expected = logsumexp(each, axis=0) - np.log(20)
    np.testing.assert_allclose(log_tails(spec, stacked), expected, rtol=1e-10)
    one_thread, two_threads = (log_tails(spec, stacked, cores=n) for n in (1, 2))
    np.testing.assert_array_equal(one_thread, two_threads)


def test_outliers_are_as_far_out_as_they_are():
    """Beyond the smallest double, too, on either side."""
    values = np.array([[0.0, 45.0, -45.0, 1.0]])[:, :, None]
    spec = spec_of(grid(values), Gaussian(), n_states=1)
    named = {
        "initial_probs": np.ones(1),
        "transition_probs": np.ones((1, 1)),
        "mean": np.zeros((1, 1)),
        "scale": np.ones((1, 1)),
    }
    residual = normal_quantile(*log_tails(spec, one_draw(named)))
    np.testing.assert_allclose(residual[:, 0], values.ravel(), rtol=1e-9, atol=1e-12)


def test_quantiles_come_from_the_smaller_tail():
    z = np.array([-30.0, -3.0, -1e-3, 0.0, 1e-3, 2.0, 30.0])
    np.testing.assert_allclose(normal_quantile(norm.logcdf(z), norm.logsf(z)), z, atol=1e-12)
