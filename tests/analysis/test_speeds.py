"""Levels and speeds of features in phases: their definitions, and what is not known."""

import numpy as np
import pytest
import xarray as xr
from synthetic import fit_from_paths, synthetic_fit

from bayesphase.analysis.speeds import phase_speeds

STEPS = [0, 10, 20, 50, 60, 80]


def two_runs() -> xr.DataTree:
    """Make two draws of two runs; the second draw enters state 1 of run "a" one checkpoint later.

    Run "b" has no checkpoint at steps 20 and 50, and never enters state 1.
    """
    state = [
        [[0, 0, 1, 1, 1, 1], [0, 0, -1, -1, 0, 0]],
        [[0, 0, 0, 1, 1, 1], [0, 0, -1, -1, 0, 0]],
    ]
    a = [0.0, 1.0, 3.0, 12.0, 14.0, 20.0]
    b = [5.0, 4.0, np.nan, np.nan, 6.0, 7.0]
    features = np.array([[a, [np.nan, 1, np.nan, 1, 2, 2]], [b, [0.0] * 6]]).transpose(0, 2, 1)
    return fit_from_paths(state, steps=STEPS, runs=["a", "b"], n_states=3, features=features)


def test_they_are_as_defined() -> None:
    table = phase_speeds(two_runs(), ci_prob=0.5)
    # state 0, feature 0: in run b from 5 to 4 to 6 to 7 over 80 steps, in run a from 0 to 1 over 10
    # or to 3 over 20; state 1: from 1 to 20 over 70 steps, or from 3 over 60
    slow = np.array([(2 + 1) / 90, (2 + 3) / 100]) * 1000
    fast = np.array([(20 - 1) / 70, (20 - 3) / 60]) * 1000
    assert table["speed"][0, 0] == pytest.approx(slow.mean())
    assert table["speed_lower"][0, 0] == pytest.approx(np.quantile(slow, 0.25))
    assert table["speed_upper"][1, 0] == pytest.approx(np.quantile(fast, 0.75))
    # in each draw, not of the medians
    assert table["speed_change_upper"][0, 1, 0] == pytest.approx(np.quantile(fast - slow, 0.75))
    assert table["speed_change"][1, 0, 0] == pytest.approx((slow - fast).mean())

    low = [(0 + 1 + 5 + 4 + 6 + 7) / 6, (0 + 1 + 3 + 5 + 4 + 6 + 7) / 7]
    assert table["level"][0, 0] == pytest.approx(np.mean(low))
    assert table["level"][1, 0] == pytest.approx(np.mean([(3 + 12 + 14 + 20) / 4, 46 / 3]))
    # of changes with an end that is missing nothing counts: 1 to 2 over 10 and 2 to 2 over 20 do
    assert table["speed"][1, 1] == pytest.approx(1000 / 30)


def test_what_never_happens_is_not_known() -> None:
    table = phase_speeds(two_runs())
    for name in ("level", "speed"):
        assert table[name].sel(state=2).isnull().all()
        changes = table[f"{name}_change"]
        assert changes.sel(state=2).isnull().all()
        assert changes.sel(state_next=2).isnull().all()
        assert np.isnan(np.diagonal(changes.values)).all()
    assert table["speed_change"].sel(state=0, state_next=1).notnull().all()


def test_planted_speeds_are_found() -> None:
    rng = np.random.default_rng(0)
    path = np.repeat([0, 1, 0], [30, 40, 30])
    speed = np.array([[1.0, -2.0], [0.1, 3.0]])[path] / 1000 * 10  # a checkpoint every 10 steps
    features = np.cumsum(speed, axis=0) + rng.normal(0, 1e-4, (100, 2))
    fit = fit_from_paths(path[None, None], features=features[None], n_states=2)
    found = phase_speeds(fit)
    np.testing.assert_allclose(found["speed"], [[1, -2], [0.1, 3]], atol=0.02)
    np.testing.assert_allclose(found["speed_change"][0, 1], [-0.9, 5], atol=0.03)


def test_the_order_of_runs_and_dims_does_not_matter() -> None:
    fit = synthetic_fit(missing=0.2)
    turned = fit.copy()
    turned["observed_data"] = xr.DataTree(
        fit["observed_data"].to_dataset().transpose("feature", "step", "run")
    )
    xr.testing.assert_identical(phase_speeds(turned), phase_speeds(fit))


def test_every_variable_says_what_it_is() -> None:
    fit = synthetic_fit()
    fit["observed_data"]["features"].attrs["units"] = "sd"
    table = phase_speeds(fit, ci_prob=0.8)
    assert table.attrs == {"ci_prob": 0.8}
    assert all(v.attrs["long_name"] and v.attrs["units"] for v in table.data_vars.values())
    assert table["speed_change_lower"].attrs == {
        "long_name": "lower end of the change of the speed at the switch",
        "units": "sd per 1000 optimiser steps",
    }


def test_what_is_no_fit() -> None:
    with pytest.raises(ValueError, match="ci_prob must be a number between 0 and 1"):
        phase_speeds(synthetic_fit(), ci_prob=1)
    bare = synthetic_fit()
    del bare["observed_data"]
    with pytest.raises(ValueError, match="no variable 'features' in a group 'observed_data'"):
        phase_speeds(bare)
    with pytest.raises(TypeError, match="expected the DataTree"):
        phase_speeds(3)
