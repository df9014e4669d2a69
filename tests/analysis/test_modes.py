"""Weights of modes: what is one mode, what is none, and what is said of it.

Weights themselves are tested against exact ones where fits are made, with `fit_modes`.
"""

import numpy as np
import pytest
import xarray as xr
from synthetic import fit_from_paths

import bayesphase as bp
from bayesphase.analysis import modes

LENGTH = 40


def fit_of(*cuts, seed=0, n_runs=2):
    """A fit with a chain for each of the `cuts`, near which its runs change their state."""
    rng = np.random.default_rng(seed)
    at = np.array(cuts)[:, None, None] + rng.integers(-1, 2, (len(cuts), 300, n_runs))
    paths = (np.arange(LENGTH) >= at[..., None]).astype(int)
    features = np.linspace(0, 1, n_runs * LENGTH).reshape(n_runs, LENGTH, 1)
    fit = fit_from_paths(paths, n_states=2, features=features)
    densities = fit["log_likelihood"]["run_log_likelihood"]
    densities.values[:] = -100.0 + 0.3 * rng.normal(size=densities.shape) - 0.05 * at
    fit.attrs = {"n_states": 2, "emission": "gaussian"}
    return fit


@pytest.fixture
def known(monkeypatch):
    """Give evidences instead of estimating them, in the order in which they are asked for."""

    def give(*logs, believable=True):
        values = iter(logs)

        def canned(fit, **_):
            log = next(values)
            return xr.Dataset({"log_evidence": log, "mcse": 0.1}, attrs={"believable": believable})

        monkeypatch.setattr(modes, "log_evidence", canned)

    return give


def test_weights_are_those_of_the_evidences(known):
    known(-10.0, -12.0)
    table = bp.mode_weights({"mode 0": fit_of(10, 10), "mode 1": fit_of(30, 30, seed=1)})
    share = 1.0 / (1.0 + np.exp(-2.0))
    np.testing.assert_allclose(table["probability"], [share, 1.0 - share])
    np.testing.assert_allclose(table["mcse"], share * (1.0 - share) * 0.1 * np.sqrt(2.0))
    np.testing.assert_allclose(table["stacking_weight"].sum(), 1.0)
    assert table["stacking_weight"][0] > 0.9  # whose runs are more probable by a nat each
    assert table["found_in"].values.tolist() == ["mode 0", "mode 1"]
    assert table.attrs == {
        "verdict": "Of the modes that were fitted, mode 0 holds 0.88, mode 1 holds 0.12 of the "
        "posterior.",
        "believable": True,
    }
    assert all({"long_name", "units"} <= set(v.attrs) for v in table.data_vars.values())


def test_one_mode_found_twice_is_counted_once(known):
    known(-10.0, -12.0)
    renamed = fit_of(10, 10, seed=1)
    renamed["paths"]["state"].values[:] = 1 - renamed["paths"]["state"].values
    table = bp.mode_weights({"a": fit_of(10, 10), "b": renamed, "c": fit_of(30, 30, seed=2)})
    assert table["found_in"].values.tolist() == ["a", "a", "c"]
    assert np.isnan(table["probability"][1])
    np.testing.assert_allclose(table["probability"].sum(), 1.0)
    assert table.attrs["verdict"].endswith("The chains of b went to a.")
    assert table.attrs["believable"] is True


def test_chains_that_left_for_modes_of_others_have_no_weight(known):
    known(-10.0, -12.0)
    fits = {"a": fit_of(10, 30), "b": fit_of(10, 10, seed=1), "c": fit_of(30, 30, seed=2)}
    table = bp.mode_weights(fits)
    assert table["found_in"].values.tolist() == ["b, c", "b", "c"]
    assert table.attrs["verdict"].endswith("The chains of a went to b and c.")
    assert table.attrs["believable"] is True


def test_chains_that_are_in_no_known_mode(known):
    known(-10.0)
    table = bp.mode_weights({"a": fit_of(10, 10), "b": fit_of(10, 20, seed=1)})
    assert table["found_in"].values.tolist() == ["a", ""]
    assert table.attrs["believable"] is False
    assert table.attrs["verdict"].startswith("Do not trust this yet: chains of b move between")
    with pytest.raises(ValueError, match="no fit has chains that agree with each other"):
        bp.mode_weights({"b": fit_of(10, 20)})


def test_a_single_run_can_not_be_left_out(known):
    known(-10.0, -12.0, believable=False)
    fits = {"a": fit_of(10, 10, n_runs=1), "b": fit_of(30, 30, seed=1, n_runs=1)}
    table = bp.mode_weights(fits)
    assert table["stacking_weight"].isnull().all()
    assert table.attrs["believable"] is False
    assert "the evidence of a, b is not sure" in table.attrs["verdict"]


def test_bad_fits_are_named():
    with pytest.raises(TypeError, match="fits must be fits by name"):
        bp.mode_weights(fit_of(10, 10))
    with pytest.raises(TypeError, match="got dict without any"):
        bp.mode_weights({})
    other = fit_of(10, 10)
    other.attrs["n_states"] = 3
    with pytest.raises(ValueError, match=r"'a' and 'b' are not of one model, they differ in \['n"):
        bp.mode_weights({"a": fit_of(10, 10), "b": other})
    other = fit_of(10, 10)
    other["observed_data"]["features"].values[0, 0] = 7.0
    with pytest.raises(ValueError, match=r"they differ in \['features'\]"):
        bp.mode_weights({"a": fit_of(10, 10), "b": other})
