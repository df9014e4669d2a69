"""Priors of a chain's variables, in unconstrained coordinates.

If the path of the states were known, each of these priors would turn into another of its family,
with what the path counts added to its parameters. Two things follow. The gradient of the log
posterior, states summed out, is that of the updated prior at the expected counts (Fisher's
identity; Cappé, Moulines & Rydén 2005, doi:10.1007/0-387-28982-8, section 10.1). And the updated
prior says how wide the posterior is about a mode: all are made of gamma variables, and the
logarithm of one has the trigamma function of its shape as variance.

Coordinates are PyMC's, and densities those of the coordinates, Jacobians included; `compiled_chain`
has them, too, for densities that are compiled as a whole. A family has its parameters in `a`
(..., n) or `pair` (2, share or rate), and

- `shape`: numbers of independent blocks of coordinates, and of coordinates in each;
- `value(x)`: the variable at coordinates (..., coordinate); `coordinates(value)` undoes it;
- `log_density(value)`: nats;
- `slope(value, counts)` (coordinate): gradient of the log posterior;
- `factor(counts)` (block, dim, dim): Cholesky factors of the posterior's covariance.
"""

from typing import Any

import numpy as np
from scipy.special import betaln, expit, gammaln, logit, polygamma


class Dirichlet:
    """Probabilities (..., n) that sum to 1, as centred log-ratios but for the last.

    `counts` (..., n) says how often each happened.
    """

    def __init__(self, a: np.ndarray) -> None:
        self.a = a
        n = a.shape[-1]
        self._free = (*a.shape[:-1], n - 1)
        self.shape = (a.size // n, n - 1)
        # the Jacobian is the product of all probabilities, times their number
        self.constant = np.sum(gammaln(a.sum(axis=-1)) - gammaln(a).sum(axis=-1) + np.log(n))

    def value(self, x: np.ndarray) -> np.ndarray:  # noqa: D102
        ratios = x.reshape(*x.shape[:-1], *self._free)
        ratios = np.concatenate([ratios, -ratios.sum(axis=-1, keepdims=True)], axis=-1)
        weights = np.exp(ratios - ratios.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)

    def coordinates(self, value: np.ndarray) -> np.ndarray:  # noqa: D102
        logs = np.log(value)
        return (logs - logs.mean(axis=-1, keepdims=True))[..., :-1].ravel()

    def log_density(self, value: np.ndarray) -> float:  # noqa: D102
        return float(self.constant + np.sum(self.a * np.log(value)))

    def slope(self, value: np.ndarray, counts: np.ndarray) -> np.ndarray:  # noqa: D102
        pull = self.a + counts
        pull -= pull.sum(axis=-1, keepdims=True) * value
        return (pull[..., :-1] - pull[..., -1:]).ravel()

    def factor(self, counts: np.ndarray) -> np.ndarray:  # noqa: D102
        n = self.a.shape[-1]
        variances = polygamma(1, self.a + counts).reshape(-1, n)
        centring = (np.eye(n) - 1.0 / n)[:-1]
        return np.linalg.cholesky(np.einsum("ik,rk,jk->rij", centring, variances, centring))


class Beta:
    """Shares (share), as logarithms of their odds.

    `counts` (2, share) says how often a share was taken, and how often what it leaves.
    """

    def __init__(self, alpha: np.ndarray, beta: np.ndarray) -> None:
        self.pair = np.stack([alpha, beta])
        self.shape = (alpha.size, 1)
        self.constant = -betaln(alpha, beta).sum()

    def value(self, x: np.ndarray) -> np.ndarray:  # noqa: D102
        return expit(x)

    def coordinates(self, value: np.ndarray) -> np.ndarray:  # noqa: D102
        return logit(value)

    def log_density(self, value: np.ndarray) -> float:  # noqa: D102
        taken, left = self.pair
        return float(self.constant + taken @ np.log(value) + left @ np.log1p(-value))

    def slope(self, value: np.ndarray, counts: Any) -> np.ndarray:  # noqa: D102
        taken, left = self.pair + counts
        return taken - (taken + left) * value

    def factor(self, counts: Any) -> np.ndarray:  # noqa: D102
        variance = polygamma(1, self.pair + counts).sum(axis=0)
        return np.sqrt(variance)[:, None, None]


class Gamma:
    """Rates (rate), as logarithms.

    `counts` (2, rate) says how many events there were at each, and over which time.
    """

    def __init__(self, alpha: np.ndarray, beta: np.ndarray) -> None:
        self.pair = np.stack([alpha, beta])
        self.shape = (alpha.size, 1)
        self.constant = np.sum(alpha * np.log(beta) - gammaln(alpha))

    def value(self, x: np.ndarray) -> np.ndarray:  # noqa: D102
        return np.exp(x)

    def coordinates(self, value: np.ndarray) -> np.ndarray:  # noqa: D102
        return np.log(value)

    def log_density(self, value: np.ndarray) -> float:  # noqa: D102
        alpha, beta = self.pair
        return float(self.constant + alpha @ np.log(value) - beta @ value)

    def slope(self, value: np.ndarray, counts: Any) -> np.ndarray:  # noqa: D102
        events, time = counts
        alpha, beta = self.pair
        return alpha + events - (beta + time) * value

    def factor(self, counts: Any) -> np.ndarray:  # noqa: D102
        events, _ = counts
        return np.sqrt(polygamma(1, self.pair[0] + events))[:, None, None]


FAMILIES: dict[str, Any] = {family.__name__: family for family in (Dirichlet, Beta, Gamma)}
