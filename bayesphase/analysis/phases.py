"""Phases of each run: when they begin, how long they last, how many there are, and how surely.

Every table is a function of the jointly sampled paths in ``fit["paths"]``: an interval of a
boundary can't be had from pointwise probabilities, which forget what goes with what.
"""

from collections import Counter
from itertools import pairwise

import numpy as np
import xarray as xr

from bayesphase.analysis._paths import (
    MISSING,
    STEP_UNITS,
    check_ci_prob,
    checkpoint_quantiles,
    each_run,
    earliest,
    sampled_paths,
    state_labels,
    time_held,
    visits_of,
)


def phase_probabilities(fit: xr.DataTree) -> xr.DataArray:
    """Probability of each state at each checkpoint.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.

    Returns
    -------
    DataArray
        ``phase_probability``, dims (run, step, state): the share of sampled paths that are in the
        state. It sums to 1 over ``state``; NaN where the run has no checkpoint.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit.
    """
    state, labels = sampled_paths(fit), state_labels(fit)
    share = np.full((state.sizes["run"], state.sizes["step"], labels.size), np.nan)
    for r, (path, present, _) in enumerate(each_run(state)):
        for k in labels:
            share[r, present, k] = (path == k).mean(axis=0)
    return xr.DataArray(
        share,
        dims=("run", "step", "state"),
        coords=_coords(state, "run", "step") | {"state": labels},
        name="phase_probability",
        attrs={"long_name": "posterior probability of the phase", "units": "1"},
    )


def first_entry(fit: xr.DataTree) -> xr.DataArray:
    """Step at which each sampled path first enters each state.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.

    Returns
    -------
    DataArray
        ``first_entry``, dims (chain, draw, run, state), in optimiser steps; NaN where the path
        never enters the state.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit.
    """
    state, labels = sampled_paths(fit), state_labels(fit)
    n_chains, n_draws, n_runs, _ = state.shape
    entry = np.full((n_chains * n_draws, n_runs, labels.size), np.nan)
    for r, (path, _, steps) in enumerate(each_run(state)):
        sample, visited, begin = visits_of(path, steps)
        cell = sample * labels.size + visited
        entry[:, r] = earliest(cell, begin, (len(path), labels.size))
    return xr.DataArray(
        entry.reshape(n_chains, n_draws, n_runs, labels.size),
        dims=("chain", "draw", "run", "state"),
        coords=_coords(state, "chain", "draw", "run") | {"state": labels},
        name="first_entry",
        attrs={"long_name": "step of the first entry into the phase", "units": STEP_UNITS},
    )


def boundaries(fit: xr.DataTree, *, ci_prob: float = 0.9) -> xr.Dataset:
    """First step of each phase in each run, with its interval.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    ci_prob : float, default 0.9
        Probability that the equal-tailed interval holds.

    Returns
    -------
    Dataset
        Dims (run, state). ``first_step`` is the median, ``lower`` and ``upper`` bound the interval,
        in optimiser steps and always at checkpoints of the run. They are of the draws in which the
        run visits the state at all, the share of which is ``visited``; NaN where that is 0.
        ``visited`` is NaN for a run without checkpoints.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit, or `ci_prob` not between 0 and 1.
    """
    ci_prob = check_ci_prob(ci_prob)
    entry = first_entry(fit)
    samples = entry.values.reshape(-1, *entry.shape[2:])
    middle, lower, upper = checkpoint_quantiles(samples, ci_prob=ci_prob)
    has_checkpoint = (sampled_paths(fit)[0, 0] != MISSING).any("step").values[:, None]
    visited = np.where(has_checkpoint, (~np.isnan(samples)).mean(axis=0), np.nan)
    return _table(
        {
            "first_step": (middle, "median step of the first entry", STEP_UNITS),
            "lower": (lower, "lower end of the interval of the first entry", STEP_UNITS),
            "upper": (upper, "upper end of the interval of the first entry", STEP_UNITS),
            "visited": (visited, "posterior probability that the run visits the phase", "1"),
        },
        coords=_coords(entry, "run", "state"),
        attrs={"ci_prob": ci_prob, "units": STEP_UNITS},
    )


def switches(fit: xr.DataTree, *, ci_prob: float = 0.9) -> xr.Dataset:
    """Every boundary in the order in which a run crosses them, returns included.

    `boundaries` says when a phase is first entered; a run that comes back to a phase crosses a
    boundary that is in no such table. Here the sampled paths of each run are reduced to the
    sequence of phases that they go through, and the steps of the switches are those of the draws
    that follow the most frequent sequence.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    ci_prob : float, default 0.9
        Probability that the equal-tailed interval holds, given the sequence.

    Returns
    -------
    Dataset
        Dims (run, switch), as many switches as the run with the most has. ``state_from`` and
        ``state_to`` name the phases, -1 past a run's last switch. ``step`` is the median of the
        step of the first checkpoint after the switch, ``lower`` and ``upper`` bound its interval,
        in optimiser steps and always at checkpoints of the run. ``probability`` (run) is the
        posterior probability of the whole sequence; NaN for a run without checkpoints.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit, or `ci_prob` not between 0 and 1.
    """
    ci_prob = check_ci_prob(ci_prob)
    state = sampled_paths(fit)
    found = [_modal_sequence(path, steps) for path, _, steps in each_run(state)]
    n_switches = max(len(sequence) - 1 for sequence, _, _ in found)
    shape = (len(found), max(n_switches, 0))
    states = np.full((2, *shape), MISSING, np.int8)
    quantiles = np.full((3, *shape), np.nan)
    for r, (sequence, begins, _) in enumerate(found):
        n = max(len(sequence) - 1, 0)
        states[0, r, :n], states[1, r, :n] = sequence[:-1], sequence[1:]
        if n:
            quantiles[:, r, :n] = checkpoint_quantiles(begins[:, 1:].astype(float), ci_prob=ci_prob)
    table = _table(
        {
            "state_from": (states[0], "phase before the switch", "1"),
            "state_to": (states[1], "phase after the switch", "1"),
            "step": (quantiles[0], "median step of the switch", STEP_UNITS),
            "lower": (quantiles[1], "lower end of the interval of the switch", STEP_UNITS),
            "upper": (quantiles[2], "upper end of the interval of the switch", STEP_UNITS),
        },
        coords={"run": state["run"], "switch": np.arange(shape[1])},
        attrs={"ci_prob": ci_prob, "units": STEP_UNITS},
        dims=("run", "switch"),
    )
    return table.assign(
        probability=(
            "run",
            np.array([share for _, _, share in found]),
            {"long_name": "posterior probability of the sequence of phases", "units": "1"},
        )
    )


def _modal_sequence(path: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Find the most frequent sequence of phases on the paths (sample, checkpoint) of a run.

    Returns
    -------
    sequence : ndarray (visit)
    begins : ndarray (sample, visit)
        Steps at which the visits begin, of the samples that follow the sequence.
    share : float
        Of the samples.
    """
    if not len(steps):
        return np.empty(0, np.intp), np.empty((0, 0)), np.nan
    sample, visited, begin = visits_of(path, steps)
    ends = np.searchsorted(sample, np.arange(len(path) + 1))
    sequences = [visited[a:b].tobytes() for a, b in pairwise(ends)]
    sequence, count = Counter(sequences).most_common(1)[0]
    begins = [
        begin[a:b] for (a, b), s in zip(pairwise(ends), sequences, strict=True) if s == sequence
    ]
    return np.frombuffer(sequence, visited.dtype), np.stack(begins), count / len(path)


def dwell_times(fit: xr.DataTree, *, ci_prob: float = 0.9) -> xr.Dataset:
    """Add up the steps that each run spends in each phase, with their interval.

    A checkpoint's state is held until the run's next checkpoint; the last one adds nothing, for
    what came after it was not seen.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    ci_prob : float, default 0.9
        Probability that the equal-tailed interval holds.

    Returns
    -------
    Dataset
        Dims (run, state). ``total`` is the median of all steps in the state, ``lower`` and
        ``upper`` bound the interval, over all draws: a draw that never visits the state counts as
        0 steps. ``visits`` is the expected number of separate visits. NaN for a run without
        checkpoints.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit, or `ci_prob` not between 0 and 1.
    """
    ci_prob = check_ci_prob(ci_prob)
    state, labels = sampled_paths(fit), state_labels(fit)
    n_samples = state.sizes["chain"] * state.sizes["draw"]
    total = np.full((n_samples, state.sizes["run"], labels.size), np.nan)
    visits = np.full((state.sizes["run"], labels.size), np.nan)
    for r, (path, _, steps) in enumerate(each_run(state)):
        if steps.size == 0:
            continue
        of_run = visits_of(path, steps)
        total[:, r] = time_held(of_run, steps, (n_samples, labels.size))
        visits[r] = np.bincount(of_run[1], minlength=labels.size) / n_samples
    middle, lower, upper = checkpoint_quantiles(total, ci_prob=ci_prob)
    return _table(
        {
            "total": (middle, "median time spent in the phase", STEP_UNITS),
            "lower": (lower, "lower end of the interval of the time spent", STEP_UNITS),
            "upper": (upper, "upper end of the interval of the time spent", STEP_UNITS),
            "visits": (visits, "expected number of separate visits", "1"),
        },
        coords=_coords(state, "run") | {"state": labels},
        attrs={"ci_prob": ci_prob, "units": STEP_UNITS},
    )


def visited_states(fit: xr.DataTree) -> xr.DataArray:
    """Probability that a run visits a given number of distinct states.

    This is one of three quantities that answer "how many phases?"; the others compare models
    with different numbers of states.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.

    Returns
    -------
    DataArray
        ``visited_states``, dims (run, n_states) with n_states = 1 to K: the probability of
        exactly that many. It sums to 1 over ``n_states``; NaN for a run without checkpoints.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit.
    """
    entry = first_entry(fit)
    counts = np.arange(1, entry.sizes["state"] + 1)
    n_visited = entry.notnull().sum("state").stack(sample=("chain", "draw")).values
    share = (n_visited[..., None] == counts).mean(axis=1)
    share[(n_visited == 0).all(axis=1)] = np.nan
    return xr.DataArray(
        share,
        dims=("run", "n_states"),
        coords=_coords(entry, "run") | {"n_states": counts},
        name="visited_states",
        attrs={"long_name": "posterior probability of the number of phases visited", "units": "1"},
    )


def most_likely_path(fit: xr.DataTree) -> xr.DataArray:
    """Most likely path of states, one joint path for each run.

    It maximises the posterior mean of log p(features, path | parameters): Viterbi's algorithm on
    log-potentials averaged over posterior draws. It is not the state that is most probable at each
    checkpoint by itself, the largest of `phase_probabilities`: the two may differ, and only
    those probabilities tell how sure a state is.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.

    Returns
    -------
    DataArray
        ``most_likely``, int8, dims (run, step); -1 where the run has no checkpoint.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit.
    """
    sampled_paths(fit)
    paths = fit["paths"].to_dataset()
    if "most_likely" not in paths:
        raise ValueError(
            f"the fit has no variable 'most_likely' in its group 'paths', only {list(paths)}"
        )
    path = paths["most_likely"].transpose("run", "step").copy()
    path.attrs = {"long_name": "most likely path of phases", "units": "1"} | path.attrs
    return path


def _coords(array: xr.DataArray, *dims: str) -> dict:
    """Coordinates that need no other dims than these: ``epoch`` stays beside ``step``."""
    return {name: c.variable for name, c in array.coords.items() if set(c.dims) <= set(dims)}


def _table(
    columns: dict[str, tuple[np.ndarray, str, str]],
    *,
    coords: dict,
    attrs: dict,
    dims: tuple[str, str] = ("run", "state"),
) -> xr.Dataset:
    variables = {
        name: (dims, values, {"long_name": long_name, "units": units})
        for name, (values, long_name, units) in columns.items()
    }
    return xr.Dataset(variables, coords=coords, attrs=attrs)
