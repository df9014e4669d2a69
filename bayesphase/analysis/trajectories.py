"""The map of training: which phase leads to which, in how many runs, and when."""

import numpy as np
import xarray as xr

from bayesphase.analysis._paths import (
    STEP_UNITS,
    check_ci_prob,
    checkpoint_quantiles,
    each_run,
    earliest,
    sampled_paths,
    state_labels,
    visits_of,
)


def training_map(fit: xr.DataTree, *, ci_prob: float = 0.9) -> xr.Dataset:
    """Edges between states: their probability, the runs that take them, and when.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    ci_prob : float, default 0.9
        Probability that each equal-tailed interval holds.

    Returns
    -------
    Dataset
        Dims (state, state_next).

        - ``probability``, ``lower``, ``upper``: transition probability per checkpoint, posterior
          mean and interval, of the model's parameters; in continuous time over the median gap
          between checkpoints, in optimiser steps the attribute ``step_gap``.
        - ``n_runs``, ``n_runs_lower``, ``n_runs_upper``: number of the fitted runs that take the
          edge at least once, posterior mean and interval, of the sampled paths.
        - ``step``: median, over draws and the runs that take the edge, of the step of the
          checkpoint at which they first arrive; NaN where none does.

        To stay is no switch: all but the first three are NaN on the diagonal. A switch between two
        checkpoints with missing ones in between counts as taken directly. The attributes hold
        ``ci_prob`` and ``n_fitted_runs``, how many runs there are in all.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit, or `ci_prob` not between 0 and 1.
    """
    ci_prob = check_ci_prob(ci_prob)
    labels, state = state_labels(fit), sampled_paths(fit)
    arrivals = _first_switches(state, labels.size)
    taken = (~np.isnan(arrivals)).sum(axis=1)
    _, fewest, most = checkpoint_quantiles(taken, ci_prob=ci_prob)
    step, _, _ = checkpoint_quantiles(arrivals.reshape(-1, labels.size**2), ci_prob=ci_prob)
    stay = np.eye(labels.size, dtype=bool)

    def edges(values: np.ndarray) -> np.ndarray:
        return np.where(stay, np.nan, values.reshape(stay.shape))

    probs = _transition_probs(fit)
    tail = (1 - ci_prob) / 2
    lower, upper = np.quantile(probs, [tail, 1 - tail], axis=0)
    columns = {
        "probability": (probs.mean(axis=0), "transition probability per checkpoint", "1"),
        "lower": (lower, "lower end of the interval of the transition probability", "1"),
        "upper": (upper, "upper end of the interval of the transition probability", "1"),
        "n_runs": (edges(taken.mean(axis=0)), "expected number of runs that switch so", "runs"),
        "n_runs_lower": (edges(fewest), "lower end of the interval of that number", "runs"),
        "n_runs_upper": (edges(most), "upper end of the interval of that number", "runs"),
        "step": (edges(step), "median step of a run's first such switch", STEP_UNITS),
    }
    gap = fit["posterior"]["transition_probs"].attrs.get("gap")
    return xr.Dataset(
        {
            name: (("state", "state_next"), values, {"long_name": long_name, "units": units})
            for name, (values, long_name, units) in columns.items()
        },
        coords={"state": labels, "state_next": labels},
        attrs={
            "ci_prob": ci_prob,
            "n_fitted_runs": state.sizes["run"],
            **({} if gap is None else {"step_gap": gap}),
        },
    )


def _first_switches(state: xr.DataArray, n_states: int) -> np.ndarray:
    """Step at which each sampled path first takes each edge.

    Returns dims (sample, run, edge), edge = state * n_states + state_next; NaN where never.
    """
    n_samples = state.sizes["chain"] * state.sizes["draw"]
    arrivals = np.full((n_samples, state.sizes["run"], n_states**2), np.nan)
    for r, (path, _, steps) in enumerate(each_run(state)):
        sample, visited, begin = visits_of(path, steps)
        follows = sample[1:] == sample[:-1]
        edge = (visited[:-1] * n_states + visited[1:])[follows]
        cell = sample[1:][follows] * n_states**2 + edge
        arrivals[:, r] = earliest(cell, begin[1:][follows], (n_samples, n_states**2))
    return arrivals


def _transition_probs(fit: xr.DataTree) -> np.ndarray:
    """Take the sampled transition matrices, dims (sample, state, state_next)."""
    if "posterior" not in fit.children or "transition_probs" not in fit["posterior"].data_vars:
        raise ValueError(
            "the fit has no variable 'transition_probs' in a group 'posterior'; its groups are "
            f"{sorted(fit.children)}: use the DataTree that bayesphase.fit returns"
        )
    probs = fit["posterior"]["transition_probs"]
    probs = probs.transpose("chain", "draw", "state", "state_next")
    return probs.values.reshape(-1, *probs.shape[2:])
