"""Which rows of a feature vary about the same line, for kernels that go through them together.

The line of a value depends on the gap since the last one. Runs go side by side, so that most
vectors of eight rows have one gap, but where values are missing or runs have grids of their own a
vector may have several. Features are therefore cut into *pieces*: the vectors of a block of rows
with at least one value of a gap, each with the lanes that have it.
"""

from typing import Any, NamedTuple

import numpy as np

from bayesphase.model.simd import LANES, inlined, load, ones, store

# rows of a block: what is read of them, and written, stays in the innermost cache
BLOCK = 256

# places of what `collect` brings together, and of the weights of these rows
VALUE, BEFORE, HERE, WEIGHT = range(4)


class Pieces(NamedTuple):
    """Pieces of all features, in blocks of rows of a group; all int64.

    `of_group` (group + 1) is where the blocks of a group begin, `of_block` (block + 1) where the
    pieces of a block do, `feature` and `gap` (piece) what they are of, `begins` (piece + 1) where
    their parts begin. A part is one vector: `parts` (part) has its row in the group times 256,
    plus one bit for each lane that belongs to the piece.
    """

    of_group: np.ndarray
    of_block: np.ndarray
    feature: np.ndarray
    gap: np.ndarray
    begins: np.ndarray
    parts: np.ndarray


def cut(group_begins: np.ndarray, observed: np.ndarray, gap_class: np.ndarray) -> Pieces:
    """Cut features into pieces.

    Parameters
    ----------
    group_begins : ndarray (group + 1)
        Rows where groups begin.
    observed : ndarray of bool (feature, row)
        Rows are in lane order.
    gap_class : ndarray (feature, row)
        Or empty, if there is one gap only.
    """
    n_features = len(observed)
    sizes = np.diff(group_begins)
    of_group = np.cumsum([0, *(-(-sizes // BLOCK))])
    row = np.arange(group_begins[-1]) - np.repeat(group_begins[:-1], sizes)
    block = np.repeat(of_group[:-1], sizes) + row // BLOCK
    gap = gap_class if gap_class.size else np.zeros(1, np.int64)
    n_gaps = int(gap.max(initial=0)) + 1
    # one number for block, feature, gap and vector, in the order in which parts are wanted
    piece = (block * n_features + np.arange(n_features)[:, None]) * n_gaps + gap
    vectors = BLOCK // LANES
    key = (piece * vectors + row % BLOCK // LANES)[observed]
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[order], prepend=-1))
    at = np.broadcast_to(row, observed.shape)[observed][order]
    lanes = np.add.reduceat(1 << at % LANES, first) if len(first) else first
    parts = (at[first] // LANES * LANES << LANES) + lanes
    piece = key[order][first] // vectors
    begins = np.flatnonzero(np.diff(piece, prepend=-1))
    piece = piece[begins]
    of_block = np.searchsorted(piece // (n_features * n_gaps), np.arange(of_group[-1] + 1))
    feature = piece // n_gaps % n_features
    return Pieces(of_group, of_block, feature, piece % n_gaps, np.append(begins, len(parts)), parts)


@inlined
def collect(data: Any, first: int, piece: int, rows: Any, room: Any) -> int:
    """Bring the vectors of a piece together; returns how many there are.

    Writes into `rows` (part) and `room` (4, row): values, previous values, and 1 where they belong
    to the piece. Where no density depends on a previous value, the value itself stands in for it.
    """
    pieces, values, n_columns = data.pieces, data.values, data.place.shape[0]
    before = data.previous if data.previous.shape[0] > 0 else values
    begin, at = pieces.begins[piece], pieces.feature[piece] * n_columns + first
    n = pieces.begins[piece + 1] - begin
    for i in range(n):
        part = pieces.parts[begin + i]
        rows[i] = part >> LANES
        store(room, (VALUE, i * LANES), load(values, (at + rows[i],)))
        store(room, (BEFORE, i * LANES), load(before, (at + rows[i],)))
        here = ones(part)
        if data.observed.shape[0] > 0:  # some rows may have been left out since
            here = here * load(data.observed, (at + rows[i],))
        store(room, (HERE, i * LANES), here)
    return n
