"""The cases that everything is measured on: data drawn from a model, and a point to start from."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

N_FEATURES = 14  # as many as the metrics of the paper whose method this is
SIZES = {  # runs, steps, states
    "XS": (2, 60, 2),  # for trying out the benchmarks
    "S": (1, 200, 3),
    "M": (8, 500, 5),
    "L": (40, 1000, 6),
}


class Case(NamedTuple):
    """Features (run, step, feature) and parameters, by name, near those they were drawn from.

    No probability among the `parameters` is 0, so that the density has a gradient there.
    """

    name: str
    features: xr.DataArray
    n_states: int
    parameters: dict[str, np.ndarray]

    @property
    def values(self) -> np.ndarray:
        """Features as an array (run, step, feature); nothing is missing."""
        return self.features.values

    @property
    def spec(self) -> Any:
        """The model as bayesphase says it, with its default priors."""
        return spec_of(self.features, self.n_states)

    def __str__(self) -> str:
        n_runs, n_steps, n_features = self.values.shape
        runs = "run" if n_runs == 1 else "runs"
        return f"{self.name}: {n_runs} {runs} x {n_steps}, {n_features} features, K={self.n_states}"


def spec_of(features: xr.DataArray, n_states: int) -> Any:
    """Say the default model of these data."""
    from bayesphase.model.spec import specify

    return specify(features, n_states, emission="gaussian", transition="sticky", priors=None)


@cache
def case(size: str) -> Case:
    """Give the case of a named size."""
    n_runs, n_steps, n_states = SIZES[size]
    return simulated(size, n_runs=n_runs, n_steps=n_steps, n_states=n_states)


def simulated(
    name: str, *, n_runs: int, n_steps: int, n_states: int, n_features: int = N_FEATURES
) -> Case:
    """Draw left-to-right runs; states are some five standard deviations apart.

    The seed is the first under which every state holds a twentieth of the checkpoints or more: a
    state without data has a posterior as wide as its prior, which measures something else.
    """
    import bayesphase as bp

    for seed in range(100):
        data = bp.simulate(
            n_states=n_states,
            n_runs=n_runs,
            n_steps=n_steps,
            n_features=n_features,
            scale=2.0,
            random_seed=seed,
        )
        counts = np.bincount(data["path"].values.ravel(), minlength=n_states)
        if counts.min() >= data["path"].size / 20:
            break
    else:
        raise ValueError(f"no seed gives every one of {n_states} states a twentieth of {name}")
    rng = np.random.default_rng(0)
    parameters = {
        "initial_probs": 0.98 * data["initial_probs"].values + 0.02 / n_states,
        "transition_probs": 0.98 * data["transition_probs"].values + 0.02 / n_states,
        "mean": data["mean"].values + 0.02 * rng.normal(size=data["mean"].shape),
        "scale": data["scale"].values * np.exp(0.02 * rng.normal(size=data["mean"].shape)),
    }
    return Case(name, data["features"], n_states, parameters)
