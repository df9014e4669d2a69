"""Draw runs from the model, for predictions and to test what a fit recovers."""

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bayesphase._checks import check_count
from bayesphase.model.lanes import Layout, end_to_end


def draw_states(
    rng: np.random.Generator, transition: np.ndarray, initial: np.ndarray, layout: Layout
) -> np.ndarray:
    """Draw the states (row) of every run from its Markov chain.

    Parameters
    ----------
    rng : Generator
    transition : ndarray (gap, state, state)
    initial : ndarray (state)
    layout : Layout
    """
    uniforms = rng.random(len(layout.gap_index))
    sums = (p.cumsum(axis=-1) for p in (transition, initial))
    # they end in 1, whatever the rounding, so that nothing of probability 0 is ever drawn
    cumulative, first = (s / s[..., -1:] for s in sums)
    states = np.empty(len(uniforms), np.int8)
    for start, length in zip(layout.starts, layout.lengths, strict=True):
        threshold = first
        for row in range(start, start + length):
            if row > start:
                threshold = cumulative[layout.gap_index[row], states[row - 1]]
            states[row] = np.searchsorted(threshold, uniforms[row], "right")
    return states


def simulate(
    *,
    n_states: int = 3,
    n_runs: int = 4,
    n_steps: int = 200,
    n_features: int = 3,
    mean: np.ndarray | None = None,
    scale: np.ndarray | float = 0.5,
    transition_probs: np.ndarray | None = None,
    initial_probs: np.ndarray | None = None,
    step_size: int = 10,
    random_seed: int | np.random.Generator | None = None,
) -> xr.Dataset:
    """Draw runs from a hidden Markov model with independent normal features.

    Parameters
    ----------
    n_states, n_runs, n_steps, n_features : int
        Sizes; `n_steps` counts checkpoints.
    mean : ndarray (state, feature), optional
        Drawn from Normal(0, 2) by default.
    scale : float or ndarray (state, feature)
        Standard deviation of the features within a state.
    transition_probs : ndarray (state, state_next), optional
        Left to right by default, with stays of a share of the run each and the last state kept.
    initial_probs : ndarray (state), optional
        State 0 by default.
    step_size : int
        Optimiser steps from one checkpoint to the next.
    random_seed : int or Generator, optional

    Returns
    -------
    Dataset
        `features` (run, step, feature), the `path` (run, step) of states that they were drawn from,
        and the parameters `mean`, `scale`, `transition_probs`, `initial_probs`.

    Raises
    ------
    ValueError
        If a size is under 1, a shape does not fit, a scale is not positive, or probabilities do not
        sum to 1.

    Examples
    --------
    >>> import bayesphase as bp
    >>> data = bp.simulate(n_states=2, n_runs=3, n_steps=40, random_seed=0)
    >>> dict(data["features"].sizes)
    {'run': 3, 'step': 40, 'feature': 3}
    """
    sizes = {"n_states": n_states, "n_runs": n_runs, "n_steps": n_steps, "n_features": n_features}
    for name, size in {**sizes, "step_size": step_size}.items():
        check_count(name, size, least=1)
    rng = np.random.default_rng(random_seed)
    if mean is None:
        mean = rng.normal(0.0, 2.0, (n_states, n_features))
    if transition_probs is None:
        leave = min(1.0, n_states / n_steps)
        transition_probs = (1.0 - leave) * np.eye(n_states) + leave * np.eye(n_states, k=1)
        transition_probs[-1, -1] = 1.0
    if initial_probs is None:
        initial_probs = np.eye(n_states)[0]
    mean = _shaped("mean", mean, (n_states, n_features))
    if np.ndim(scale) == 0:
        scale = np.full(mean.shape, scale)
    scale = _shaped("scale", scale, mean.shape)
    if not (scale > 0).all():
        raise ValueError(f"scale must be positive, got {scale.min()}")
    transition_probs = _probabilities("transition_probs", transition_probs, (n_states, n_states))
    initial_probs = _probabilities("initial_probs", initial_probs, (n_states,))
    layout = end_to_end(np.full(n_runs, n_steps))
    states = draw_states(rng, transition_probs[None], initial_probs, layout)
    features = rng.normal(mean[states], scale[states])
    return xr.Dataset(
        {
            "features": (
                ("run", "step", "feature"),
                features.reshape(n_runs, n_steps, n_features),
                {"long_name": "simulated features", "units": "1"},
            ),
            "path": (("run", "step"), states.reshape(n_runs, n_steps)),
            "mean": (("state", "feature"), mean),
            "scale": (("state", "feature"), scale),
            "transition_probs": (("state", "state_next"), transition_probs),
            "initial_probs": ("state", initial_probs),
        },
        coords={
            "run": [f"run-{r}" for r in range(n_runs)],
            "step": np.arange(n_steps) * step_size,
            "feature": [f"feature-{d}" for d in range(n_features)],
            "state": np.arange(n_states),
            "state_next": np.arange(n_states),
        },
    )


def _shaped(name: str, values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return array


def _probabilities(name: str, values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    array = _shaped(name, values, shape)
    low, high, sums = array.min(), array.max(), array.sum(axis=-1)
    if low < 0 or high > 1:
        raise ValueError(f"{name} must be probabilities, got values from {low:g} to {high:g}")
    if not np.allclose(sums, 1.0):
        raise ValueError(f"{name} must be probabilities that sum to 1, got sums {sums}")
    return array
