"""The map of training: which phase leads to which, in how many runs, when, and by what."""

import numpy as np
import xarray as xr

from bayesphase._checks import check_count
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
from bayesphase.analysis._summary import summed, variable

_EDGE = ("state", "state_next")
# what features have to do with a switch: its long name and its units
_DRIVERS = {
    "gradient": ("pull of the feature on the probability of the next phase", "nats/feature units"),
    "log_odds": ("evidence of the feature for the next phase over the last", "nats/checkpoint"),
    "change": ("change of the feature from the visit before to that after", "feature units"),
}


def training_map(
    fit: xr.DataTree,
    *,
    ci_prob: float = 0.9,
    draws: int | None = 50,
    window: int = 10,
    cores: int | None = None,
) -> xr.Dataset:
    """Edges between states: their probability, the runs that take them, when, and what drives them.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    ci_prob : float, default 0.9
        Probability that each equal-tailed interval holds.
    draws : int, optional
        How many draws of the posterior at most the drivers are computed from, as many of each chain
        and spread evenly; None for all. All else is of all draws.
    window : int, default 10
        Checkpoints from a switch on, as far as the visit lasts, over which `log_odds` is averaged.
    cores : int, optional
        Threads to share the draws out over; all cores by default.

    Returns
    -------
    Dataset
        Dims (state, state_next):

        - ``probability``, ``lower``, ``upper``: transition probability per checkpoint, posterior
          mean and interval, of the model's parameters; in continuous time over the median gap
          between checkpoints, in optimiser steps the attribute ``step_gap``.
        - ``n_runs``, ``n_runs_lower``, ``n_runs_upper``: number of the fitted runs that take the
          edge at least once, posterior mean and interval, of the sampled paths.
        - ``step``, ``step_lower``, ``step_upper``: step of the checkpoint at which a run that takes
          the edge first arrives: median and interval over draws and runs together, so that it holds
          what runs differ by as well as what is not known; NaN where none does.

        Dims (run, state, state_next), what is known of each run by itself:

        - ``run_probability``: that it takes the edge.
        - ``run_step``, ``run_step_lower``, ``run_step_upper``: when it first does, median and
          interval of the draws in which it does; NaN where there are none.

        Dims (state, state_next, feature), medians of the first such switch of every run and draw,
        with ``_lower`` and ``_upper`` of their intervals, see Notes:

        - ``gradient``: by how much log p(state_next | features so far) rises per unit of the
          feature at the first checkpoint after the switch. Its magnitude is the score of the paper.
        - ``log_odds``: what the feature says for the next phase against the last.
        - ``change``: how much higher it is in the visit after the switch than in the one before.

        To stay is no switch: all but the first three are NaN on the diagonal. A switch between two
        checkpoints with missing ones in between counts as taken directly. The attributes hold
        ``ci_prob``, ``n_fitted_runs``, how many runs there are in all, and ``window``. A fit that
        does not say what its model was, made by hand, say, has a map without drivers.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit, `ci_prob` not between 0 and 1, or one of the others no positive integer.

    Notes
    -----
    Hu et al. (2023, arXiv:2308.09543) label edges by the features with the largest
    ``|d log p(s_t = k | z_1..t) / d z_t|``. With b_h the density of state h and p_h the
    probabilities of the states given the features so far, it is
    ``|d log b_k / d z_t - sum_h p_h d log b_h / d z_t|``, for each feature by itself. Here it is
    taken under each posterior draw and keeps its sign. Features of families of changes vary about
    where they were before, and the derivative is by where they are now.

    That gradient tends to 0 where the switch is certain: it says what would have made it more so.
    `log_odds` does not saturate: it is the feature's part of log b_next - log b_last, the rate at
    which evidence for the switch grows. Of one switch the parts add up to the whole. Where features
    are independent given the state, a part is the log density ratio of the feature; for the full
    Gaussian, where it is not, the decomposition of Garthwaite & Koch (2016,
    doi:10.1111/anzs.12144), which shares the squared distances out by the symmetric root of the
    precision, and the determinant by the diagonal of the logarithm of the correlation matrix.
    """
    ci_prob = check_ci_prob(ci_prob)
    labels, state = state_labels(fit), sampled_paths(fit)
    arrivals = _first_switches(state, labels.size)
    taken = ~np.isnan(arrivals)
    counts = taken.sum(axis=1)
    _, fewest, most = checkpoint_quantiles(counts, ci_prob=ci_prob)
    steps = checkpoint_quantiles(arrivals.reshape(-1, labels.size**2), ci_prob=ci_prob)
    by_run = checkpoint_quantiles(arrivals, ci_prob=ci_prob)
    stay = np.eye(labels.size, dtype=bool)

    def edges(values: np.ndarray) -> np.ndarray:
        return np.where(stay, np.nan, values.reshape(*values.shape[:-1], *stay.shape))

    probs = _transition_probs(fit)
    tail = (1 - ci_prob) / 2
    lower, upper = np.quantile(probs, [tail, 1 - tail], axis=0)
    columns = {
        "probability": (probs.mean(axis=0), "transition probability per checkpoint", "1"),
        "lower": (lower, "lower end of the interval of the transition probability", "1"),
        "upper": (upper, "upper end of the interval of the transition probability", "1"),
        "n_runs": (edges(counts.mean(axis=0)), "expected number of runs that switch so", "runs"),
        "n_runs_lower": (edges(fewest), "lower end of the interval of that number", "runs"),
        "n_runs_upper": (edges(most), "upper end of the interval of that number", "runs"),
        "step": (edges(steps[0]), "median step of a run's first such switch", STEP_UNITS),
        "step_lower": (edges(steps[1]), "lower end of the interval of that step", STEP_UNITS),
        "step_upper": (edges(steps[2]), "upper end of the interval of that step", STEP_UNITS),
        "run_probability": (edges(taken.mean(axis=0)), "probability that the run does", "1"),
        "run_step": (edges(by_run[0]), "median step of the run's first such switch", STEP_UNITS),
        "run_step_lower": (edges(by_run[1]), "lower end of the interval of that", STEP_UNITS),
        "run_step_upper": (edges(by_run[2]), "upper end of the interval of that", STEP_UNITS),
    }
    gap = fit["posterior"]["transition_probs"].attrs.get("gap")
    table = xr.Dataset(
        {
            name: variable(("run", *_EDGE)[-values.ndim :], values, long_name, units)
            for name, (values, long_name, units) in columns.items()
        },
        coords={"run": state["run"], "state": labels, "state_next": labels},
        attrs={
            "ci_prob": ci_prob,
            "n_fitted_runs": state.sizes["run"],
            **({} if gap is None else {"step_gap": gap}),
        },
    )
    if "emission" not in fit.attrs:
        return table
    return table.merge(
        _drivers(fit, labels.size, ci_prob=ci_prob, draws=draws, window=window, cores=cores)
    ).assign_attrs(window=window)


def _drivers(
    fit: xr.DataTree,
    n_states: int,
    *,
    ci_prob: float,
    draws: int | None,
    window: int,
    cores: int | None,
) -> xr.Dataset:
    """Sum up the drivers of all edges, dims (state, state_next, feature)."""
    from bayesphase.model.drivers import switch_drivers

    check_count("window", window, least=1)
    if cores is not None:
        check_count("cores", cores, least=1)
    drivers = switch_drivers(fit, draws=draws, window=window, cores=cores)
    feature = fit["observed_data"]["feature"]
    columns = {}
    for name, (long_name, units) in _DRIVERS.items():
        values = getattr(drivers, name)
        of_edges = [
            summed(name, "feature", values[drivers.edge == edge], long_name, units, ci_prob=ci_prob)
            for edge in range(n_states**2)
        ]
        for key, (_, _, attrs) in of_edges[0].items():
            table = np.stack([of_edge[key][1] for of_edge in of_edges])
            shape = (n_states, n_states, feature.size)
            columns[key] = ((*_EDGE, "feature"), table.reshape(shape), attrs)
    return xr.Dataset(columns, coords={"feature": feature.variable})


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
