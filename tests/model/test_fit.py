"""From features to a posterior, as a user calls it."""

import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import numpy as np
import pytest
import xarray as xr
from threadpoolctl import threadpool_info

import bayesphase as bp
from bayesphase.model import paths
from bayesphase.model.density import direct_density
from bayesphase.model.rows import rows_of
from bayesphase.model.sampling import sample_direct
from bayesphase.model.spec import recorded, specify
from bayesphase.model.transitions import Sticky

# the package has a function of this name
fit_module = import_module("bayesphase.model.fit")

QUICK = {"draws": 300, "tune": 300, "progressbar": False}


@pytest.fixture(scope="module")
def simulated():
    return bp.simulate(n_states=3, n_runs=4, n_steps=150, n_features=4, random_seed=1)


@pytest.fixture(scope="module")
def fitted(simulated):
    return bp.fit(simulated["features"], 3, emission="gaussian", random_seed=1, **QUICK)


def test_parameters_and_paths_are_recovered(simulated, fitted):
    posterior = fitted["posterior"].to_dataset()
    for name in ("mean", "scale"):
        deviation = posterior[name].mean(("chain", "draw")) - simulated[name]
        z = deviation / posterior[name].std(("chain", "draw"))
        # 12 standardised errors: their root mean square is about 1, and none is far out
        assert float(np.abs(z).max()) < 4.0
        assert float(np.sqrt((z**2).mean())) < 1.7
    right = fitted["paths"]["state"] == simulated["path"]
    assert float(right.mean()) > 0.99
    assert float((fitted["paths"]["most_likely"] == simulated["path"]).mean()) > 0.99


def test_boundaries_are_recovered(simulated, fitted):
    table = bp.boundaries(fitted, ci_prob=0.9)
    for run in simulated["run"].values:
        path = simulated["path"].sel(run=run)
        for state in range(3):
            steps = path["step"].values[path.values == state]
            cell = table.sel(run=run, state=state)
            if not steps.size:
                assert cell["visited"] < 0.05
                continue
            assert cell["visited"] > 0.95
            assert cell["lower"] - 20 <= steps[0] <= cell["upper"] + 20


def test_groups_and_dims_are_those_that_are_promised(fitted):
    assert set(fitted.children) == {
        "posterior",
        "paths",
        "log_likelihood",
        "sample_stats",
        "restarts",
        "residuals",
        "observed_data",
    }
    assert fitted["posterior"]["mean"].dims == ("chain", "draw", "state", "feature")
    assert fitted["posterior"]["transition_probs"].dims == ("chain", "draw", "state", "state_next")
    assert fitted["paths"]["state"].dims == ("chain", "draw", "run", "step")
    assert fitted["paths"]["state"].dtype == np.int8
    assert fitted["log_likelihood"]["run_log_likelihood"].dims == ("chain", "draw", "run")
    assert {"lp", "diverging", "label_ambiguity"} <= set(fitted["sample_stats"].data_vars)
    assert "InverseGamma" in fitted.attrs["priors"]["scale"]


def test_the_same_seed_gives_the_same_draws(simulated, fitted):
    again = bp.fit(simulated["features"], 3, emission="gaussian", random_seed=1, **QUICK)
    assert again.equals(fitted)
    one_core = bp.fit(
        simulated["features"], 3, emission="gaussian", random_seed=1, cores=1, **QUICK
    )
    assert one_core.equals(fitted)
    other = bp.fit(simulated["features"], 3, emission="gaussian", random_seed=2, **QUICK)
    assert not other["posterior"]["mean"].equals(fitted["posterior"]["mean"])


def test_memory_that_a_kernel_leaves_as_it_was_is_not_read(simulated, fitted, monkeypatch):
    spec = specify(simulated["features"], 3, emission="gaussian", transition="sticky", priors=None)
    flat = {name: v.values.reshape(-1, *v.shape[2:]) for name, v in fitted["posterior"].items()}
    rubbish = np.finfo(float).max

    def full_of_rubbish(shape, dtype=float):
        return np.full(shape, rubbish if np.dtype(dtype).kind == "f" else 0, dtype)

    monkeypatch.setattr(np, "empty", full_of_rubbish)
    monkeypatch.setattr(np, "empty_like", lambda array: full_of_rubbish(array.shape, array.dtype))
    path = paths.most_likely(spec, flat)
    np.testing.assert_array_equal(path, fitted["paths"]["most_likely"].values.ravel())


@pytest.mark.parametrize("compiled", [True, False])
def test_where_chains_start_does_not_hang_on_which_thread_asks_first(
    simulated, compiled, monkeypatch
):
    """Chains ask for their starts from several threads; these are made to come in any order."""
    if not compiled:  # as with a version of nutpie that keeps compiled models in another way
        monkeypatch.setattr("nutpie.compile_pymc.CompiledPyMCModel", None)
    spec = specify(simulated["features"], 3, emission="gaussian", transition="sticky", priors=None)
    truth = {name: simulated[name].values for name in ("mean", "scale")}
    truth["transition_probs"] = 0.98 * np.eye(3) + 0.02 / 3
    truth["initial_probs"] = np.array([0.8, 0.1, 0.1])

    def draws(delays):
        calls = iter(delays)
        density = direct_density(spec).around(truth)
        start = density.start

        def late(rng):
            time.sleep(next(calls))
            return start(rng)

        monkeypatch.setattr(density, "start", late)
        settings = {"draws": 5, "tune": 5, "chains": 4, "target_accept": 0.8, "random_seed": 3}
        result = sample_direct(density, cores=4, progressbar=False, **settings)
        return result["posterior"].to_dataset()

    assert draws([0.0, 0.1, 0.2, 0.3]).equals(draws([0.3, 0.2, 0.1, 0.0]))


def test_fits_in_several_threads_leave_libraries_the_threads_they_had():
    def n_threads():
        return [library["num_threads"] for library in threadpool_info()]

    before = n_threads()
    with ThreadPoolExecutor(2) as pool, fit_module._one_thread_each:
        with fit_module._one_thread_each:
            assert set(n_threads()) == {1}
        assert set(n_threads()) == {1}  # the first is not done yet

        def one() -> None:
            with fit_module._one_thread_each:
                pass

        pool.submit(one).result()
        assert set(n_threads()) == {1}
    assert n_threads() == before


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_fit_reads_back_equal(fitted, tmp_path, suffix):
    path = bp.save_fit(fitted, tmp_path / f"fit{suffix}")
    back = bp.open_fit(path)
    assert back.equals(fitted)
    assert back.attrs == fitted.attrs
    xr.testing.assert_identical(bp.boundaries(back), bp.boundaries(fitted))


def test_labels_are_given_in_the_order_of_entry_whatever_the_chains_call_them(simulated):
    """Every restart and chain may number states as it likes; the result must not show it."""
    shuffled = simulated["features"].isel(run=[2, 0, 3, 1])
    fit = bp.fit(shuffled, 3, emission="gaussian", random_seed=5, **QUICK)
    first = bp.boundaries(fit)["first_step"].sel(run="run-0")
    assert (first.dropna("state").diff("state") > 0).all()
    assert float((fit["paths"]["state"] == simulated["path"]).mean()) > 0.99
    # chains agree on every numbered parameter
    assert float(bp.diagnose(fit)["r_hat"].max()) < 1.05


def test_switched_labels_are_put_right(simulated):
    """Label switching provoked: chains whose states are numbered differently before relabelling."""
    from bayesphase.model.paths import draw_paths

    features = simulated["features"]
    spec = specify(features, 3, emission="gaussian", transition="sticky", priors=None)
    rng = np.random.default_rng(0)
    truth = {name: simulated[name].values for name in spec.dims}
    truth["transition_probs"] = 0.98 * np.eye(3) + 0.02 / 3
    truth["initial_probs"] = np.array([0.8, 0.1, 0.1])
    draws = {name: np.empty((2, 20, *value.shape)) for name, value in truth.items()}
    for chain in range(2):
        for draw in range(20):
            order = rng.permutation(3)
            for name, value in truth.items():
                moved = value[order]
                draws[name][chain, draw] = moved[:, order] if name == "transition_probs" else moved
    posterior = xr.Dataset(
        {name: (("chain", "draw", *spec.dims[name]), value) for name, value in draws.items()}
    )
    paths = draw_paths(spec, posterior, seed=np.random.SeedSequence(0), cores=1)
    for name, value in truth.items():
        np.testing.assert_array_equal(
            paths.posterior[name].values, np.broadcast_to(value, draws[name].shape)
        )
    assert (paths.ambiguity < 0.1).all()


def test_ragged_runs_and_missing_features(simulated):
    features = simulated["features"].copy(deep=True)
    features[1, 100:] = np.nan
    features[2, ::7, 1] = np.nan
    features[3, 10] = np.nan
    fit = bp.fit(features, 3, emission="gaussian", random_seed=1, **QUICK)
    state = fit["paths"]["state"]
    missing = features.isnull().all("feature")
    assert ((state == -1) == missing).all()
    right = (state == simulated["path"]).where(~missing)
    assert float(right.mean()) > 0.99


def test_a_feature_that_is_constant_within_runs_does_no_harm(simulated):
    features = simulated["features"].copy(deep=True)
    features[..., 0] = np.arange(4)[:, None]
    features[..., 1] = 3.0
    fit = bp.fit(features, 3, emission="gaussian", random_seed=1, **QUICK)
    assert all(bool(np.isfinite(v).all()) for v in fit["posterior"].data_vars.values())


def test_one_state_is_an_independent_normal_sample(simulated):
    features = simulated["features"]
    fit = bp.fit(features, 1, emission="gaussian", random_seed=1, **QUICK)
    values = features.values.reshape(-1, features.sizes["feature"])
    expected = xr.DataArray(values.mean(axis=0), dims="feature")
    standard_error = xr.DataArray(values.std(axis=0), dims="feature") / np.sqrt(len(values))
    estimate = fit["posterior"]["mean"].isel(state=0).mean(("chain", "draw")).drop_vars("feature")
    assert float(np.abs((estimate - expected) / standard_error).max()) < 0.3
    assert (fit["paths"]["state"] == 0).all()


@pytest.mark.parametrize("sampler", ["nutpie", "pymc"])
def test_models_that_pymc_compiles_have_the_same_posterior(sampler):
    data = bp.simulate(n_states=2, n_runs=2, n_steps=60, n_features=1, random_seed=3)
    options = {"random_seed": 1, "draws": 500, "tune": 500, "progressbar": False}
    ours = bp.fit(data["features"], 2, emission="gaussian", **options)
    # a prior that only the general route knows, as good as the default here: both are wide
    wide = {"mean": bp.Prior("StudentT", nu=100, mu=0.0, sigma=5.0)}
    theirs = bp.fit(
        data["features"],
        2,
        emission="gaussian",
        sampler=sampler,
        priors=wide,
        chains=2,
        cores=1,
        **options,
    )
    for name in ("mean", "scale", "transition_probs"):
        a, b = (fit["posterior"][name] for fit in (ours, theirs))
        spread = a.std(("chain", "draw"))
        difference = a.mean(("chain", "draw")) - b.mean(("chain", "draw"))
        assert float(np.abs(difference / spread).max()) < 0.25
    assert theirs.attrs["sampler"] == sampler


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_states": 0}, "n_states must lie between 1 and 127 .* got 0"),
        ({"n_states": 601}, "n_states must lie between 1 and 127 .* got 601"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"tune": 0}, "tune must be at least 1, got 0"),
        ({"chains": 0}, "chains must be at least 1, got 0"),
        ({"sampler": "gibbs"}, r"sampler must be one of \['nutpie', 'pymc'\], got 'gibbs'"),
        ({"n_restarts": 0}, "n_restarts must be at least 1, got 0"),
        ({"target_accept": 1.0}, "target_accept must lie between 0 and 1, got 1.0"),
        ({"emission": "poisson"}, r"emission must be one of \[.*'gaussian'.*\].*'poisson'"),
        ({"priors": {"sigma": bp.Prior("HalfNormal")}}, r"priors names \['sigma'\]"),
    ],
)
def test_bad_arguments_are_named(simulated, arguments, message):
    arguments = {"n_states": 2, **arguments}
    with pytest.raises(ValueError, match=message):
        bp.fit(simulated["features"], **arguments, progressbar=False)


def test_a_fit_says_what_its_model_was(simulated, tmp_path):
    fit = bp.fit(
        simulated["features"],
        2,
        emission="gaussian",
        transition=Sticky(stickiness=7.0),
        priors={"mean": bp.Prior("Normal", mu=np.array([0.0, 0.1, 0.2, 0.3]), sigma=3.0)},
        random_seed=1,
        draws=5,
        tune=20,
        progressbar=False,
    )
    bp.save_fit(fit, tmp_path / "fit.nc")
    spec = recorded(bp.open_fit(tmp_path / "fit.nc"))
    assert spec.transition == Sticky(stickiness=7.0)
    assert spec.n_states == 2
    assert spec.priors["mean"].parameters == {"mu": [0.0, 0.1, 0.2, 0.3], "sigma": 3.0}
    np.testing.assert_array_equal(spec.rows.values, rows_of(simulated["features"]).values)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"emission": "gausian"}, "'gausian' is none of"), ({"n_states": None}, r"lacks \['n_states")],
)
def test_a_fit_that_does_not_say_it(fitted, changed, message):
    fit = fitted.copy()
    fit.attrs = {name: v for name, v in {**fit.attrs, **changed}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        recorded(fit)


@pytest.mark.parametrize(
    "emission", [bp.StudentT(), bp.RandomWalk(), bp.AutoRegressive(df=None), bp.QuadraticDrift()]
)
def test_other_families_recover_what_was_planted(emission, tmp_path):
    """Two phases drawn from the family itself, on uneven steps: parameters and switch are found."""
    rng = np.random.default_rng(7)
    steps = np.cumsum(np.resize([10, 10, 20], 240))
    grid = xr.DataArray(
        rng.normal(size=(3, 240, 2)),
        dims=("run", "step", "feature"),
        coords={"run": list("abc"), "step": steps, "feature": ["x", "y"]},
    )
    rows = rows_of(grid)
    states = np.tile(np.repeat([0, 1], 120), 3)
    place, scale, rate = ([[-1.0, 2.0], [1.5, -1.0]], [[0.2, 0.3], [0.4, 0.1]], [[0.3] * 2] * 2)
    if emission.name == "quadratic_drift":
        rate = [[-0.3] * 2] * 2
    values = map(np.array, (place, scale, rate, [[0.005] * 2] * 2))
    named = dict(zip(emission.dims, values, strict=False))
    drawn = grid.copy(data=emission.sample(rng, states, named, rows).reshape(grid.shape))
    fit = bp.fit(drawn, 2, emission=emission, random_seed=1, draws=500, progressbar=False)
    assert bp.diagnose(fit).attrs["believable"]
    for name in emission.dims:
        draws = fit["posterior"][name]
        error = draws.mean(("chain", "draw")) - named[name]
        assert (abs(error) < 4 * draws.std(("chain", "draw"))).all()
    entered = bp.boundaries(fit)["first_step"].sel(state=1)
    assert (abs(entered - steps[120]) <= 40).all()
    assert abs(bp.diagnose(fit)["residual_autocorrelation"]) < 0.15
    # what is left over are the innovations
    residual = fit["residuals"]["standardized"].values
    assert np.nanmedian(np.abs(residual)) == pytest.approx(0.7, abs=0.1)
    again = bp.open_fit(bp.save_fit(fit, tmp_path / "fit.nc"))
    assert again.identical(fit)
    by_run = bp.run_log_likelihood(again, drawn)
    np.testing.assert_allclose(by_run, fit["log_likelihood"]["run_log_likelihood"], rtol=1e-9)
