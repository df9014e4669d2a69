"""Which state is which: names for the parts of a partition, where names mean something."""

import numpy as np

from bayesphase.model.markov_chain import MarkovChain
from bayesphase.model.rows import Rows

# nats that a transition which can't happen is counted as
_FORBIDDEN = -50.0


def numbered(states: np.ndarray, rows: Rows, transition: MarkovChain, n_states: int) -> np.ndarray:
    """Give numbers to the parts of a partition so that the chain can go through them.

    Where states are exchangeable they are left as they are. Otherwise parts are numbered by their
    mean time, and then pairs of numbers swapped as long as that makes the partition, as a path,
    more probable under the prior. States that are known are put in.

    Parameters
    ----------
    states : ndarray (row)
    rows : Rows
    transition
        The chain, see `transitions`.
    n_states : int

    Returns
    -------
    ndarray (row)
    """
    if transition.exchangeable(n_states).all():
        return states
    rank = _by_time(states, rows, n_states)
    nothing = np.zeros((1, n_states, n_states))
    expected, _ = transition.maximise(nothing, np.zeros(n_states))
    with np.errstate(divide="ignore"):
        potentials = transition.log_potentials(expected, np)
    log_transition, log_initial = (np.maximum(x, _FORBIDDEN) for x in potentials)
    starts = rows.layout.starts
    counts = np.zeros(log_transition.shape)
    follows = np.ones(len(states), bool)
    follows[starts] = False
    after = np.flatnonzero(follows)
    np.add.at(counts, (rows.layout.gap_index[after], states[after - 1], states[after]), 1.0)
    first = np.bincount(states[starts], minlength=n_states)

    def score(names: np.ndarray) -> float:
        moved = log_transition[:, names][:, :, names]
        return float(np.sum(counts * moved) + first @ log_initial[names])

    best = score(rank)
    improved = True
    while improved:
        improved = False
        for i in range(n_states):
            for j in range(i):
                rank[[i, j]] = rank[[j, i]]
                if (swapped := score(rank)) > best + 1e-9:
                    best, improved = swapped, True
                else:
                    rank[[i, j]] = rank[[j, i]]
    states = rank[states]
    known = transition.known
    return states if known is None else np.where(known >= 0, known, states)


def _by_time(states: np.ndarray, rows: Rows, n_states: int) -> np.ndarray:
    """Rank (state) of the parts by the mean time, as a share of its run, of their rows."""
    starts, lengths = rows.layout.starts, rows.layout.lengths
    time = (np.arange(len(states)) - np.repeat(starts, lengths)) / np.repeat(lengths, lengths)
    sizes = np.bincount(states, minlength=n_states)
    means = np.bincount(states, time, minlength=n_states) / np.maximum(sizes, 1)
    order = np.argsort(np.where(sizes > 0, means, np.inf), kind="stable")
    return np.argsort(order)
