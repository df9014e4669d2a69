"""One labelling for all draws: the likelihood does not care how states are numbered.

Draws are matched to a pivot path by the checkpoints that they put into the same state (the
equivalence-classes representatives of Papastamoulis & Iliopoulos 2010,
doi:10.1198/jcgs.2010.09008, iterated over pivots; see also Papastamoulis 2016,
doi:10.18637/jss.v069.c01). States are then numbered in the order in which runs first enter them.
"""

import numpy as np
from numba import njit
from scipy.optimize import linear_sum_assignment

_MOST_ROUNDS = 20  # of matching all draws to the mode of the last round; few are needed


@njit(cache=True)
def _overlap(paths, pivot, n_states):  # type: ignore[no-untyped-def]
    """Count (draw, pivot state, state): rows that the pivot and a draw put into these states."""
    counts = np.zeros((paths.shape[0], n_states, n_states), np.int64)
    for n in range(paths.shape[0]):
        for row in range(paths.shape[1]):
            counts[n, pivot[row], paths[n, row]] += 1
    return counts


@njit(cache=True)
def _mode(paths, n_states):  # type: ignore[no-untyped-def]
    """Most frequent state of every row over the draws; the lowest number wins a tie."""
    mode = np.empty(paths.shape[1], np.int8)
    counts = np.empty(n_states, np.int64)
    for row in range(paths.shape[1]):
        counts[:] = 0
        for n in range(paths.shape[0]):
            counts[paths[n, row]] += 1
        mode[row] = counts.argmax()
    return mode


@njit(cache=True)
def _rename(paths, names):  # type: ignore[no-untyped-def]
    """Names (draw, state) of the states of paths (draw, row)."""
    renamed = np.empty_like(paths)
    for n in range(paths.shape[0]):
        for row in range(paths.shape[1]):
            renamed[n, row] = names[n, paths[n, row]]
    return renamed


def permutations(
    paths: np.ndarray,
    n_states: int,
    starts: np.ndarray,
    *,
    free: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the renumbering of every draw's states.

    Parameters
    ----------
    paths : int8 ndarray (draw, row)
        Sampled states, no -1 among them.
    n_states : int
    starts : ndarray (run)
        First row of every run.
    free : bool ndarray (state), optional
        States whose names can be exchanged, all by default; the others keep theirs.

    Returns
    -------
    order : ndarray (draw, state)
        The draw's own number of the state that is to be called by its position.
    ambiguity : ndarray (draw)
        How nearly two names could be swapped, from 0 (no checkpoint would match) to 1 (as many
        match either way, for example where neither state is visited): over all pairs of free
        states, the largest ratio of matching checkpoints after to those before the swap.
    """
    among = np.arange(n_states) if free is None else np.flatnonzero(free)
    if len(among) < 2:
        return np.tile(np.arange(n_states), (len(paths), 1)), np.zeros(len(paths))
    order = np.full((len(paths), n_states), -1)
    pivot = paths[len(paths) // 2]
    for _ in range(_MOST_ROUNDS):
        overlap = _overlap(paths, pivot, n_states)
        previous = order
        order = np.tile(np.arange(n_states), (len(paths), 1))
        for own, counts in zip(order, overlap[:, among][:, :, among], strict=True):
            own[among] = among[linear_sum_assignment(counts, maximize=True)[1]]
        if (order == previous).all():
            break
        pivot = _mode(rename(paths, order), n_states)
    by_entry = np.arange(n_states)
    entered = _order_of_entry(pivot, n_states, starts)
    by_entry[among] = entered[np.isin(entered, among)]
    return order[:, by_entry], _ambiguity(overlap, order, among)


def rename(paths: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Give the states of `paths` (draw, row) the numbers that `order` (draw, state) says."""
    return _rename(paths, np.argsort(order, axis=1).astype(paths.dtype))


def _order_of_entry(path: np.ndarray, n_states: int, starts: np.ndarray) -> np.ndarray:
    """States in the order of their mean first entry over the runs that have them."""
    ends = np.append(starts[1:], len(path))
    entries = np.full((len(starts), n_states), np.nan)
    for r, (start, end) in enumerate(zip(starts, ends, strict=True)):
        present, first = np.unique(path[start:end], return_index=True)
        entries[r, present] = first / (end - start)
    visited = ~np.isnan(entries)
    # a state that the pivot never visits comes last
    means = np.nansum(entries, axis=0) / np.maximum(visited.sum(axis=0), 1)
    return np.argsort(np.where(visited.any(axis=0), means, np.inf), kind="stable")


def _ambiguity(overlap: np.ndarray, order: np.ndarray, among: np.ndarray) -> np.ndarray:
    worst = np.zeros(len(overlap))
    draws = np.arange(len(overlap))
    for at, i in enumerate(among):
        for j in among[at + 1 :]:
            kept = overlap[draws, i, order[:, i]] + overlap[draws, j, order[:, j]]
            swapped = overlap[draws, i, order[:, j]] + overlap[draws, j, order[:, i]]
            ratio = np.where(kept > 0, swapped / np.maximum(kept, 1), 1.0)
            worst = np.maximum(worst, ratio)
    return worst
