"""Every structure of transitions from features to tables.

Sampling takes longest and is tested elsewhere: here draws lie around the best mode, unless slow.
"""

import numpy as np
import pytest
import xarray as xr
from test_structures import CYCLE

import bayesphase as bp
from bayesphase.model import fit as fit_module
from bayesphase.model.initial import starting_points
from bayesphase.model.simulate import draw_states
from bayesphase.model.spec import recorded, specify

QUICK = {"draws": 40, "tune": 10, "chains": 2, "n_restarts": 4, "progressbar": False}
STRUCTURES = {
    "mask": bp.Sticky(allowed=CYCLE),
    "left to right": bp.LeftToRight(),
    "with skips": bp.LeftToRight(skip=True),
    "continuous time": bp.ContinuousTime(),
}
every_structure = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
known_or_not = pytest.mark.parametrize("anchored", [False, True], ids=["unknown", "known"])


def around_the_start(model, *, start, draws, chains, random_seed, **_):
    """Stand in for the sampler: independent draws near the mode, of all that the model names."""
    rng = np.random.default_rng(random_seed)
    points = [[start(rng) for _ in range(draws)] for _ in range(chains)]
    posterior = {
        name: (
            ("chain", "draw", *(f"{name}_{axis}" for axis in range(value.ndim))),
            np.array([[point[name] for point in chain] for chain in points]),
        )
        for name, value in points[0][0].items()
    }
    assert {variable.name for variable in model.free_RVs} <= set(posterior)
    along = {"chain": np.arange(chains), "draw": np.arange(draws)}
    stats = {"lp": rng.normal(size=(chains, draws)), "diverging": np.zeros((chains, draws), bool)}
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(posterior, coords=along),
            "sample_stats": xr.Dataset(
                {name: (("chain", "draw"), value) for name, value in stats.items()}, coords=along
            ),
        }
    )


@pytest.fixture(scope="module")
def simulated():
    """Runs that go 0, 1, 2 on an uneven grid; far apart, so that the phases are not in doubt."""
    data = bp.simulate(
        n_states=3,
        n_runs=5,
        n_steps=60,
        n_features=2,
        mean=np.array([[0.0, 0.0], [6.0, 0.0], [6.0, 6.0]]),
        random_seed=3,
    )
    steps = np.cumsum(np.repeat([1, 5, 20], 20))
    data = data.assign_coords(step=steps)
    data["features"][1, 7] = data["features"][2, 50:] = np.nan
    return data


def labels(simulated):
    known = simulated["path"].where(simulated["path"].coords["step"] % 3 == 0, -1)
    return known.where(simulated["features"].notnull().any("feature"), -1)


def quick_fit(simulated, structure, anchored, monkeypatch, **options):
    monkeypatch.setattr(fit_module, "sample", around_the_start)
    # a direct density would be sampled without `sample`
    monkeypatch.setattr(fit_module, "direct_density", lambda spec: None)
    known = labels(simulated) if anchored else None
    return bp.fit(
        simulated["features"],
        3,
        emission="gaussian",
        transition=structure,
        known_states=known,
        random_seed=1,
        **{**QUICK, **options},
    )


@every_structure
@known_or_not
def test_from_features_to_tables_and_back_from_disk(
    simulated, structure, anchored, monkeypatch, tmp_path
):
    fit = quick_fit(simulated, structure, anchored, monkeypatch)
    path = simulated["path"].where(simulated["features"].notnull().any("feature"), -1)
    state = fit["paths"]["state"]
    # the order of the states is the order of entry in all of them
    assert float((state == path).mean()) > 0.98
    assert float((fit["paths"]["most_likely"] == path).mean()) > 0.98
    if anchored:
        known = labels(simulated)
        assert ((state == known) | (known < 0)).all()
        assert ((fit["paths"]["most_likely"] == known) | (known < 0)).all()
        xr.testing.assert_equal(
            fit["observed_data"]["known_states"].drop_vars(["run", "step"]),
            known.drop_vars(["run", "step"]).rename("known_states").astype(np.int64),
        )
    else:
        assert "known_states" not in fit["observed_data"]
    probs = fit["posterior"]["transition_probs"]
    assert probs.dims == ("chain", "draw", "state", "state_next")
    np.testing.assert_allclose(probs.sum("state_next"), 1.0)
    if isinstance(structure, bp.ContinuousTime):
        rates = fit["posterior"]["rates"]
        assert rates.attrs["units"] == "1 / optimiser step"
        assert probs.attrs["gap"] == 5.0
        assert (rates >= 0).all()
    table = bp.boundaries(fit)
    assert table["first_step"].notnull().any()
    assert bp.diagnose(fit)["share_ambiguous"] < 0.05
    edges = bp.training_map(fit)
    assert edges.attrs.get("step_gap") == (
        5.0 if isinstance(structure, bp.ContinuousTime) else None
    )
    densities = bp.checkpoint_log_likelihood(fit)
    assert (np.isnan(densities) == (path < 0)).all()

    bp.save_fit(fit, tmp_path / "fit.nc")
    back = bp.open_fit(tmp_path / "fit.nc")
    assert back.equals(fit)
    assert back.attrs == fit.attrs
    spec = recorded(back)
    assert spec.structure == structure
    assert (spec.known_states is not None) == anchored
    xr.testing.assert_identical(bp.checkpoint_log_likelihood(back), densities)


@pytest.mark.parametrize("skip", [False, True])
def test_ordered_states_are_not_renumbered(skip, monkeypatch):
    """A phase that runs skip keeps its number, where exchangeable states would be numbered anew."""
    data = bp.simulate(n_states=3, n_runs=3, n_steps=40, n_features=2, random_seed=5)
    fit = quick_fit(data, bp.LeftToRight(skip=skip), False, monkeypatch, n_restarts=2)
    for name in ("transition_probs", "initial_probs"):
        raw = fit["posterior"][name].values
        below = np.tril(np.ones((3, 3), bool), -1)
        if name == "transition_probs":
            assert (raw[..., below] == 0).all()
    assert (np.diff(fit["paths"]["state"].values, axis=-1) >= 0).all()
    assert (fit["sample_stats"]["label_ambiguity"] == 0).all()


def test_known_states_keep_the_users_numbers(simulated, monkeypatch):
    """Named against the order of entry: 2 comes first."""
    swapped = simulated.copy()
    swapped["path"] = 2 - simulated["path"]
    fit = quick_fit(swapped, bp.Sticky(), True, monkeypatch)
    present = swapped["features"].notnull().any("feature")
    assert float((fit["paths"]["state"] == swapped["path"]).where(present).mean()) > 0.98
    # one state known, the others numbered by their entry among themselves
    only = labels(swapped).where(labels(swapped) == 0, -1)
    monkeypatch.setattr("test_fit_structures.labels", lambda data: only)
    fit = quick_fit(swapped, bp.Sticky(), True, monkeypatch)
    expected = simulated["path"].copy(data=np.array([1, 2, 0])[simulated["path"]])
    assert float((fit["paths"]["state"] == expected).where(present).mean()) > 0.98


@pytest.mark.parametrize("seed", [4, 6])
def test_phases_that_no_run_reaches_do_not_cut_up_others(seed):
    """Two phases, four states: the highest mode, of all four, holds less than that of two."""
    values = np.random.default_rng(seed).normal(size=(2, 50, 2))
    for run, start in enumerate((20, 30)):
        values[run, start:] += 4.0
    features = xr.DataArray(
        values,
        dims=("run", "step", "feature"),
        coords={"run": ["a", "b"], "step": np.arange(50), "feature": ["x", "y"]},
    )
    fit = bp.fit(
        features,
        4,
        emission="gaussian",
        transition="left_to_right",
        random_seed=1,
        progressbar=False,
    )
    last = fit["paths"]["state"].max(("run", "step"))
    assert float((last == 1).mean()) > 0.9
    assert float((last == 0).mean()) == 0.0


def test_boundaries_are_recovered_by_em_of_change_points(simulated):
    """The best of a few climbs puts every change point where it is."""
    structure = bp.LeftToRight()
    spec = specify(simulated["features"], 3, emission="gaussian", transition=structure, priors=None)
    modes = starting_points(
        spec.rows,
        3,
        emission=spec.emission,
        transition=spec.transition,
        n_restarts=4,
        rng=np.random.default_rng(1),
    )
    np.testing.assert_allclose(modes[0].parameters["mean"], simulated["mean"], atol=0.3)
    # half of the climbs are the best there are, the others look elsewhere
    assert modes[1].log_density == pytest.approx(modes[0].log_density, abs=1)


def test_several_numbers_of_states_can_share_known_states(simulated):
    from bayesphase.model.fit_range import _jobs

    known = labels(simulated)
    jobs = _jobs(simulated["features"], range(3, 5), {"": {}}, {"known_states": known})
    assert set(jobs) == {"3", "4"}
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        _jobs(simulated["features"], [2], {"": {}}, {"known_states": known})


def continuous(rng, truth, n_runs=20):
    """Runs of a chain in continuous time on a grid that grows sparser, and their true path."""
    from test_exponential import generator, matrices
    from test_rows import grid

    from bayesphase.model.rows import rows_of

    steps = np.cumsum(np.repeat([1, 10, 40], [100, 50, 25]))
    values = rng.normal(size=(n_runs, len(steps), 1))
    rows = rows_of(grid(values, step=steps))
    assert (generator(truth).sum(axis=1) < 1e-12).all()
    chain, rows = bp.ContinuousTime().laid_out(rows, len(truth))
    probs = matrices(truth, chain.gaps)
    states = draw_states(rng, probs, np.eye(len(truth))[0], rows.layout)
    return grid(values + 4.0 * states.reshape(n_runs, -1, 1), step=steps)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["nutpie", "pymc"])
@every_structure
@known_or_not
@pytest.mark.filterwarnings("ignore:Numba will use object mode")
def test_sampled_in_full(simulated, structure, anchored, sampler):
    fit = bp.fit(
        simulated["features"],
        3,
        emission="gaussian",
        transition=structure,
        known_states=labels(simulated) if anchored else None,
        sampler=sampler,
        draws=300,
        tune=300,
        chains=2,
        cores=1,
        random_seed=1,
        progressbar=False,
    )
    path = simulated["path"].where(simulated["features"].notnull().any("feature"), -1)
    assert float((fit["paths"]["state"] == path).mean()) > 0.98
    assert float(bp.diagnose(fit)["r_hat"].max()) < 1.05
    deviation = fit["posterior"]["mean"].mean(("chain", "draw")) - simulated["mean"]
    assert float(np.abs(deviation / fit["posterior"]["mean"].std(("chain", "draw"))).max()) < 4


@pytest.mark.slow
def test_rates_are_recovered_with_their_intervals():
    truth = np.array([[0.0, 0.01], [0.005, 0.0]])
    features = continuous(np.random.default_rng(11), truth)
    fit = bp.fit(
        features,
        2,
        emission="gaussian",
        transition="continuous_time",
        draws=500,
        tune=500,
        chains=2,
        random_seed=2,
        progressbar=False,
    )
    rates = np.log(fit["posterior"]["rates"].values[..., ~np.eye(2, dtype=bool)])
    z = (rates.mean((0, 1)) - np.log([0.01, 0.005])) / rates.std((0, 1))
    assert np.abs(z).max() < 3
    assert rates.std((0, 1)).max() < 0.3
