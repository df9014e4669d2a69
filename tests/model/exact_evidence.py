"""The evidence of small models: every path added up, parameters integrated for each.

Given the path, rows of the transition matrix are Dirichlet-multinomial, and mean and scale of a
state see its checkpoints only, through their number, sum and sum of squares.
"""

from functools import cache
from itertools import product

import numpy as np
from scipy.special import gammaln, logsumexp

_POINTS = 2_001


def log_evidence(values, *, initial, transition, priors, starts=(0,)):
    """Add up all paths of one complete feature of one run, or of several, end to end.

    values: (row). starts: rows where runs begin. initial, transition: concentrations (state) and
    (state, state_next). priors: for each state mu and sigma of the normal mean, alpha and beta of
    the inverse-gamma scale.
    """
    _, logs = by_path(values, initial=initial, transition=transition, priors=priors, starts=starts)
    return float(logsumexp(logs))


def by_path(values, *, initial, transition, priors, starts=(0,)):
    """All paths (path, row), and log p(values, path) of each; arguments as in `log_evidence`."""
    n_states = len(initial)

    @cache
    def of_state(k, steps):
        return _log_marginal(values[list(steps)], *priors[k])

    logs, paths = [], list(product(range(n_states), repeat=len(values)))
    for path in paths:
        path = np.array(path)
        log = _log_polya(np.bincount(path[list(starts)], minlength=n_states), initial)
        if n_states == 1:
            log = 0.0
        counts = np.zeros((n_states, n_states))
        follows = ~np.isin(np.arange(1, len(path)), starts)
        np.add.at(counts, (path[:-1][follows], path[1:][follows]), 1)
        if n_states > 1:
            log += sum(_log_polya(c, a) for c, a in zip(counts, transition, strict=True))
        for k in range(n_states):
            log += of_state(k, tuple(np.flatnonzero(path == k).tolist()))
        logs.append(log)
    return np.array(paths), np.array(logs)


def _log_polya(counts, a):
    """Log probability of a sequence with these counts, its categories' probabilities Dirichlet."""
    log = gammaln(a.sum()) - gammaln(a.sum() + counts.sum())
    return log + np.sum(gammaln(a + counts) - gammaln(a))


def _log_marginal(y, mu, sigma, alpha, beta):
    """Log of the integral of the likelihood of `y` over the priors of mean and scale.

    The mean is integrated in closed form, the scale by the trapezoidal rule in its logarithm.
    """
    log_scale = np.linspace(np.log(beta) - 8.0, np.log(beta) + 16.0, _POINTS)
    scale = np.exp(log_scale)
    log_prior = alpha * np.log(beta) - gammaln(alpha) - alpha * log_scale - beta / scale
    n = len(y)
    if n == 0:
        return 0.0
    # y given the scale is normal with covariance scale² I + sigma² 1 1'
    away = y - mu
    ratio = sigma**2 / (scale**2 + n * sigma**2)
    squares = (np.sum(away**2) - ratio * np.sum(away) ** 2) / scale**2
    log_det = 2.0 * (n - 1) * log_scale + np.log(scale**2 + n * sigma**2)
    log = log_prior - 0.5 * (n * np.log(2.0 * np.pi) + log_det + squares)
    return float(logsumexp(log) + np.log(log_scale[1] - log_scale[0]))
