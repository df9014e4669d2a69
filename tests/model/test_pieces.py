"""Pieces of features against what they are defined to be."""

from itertools import pairwise

import numpy as np
import pytest

from bayesphase.model.pieces import BLOCK, cut
from bayesphase.model.simd import LANES, fill, kernel, load, ones, store


def values_of(pieces, n_groups):
    """Every value (group, row in it, feature, gap) that is in a piece, in the order of pieces."""
    found = []
    for group in range(n_groups):
        for block in range(pieces.of_group[group], pieces.of_group[group + 1]):
            start = BLOCK * (block - pieces.of_group[group])
            for piece in range(pieces.of_block[block], pieces.of_block[block + 1]):
                parts = pieces.parts[pieces.begins[piece] : pieces.begins[piece + 1]]
                rows = parts >> LANES
                assert (np.diff(rows) >= LANES).all()
                assert (rows % LANES == 0).all()
                assert start <= rows[0]
                assert rows[-1] < start + BLOCK
                of = pieces.feature[piece], pieces.gap[piece]
                for row, part in zip(rows, parts, strict=True):
                    lanes = [lane for lane in range(LANES) if part >> lane & 1]
                    assert lanes
                    found += [(group, row + lane, *of) for lane in lanes]
    return found


@pytest.mark.parametrize("sizes", [[3], [8, 5], [2 * BLOCK + 11, 1, BLOCK], [BLOCK - 1, 40]])
@pytest.mark.parametrize("n_gaps", [1, 3, 200])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_every_value_is_in_the_piece_of_its_gap(sizes, n_gaps, missing):
    rng = np.random.default_rng(len(sizes) + n_gaps)
    begins = np.cumsum([0, *sizes])
    observed = rng.random((3, begins[-1])) >= missing
    gap_class = rng.integers(n_gaps, size=observed.shape)
    pieces = cut(begins, observed, gap_class)
    assert pieces.of_block[-1] == len(pieces.feature) == len(pieces.begins) - 1
    assert pieces.begins[-1] == len(pieces.parts)
    expected = []
    for group, (begin, end) in enumerate(pairwise(begins)):
        seen = [(d, begin + row) for d in range(3) for row in range(end - begin)]
        expected += [
            (group, row - begin, d, gap_class[d, row]) for d, row in seen if observed[d, row]
        ]
    found = values_of(pieces, len(sizes))
    assert sorted(found) == sorted(expected)
    order = [(group, row // BLOCK, d, gap, row) for group, row, d, gap in found]
    assert order == sorted(order)


def test_data_of_one_gap_have_one_piece_for_each_feature_of_a_block():
    pieces = cut(np.array([0, BLOCK + 1]), np.ones((2, BLOCK + 1), bool), np.zeros((2, BLOCK + 1)))
    np.testing.assert_array_equal(pieces.feature, [0, 1, 0, 1])
    np.testing.assert_array_equal(np.diff(pieces.begins), [BLOCK // LANES] * 2 + [1, 1])


def test_nothing_observed_makes_no_piece():
    pieces = cut(np.array([0, 20]), np.zeros((2, 20), bool), np.zeros((2, 20), np.int64))
    assert pieces.parts.size == pieces.feature.size == 0
    np.testing.assert_array_equal(pieces.of_block, [0, 0])


@kernel
def _ones(bits, out):
    for i in range(bits.shape[0]):
        store(out, (i, 0), ones(bits[i]) + fill(0.0) * load(out, (i, 0)))


def test_ones_are_the_lowest_bits():
    bits = np.arange(2 ** (LANES + 1))  # a bit above the lanes is of no matter
    out = np.zeros((len(bits), LANES))
    _ones(bits, out)
    np.testing.assert_array_equal(out, bits[:, None] >> np.arange(LANES) & 1)
