"""Simulation-based calibration of every emission family and transition structure.

A quick one of two families is always run; the full one is slow and prints its table.
"""

from typing import Any

import numpy as np
import pytest
import sbc
import xarray as xr

import bayesphase as bp

N_QUICK, N_DATA_SETS = 50, 200
# probability of a false alarm, of all quantities of a setting together
LEVEL = 0.01

Prior = bp.Prior
SCALE = Prior("InverseGamma", alpha=20.0, beta=10.0)
LEVELS = {"mean": Prior("Normal", mu=0.0, sigma=2.0), "scale": SCALE}
EMISSIONS: dict[str, tuple[Any, dict[str, Prior]]] = {
    "gaussian": (bp.Gaussian(), LEVELS),
    "student_t": (bp.StudentT(), LEVELS),
    "random_walk": (
        bp.RandomWalk(),
        {"drift": Prior("Normal", mu=0.0, sigma=1.5), "scale": SCALE},
    ),
    "autoregressive": (
        bp.AutoRegressive(),
        {
            "level": Prior("Normal", mu=0.0, sigma=2.0),
            "scale": SCALE,
            "rate": Prior("LogNormal", mu=-1.0, sigma=0.4),
        },
    ),
    "quadratic_drift": (
        bp.QuadraticDrift(),
        {
            "drift": Prior("Normal", mu=0.0, sigma=1.0),
            "scale": SCALE,
            "slope": Prior("Normal", mu=-0.3, sigma=0.1),
            "curvature": Prior("Normal", mu=0.0, sigma=0.02),
        },
    ),
}
CYCLE = ((True, True, False), (False, True, True), (True, False, True))
# number of states, structure, and whether some states are known
TRANSITIONS: dict[str, tuple[int, Any, bool]] = {
    "sticky": (2, bp.Sticky(), False),
    "masked": (3, bp.Sticky(allowed=CYCLE), False),
    "left_to_right": (3, bp.LeftToRight(), False),
    "skip": (3, bp.LeftToRight(skip=True), False),
    "continuous_time": (2, bp.ContinuousTime(dwell_share=0.25), False),
    "known_states": (2, bp.Sticky(), True),
}
SETTINGS = [
    *((family, "sticky") for family in EMISSIONS),
    *(("gaussian", structure) for structure in TRANSITIONS if structure != "sticky"),
    ("quadratic_drift", "left_to_right"),
    ("student_t", "continuous_time"),
]


def known_of(truth: sbc.Truth) -> xr.DataArray:
    """Reveal the state of every tenth checkpoint of the first run."""
    rows = truth.spec.rows
    known = rows.to_grid(truth.states.astype(float), truth.features.shape[:2], np.nan)
    known[1:], known[:, np.arange(known.shape[1]) % 10 > 0] = np.nan, np.nan
    return truth.features.isel(feature=0, drop=True).copy(data=known)


def rank_of(family: str, structure: str, seed: int, **wrong: Prior) -> dict[str, int]:
    """Ranks in one data set, fitted under priors some of which may be wrong."""
    emission, priors = EMISSIONS[family]
    n_states, transition, some_known = TRANSITIONS[structure]
    rng = np.random.default_rng([20250, seed])
    model = {"emission": emission, "transition": transition}
    truth = sbc.simulate(sbc.grid(rng), rng, n_states, priors=priors, **model)
    if some_known:
        truth = truth.with_known(known_of(truth))
    fit = bp.fit(
        truth.features,
        n_states,
        priors={**priors, **wrong},
        known_states=truth.spec.known_states,
        random_seed=seed,
        draws=300,
        chains=2,
        n_restarts=4,
        progressbar=False,
        **model,
    )
    return sbc.ranks(truth, fit, rng)
