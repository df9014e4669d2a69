"""How differently runs share out their time between the states."""

from functools import partial

import numpy as np
import xarray as xr

from bayesphase.analysis._paths import check_ci_prob, sampled_paths, state_labels, state_shares
from bayesphase.analysis._summary import summed, variable

GROUNDS = ("discrete", "order")


def dissimilarity(
    fit: xr.DataTree, *, ground: str = "discrete", ci_prob: float = 0.9
) -> xr.Dataset:
    """Compute the expected Wasserstein distance between the state shares of two runs.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    ground : {"discrete", "order"}
        How far states are from each other: all as far, 1, or by the difference of their numbers,
        which are in the order of first entries.
    ci_prob : float, default 0.9
        Probability that the equal-tailed intervals hold.

    Returns
    -------
    Dataset
        Posterior medians, with ``_lower`` and ``_upper`` of their intervals:

        - ``expected``: mean distance of two different runs, drawn at random: the dissimilarity.
        - ``distance`` (run, run_other): distance of two runs.
        - ``run_distance`` (run): mean distance of a run from the others; outliers are far off.
        - ``share`` (run, state): share of its time that a run spends in a state.

        A run with a single checkpoint has no shares: its distances are NaN, and the means are of
        the others. ``rank`` (run) is the place of the run in an order in which similar ones are
        neighbours, for figures. The attributes hold ``ground`` and ``ci_prob``.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit or has a single run, `ground` is neither, or `ci_prob` not between 0 and
        1.

    Notes
    -----
    Hu et al. (2023, arXiv:2308.09543, section 3.4): the expectation of W(p, q), with p and q the
    empirical distributions over states of two runs drawn uniformly at random. W, the Wasserstein
    distance (Kantorovich 1939), depends on how far states are from each other, which the paper does
    not say. In the "discrete" metric, which does not depend on how states are named, W is half the
    sum of ``|p_k - q_k|``, between 0 and 1; in that of the "order" it is the sum of the differences
    between the cumulative distributions. Here p and q are of each draw's sampled paths, weighted by
    time: a checkpoint's state is held until the next one. A run's share depends on how long it was
    recorded: compare runs of about one length, or cut them.
    """
    ci_prob = check_ci_prob(ci_prob)
    if ground not in GROUNDS:
        raise ValueError(f"ground must be one of {list(GROUNDS)}, got {ground!r}")
    labels, state = state_labels(fit), sampled_paths(fit)
    n_runs = state.sizes["run"]
    if n_runs < 2:
        raise ValueError(f"dissimilarity is between runs, but the fit has {n_runs}")
    shares = state_shares(state, labels.size)
    distance = np.stack([_distance(shares, shares[:, [r]], ground) for r in range(n_runs)], axis=2)
    run_distance = _mean_of_known(np.where(np.eye(n_runs, dtype=bool), np.nan, distance))
    sums = partial(summed, units="1", ci_prob=ci_prob)
    between = sums("distance", ("run", "run_other"), distance, "distance of the two runs")
    rank = _similar_beside(between["distance"][1])
    mean = "mean distance of the run from the others"
    return xr.Dataset(
        {
            **sums("expected", (), _mean_of_known(run_distance), "distance of two runs"),
            **between,
            **sums("run_distance", "run", run_distance, mean),
            **sums("share", ("run", "state"), shares, "share of time in the state"),
            "rank": variable("run", rank, "place among similar runs", "1"),
        },
        coords={
            "run": state["run"].variable,
            "run_other": ("run_other", state["run"].values),
            "state": labels,
        },
        attrs={"ground": ground, "ci_prob": ci_prob},
    )


def _distance(p: np.ndarray, q: np.ndarray, ground: str) -> np.ndarray:
    """Wasserstein distance of distributions (..., state)."""
    if ground == "discrete":
        return 0.5 * np.abs(p - q).sum(axis=-1)
    return np.abs((p - q).cumsum(axis=-1)).sum(axis=-1)


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean over the last dim of what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _similar_beside(distance: np.ndarray) -> np.ndarray:
    """Place (run) of runs along a dendrogram, with similar ones next to each other."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if np.isnan(distance).any():  # a run without two checkpoints is as far from all as can be
        distance = np.nan_to_num(distance, nan=float(np.nan_to_num(distance).max()))
        np.fill_diagonal(distance, 0.0)
    leaves = leaves_list(
        linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    )
    return np.argsort(leaves)
