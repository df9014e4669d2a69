"""Means of features in phases, by what the parameters of each family say they are."""

import numpy as np
import pytest
from synthetic import fit_from_paths

import bayesphase as bp


@pytest.fixture
def fit():
    rng = np.random.default_rng(0)
    path = np.stack([np.repeat([0, 1], [6, 6]), np.repeat([0, 1], [4, 8])])
    features = rng.normal(size=(2, 12, 3))
    features[0, 4, 1] = np.nan
    tree = fit_from_paths(np.stack([path] * 50), features=features, n_states=2)
    noise = rng.normal(size=(2, 1, 50, 2, 3))
    posterior = tree["posterior"].to_dataset()
    dims = posterior["mean"].dims
    posterior["mean"] = (dims, posterior["mean"].values + noise[0])
    posterior["scale"] = (dims, np.exp(noise[1]))
    tree["posterior"] = posterior
    tree.attrs["step_unit"] = 10.0
    return tree


def with_parameters(fit, drop=("mean",), **parameters):
    posterior = fit["posterior"].to_dataset()
    dims = posterior["mean"].dims
    posterior = posterior.drop_vars(list(drop))
    for name, values in parameters.items():
        posterior[name] = (dims, np.broadcast_to(values, (1, 50, 2, 3)).copy())
    fit["posterior"] = posterior.to_dataset() if hasattr(posterior, "to_dataset") else posterior
    return fit


def test_levels_are_quantiles_of_the_draws(fit):
    table = bp.state_means(fit, ci_prob=0.8)
    for name, prefix in (("mean", ""), ("scale", "scale_")):
        draws = fit["posterior"][name].values[0]
        np.testing.assert_allclose(table[name], np.median(draws, axis=0))
        np.testing.assert_allclose(table[f"{prefix}lower"], np.quantile(draws, 0.1, axis=0))
        np.testing.assert_allclose(table[f"{prefix}upper"], np.quantile(draws, 0.9, axis=0))
    assert table.attrs == {"ci_prob": 0.8, "quantity": "level"}
    assert table["mean"].dims == ("state", "feature")
    assert all({"long_name", "units"} <= set(v.attrs) for v in table.data_vars.values())


def test_the_speed_of_a_random_walk_is_its_drift(fit):
    drift = np.random.default_rng(1).normal(size=(1, 50, 2, 3))
    table = bp.state_means(with_parameters(fit, drift=drift))
    np.testing.assert_allclose(table["mean"], np.median(drift[0], axis=0))
    assert table.attrs["quantity"] == "speed"
    assert table["mean"].attrs["units"] == "1 per 10 optimiser steps"
    assert table["scale"].attrs["units"] == "1 per sqrt(10 optimiser steps)"


@pytest.mark.parametrize(("differences", "quantity"), [(0, "level"), (1, "speed")])
def test_what_an_autoregression_goes_back_to(fit, differences, quantity):
    fit.attrs["emission_options"] = {"differences": differences}
    table = bp.state_means(with_parameters(fit, level=2.0))
    assert table.attrs["quantity"] == quantity
    np.testing.assert_allclose(table["mean"], 2.0)


@pytest.mark.parametrize("has_offsets", [False, True])
def test_a_law_of_motion_is_averaged_over_where_it_is_followed(fit, has_offsets):
    rng = np.random.default_rng(2)
    draws = rng.normal(size=(3, 1, 50, 2, 3))
    fit = with_parameters(fit, drift=draws[0], slope=draws[1], curvature=draws[2])
    offset = np.zeros((1, 50, 2, 3))
    if has_offsets:
        offset = rng.normal(size=(1, 50, 2, 3))
        posterior = fit["posterior"].to_dataset().assign_coords(run=["seed0", "seed1"])
        fit["posterior"] = posterior.assign(offset=(("chain", "draw", "run", "feature"), offset))
    table = bp.state_means(fit)
    features = fit["observed_data"]["features"].values
    path = fit["paths"]["most_likely"].values
    for k in range(2):
        for d in range(3):
            speeds = []  # by draw, of all checkpoints in the phase that come after another
            for r in range(2):
                last = None
                for t in range(12):
                    now = features[r, t, d]
                    if np.isfinite(now):
                        if last is not None and path[r, t] == k:
                            y = last - offset[0, :, r, d]
                            drift, slope, curvature = draws[:, 0, :, k, d]
                            speeds.append(drift + slope * y + curvature * y**2)
                        last = now
            expected = np.quantile(np.mean(speeds, axis=0), [0.5, 0.05, 0.95])
            found = [float(table[name][k, d]) for name in ("mean", "lower", "upper")]
            np.testing.assert_allclose(found, expected)


def test_a_phase_that_is_never_visited_has_no_speed(fit):
    fit["paths"] = fit["paths"].to_dataset().assign(most_likely=fit["paths"]["most_likely"] * 0)
    table = bp.state_means(with_parameters(fit, drift=1.0, slope=0.0, curvature=0.0))
    np.testing.assert_allclose(table["mean"].sel(state=0), 1.0)
    assert table["mean"].sel(state=1).isnull().all()


def test_bad_input_is_named(fit):
    with pytest.raises(ValueError, match="ci_prob must be"):
        bp.state_means(fit, ci_prob=2)
    with pytest.raises(TypeError, match="expected the DataTree"):
        bp.state_means(fit["posterior"].to_dataset())
    with pytest.raises(ValueError, match="has neither 'mean', 'level' nor 'drift'"):
        bp.state_means(with_parameters(fit))
