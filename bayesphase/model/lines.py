"""From parameters of a family to the lines that features vary about, and gradients back.

Four kinds of lines cover all families; m, r, c and s are location, rate, bend and scale of a state,
g the gap since the last observation, and e standard normal or Student-t:

- level: y = m + s e;
- walk: the change of y over a gap is m g + s sqrt(g) e, a random walk with drift;
- reversion: the change of y over a gap is (exp(-r g) - 1) (y - m), and its scale
  s sqrt((1 - exp(-2 r g)) / (2 r)): an Ornstein-Uhlenbeck process seen at steps any distance apart,
  which is the walk without drift where r is 0;
- curve: the change of y over a gap is (m + r y + c y²) g + s sqrt(g) e, a walk whose drift depends
  on where it is.

Coordinates of m, r and c are tied together in the posterior: `curvature` says how.
"""

from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from bayesphase.model.innovations import Constants, Lines
from bayesphase.model.simd import OPTIONS, kernel

LEVEL, WALK, REVERSION, CURVE = 0, 1, 2, 3


class Plain(NamedTuple):
    """The family of independent normal features about a level; `gaps` (gap) has one entry."""

    gaps: np.ndarray


class Family(NamedTuple):
    """Any family: its `kind` of line, the `gaps` (gap) that there are, and tails as in `Lines`."""

    gaps: np.ndarray
    kind: int
    df: float
    log_norm: float


def parabola_at(location: Any, rate: Any, bend: Any, shift: Any) -> tuple[Any, Any]:
    """First two coefficients of a curve seen at y + shift, location + rate y + bend y² at y."""
    return location + (rate + bend * shift) * shift, rate + 2.0 * bend * shift


def lines_of(family: Any, location: Any, scale: Any, rate: Any, bend: Any) -> Any:
    """Lines of scaled features, `Constants` of a `Plain` family.

    Parameters
    ----------
    family : Plain or Family
    location, scale, rate, bend : ndarray (state, feature)
        `rate` is of no matter but to a reversion and a curve, `bend` but to a curve.
    """
    if isinstance(family, Plain):
        return Constants(location, scale)
    return _lines(family, location, scale, rate, bend)


def flat_lines(family: Plain | Family, shape: tuple[int, int]) -> Any:
    """Lines that are all the same, and normal, for sums that nothing is known for yet."""
    if isinstance(family, Plain):
        return Constants(np.zeros(shape), np.ones(shape))
    zeros = np.zeros((len(family.gaps), *shape))
    return Lines(zeros, zeros, zeros if family.kind == CURVE else zeros[:0], zeros + 1.0, 0.0, 0.0)


@overload(lines_of, jit_options=OPTIONS)
def _lines_of(family: Any, location: Any, scale: Any, rate: Any, bend: Any) -> Any:
    def plain(family: Any, location: Any, scale: Any, rate: Any, bend: Any) -> Any:
        return Constants(location, scale)

    def general(family: Any, location: Any, scale: Any, rate: Any, bend: Any) -> Any:
        return _lines(family, location, scale, rate, bend)

    return plain if family.instance_class is Plain else general


@kernel
def _lines(family: Any, location: Any, scale: Any, rate: Any, bend: Any) -> Any:
    kind, gaps = family.kind, family.gaps
    n_states, n_features = location.shape
    intercept = np.zeros((gaps.shape[0], n_states, n_features))
    slope, spread = np.zeros(intercept.shape), np.empty(intercept.shape)
    bends = np.empty((gaps.shape[0] if kind == CURVE else 0, n_states, n_features))
    for c in range(gaps.shape[0]):
        gap = gaps[c]
        for k in range(n_states):
            for d in range(n_features):
                if kind == LEVEL:
                    intercept[c, k, d], spread[c, k, d] = location[k, d], scale[k, d]
                elif kind == WALK:
                    intercept[c, k, d] = location[k, d] * gap
                    spread[c, k, d] = scale[k, d] * np.sqrt(gap)
                elif kind == CURVE:
                    intercept[c, k, d], slope[c, k, d] = location[k, d] * gap, rate[k, d] * gap
                    bends[c, k, d], spread[c, k, d] = bend[k, d] * gap, scale[k, d] * np.sqrt(gap)
                else:
                    r = rate[k, d]
                    pull = np.expm1(-r * gap)
                    intercept[c, k, d], slope[c, k, d] = -pull * location[k, d], pull
                    spread[c, k, d] = scale[k, d] * np.sqrt(-np.expm1(-2.0 * r * gap) / (2.0 * r))
    return Lines(intercept, slope, bends, spread, family.df, family.log_norm)


def pull_back(family: Any, sums: Any, lines: Any, location: Any, rate: Any) -> Any:
    """Gradients of the log-likelihood (state, feature) in location, log scale, rate and bend.

    That of the rate is in its logarithm, for a reversion.
    """
    if isinstance(family, Plain):
        return _pull_back_constants(sums, lines)
    return _pull_back_lines(family, sums, lines, location, rate)


@overload(pull_back, jit_options=OPTIONS)
def _pull_back(family: Any, sums: Any, lines: Any, location: Any, rate: Any) -> Any:
    def plain(family: Any, sums: Any, lines: Any, location: Any, rate: Any) -> Any:
        return _pull_back_constants(sums, lines)

    def general(family: Any, sums: Any, lines: Any, location: Any, rate: Any) -> Any:
        return _pull_back_lines(family, sums, lines, location, rate)

    return plain if family.instance_class is Plain else general


@kernel
def _pull_back_constants(sums: Any, lines: Any) -> Any:
    mean = lines.mean
    n_states, n_features = mean.shape
    to_location, to_scale = np.empty(mean.shape), np.empty(mean.shape)
    for k in range(n_states):
        for d in range(n_features):
            m, precision = mean[k, d], 1.0 / lines.scale[k, d] ** 2
            n, y = sums.counts[0, k, d], sums.values[0, k, d]
            to_location[k, d] = precision * (y - m * n)
            to_scale[k, d] = precision * (sums.squares[0, k, d] - 2.0 * m * y + m * m * n) - n
    return to_location, to_scale, to_scale, to_scale


@kernel
def _pull_back_lines(family: Any, sums: Any, lines: Any, location: Any, rate: Any) -> Any:
    kind, gaps = family.kind, family.gaps
    n_states, n_features = location.shape
    to_location = np.zeros((n_states, n_features))
    to_scale, to_rate = np.zeros(to_location.shape), np.zeros(to_location.shape)
    to_bend = np.zeros(to_location.shape)
    for c in range(gaps.shape[0]):
        gap = gaps[c]
        for k in range(n_states):
            for d in range(n_features):
                a, b = lines.intercept[c, k, d], lines.slope[c, k, d]
                precision = 1.0 / lines.scale[c, k, d] ** 2
                n, y, yy = sums.weights[c, k, d], sums.values[c, k, d], sums.squares[c, k, d]
                x, xx = sums.previous[c, k, d], sums.previous_squares[c, k, d]
                xy = sums.products[c, k, d]
                by_a = precision * (y - a * n - b * x)
                squares = yy - 2.0 * (a * y + b * xy) + a * a * n + 2.0 * a * b * x + b * b * xx
                if kind == CURVE:
                    q, cubes = lines.bend[c, k, d], sums.previous_cubes[c, k, d]
                    by_a -= precision * q * xx
                    by_b = precision * (xy - a * x - b * xx - q * cubes)
                    own = sums.square_products[c, k, d] - a * xx - b * cubes
                    own -= q * sums.previous_fourths[c, k, d]
                    squares -= q * (own + sums.square_products[c, k, d] - a * xx - b * cubes)
                    to_rate[k, d] += by_b * gap
                    to_bend[k, d] += precision * own * gap
                by_scale = precision * squares - sums.counts[c, k, d]
                to_scale[k, d] += by_scale
                if kind == LEVEL:
                    to_location[k, d] += by_a
                elif kind != REVERSION:
                    to_location[k, d] += by_a * gap
                else:
                    by_b = precision * (xy - a * x - b * xx)
                    r, m = rate[k, d], location[k, d]
                    decay = np.exp(-r * gap)
                    widening = gap * decay**2 / -np.expm1(-2.0 * r * gap) - 0.5 / r
                    to_location[k, d] -= by_a * b
                    to_rate[k, d] += r * (gap * decay * (by_a * m - by_b) + by_scale * widening)
    return to_location, to_scale, to_rate, to_bend


def curvature(
    kind: int,
    sums: Any,
    gaps: np.ndarray,
    location: np.ndarray,
    scale: np.ndarray,
    rate: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """How sharply the likelihood bends where the states are known, by Fisher's information.

    Returns
    -------
    coefficients : ndarray (state, feature, 3, 3)
        Precision of location, rate (its logarithm for a reversion) and bend; 0 where there is none.
    scale : ndarray (state, feature)
        Precision of the log scale.
    """
    gap = gaps[:, None, None]
    n, x, xx = sums.weights, sums.previous, sums.previous_squares
    out = np.zeros((*scale.shape, 3, 3))
    if kind == REVERSION:
        pull = np.expm1(-rate * gap)
        variance = scale**2 * -np.expm1(-2.0 * rate * gap) / (2.0 * rate)
        bend = rate * gap * np.exp(-rate * gap)  # of the pull, in the log rate
        square = np.maximum(xx - 2.0 * location * x + location**2 * n, 0.0)
        out[..., 0, 0] = (pull**2 * n / variance).sum(axis=0)
        out[..., 1, 1] = (bend**2 * square / variance).sum(axis=0)
        tie = (pull * bend * (x - location * n) / variance).sum(axis=0)
        out[..., 0, 1] = out[..., 1, 0] = tie
    elif kind == CURVE:
        out[:] = moments(sums, gaps) / scale[..., None, None] ** 2
    else:
        out[..., 0, 0] = ((gap if kind == WALK else 1.0) * n / scale**2).sum(axis=0)
    return out, 2.0 * sums.counts.sum(axis=0)


def moments(sums: Any, gaps: np.ndarray) -> np.ndarray:
    """Products (state, feature, 3, 3) of 1, y and y² at the previous value, by time passed."""
    n, x, xx, cubes, fourths = (
        (gaps[:, None, None] * array).sum(axis=0)
        for array in (
            sums.weights,
            sums.previous,
            sums.previous_squares,
            sums.previous_cubes,
            sums.previous_fourths,
        )
    )
    powers = np.stack([n, x, xx, cubes, fourths], axis=-1)
    return powers[..., np.add.outer(np.arange(3), np.arange(3))]
