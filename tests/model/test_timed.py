import numpy as np
import pytest
from scipy.linalg import expm
from scipy.stats import gamma
from test_exponential import generator, random_rates
from test_rows import grid

from bayesphase.model.forward_backward import forward_backward
from bayesphase.model.rows import rows_of
from bayesphase.model.simulate import draw_states
from bayesphase.model.transitions import ContinuousTime

STEPS = np.array([0, 1, 2, 4, 8, 16, 116, 216, 316, 416])


def uneven(rng, n_runs=3, **coords):
    """Runs on an uneven grid with missing checkpoints, as features and rows."""
    values = rng.normal(size=(n_runs, len(STEPS), 2))
    values[0, 4] = values[-1, 7:] = np.nan
    features = grid(values, step=STEPS, **coords)
    return features, rows_of(features)


def chain_of(rows, n_states=3, **options):
    return ContinuousTime(**options).laid_out(rows, n_states)


def test_matrices_are_indexed_by_the_distinct_gaps_of_each_run():
    _, rows = uneven(np.random.default_rng(1))
    np.testing.assert_array_equal(rows.gap[:9], [0, 1, 1, 2, 12, 100, 100, 100, 100])
    chain, laid_out = chain_of(rows)
    np.testing.assert_allclose(chain.gaps, [1, 2, 4, 8, 12, 100])
    follows = rows.gap > 0
    np.testing.assert_array_equal(chain.gaps[laid_out.layout.gap_index][follows], rows.gap[follows])
    assert chain.median == np.median(rows.gap[follows])


def test_gaps_that_differ_by_rounding_are_one():
    features = grid(np.random.default_rng(2).normal(size=(2, 50, 1)), step=0.1 * np.arange(50))
    chain, rows = chain_of(rows_of(features))
    np.testing.assert_allclose(chain.gaps, [0.1])
    np.testing.assert_array_equal(rows.layout.gap_index, np.zeros(100))


def test_prior_leaves_a_state_once_per_fair_share_of_a_run():
    _, rows = uneven(np.random.default_rng(3))
    chain, _ = chain_of(rows, 4)
    prior = chain.priors(4)["switch_rates"].parameters
    leave = 3 * gamma.mean(prior["alpha"], scale=1 / prior["beta"])
    assert 1 / leave == pytest.approx(416 / 4)
    chain, _ = chain_of(rows, 4, shape=2.5, dwell_share=0.1)
    prior = chain.priors(4)["switch_rates"].parameters
    assert prior["alpha"] == 2.5
    assert 1 / (3 * prior["alpha"] / prior["beta"]) == pytest.approx(41.6)


def test_potentials_are_logarithms_of_the_exponential():
    rng = np.random.default_rng(4)
    _, rows = uneven(rng)
    chain, _ = chain_of(rows)
    rates = random_rates(rng, 3)
    log_transition, _ = chain.log_potentials({"rates": rates, "initial_probs": np.ones(3) / 3}, np)
    for gap, matrix in zip(chain.gaps, log_transition, strict=True):
        np.testing.assert_allclose(np.exp(matrix), expm(generator(rates) * gap), rtol=1e-10)


def test_jitter_keeps_all_names_of_the_rates_together():
    rng = np.random.default_rng(5)
    chain, _ = chain_of(uneven(rng)[1])
    start, _ = chain.maximise(np.zeros((1, 3, 3)), np.zeros(3))
    moved = chain.jitter(rng, start, 0.3)
    np.testing.assert_array_equal(moved["switch_rates"], moved["rates"][~np.eye(3, dtype=bool)])
    assert (moved["rates"].diagonal() == 0).all()
    assert np.abs(np.log(moved["switch_rates"] / start["rates"][0, 1])).max() > 0.05
    expected = expm(generator(moved["rates"]) * chain.median)
    np.testing.assert_allclose(moved["transition_probs"], expected, rtol=1e-10)
    np.testing.assert_allclose(moved["initial_probs"].sum(), 1.0)


def climb(chain, rows, log_emission, n_steps):
    """EM on the transitions alone: log posterior densities, and the last parameters."""
    n_states = log_emission.shape[1]
    named, log_prior = chain.maximise(np.zeros((1, n_states, n_states)), np.zeros(n_states))
    densities = []
    for _ in range(n_steps):
        smoothed = forward_backward(log_emission, *chain.log_potentials(named, np), rows.layout)
        densities.append(smoothed.log_likelihood.sum() + log_prior)
        first = smoothed.state_probs[rows.layout.starts].sum(axis=0)
        expected = smoothed.expected_transitions.sum(axis=0)
        named, log_prior = chain.maximise(expected, first, named)
    return np.array(densities), named


OFF = ~np.eye(3, dtype=bool)


def density_of(chain, rows, log_emission, named):
    """Log posterior density of the logarithms of the rates, other parameters as `named`."""
    beta = chain._inverse_scale(3)

    def density(log_rates):
        rates = np.zeros((3, 3))
        rates[OFF] = np.exp(log_rates)
        potentials = chain.log_potentials({**named, "rates": rates}, np)
        log_likelihood = forward_backward(log_emission, *potentials, rows.layout).log_likelihood
        return log_likelihood.sum() + np.sum(log_rates - beta * np.exp(log_rates))

    return density


@pytest.mark.parametrize("seed", range(3))
def test_em_never_goes_down_and_ends_where_the_gradient_is_zero(seed):
    rng = np.random.default_rng(seed)
    chain, rows = chain_of(uneven(rng)[1])
    log_emission = 2.0 * rng.normal(size=(len(rows.values), 3))
    densities, named = climb(chain, rows, log_emission, 300)
    assert np.diff(densities).min() > -1e-9
    assert densities[-1] - densities[0] > 0.1
    density, top = density_of(chain, rows, log_emission, named), np.log(named["rates"][OFF])
    for step in 1e-4 * np.eye(6):
        assert abs(density(top + step) - density(top - step)) / 2e-4 < 1e-2


def test_rates_are_recovered_from_an_uneven_grid():
    """States seen without error, at gaps of which the longest are as long as the dwell times."""
    rng = np.random.default_rng(7)
    truth = np.array([[0.0, 0.01, 0.002], [0.004, 0.0, 0.006], [0.001, 0.002, 0.0]])
    steps = np.cumsum(rng.choice([1, 10, 50, 200], size=150))
    rows = rows_of(grid(rng.normal(size=(40, 150, 1)), step=steps))
    chain, rows = chain_of(rows, dwell_share=0.02)  # a hundred steps or two, as is true
    probs = np.stack([expm(generator(truth) * gap) for gap in chain.gaps])
    states = draw_states(rng, probs, np.full(3, 1 / 3), rows.layout)
    log_emission = np.log(np.eye(3)[states] + 1e-12)
    _, named = climb(chain, rows, log_emission, 60)
    density, top = density_of(chain, rows, log_emission, named), np.log(named["rates"][OFF])
    steps = 1e-2 * np.eye(6)
    precision = -np.array(
        [
            [
                density(top + a + b) - density(top + a) - density(top + b) + density(top)
                for a in steps
            ]
            for b in steps
        ]
    )
    error = np.log(truth[OFF]) - top
    squared = error @ (precision / 1e-4) @ error
    assert squared < 16.8  # the 99% quantile of chi-squared with 6 degrees of freedom
    assert np.sqrt(np.linalg.inv(precision / 1e-4).diagonal()).max() < 0.35  # or little is shown


@pytest.mark.parametrize("options", [{"shape": 0.0}, {"dwell_share": -1.0}, {"shape": np.nan}])
def test_options_that_can_not_be_used(options):
    with pytest.raises(ValueError, match="shape and dwell_share must be positive, got"):
        ContinuousTime(**options)
