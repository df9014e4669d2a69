import numpy as np
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode
from scipy.stats import invgamma, norm
from scipy.stats import t as student_t
from test_rows import grid

from bayesphase.model.emissions import (
    AutoRegressive,
    Gaussian,
    QuadraticDrift,
    RandomWalk,
    StudentT,
)
from bayesphase.model.lines import flat_lines
from bayesphase.model.passes import sum_up
from bayesphase.model.rows import rows_of

QUICK = Mode(linker="py", optimizer="fast_compile")


def data(rng, *, location=0.0, spread=1.0, missing=0.0, shape=(2, 30, 4)):
    values = location + spread * rng.normal(size=shape)
    values[rng.random(shape) < missing] = np.nan
    return rows_of(grid(values))


def parameters(rng, rows, *, n_states=3, relative_scale=1.0):
    shape = (n_states, len(rows.location))
    return {
        "mean": rows.location + rows.spread * rng.normal(size=shape),
        "scale": relative_scale * rows.spread * rng.uniform(0.5, 2.0, shape),
    }


def best_for(emission, rows, weights):
    """M-step for given probabilities (row, state) of the states."""
    observed = emission.observe(rows)
    flat = flat_lines(observed.family, (weights.shape[1], len(rows.location)))
    return emission.maximise(observed, sum_up(observed.data, flat, weights))


def by_scipy(rows, named):
    """Log density (row, state) as a sum over the features that are observed."""
    terms = norm.logpdf(rows.values[:, None], named["mean"], named["scale"])
    return np.where(rows.observed[:, None], terms, 0.0).sum(axis=-1)


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize(
    ("location", "spread"), [(0.0, 1.0), (1e6, 1e-3), (-50.0, 1e-9), (0.0, 1e-60), (0.0, 1e12)]
)
def test_log_density_equals_scipys(location, spread, missing):
    rng = np.random.default_rng(1)
    rows = data(rng, location=location, spread=spread, missing=missing)
    named = parameters(rng, rows)
    result = Gaussian().log_density(rows.values, rows, named, np)
    np.testing.assert_allclose(result, by_scipy(rows, named), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("relative_scale", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_narrow_states_lose_no_more_than_rounding_allows(relative_scale):
    """Squares are expanded: what cancels is of the size of the squared distance in scales."""
    rng = np.random.default_rng(2)
    rows = data(rng)
    named = parameters(rng, rows, relative_scale=relative_scale)
    named["mean"][:] = rows.values[:3]  # rows at the very centre of a narrow state
    result = Gaussian().log_density(rows.values, rows, named, np)
    bound = 1e-14 * (1.0 + relative_scale**-2) * 4
    np.testing.assert_allclose(
        result[:3].diagonal(), by_scipy(rows, named)[:3].diagonal(), rtol=0, atol=10 * bound
    )
    np.testing.assert_allclose(result, by_scipy(rows, named), rtol=1e-12, atol=10 * bound)


def test_what_stands_for_a_missing_value_does_not_matter():
    rng = np.random.default_rng(3)
    rows = data(rng, missing=0.5)
    named = parameters(rng, rows)
    other = np.where(rows.observed, rows.values, 1e6 * rng.normal(size=rows.values.shape))
    np.testing.assert_array_equal(
        Gaussian().log_density(other, rows, named, np),
        Gaussian().log_density(rows.values, rows, named, np),
    )


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_graph_and_numpy_agree(missing):
    rng = np.random.default_rng(4)
    rows = data(rng, missing=missing)
    named = parameters(rng, rows)
    tensors = {name: pt.as_tensor(value) for name, value in named.items()}
    graph = Gaussian().log_density(rows.values, rows, tensors, pt)
    np.testing.assert_allclose(
        graph.eval(mode=QUICK), Gaussian().log_density(rows.values, rows, named, np), rtol=1e-12
    )


def objective(rows, weights, mean, scale, *, tight=1e-3):
    """What an M-step maximises: expected log density, and the log priors of mean and log scale.

    The prior of a mean given its scale is normal around the location, worth `tight` checkpoints.
    """
    emission = Gaussian()
    log_density = emission.log_density(rows.values, rows, {"mean": mean, "scale": scale}, np)
    a, b = emission._shape, emission._unit * rows.spread
    return (
        (weights * log_density).sum()
        + invgamma.logpdf(scale, a, scale=b).sum()
        + np.log(scale).sum()
        - 0.5 * tight * (((mean - rows.location) / scale) ** 2).sum()
    )


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize(("location", "spread"), [(0.0, 1.0), (1e3, 1e-2)])
def test_maximise_finds_the_maximum(location, spread, missing):
    rng = np.random.default_rng(5)
    rows = data(rng, location=location, spread=spread, missing=missing)
    weights = rng.dirichlet(np.ones(3), len(rows.values))
    best, _ = best_for(Gaussian(), rows, weights)
    top = objective(rows, weights, **best)
    for step in (1e-1, 1e-3):
        for index in np.ndindex(best["mean"].shape):
            for sign in (-1, 1):
                for name in best:
                    moved = {key: value.copy() for key, value in best.items()}
                    moved[name][index] += sign * step * best["scale"][index]
                    assert objective(rows, weights, **moved) < top
    size = best["mean"].size
    relative = rows.spread * np.ones_like(best["mean"])

    def gradient_at(x):
        h = 1e-6
        moves = h * np.eye(len(x))
        return np.array([(at(x + m) - at(x - m)) / (2 * h) for m in moves])

    def at(x):
        mean = best["mean"] + relative * x[:size].reshape(relative.shape)
        scale = best["scale"] * np.exp(x[size:].reshape(relative.shape))
        return objective(rows, weights, mean, scale)

    assert np.abs(gradient_at(np.zeros(2 * size))).max() < 1e-3


def test_states_without_weight_and_constant_features_stay_finite():
    values = np.random.default_rng(6).normal(size=(1, 20, 2))
    values[0, :10, 1] = 0.25  # constant within one state
    rows = rows_of(grid(values))
    weights = np.zeros((20, 3))
    weights[:10, 0] = weights[10:, 1] = 1.0
    best, log_prior = best_for(Gaussian(), rows, weights)
    assert np.isfinite(log_prior)
    for value in best.values():
        assert np.isfinite(value).all()
    assert (best["scale"] > 1e-3 * rows.spread).all()
    np.testing.assert_allclose(best["mean"][2], rows.location, atol=1e-12)


def test_log_prior_is_that_of_the_default_priors():
    rng = np.random.default_rng(7)
    rows = data(rng, location=3.0, spread=0.1)
    priors = Gaussian().priors(rows)

    def by_scipy(named):
        mean, scale = priors["mean"].parameters, priors["scale"].parameters
        return (
            norm.logpdf(named["mean"], mean["mu"], mean["sigma"]).sum()
            + invgamma.logpdf(named["scale"], scale["alpha"], scale=scale["beta"]).sum()
            + np.log(named["scale"]).sum()  # the density is that of the log scale
        )

    one, prior_of_one = best_for(Gaussian(), rows, rng.dirichlet(np.ones(3), len(rows.values)))
    other, prior_of_other = best_for(Gaussian(), rows, rng.dirichlet(np.ones(3), len(rows.values)))
    # up to a constant
    assert prior_of_one - prior_of_other == pytest.approx(by_scipy(one) - by_scipy(other), abs=1e-8)


def test_draws_have_the_states_moments():
    rng = np.random.default_rng(8)
    named = {
        "mean": np.array([[0.0, 10.0], [-5.0, 3.0]]),
        "scale": np.array([[1.0, 0.1], [3.0, 2.0]]),
    }
    states = np.repeat([0, 1], 40_000)
    rows = rows_of(grid(np.zeros((1, 80_000, 2)) + np.arange(80_000)[:, None]))
    draws = Gaussian().sample(rng, states, named, rows).reshape(2, 40_000, 2)
    error = named["scale"] / np.sqrt(40_000)
    assert (np.abs(draws.mean(axis=1) - named["mean"]) < 4 * error).all()
    np.testing.assert_allclose(draws.std(axis=1), named["scale"], rtol=0.02)


def test_jitter_is_in_standard_deviations_of_a_checkpoint():
    named = {"mean": np.full((200, 100), 7.0), "scale": np.full((200, 100), 1e-3)}
    moved = Gaussian().jitter(np.random.default_rng(9), named, 0.05)
    assert (moved["mean"] - 7.0).std() == pytest.approx(0.05 * 1e-3, rel=0.05)
    assert np.log(moved["scale"] / 1e-3).std() == pytest.approx(0.05, rel=0.05)
    assert (named["mean"] == 7.0).all()


FAMILIES = [
    StudentT(),
    RandomWalk(df=None),
    RandomWalk(),
    AutoRegressive(),
    AutoRegressive(df=None, differences=1),
    QuadraticDrift(),
]


def uneven(rng, *, missing=0.0, shape=(3, 40, 2)):
    """Rows at steps that lie close together or far apart."""
    values = rng.normal(size=shape)
    values[rng.random(shape) < missing] = np.nan
    steps = np.cumsum(np.resize([10, 10, 30, 10, 50], shape[1]))
    return rows_of(grid(values).assign_coords(step=steps))


def parameters_of(emission, rng, n_features, n_states=3):
    shape = (n_states, n_features)
    place, scale, rate = (
        rng.normal(size=shape),
        rng.uniform(0.5, 2.0, shape),
        rng.uniform(0.05, 1.0, shape),
    )
    if emission.name == "quadratic_drift":  # that comes back from wherever it gets to
        rate = -0.3 * rate
    if emission.name == "full_gaussian":  # shares of partial correlations, by pair
        rate = rng.uniform(0.1, 0.9, (n_states, n_features * (n_features - 1) // 2))
    return dict(zip(emission.dims, (place, scale, rate, 0.001 * place), strict=False))


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("emission", FAMILIES, ids=repr)
def test_features_made_from_noise_give_the_noise_back(emission, missing):
    """So what is drawn has the density that it is given, also over holes and after a late start."""
    rng = np.random.default_rng(17)
    rows = uneven(rng, missing=missing)
    assert missing == 0.0 or not rows.observed[rows.layout.starts].all()
    states = rng.integers(0, 3, len(rows.values))
    named = parameters_of(emission, rng, 2)
    noise = rng.normal(size=rows.values.shape)
    by_row = tuple(named[name][states] for name in emission.dims)
    made = rows._replace(values=emission.follow(rows, by_row, noise))
    residuals = emission.residuals(made, states, named)
    known = ~np.isnan(residuals)
    lost = 0 if emission.name == "student_t" else 1 + getattr(emission, "differences", 0)
    # so many first values of three runs with two features
    assert (rows.observed & ~known).sum() == lost * 3 * 2
    np.testing.assert_allclose(residuals[known], noise[known], atol=1e-9)
    # what has no density is what was observed
    given = rows.observed & ~known
    np.testing.assert_allclose(made.values[given], rows.values[given])


def test_draws_over_a_hole_have_the_moments_of_one_long_step():
    """Also from the first value that there is, where a run begins without one."""
    values = np.full((2000, 4, 2), np.nan)
    values[:, [0, 3], 0] = 5.0
    values[:, [1, 2], 1] = -3.0
    rows = rows_of(grid(values).assign_coords(step=[0, 10, 20, 30]))
    named = {"drift": np.array([[0.5, 0.25]]), "scale": np.array([[2.0, 1.0]])}
    states = np.zeros(len(rows.values), int)
    rng = np.random.default_rng(16)
    drawn = RandomWalk(df=None).sample(rng, states, named, rows).reshape(2000, 4, 2)
    assert (drawn[:, 0, 0] == 5.0).all()
    assert (drawn[:, 1, 1] == -3.0).all()
    assert (drawn[np.isnan(values)] == 0.0).all()
    z = (drawn[:, [3, 2], [0, 1]] - [5.0 + 3 * 0.5, -3.0 + 0.25]) / [2.0 * np.sqrt(3.0), 1.0]
    assert (np.abs(z.mean(axis=0)) < 4 / np.sqrt(2000)).all()
    np.testing.assert_allclose(z.std(axis=0), 1.0, atol=0.065)


@pytest.mark.parametrize("emission", FAMILIES, ids=repr)
def test_densities_are_those_of_the_innovations(emission):
    rng = np.random.default_rng(11)
    rows = uneven(rng, missing=0.3)
    named = parameters_of(emission, rng, 2)
    by_state = tuple(named[name][None] for name in emission.dims)
    deviation, scale, known = emission.innovations(rows.values, rows, by_state, np)
    innovation = norm if emission.tails is None else student_t(emission.tails)
    terms = innovation.logpdf(deviation / scale) - np.log(scale)
    expected = np.where(known[:, None], terms, 0.0).sum(axis=2)
    np.testing.assert_allclose(emission.log_density(rows.values, rows, named, np), expected)


def test_a_walk_over_a_hole_is_one_long_step():
    """The change since the last observation, however long ago, and not since the last row."""
    values = np.array([[1.0, 0.0], [3.0, np.nan], [np.nan, 2.0], [4.0, 5.0]])[None]
    rows = rows_of(grid(values).assign_coords(step=[0, 10, 20, 30]))
    named = {"drift": np.array([[0.5, 0.25]]), "scale": np.array([[2.0, 1.0]])}
    expected = np.zeros(4)
    expected[1] = norm.logpdf(3.0 - 1.0, 0.5, 2.0)
    expected[2] = norm.logpdf(2.0 - 0.0, 2 * 0.25, np.sqrt(2.0))
    expected[3] = norm.logpdf(4.0 - 3.0, 2 * 0.5, 2.0 * np.sqrt(2.0))
    expected[3] += norm.logpdf(5.0 - 2.0, 0.25, 1.0)
    found = RandomWalk(df=None).log_density(rows.values, rows, named, np)
    np.testing.assert_allclose(found[:, 0], expected)


def test_two_steps_of_a_reversion_are_one_of_twice_the_length():
    """Mean and variance compose, which is what makes uneven steps right (Chapman-Kolmogorov)."""
    rate, gap = 0.3, np.array([1.0, 2.0, 3.0])
    keep = np.exp(-rate * gap)
    variance = -np.expm1(-2 * rate * gap) / (2 * rate)
    assert keep[0] * keep[1] == pytest.approx(keep[2])
    assert keep[1] ** 2 * variance[0] + variance[1] == pytest.approx(variance[2])
    # and these are the ones that the family uses
    rows = rows_of(grid(np.zeros((1, 4, 1))).assign_coords(step=[0, 1, 3, 6]))
    rows = rows._replace(step_unit=1.0)
    by_state = (np.array([[[2.0]]]), np.array([[[1.5]]]), np.array([[[rate]]]))
    deviation, scale, _ = AutoRegressive().innovations(rows.values, rows, by_state, np)
    np.testing.assert_allclose(-deviation[1:, 0, 0], 2.0 * (1 - keep))
    np.testing.assert_allclose(scale[1:, 0, 0] ** 2, 1.5**2 * variance)


def test_a_slow_reversion_is_a_walk_without_drift():
    rng = np.random.default_rng(12)
    rows = uneven(rng, missing=0.2)
    scale = rng.uniform(0.5, 2.0, (2, 2))
    slow = {"level": np.ones((2, 2)), "scale": scale, "rate": np.full((2, 2), 1e-9)}
    walk = {"drift": np.zeros((2, 2)), "scale": scale}
    np.testing.assert_allclose(
        AutoRegressive().log_density(rows.values, rows, slow, np),
        RandomWalk().log_density(rows.values, rows, walk, np),
        atol=1e-6,
    )


def test_without_slope_and_curvature_a_drift_is_a_walk():
    rng = np.random.default_rng(12)
    rows = uneven(rng, missing=0.2)
    walk = {"drift": rng.normal(size=(2, 2)), "scale": rng.uniform(0.5, 2.0, (2, 2))}
    flat = {**walk, "slope": np.zeros((2, 2)), "curvature": np.zeros((2, 2))}
    np.testing.assert_allclose(
        QuadraticDrift().log_density(rows.values, rows, flat, np),
        RandomWalk().log_density(rows.values, rows, walk, np),
    )


def test_a_power_law_is_one_law_of_motion():
    """dy/dt = -y², whose solution is 1 / t: nothing is left but what Euler's steps leave out."""
    t = np.arange(100.0, 200.0)
    rows = rows_of(grid((1.0 / t)[None, :, None]).assign_coords(step=t))
    by_state = (np.zeros((1, 1, 1)), np.ones((1, 1, 1)), np.zeros((1, 1, 1)), -np.ones((1, 1, 1)))
    deviation, _, known = QuadraticDrift().innovations(rows.values, rows, by_state, np)
    change = np.abs(np.diff(rows.values[:, 0]))
    assert known.sum() == 99
    assert (np.abs(deviation[1:, 0, 0]) < 1.1 * change / t[1:]).all()  # of the next order in 1 / t


@pytest.mark.parametrize("emission", FAMILIES[1:-1], ids=repr)
def test_a_trend_that_lasts_is_all_the_same_to_changes(emission):
    """A constant added to a run is no news to families of changes (a line to those of speeds)."""
    rng = np.random.default_rng(13)
    rows = uneven(rng, missing=0.2)
    named = parameters_of(emission, rng, 2)
    more = 7.0 + np.zeros(rows.values.shape)
    if emission.name == "autoregressive" and not emission.differences:
        named_there = {**named, "level": named["level"] + 7.0}
    else:
        named_there = named
    np.testing.assert_allclose(
        emission.log_density(rows.values + more, rows, named_there, np),
        emission.log_density(rows.values, rows, named, np),
        atol=1e-9,
    )


@pytest.mark.parametrize("emission", FAMILIES, ids=repr)
def test_an_m_step_of_normal_sums_is_near_the_best(emission):
    """No small move of any parameter gains more than rates that lie between those tried can."""
    rng = np.random.default_rng(14)
    rows = uneven(rng, shape=(3, 200, 2))
    weights = rng.dirichlet(np.ones(2), len(rows.values))
    normal = (
        type(emission)(**{**vars(emission), "df": None})
        if emission.name != "student_t"
        else Gaussian()
    )
    best, _ = best_for(normal, rows, weights)
    priors = normal.priors(rows)

    def objective(named):
        density = (weights * normal.log_density(rows.values, rows, named, np)).sum()
        _, scale, *rate = normal.dims
        p = priors[scale].parameters
        density += invgamma.logpdf(named[scale], p["alpha"], scale=p["beta"]).sum()
        density += np.log(named[scale]).sum()
        for name in (name for name in rate if normal.positive[name]):
            p = priors[name].parameters
            density += norm.logpdf(np.log(named[name]), p["mu"], p["sigma"]).sum()
        return density

    top = objective(best)
    for name in normal.dims:
        for index in np.ndindex(best[name].shape):
            for factor in (0.97, 1.03):
                moved = {key: value.copy() for key, value in best.items()}
                moved[name][index] *= factor
                assert objective(moved) < top + 0.2


@pytest.mark.parametrize("df", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("family", [StudentT, RandomWalk, AutoRegressive, QuadraticDrift])
def test_degrees_of_freedom_are_positive(family, df):
    with pytest.raises(ValueError, match="df must be a positive number of degrees of freedom"):
        family(df=df)


def test_differences_are_none_or_one():
    with pytest.raises(ValueError, match="differences must be 0 or 1, got 2"):
        AutoRegressive(differences=2)
