"""The posterior density of models whose features are normal with a full covariance.

As `density` has it for the other families: in PyMC's coordinates, or in ones in which it is about
standard normal. What is large is left to BLAS, so that nothing new is compiled.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.linalg import block_diag
from scipy.special import betaln, expit, gammaln, log_expit, logit

from bayesphase.model.chain_prior import chain_prior
from bayesphase.model.full_gaussian import FullGaussian
from bayesphase.model.local_density import LocalDensity
from bayesphase.model.patterns import Normals, whiten
from bayesphase.model.patterns import slopes as slopes_of
from bayesphase.model.priors import parameter
from bayesphase.model.spec import Spec
from bayesphase.model.vine import factor_of, pairs, pull_back, slopes

Parameters = Mapping[str, np.ndarray]


class FullStretch(NamedTuple):
    """Coordinates u in which PyMC's are `centre` (dim) and L u, with L in blocks.

    Blocks are lower triangles: `chain` (block, dim, dim) for each free variable of the chain,
    `mean` (state, feature, feature), and `spread` (state, shape, shape) with scales and shares.
    """

    centre: np.ndarray
    chain: list[np.ndarray]
    mean: np.ndarray
    spread: np.ndarray


class FullDensity(LocalDensity):
    """The density of one model and data set, and the way between its coordinates and parameters.

    PyMC's coordinates are those of the chain, then means, logarithms of scales, and logarithms of
    the odds of `correlation_shares`.

    Parameters
    ----------
    spec : Spec
        Its emission is a `FullGaussian`, its priors are of the families of the default ones.
    stretch : FullStretch, optional
        PyMC's coordinates by default.
    """

    def __init__(self, spec: Spec, stretch: FullStretch | None = None) -> None:
        if not isinstance(spec.emission, FullGaussian):
            raise TypeError(f"expected a FullGaussian emission, got {spec.emission!r}")
        self._spec = spec
        self._chain = chain_prior(spec.transition, spec.priors, spec.n_states)
        self._observed = spec.emission.observe(spec.rows)
        self._n_features = n = len(spec.rows.location)
        self._n_pairs = n * (n - 1) // 2
        size = spec.n_states, n
        shares = spec.n_states, self._n_pairs
        self._mu, self._sigma = (parameter(spec.priors, "mean", k, size) for k in ("mu", "sigma"))
        self._alpha, self._beta = (
            parameter(spec.priors, "scale", k, size) for k in ("alpha", "beta")
        )
        self._taken, self._left = (
            parameter(spec.priors, "correlation_shares", k, shares) for k in ("alpha", "beta")
        )
        self._constant = -float(self._observed.unit.sum())
        self._constant -= np.sum(np.log(self._sigma) + 0.5 * np.log(2.0 * np.pi))
        self._constant += np.sum(self._alpha * np.log(self._beta) - gammaln(self._alpha))
        self._constant -= np.sum(betaln(self._taken, self._left))
        self._stretch = self._pymc_stretch() if stretch is None else stretch
        self._factor = block_diag(*(block for blocks in self._stretch.chain for block in blocks))
        self.n_dim = len(self._stretch.centre)

    def __call__(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """Log density (nats) and its gradient at `u`, an unconstrained point of `n_dim` numbers."""
        chain, series = self._chain, self._observed.series
        with np.errstate(all="ignore"):  # far out the density is no number, and says so
            chain_x, mean, log_scale, odds = self._pymc(u)
            free = chain.free(chain_x)
            named = self._spec.transition.named(free)
            potentials = self._spec.transition.log_potentials(named, np)
            r = np.tanh(0.5 * odds)
            root = self._root(odds, r)
            normals = Normals(
                (mean - series.location) / series.spread, np.exp(log_scale) / series.spread, root
            )
            if not all(np.isfinite(part).all() for part in normals):
                return -np.inf, np.full(self.n_dim, np.nan)
            parts = self._observed.parts
            white = whiten(parts, normals)
            expected = self._observed.expect(white.table, potentials)
            to_mean, to_scale, to_root = slopes_of(parts, normals, white, np.asarray(expected.sums))
            chain_value, to_chain = chain.value_and_slope(free, named, expected)
            value, priors = self._priors(mean, log_scale, odds)
            value += float(expected.log_likelihood.sum()) + chain_value
            to_mean = to_mean / series.spread + priors[0]
            to_rest = np.hstack([to_scale + priors[1], pull_back(to_root, r, root) + priors[2]])
            to_mean = np.einsum("kij,ki->kj", self._stretch.mean, to_mean)
            to_rest = np.einsum("kij,ki->kj", self._stretch.spread, to_rest)
            return value, self._flat(to_chain @ self._factor, to_mean, to_rest)

    def _root(self, odds: np.ndarray, r: np.ndarray) -> np.ndarray:
        """Cholesky factors of correlations, from the logarithms of odds (..., pair)."""
        log_left = np.log(4.0) + log_expit(odds) + log_expit(-odds)
        return factor_of(r, log_left, self._n_features, np)

    def _priors(
        self, mean: np.ndarray, log_scale: np.ndarray, odds: np.ndarray
    ) -> tuple[float, tuple[np.ndarray, ...]]:
        """Log density (nats) of the prior of the emission, Jacobians included, and its gradient."""
        away = (mean - self._mu) / self._sigma
        ratio = self._beta * np.exp(-log_scale)
        value = self._constant - np.sum(0.5 * away**2)
        value -= np.sum(ratio + self._alpha * log_scale)
        value += np.sum(self._taken * log_expit(odds) + self._left * log_expit(-odds))
        pulls = self._taken - (self._taken + self._left) * expit(odds)
        return float(value), (-away / self._sigma, ratio - self._alpha, pulls)

    def around(self, parameters: Parameters) -> "FullDensity":
        """Return the same density in coordinates in which it is about standard normal at a mode.

        They are PyMC's, shifted and stretched by what the posterior would be if the states were
        known: by counts for the chain, by the Fisher information for normal features.
        """
        spec, series = self._spec, self._observed.series
        with np.errstate(divide="ignore"):  # a probability may have underflowed to 0
            potentials = spec.transition.log_potentials(parameters, np)
        expected = self._observed.expect(
            spec.emission.lines(parameters, self._observed), potentials
        )
        counts = np.asarray(expected.sums)[series.observed.any(axis=1)].sum(axis=0)
        odds = logit(parameters["correlation_shares"])
        root, scale = self._root(odds, np.tanh(0.5 * odds)), parameters["scale"]
        inverse = np.linalg.inv(scale[:, :, None] * root)
        precision = counts[:, None, None] * np.swapaxes(inverse, 1, 2) @ inverse
        precision += self._sigma[:, :, None] ** -2 * np.eye(self._n_features)
        shares = parameters["correlation_shares"]
        known = np.hstack(
            [self._beta / scale, (self._taken + self._left) * shares * (1.0 - shares)]
        )
        information = counts[:, None, None] * _information(np.tanh(0.5 * odds), root)
        information += known[:, :, None] * np.eye(known.shape[1])
        stretch = FullStretch(
            self._centre(parameters),
            self._chain.factors(parameters, expected),
            np.linalg.cholesky(np.linalg.inv(precision)),
            np.linalg.cholesky(np.linalg.inv(information)),
        )
        return type(self)(spec, stretch)

    def _diagonals(self) -> Iterable[np.ndarray]:
        stretch = self._stretch
        blocks = (np.diagonal(part, axis1=1, axis2=2) for part in (stretch.mean, stretch.spread))
        return np.diag(self._factor), *blocks

    def parameters(self, u: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters, by name, of unconstrained points (..., n_dim)."""
        chain_x, mean, log_scale, odds = self._pymc(u)
        emission = {"mean": mean, "scale": np.exp(log_scale), "correlation_shares": expit(odds)}
        return {**self._chain.parameters(chain_x), **emission}

    def unconstrained(self, parameters: Parameters) -> np.ndarray:
        """Undo `parameters` for one point."""
        stretch = self._stretch
        chain_x, mean, rest = self._split(self._centre(parameters) - stretch.centre)
        return self._flat(
            np.linalg.solve(self._factor, chain_x),
            np.linalg.solve(stretch.mean, mean[:, :, None])[:, :, 0],
            np.linalg.solve(stretch.spread, rest[:, :, None])[:, :, 0],
        )

    def _split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coordinates (..., dim) of the chain, (..., state, feature) means, and the rest by state.

        The rest (..., state, shape) are those of scales and shares.
        """
        n_states, n = self._spec.n_states, self._n_features
        ends = self._chain.n_dim + n_states * n * np.arange(3)
        chain_x, *others = np.split(x, ends, axis=-1)
        mean, scale, odds = (
            part.reshape(*x.shape[:-1], n_states, size)
            for part, size in zip(others, (n, n, self._n_pairs), strict=True)
        )
        return chain_x, mean, np.concatenate([scale, odds], axis=-1)

    def _flat(self, chain_x: np.ndarray, mean: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """Undo `_split` for one point."""
        parts = chain_x, mean, *np.split(rest, [self._n_features], axis=-1)
        return np.concatenate([part.ravel() for part in parts])

    def _pymc(self, u: np.ndarray) -> tuple[np.ndarray, ...]:
        """PyMC's coordinates of the chain, means, log scales and log odds, from (..., n_dim)."""
        stretch = self._stretch
        chain_x, mean, rest = self._split(u)
        chain_centre, mean_centre, rest_centre = self._split(stretch.centre)
        mean = (stretch.mean @ mean[..., None])[..., 0] + mean_centre
        rest = (stretch.spread @ rest[..., None])[..., 0] + rest_centre
        chain_x = chain_x @ self._factor.T + chain_centre
        return chain_x, mean, *np.split(rest, [self._n_features], axis=-1)

    def _centre(self, parameters: Parameters) -> np.ndarray:
        """Return the point in PyMC's coordinates."""
        rest = np.hstack([np.log(parameters["scale"]), logit(parameters["correlation_shares"])])
        return self._flat(self._chain.coordinates(parameters), parameters["mean"], rest)

    def _pymc_stretch(self) -> FullStretch:
        """Leave PyMC's coordinates as they are."""
        n_states, n = self._spec.n_states, self._n_features
        blocks = (family.shape for family in self._chain.families.values())
        n_rest = n + self._n_pairs
        return FullStretch(
            np.zeros(self._chain.n_dim + n_states * (n + n_rest)),
            [np.tile(np.eye(n), (count, 1, 1)) for count, n in blocks],
            np.tile(np.eye(n), (n_states, 1, 1)),
            np.tile(np.eye(n_rest), (n_states, 1, 1)),
        )


def _information(r: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Fisher information (state, shape, shape) of one row in log scales and log odds of shares.

    With the change C of the root of the covariance, seen in units of the root itself, it is half
    the inner products of C + C'.
    """
    n_states, n = root.shape[:2]
    j, k = pairs(n)
    own, shrink = slopes(r, root)
    inverse = np.linalg.inv(root)
    by_scale = np.einsum("kai,kib->kiab", inverse, root)
    rows = shrink[:, :, None] * root[:, j] * (np.arange(n) > k[:, None])
    rows[:, np.arange(len(k)), k] += own
    by_share = np.einsum("kpa,kpb->kpab", np.swapaxes(inverse, 1, 2)[:, j], rows)
    both = np.concatenate([by_scale, by_share], axis=1)
    both = (both + np.swapaxes(both, 2, 3)).reshape(n_states, -1, n * n)
    return 0.5 * both @ np.swapaxes(both, 1, 2)
