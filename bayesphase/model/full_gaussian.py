"""Normal features that vary together: a covariance matrix for each state."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bayesphase.model.family import Emission, Parameters
from bayesphase.model.lines import LEVEL
from bayesphase.model.maximise import LOCATION_SPREADS
from bayesphase.model.observed import Tabled
from bayesphase.model.passes import Expectation
from bayesphase.model.patterns import Normals, completed, patterns, whiten
from bayesphase.model.priors import Prior
from bayesphase.model.rows import Rows
from bayesphase.model.series import Series, series_of_levels
from bayesphase.model.vine import beta_shape, factor, pairs, shares_of

_STATE_FEATURE = ("state", "feature")

# inverse-gamma prior of the scale, as that of `Gaussian`: its shape, and its scale in spreads
_SHAPE, _UNIT = 2.0, 0.2

# what stands for the priors in the M-step, where those have no closed form: checkpoints that are
# off the state's mean by so many spreads in every feature, and at the location of the data
_LIKE, _OFF = 1.0, 0.1
_AT_LOCATION = 1e-3


@dataclass(frozen=True, kw_only=True)
class FullGaussian(Emission):
    """Normal features with a covariance matrix for each state.

    The rows of a state are Normal(mean[z], S R S) with S the diagonal matrix of `scale` and R the
    `correlation`. A checkpoint that lacks some features has the density of the others.

    `mean` and `scale` (state, feature), standard deviations, have the priors of `Gaussian`, and the
    correlation of each state that of Lewandowski, Kurowicka & Joe (2009,
    doi:10.1016/j.jmva.2009.04.008): its density is proportional to ``|R|^(eta - 1)``. It is made of
    independent `correlation_shares` (state, pair), (1 + r) / 2 of the partial correlation r of a
    pair of features given all that come before both, each with a beta prior. A fit also holds
    `correlation` (state, feature, feature_other). Residuals are of each feature by itself, in
    scales of its state.

    Parameters
    ----------
    eta : float
        Positive: 1 makes all correlation matrices as probable, more makes correlations smaller.
    """

    eta: float = 2.0

    name: ClassVar[str] = "full_gaussian"
    kind: ClassVar[int] = LEVEL
    dims: ClassVar[dict[str, tuple[str, ...]]] = {
        "mean": _STATE_FEATURE,
        "scale": _STATE_FEATURE,
        "correlation_shares": ("state", "pair"),
    }
    derived: ClassVar[dict[str, tuple[str, ...]]] = {
        "correlation": ("state", "feature", "feature_other")
    }

    def __post_init__(self) -> None:  # noqa: D105
        if not (np.isfinite(self.eta) and self.eta > 0):
            raise ValueError(f"eta must be a positive number, got {self.eta!r}")

    def priors(self, rows: Rows) -> dict[str, Prior]:
        """Give the default priors for these data."""
        shape = beta_shape(len(rows.location), self.eta)
        return {
            "mean": Prior("Normal", mu=rows.location, sigma=LOCATION_SPREADS * rows.spread),
            "scale": Prior("InverseGamma", alpha=_SHAPE, beta=_UNIT * rows.spread),
            "correlation_shares": Prior("Beta", alpha=shape, beta=shape),
        }

    def coords(self, feature: np.ndarray) -> dict[str, Any]:
        """Label pairs by their features, and the other feature of a correlation."""
        labels = [f"{feature[j]}, {feature[k]}" for j, k in zip(*pairs(len(feature)), strict=True)]
        return {"pair": labels, "feature_other": feature}

    def derive(self, parameters: Parameters, n_features: int, xp: Any) -> dict[str, Any]:
        """Make the correlation of its shares."""
        root = factor(parameters["correlation_shares"], n_features, xp)
        return {"correlation": root @ xp.swapaxes(root, -1, -2)}

    def observe(self, rows: Rows) -> Tabled:
        """Sort rows by what is missing."""
        series = series_of_levels(rows)
        return Tabled(series, rows.layout, patterns(_scaled(rows.values, rows), rows))

    def lines(self, parameters: Parameters, observed: Tabled) -> np.ndarray:
        """Log density (row, state) of the scaled features."""
        return whiten(observed.parts, scaled(parameters, observed.series)).table

    def maximise(
        self, observed: Tabled, expected: Expectation, current: Parameters | None = None
    ) -> tuple[dict[str, np.ndarray], float]:
        """M-step, with what is missing as expected (Dempster, Laird & Rubin 1977).

        A conjugate prior stands for the default ones: worth one checkpoint, it keeps states that
        hold few checkpoints from collapsing.
        """
        series, weights = observed.series, np.asarray(expected.sums)
        shape = weights.shape[1], len(series.location)
        at = Normals(np.zeros(shape), np.ones(shape), np.tile(np.eye(shape[1]), (shape[0], 1, 1)))
        if current:
            at = scaled(current, series)
        counts, away, covariance = completed(observed.parts, at, weights)
        # the prior of the mean is as good as a few observations at the location of the data
        n = counts + _AT_LOCATION
        away -= _AT_LOCATION * at.mean
        covariance += _AT_LOCATION * at.mean[:, :, None] * at.mean[:, None, :]
        covariance -= away[:, :, None] * away[:, None, :] / n[:, None, None]
        mean = at.mean + away / n[:, None]
        covariance += _LIKE * _OFF**2 * np.eye(shape[1])
        covariance /= (counts + _LIKE)[:, None, None]
        scale = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        root = np.linalg.cholesky(covariance / (scale[:, :, None] * scale[:, None, :]))
        inverse = np.linalg.inv(scale[:, :, None] * root)
        log_det = np.log(scale * np.diagonal(root, axis1=1, axis2=2)).sum()
        far = (inverse @ mean[:, :, None]) ** 2
        log_prior = -_LIKE * (log_det + 0.5 * _OFF**2 * np.sum(inverse**2))
        log_prior -= 0.5 * _AT_LOCATION * far.sum()
        parameters = {
            "mean": series.location + series.spread * mean,
            "scale": series.spread * scale,
            "correlation_shares": shares_of(root),
        }
        return parameters, float(log_prior)

    def jitter(
        self, rng: np.random.Generator, parameters: Parameters, size: float
    ) -> dict[str, np.ndarray]:
        """Move means along the covariance, and the logarithms of scales and odds."""
        scale, shares = parameters["scale"], parameters["correlation_shares"]
        root = factor(shares, scale.shape[-1], np)
        noise = (root @ rng.normal(size=(*scale.shape, 1)))[..., 0]
        odds = shares / (1.0 - shares) * np.exp(2.0 * size * rng.normal(size=shares.shape))
        return {
            "mean": parameters["mean"] + size * scale * noise,
            "scale": scale * np.exp(size * rng.normal(size=scale.shape)),
            "correlation_shares": odds / (1.0 + odds),
        }

    def log_density(self, values: Any, rows: Rows, parameters: Parameters, xp: Any) -> Any:
        """Log p(y | z = k) of every row; a row with holes has the density of what is observed.

        Features that are missing get a variance of 1 and no covariance, and are 0, so that one
        decomposition serves each kind of row.
        """
        spread, n_features = rows.spread, len(rows.spread)
        mean = (parameters["mean"] - rows.location) / spread
        scale = parameters["scale"] / spread
        root = factor(parameters["correlation_shares"], n_features, xp)
        observed = rows.observed.astype(np.float64)
        away = (_scaled(values, rows)[None] - observed * mean[:, None]) / scale[:, None]
        if rows.complete:
            noise = away @ xp.swapaxes(xp.linalg.inv(root), 1, 2)
            log_det = xp.log(xp.diagonal(root, axis1=1, axis2=2)).sum(axis=1)[:, None]
        else:
            kinds, which = np.unique(rows.observed, axis=0, return_inverse=True)
            both = (kinds[:, :, None] & kinds[:, None, :]).astype(np.float64)[None]
            holes = np.eye(n_features) * ~kinds[:, None]
            whole = root @ xp.swapaxes(root, 1, 2)
            roots = xp.linalg.cholesky(whole[:, None] * both + holes)
            inverse = xp.linalg.inv(roots)[:, which.reshape(-1)]
            noise = (inverse * away[:, :, None]).sum(axis=3)
            diagonal = xp.diagonal(roots, axis1=2, axis2=3)
            log_det = xp.log(diagonal).sum(axis=2)[:, which.reshape(-1)]
        constant = observed @ np.log(np.sqrt(2.0 * np.pi) * spread)
        scales = (xp.log(scale)[:, None] * observed).sum(axis=2)
        return (-0.5 * (noise**2).sum(axis=2) - log_det - scales).T - constant[:, None]

    def density_by_feature(self, rows: Rows, parameters: Parameters) -> np.ndarray:
        """Split the log density (row, state, feature) between features, as none is by itself.

        With u the distances from the mean in scales, and R the correlation, the density has the
        terms u' R⁻¹ u and log |R|. Of the first a feature is given its part of the squared length
        of R^(-1/2) u, with the symmetric root (Garthwaite & Koch 2016, doi:10.1111/anzs.12144), and
        of the second, the trace of log R, its place on the diagonal. Without correlation it is the
        density of the feature by itself.
        """

        def split(u: np.ndarray, values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
            root = (vectors / np.sqrt(values)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
            own = (vectors**2 * np.log(values)[:, None, :]).sum(axis=2)
            return -0.5 * ((u @ root) ** 2 + own[:, None])

        constant = np.log(parameters["scale"]) + 0.5 * np.log(2.0 * np.pi)
        return _by_kind(rows, parameters, split) - constant

    def score(self, rows: Rows, parameters: Parameters) -> np.ndarray:
        """Differentiate the log density by the features of its row (row, state, feature)."""

        def pull(u: np.ndarray, values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
            return -u @ ((vectors / values[:, None, :]) @ np.swapaxes(vectors, 1, 2))

        return _by_kind(rows, parameters, pull) / parameters["scale"]

    def innovations(
        self, values: Any, rows: Rows, parameters: tuple[Any, ...], xp: Any
    ) -> tuple[Any, Any, np.ndarray]:
        """Distance from the mean, each feature by itself."""
        mean, scale, _ = parameters
        return values[:, None, :] - mean, scale, rows.observed

    def sample(
        self, rng: np.random.Generator, states: np.ndarray, parameters: Parameters, rows: Rows
    ) -> np.ndarray:
        """Draw features (row, feature) of rows in the given `states` (row), 0 where missing."""
        scale = parameters["scale"]
        root = factor(parameters["correlation_shares"], scale.shape[1], np)
        noise = rng.standard_normal((len(states), scale.shape[1], 1))
        drawn = parameters["mean"][states] + scale[states] * (root[states] @ noise)[:, :, 0]
        return np.where(rows.observed, drawn, 0.0)


def _by_kind(
    rows: Rows,
    parameters: Parameters,
    function: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Compute (row, state, feature) for all rows with the same holes at a time; NaN in the holes.

    `function` takes distances from the mean in scales (state, row, feature), and eigenvalues
    (state, feature) and eigenvectors of the correlation, all of the observed features.
    """
    mean, scale = parameters["mean"], parameters["scale"]
    root = factor(parameters["correlation_shares"], mean.shape[1], np)
    correlation = root @ np.swapaxes(root, 1, 2)
    out = np.full((len(rows.values), *mean.shape), np.nan)
    kinds, which = np.unique(rows.observed, axis=0, return_inverse=True)
    for i, kind in enumerate(kinds):
        at, there = np.flatnonzero(which.reshape(-1) == i), np.flatnonzero(kind)
        u = (rows.values[at] - mean[:, None])[:, :, there] / scale[:, None, there]
        found = function(u, *np.linalg.eigh(correlation[:, there][:, :, there]))
        out[np.ix_(at, np.arange(len(mean)), there)] = np.swapaxes(found, 0, 1)
    return out


def _scaled(values: Any, rows: Rows) -> Any:
    """Scale features (row, feature); 0 where missing."""
    return np.where(rows.observed, 1.0, 0.0) * ((values - rows.location) / rows.spread)


def scaled(parameters: Parameters, series: Series) -> Normals:
    """Distributions of the scaled features."""
    return Normals(
        (parameters["mean"] - series.location) / series.spread,
        parameters["scale"] / series.spread,
        factor(parameters["correlation_shares"], len(series.location), np),
    )
