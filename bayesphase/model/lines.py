"""From parameters of a family to the lines that features vary about, and gradients back.

Three kinds of lines cover all families; m, r and s are location, rate and scale of a state, g the
gap since the last observation, and e standard normal or Student-t:

- level: y = m + s e;
- walk: the change of y over a gap is m g + s sqrt(g) e, a random walk with drift;
- reversion: the change of y over a gap is (exp(-r g) - 1) (y - m), and its scale
  s sqrt((1 - exp(-2 r g)) / (2 r)): an Ornstein-Uhlenbeck process seen at steps any distance apart,
  which is the walk without drift where r is 0.
"""

from typing import Any

import numpy as np

from bayesphase.model.innovations import Lines
from bayesphase.model.simd import inner, kernel

LEVEL, WALK, REVERSION = 0, 1, 2


@kernel
def lines_of(
    kind: int, location: Any, scale: Any, rate: Any, gaps: Any, df: float, log_norm: float
) -> Any:
    """Lines of scaled features.

    Parameters
    ----------
    kind : int
    location, scale, rate : ndarray (state, feature)
        `rate` is of no matter but to a reversion.
    gaps : ndarray (gap)
    df, log_norm : float
        See `Lines`.

    Returns
    -------
    Lines
    """
    n_states, n_features = location.shape
    intercept = np.zeros((gaps.shape[0], n_states, n_features))
    slope, spread = np.zeros(intercept.shape), np.empty(intercept.shape)
    for c in range(gaps.shape[0]):
        gap = gaps[c]
        for k in range(n_states):
            for d in range(n_features):
                if kind == LEVEL:
                    intercept[c, k, d], spread[c, k, d] = location[k, d], scale[k, d]
                elif kind == WALK:
                    intercept[c, k, d] = location[k, d] * gap
                    spread[c, k, d] = scale[k, d] * np.sqrt(gap)
                else:
                    r = rate[k, d]
                    pull = np.expm1(-r * gap)
                    intercept[c, k, d], slope[c, k, d] = -pull * location[k, d], pull
                    spread[c, k, d] = scale[k, d] * np.sqrt(-np.expm1(-2.0 * r * gap) / (2.0 * r))
    return Lines(intercept, slope, spread, df, log_norm)


@inner
def pull_back(
    kind: int, sums: Any, lines: Any, location: Any, rate: Any, gaps: Any
) -> tuple[Any, Any, Any]:
    """Gradients of the log-likelihood in `location`, log scale and log rate (state, feature)."""
    n_states, n_features = location.shape
    to_location = np.zeros((n_states, n_features))
    to_scale, to_rate = np.zeros(to_location.shape), np.zeros(to_location.shape)
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
                by_scale = precision * squares - sums.counts[c, k, d]
                to_scale[k, d] += by_scale
                if kind == LEVEL:
                    to_location[k, d] += by_a
                elif kind == WALK:
                    to_location[k, d] += by_a * gap
                else:
                    by_b = precision * (xy - a * x - b * xx)
                    r, m = rate[k, d], location[k, d]
                    decay = np.exp(-r * gap)
                    widening = gap * decay**2 / -np.expm1(-2.0 * r * gap) - 0.5 / r
                    to_location[k, d] -= by_a * b
                    to_rate[k, d] += r * (gap * decay * (by_a * m - by_b) + by_scale * widening)
    return to_location, to_scale, to_rate
