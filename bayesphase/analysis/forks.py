"""Which ways runs go through the states, which states some of them skip, and who falls back."""

from typing import Any

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
    visits_of,
)
from bayesphase.analysis._summary import variable
from bayesphase.analysis.phases import first_entry

# of the posterior, from which on the verdict speaks of something as a fact
_SURE = 0.5


def forks(fit: xr.DataTree, *, least: int = 5, ci_prob: float = 0.9) -> xr.Dataset:
    """Find the trajectories that runs follow, the states that some skip, and runs that fall back.

    A trajectory is the order in which a run first enters states. Two runs part ways if neither's
    order is the beginning of the other's, so that a run which stops early is not on another way.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    least : int, default 5
        A run falls back if it goes from a state to one that it first entered before, and stays
        for so many checkpoints in both; what is shorter is taken for an unsure boundary, and left
        out.
    ci_prob : float, default 0.9
        Probability that the equal-tailed intervals hold.

    Returns
    -------
    Dataset
        - ``forked``: probability that any two runs part ways. If it is small, the map is linear.
        - ``visited`` (run, state): probability that the run enters the state.
        - ``skipped`` (run, state): probability that the run skips the state: others enter it, and
          the run has parted from all of these. One that may yet get there does not skip it.
        - ``optional`` (state): probability that any run skips it.
        - ``sequence`` (run): the most probable order of first entries, such as "0-1-2";
          ``sequence_probability`` (run) is its probability.
        - ``together`` (run, run_other): probability that the two do not part ways.
        - ``trajectory`` (run): number of the group, from 0, of runs that are together with a
          probability of at least a half in the mean (hierarchical clustering, average linkage).
        - ``falls_back`` (run): probability that the run falls back. Of the longest such stay in
          each draw that has one, ``fall_step`` is the median step of its first checkpoint,
          ``fall_lower`` and ``fall_upper`` bound its interval, ``fall_duration`` is the median
          length in steps, and ``fall_from`` and ``fall_to`` are the most frequent pair of states;
          NaN and -1 where there is none.

        The attribute ``verdict`` says it in words, and names the runs.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit, `ci_prob` not between 0 and 1, or `least` no positive integer.
    """
    ci_prob, least = check_ci_prob(ci_prob), check_count("least", least, least=1)
    state, entry = sampled_paths(fit), first_entry(fit)
    entries = entry.values.reshape(-1, *entry.shape[2:])
    visited = ~np.isnan(entries)
    order = np.where(np.sort(visited, axis=2)[..., ::-1], np.argsort(entries, axis=2), -1)
    parted = _parted(order)
    together = 1.0 - parted.mean(axis=0)
    # of the runs that a run has not parted from, itself among them, one enters it: so it may yet
    may_enter = (~parted).astype(np.float32) @ visited.astype(np.float32) > 0.5
    skipped = visited.any(axis=1)[:, None] & ~may_enter
    sequence, probability = zip(*(_modal(order[:, r]) for r in range(order.shape[1])), strict=True)
    columns: dict[str, tuple[str | tuple[str, ...], Any, str, str]] = {
        "forked": ((), parted.any(axis=(1, 2)).mean(), "probability that runs part ways", "1"),
        "visited": (("run", "state"), visited.mean(axis=0), "probability of entering it", "1"),
        "skipped": (("run", "state"), skipped.mean(axis=0), "probability of skipping it", "1"),
        "optional": ("state", skipped.any(axis=1).mean(axis=0), "probability that any does", "1"),
        "sequence": ("run", np.array(sequence), "most probable order of first entries", "1"),
        "sequence_probability": ("run", np.array(probability), "probability of that order", "1"),
        "together": (("run", "run_other"), together, "probability of not parting ways", "1"),
        "trajectory": ("run", _groups(together), "group of runs on the same way", "1"),
        **_falls(state, visited.shape[2], least=least, ci_prob=ci_prob),
    }
    table = xr.Dataset(
        {name: variable(*column) for name, column in columns.items()},
        coords={
            "run": entry["run"].variable,
            "state": entry["state"].variable,
            "run_other": ("run_other", entry["run"].values),
        },
        attrs={"ci_prob": ci_prob, "least": least},
    )
    return table.assign_attrs(verdict=_verdict(table))


def _parted(order: np.ndarray) -> np.ndarray:
    """Whether two runs part ways (sample, run, run) by their orders (sample, run, state)."""
    n_samples, n_runs, _ = order.shape
    parted = np.zeros((n_samples, n_runs, n_runs), bool)
    for r in range(n_runs):
        here, other = order[:, r, None], order
        parted[:, r] = ((here != other) & (here >= 0) & (other >= 0)).any(axis=2)
    return parted


def _modal(order: np.ndarray) -> tuple[str, float]:
    """Write out the most frequent order (state) of a run's samples, and its share of them."""
    different, count = np.unique(order, axis=0, return_counts=True)
    most = different[count.argmax()]
    return "-".join(str(k) for k in most[most >= 0]), count.max() / len(order)


def _groups(together: np.ndarray) -> np.ndarray:
    """Cluster runs by how probably they are together, numbered in the order of the runs."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(together) == 1:
        return np.zeros(1, int)
    apart = squareform(1.0 - together, checks=False)
    labels = fcluster(linkage(apart, "average"), 0.5, "distance")
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[place]


def _falls(
    state: xr.DataArray, n_states: int, *, least: int, ci_prob: float
) -> dict[str, tuple[str, np.ndarray, str, str]]:
    """Find the longest return to an earlier state of every run and sample."""
    n_samples, n_runs = state.sizes["chain"] * state.sizes["draw"], state.sizes["run"]
    begin, duration = np.full((2, n_samples, n_runs), np.nan)
    edge = np.full((n_samples, n_runs), -1)
    for r, (path, _, steps) in enumerate(each_run(state)):
        if not len(steps):
            continue
        sample, visited, at, end = _stays(path, least)
        came = earliest(sample * n_states + visited, at, (n_samples, n_states))[sample, visited]
        back = (sample[1:] == sample[:-1]) & (came[1:] < came[:-1])
        falls = np.flatnonzero(back) + 1
        held = steps[np.minimum(end, len(steps) - 1)] - steps[at]
        # the longest of each sample is written last, the earliest of those that are as long
        falls = falls[np.lexsort((-at[falls], held[falls]))]
        begin[sample[falls], r], duration[sample[falls], r] = steps[at[falls]], held[falls]
        edge[sample[falls], r] = visited[falls - 1] * n_states + visited[falls]
    middle, lower, upper = checkpoint_quantiles(begin, ci_prob=ci_prob)
    length, _, _ = checkpoint_quantiles(duration, ci_prob=ci_prob)
    modal = np.array([_most_frequent(of_run[of_run >= 0]) for of_run in edge.T])
    ends = np.where(modal >= 0, np.divmod(modal, n_states), -1)
    return {
        "falls_back": ("run", (edge >= 0).mean(axis=0), "probability of falling back", "1"),
        "fall_step": ("run", middle, "median step of falling back", STEP_UNITS),
        "fall_lower": ("run", lower, "lower end of the interval of that step", STEP_UNITS),
        "fall_upper": ("run", upper, "upper end of the interval of that step", STEP_UNITS),
        "fall_duration": ("run", length, "median length of the stay", STEP_UNITS),
        "fall_from": ("run", ends[0], "state that the run falls back from", "1"),
        "fall_to": ("run", ends[1], "state that the run falls back to", "1"),
    }


def _stays(path: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cut paths (sample, checkpoint) into stays of at least so many checkpoints.

    What is shorter is left out, and stays in the same state on both sides of it are one. Returns
    sample, state, and the first checkpoint and that after the last, all (stay).
    """
    n_checkpoints = path.shape[1]
    sample, visited, at = visits_of(path, np.arange(n_checkpoints))
    last = np.append(sample[1:] != sample[:-1], True)
    end = np.where(last, n_checkpoints, np.roll(at, -1))
    long = end - at >= least
    sample, visited, at, end = sample[long], visited[long], at[long], end[long]
    begins = np.ones(len(at), bool)
    begins[1:] = (sample[1:] != sample[:-1]) | (visited[1:] != visited[:-1])
    ends = np.append(begins[1:], True)[: len(at)]
    return sample[begins], visited[begins], at[begins], end[ends]


def _most_frequent(edges: np.ndarray) -> int:
    return int(np.bincount(edges).argmax()) if edges.size else -1


def _verdict(table: xr.Dataset) -> str:
    forked = float(table["forked"])
    n_ways = len(np.unique(table["trajectory"].values))
    if table.sizes["run"] == 1:
        said = ["There is one run only."]
    elif forked < _SURE:
        said = [f"Runs go the same way (they part ways with a probability of {forked:.2f})."]
    else:
        said = [f"Runs part ways (probability {forked:.2f}), in {n_ways} groups."]
    skipped = table["state"].values[table["optional"].values >= _SURE]
    for k in skipped:
        runs = table["run"].values[table["skipped"].sel(state=k).values >= _SURE]
        said.append(f"State {k} is skipped by {', '.join(map(str, runs)) or 'no run for sure'}.")
    for run in table["run"].values[table["falls_back"].values >= _SURE]:
        one = table.sel(run=run)
        said.append(
            f"{run} falls back from state {int(one['fall_from'])} to {int(one['fall_to'])} at step "
            f"{float(one['fall_step']):.0f} [{float(one['fall_lower']):.0f}, "
            f"{float(one['fall_upper']):.0f}], for {float(one['fall_duration']):.0f} steps "
            f"(probability {float(one['falls_back']):.2f})."
        )
    return " ".join(said)
