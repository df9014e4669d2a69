"""The likelihood of a run whose offset is not known: integrated over the offset's prior.

Given the parameters, a run that is left out, or new, has any offset that the prior of offsets
allows. The integral over it, one number for each feature, is found by importance sampling: from a
Student-t distribution about the offset that fits best, as wide as the offset would be known if the
states were (which is exact, up to the tails, where it is clear what state the run is in). The climb
to that offset starts in one place: for a few draws in a thousand it ends at an offset that fits
less well, and the likelihood is too low.
"""

from typing import Any

import numpy as np
from scipy.special import gammaln, logsumexp

from bayesphase.model import passes
from bayesphase.model.by_run import expect_by_run, shifted
from bayesphase.model.innovations import Data

# tails of the proposal, and pairs of points drawn from it, one on either side of its centre
_DF = 10.0
_PAIRS = 4
# steps towards the best offset, until none is longer than this share of its standard deviation
_STEPS, _SHORT = 50, 0.05


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
        Offsets that may be near the best; 0 by default.
    """
    spread = observed.series.spread
    scale = offset_scale / spread
    n_runs, n_features = len(observed.data.layout.lengths), len(spread)
    centre = np.zeros((n_runs, n_features)) if near is None else near / spread
    for _ in range(_STEPS):
        data = shifted(observed.data, centre, observed.run_of)
        _, slope, precision = expect_by_run(data, lines, observed.run_of, *potentials)
        precision = precision + scale**-2.0
        step = (slope - centre / scale**2) / precision
        centre = centre + step
        if np.max(np.abs(step) * np.sqrt(precision)) < _SHORT:
            break
    away = rng.standard_normal((_PAIRS, n_runs, n_features))
    away /= np.sqrt(rng.chisquare(_DF, (_PAIRS, n_runs, 1)) / _DF)
    log_proposal = _log_student(np.sum(away**2, axis=2), n_features)
    log_proposal = log_proposal + 0.5 * np.sum(np.log(precision), axis=1)
    logs = np.empty((2, _PAIRS, n_runs))
    for side, sign in enumerate((1.0, -1.0)):
        for pair, direction in enumerate(away):
            offset = centre + sign * direction / np.sqrt(precision)
            prior = -0.5 * (offset / scale) ** 2 - np.log(scale) - 0.5 * np.log(2.0 * np.pi)
            data = shifted(observed.data, offset, observed.run_of)
            logs[side, pair] = log_likelihood(data, lines, potentials) + prior.sum(axis=1)
    return logsumexp(logs - log_proposal, axis=(0, 1)) - np.log(2.0 * _PAIRS)


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
