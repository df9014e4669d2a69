"""Does a smooth drift stay one phase? Slow: each family is fitted to many simulated data sets."""

import numpy as np
import pytest
import xarray as xr

import bayesphase as bp

N_DATA_SETS = 20
N_STEPS, N_FEATURES = 200, 3
FAMILIES = {
    "gaussian": bp.Gaussian(),
    "random_walk": bp.RandomWalk(),
    "autoregressive": bp.AutoRegressive(),
    "quadratic_drift": bp.QuadraticDrift(),
}
# the least share of data sets in which a family has to hold one state for the more probable number;
# where there is none, the rate is printed only
EXPECTED = {
    ("walk", "random_walk"): 0.9,
    ("walk", "autoregressive"): 0.9,
    ("exponential", "autoregressive"): 0.9,
    ("walk", "quadratic_drift"): 0.9,
    ("exponential", "quadratic_drift"): 0.9,
    ("power law", "quadratic_drift"): 0.9,
}


def drift(kind: str, rng: np.random.Generator) -> xr.DataArray:
    """One run without any change of phase, standardized."""
    t = np.arange(N_STEPS)[:, None]
    noise = rng.normal(size=(N_STEPS, N_FEATURES)).cumsum(axis=0)
    if kind == "walk":
        values = 0.05 * t + 0.2 * noise
    elif kind == "exponential":
        values = 3.0 * np.exp(-t / rng.uniform(20, 80, N_FEATURES)) + 0.02 * noise
    else:
        values = 3.0 * (1 + t / 5) ** -rng.uniform(0.3, 1.0, N_FEATURES) + 0.02 * noise
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    return xr.DataArray(
        values[None],
        dims=("run", "step", "feature"),
        coords={
            "run": ["a"],
            "step": 10 * t[:, 0],
            "feature": [f"f{d}" for d in range(N_FEATURES)],
        },
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # evidences of too many states may be rough
@pytest.mark.parametrize("kind", ["walk", "exponential", "power law"])
@pytest.mark.parametrize("family", FAMILIES)
def test_one_phase_is_more_probable_than_two(kind, family, capsys):
    ones = []
    for seed in range(N_DATA_SETS):
        fits = bp.fit_range(
            drift(kind, np.random.default_rng(seed)),
            range(1, 4),
            emission=FAMILIES[family],
            random_seed=seed,
            draws=300,
            chains=2,
            n_restarts=4,
            workers=1,
            progressbar=False,
        )
        ones.append(float(bp.state_counts(fits, random_seed=1)["probability"].sel(n_states=1)))
    share = np.mean(np.array(ones) > 0.5)
    with capsys.disabled():
        print(f"\n{kind}, {family}: one state in {share:.0%} of {N_DATA_SETS}")  # noqa: T201
    assert share >= EXPECTED.get((kind, family), 0.0)
