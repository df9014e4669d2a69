"""The likelihood of a run whose offset is not known: integrated over the offset's prior.

Given the parameters, a run that is left out, or new, has any offset that the prior of offsets
allows. The integral over it, one number for each feature, is found by importance sampling: from a
Student-t distribution about the offset that fits best, as wide as the offset would be known if the
states were (which is exact, up to the tails, where it is clear what state the run is in).

Where nothing is known about that offset, a run may look as if it were in another state at another
offset. The search then climbs twice: from 0, and from where it ends if states are at first hard to
tell apart and become clearer by and by, as in annealing (Ueda & Nakano 1998,
doi:10.1016/S0893-6080(97)00133-0). The better of the two ends counts.
"""

from typing import Any

import numpy as np
from scipy.special import gammaln, logsumexp

from bayesphase.model import passes
from bayesphase.model.by_run import expect_by_run, shifted
from bayesphase.model.innovations import Data

# tails of the proposal, and pairs of points drawn from it, one on either side of its centre: for
# the integral, and to choose one of
_DF = 10.0
_PAIRS = 4
_TO_CHOOSE = 16
# steps towards the best offset, until none is longer than this share of its standard deviation
_STEPS, _SHORT = 50, 0.05
# states are blurred by scales that are so many times as wide, one after the other
_BLURS = (8.0, 4.0, 2.0)


def log_integral(
    observed: Any,
    lines: Any,
    potentials: tuple[np.ndarray, np.ndarray],
    offset_scale: np.ndarray,
    rng: np.random.Generator,
    *,
    near: np.ndarray | None = None,
) -> np.ndarray:
    """Log-likelihood (run), nats, of scaled features, the offsets of runs integrated out.

    Parameters
    ----------
    observed : Lined
        Offsets are not taken off.
    lines, potentials
        As `paths.at_parameters` returns them.
    offset_scale : ndarray (feature)
    rng : Generator
        Its numbers decide about a small error only.
    near : ndarray (run, feature), optional
        Offsets that are near the best, if such are known.
    """
    _, logs = _weighted(observed, lines, potentials, offset_scale, rng, near, _PAIRS)
    return logsumexp(logs, axis=0) - np.log(len(logs))


def draw_offsets(
    observed: Any,
    lines: Any,
    potentials: tuple[np.ndarray, np.ndarray],
    offset_scale: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw the offsets (run, feature) of runs given their features and all other parameters.

    Of the points of the integral one is chosen for each run, with probability in proportion to its
    weight (sampling importance resampling, Rubin 1988). Arguments as of `log_integral`.
    """
    points, logs = _weighted(observed, lines, potentials, offset_scale, rng, None, _TO_CHOOSE)
    chosen = np.argmax(logs + rng.gumbel(size=logs.shape), axis=0)
    return points[chosen, np.arange(logs.shape[1])] * observed.series.spread


def _weighted(
    observed: Any,
    lines: Any,
    potentials: tuple[np.ndarray, np.ndarray],
    offset_scale: np.ndarray,
    rng: np.random.Generator,
    near: np.ndarray | None,
    pairs: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Points (point, run, feature) about the best offsets, and log weights (point, run)."""
    spread = observed.series.spread
    scale = offset_scale / spread
    n_runs, n_features = len(observed.data.layout.lengths), len(spread)
    if near is not None:
        centre, precision, _ = _climb(observed, lines, potentials, scale, near / spread)
    else:
        none = blurred = np.zeros((n_runs, n_features))
        for blur in _BLURS:
            wider = lines._replace(scale=lines.scale * blur)
            blurred = _climb(observed, wider, potentials, scale, blurred)[0]
        ends = [_climb(observed, lines, potentials, scale, start) for start in (none, blurred)]
        centre, precision, best = ends[0]
        better = ends[1][2] > best
        centre = np.where(better[:, None], ends[1][0], centre)
        precision = np.where(better[:, None], ends[1][1], precision)
    away = rng.standard_normal((pairs, n_runs, n_features))
    away /= np.sqrt(rng.chisquare(_DF, (pairs, n_runs, 1)) / _DF)
    log_proposal = _log_student(np.sum(away**2, axis=2), n_features)
    log_proposal = log_proposal + 0.5 * np.sum(np.log(precision), axis=1)
    points = centre + np.concatenate([away, -away]) / np.sqrt(precision)
    logs = np.empty((2 * pairs, n_runs))
    for point, offset in enumerate(points):
        prior = -0.5 * (offset / scale) ** 2 - np.log(scale) - 0.5 * np.log(2.0 * np.pi)
        data = shifted(observed.data, offset, observed.run_of)
        logs[point] = log_likelihood(data, lines, potentials) + prior.sum(axis=1)
    return points, logs - np.tile(log_proposal, (2, 1))


def _climb(
    observed: Any,
    lines: Any,
    potentials: tuple[np.ndarray, np.ndarray],
    scale: np.ndarray,
    centre: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Climb from offsets (run, feature) to better ones, by EM.

    Returns them, their precisions (run, feature) if the states were known, and the log densities
    (run) of features and offset one step before, where that of the offset lacks a constant.
    """
    for _ in range(_STEPS):
        data = shifted(observed.data, centre, observed.run_of)
        expected, slope, precision = expect_by_run(data, lines, observed.run_of, *potentials)
        height = expected.log_likelihood - 0.5 * np.sum((centre / scale) ** 2, axis=1)
        precision = precision + scale**-2.0
        step = (slope - centre / scale**2) / precision
        centre = centre + step
        if np.max(np.abs(step) * np.sqrt(precision)) < _SHORT:
            break
    return centre, precision, height


def log_likelihood(data: Data, lines: Any, potentials: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Log-likelihood (run) of scaled features, nats."""
    n_rows = len(data.layout.gap_index)
    states, out = np.empty(n_rows, np.int8), np.empty(len(data.layout.lengths))
    # of the kernels that return log-likelihoods this does the least beside
    passes.draw_paths(data, lines, *potentials, np.full(n_rows, 0.5), states, out)
    return out


def _log_student(squares: np.ndarray, n: int) -> np.ndarray:
    """Log density of the standard Student-t distribution in `n` dims, by the squared distance."""
    constant = gammaln(0.5 * (_DF + n)) - gammaln(0.5 * _DF) - 0.5 * n * np.log(_DF * np.pi)
    return constant - 0.5 * (_DF + n) * np.log1p(squares / _DF)
