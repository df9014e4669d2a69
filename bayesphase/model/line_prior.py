"""The variables of an emission in unconstrained coordinates: their prior, and its gradient."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.special import gammaln

from bayesphase.model.innovations import Sums
from bayesphase.model.linear import Linear
from bayesphase.model.lines import curvature, lines_of, pull_back
from bayesphase.model.passes import Expectation
from bayesphase.model.priors import Prior, parameter
from bayesphase.model.rows import Rows

Parameters = Mapping[str, np.ndarray]


class LinePoint(NamedTuple):
    """A point: what `lines` of scaled features are made of, all (state, feature), and the lines."""

    location: np.ndarray
    scale: np.ndarray
    rate: np.ndarray
    bend: np.ndarray
    lines: Any


class LinePrior:
    """Coordinates (kind, state, feature) are locations, log scales and, if any, rates and bends.

    The priors of location and bend are normal, that of the scale is inverse-gamma, and that of the
    rate log-normal, with its logarithm for a coordinate, or normal. What is kept of them is for
    scaled features, all (state, feature), but for the bend's; `constant` (nats)
    is all that does not depend on the parameters, and what the likelihood loses to scaling.

    Parameters
    ----------
    emission : Linear
    priors : mapping of str to Prior
        Of the families of the default ones.
    rows : Rows
    n_states : int
    """

    def __init__(
        self, emission: Linear, priors: Mapping[str, Prior], rows: Rows, n_states: int
    ) -> None:
        self.emission, self.observed = emission, emission.observe(rows)
        series = self.observed.series
        size = (n_states, rows.values.shape[1])
        self.shape = (len(emission.dims), *size)
        location, scale, *others = emission.dims
        mu, sigma = (parameter(priors, location, key, size) for key in ("mu", "sigma"))
        alpha, beta = (parameter(priors, scale, key, size) for key in ("alpha", "beta"))
        self.location_mu = (mu - series.location) / series.spread
        self.location_sigma = sigma / series.spread
        self.scale_alpha, self.scale_beta = alpha, beta / series.spread
        rest = [(np.zeros(size), np.ones(size)), (np.zeros(size), np.ones(size))]
        self.constant = -np.sum(series.observed @ np.log(series.spread))
        self.constant -= np.sum(np.log(sigma) + 0.5 * np.log(2.0 * np.pi))
        self.constant += np.sum(alpha * np.log(beta) - gammaln(alpha))
        for i, name in enumerate(others):
            mu, sigma = (parameter(priors, name, key, size) for key in ("mu", "sigma"))
            rest[i] = mu, sigma
            self.constant -= np.sum(np.log(sigma) + 0.5 * np.log(2.0 * np.pi))
        (self.rate_mu, self.rate_sigma), (self.bend_mu, self.bend_sigma) = rest

    def parameters(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters, by name, at coordinates (..., kind, state, feature)."""
        return {
            name: np.exp(x[..., i, :, :]) if positive else x[..., i, :, :]
            for i, (name, positive) in enumerate(self.emission.positive.items())
        }

    def coordinates(self, parameters: Parameters) -> np.ndarray:
        """Undo `parameters` for one point."""
        return np.stack(
            [
                np.log(parameters[name]) if positive else parameters[name]
                for name, positive in self.emission.positive.items()
            ]
        )

    def at(self, x: np.ndarray) -> LinePoint:
        """Read coordinates."""
        location, scale, rate, bend = self.emission.scaled(self.parameters(x), self.observed.series)
        lines = lines_of(self.observed.family, location, scale, rate, bend)
        return LinePoint(location, scale, rate, bend, lines)

    def value_and_slope(
        self, x: np.ndarray, point: LinePoint, sums: Sums
    ) -> tuple[float, np.ndarray]:
        """Log density (nats) of the prior, Jacobians and all constants included.

        Also returns the gradient of the log posterior in the coordinates, given the `sums` of the
        features at this point.
        """
        slopes = pull_back(self.observed.family, sums, point.lines, point.location, point.rate)
        deviation = (point.location - self.location_mu) / self.location_sigma
        ratio = self.scale_beta / point.scale
        value = self.constant - np.sum(0.5 * deviation**2 + ratio + self.scale_alpha * x[1])
        slope = np.empty(self.shape)
        slope[0] = (slopes[0] - deviation / self.location_sigma) / self.observed.series.spread
        slope[1] = slopes[1] + ratio - self.scale_alpha
        # bends are of the features as they are, and slopes of scaled ones
        rest = [(self.rate_mu, self.rate_sigma, slopes[2])]
        rest += [(self.bend_mu, self.bend_sigma, slopes[3] * self.observed.series.spread)]
        for i, (mu, sigma, pull) in enumerate(rest[: len(x) - 2], start=2):
            deviation = (x[i] - mu) / sigma
            value -= 0.5 * np.sum(deviation**2)
            slope[i] = pull - deviation / sigma
        return float(value), slope

    def spreads(
        self, parameters: Parameters, expected: Expectation
    ) -> tuple[np.ndarray, np.ndarray]:
        """How wide the posterior is about a mode, if the states were known.

        Returns
        -------
        spread : ndarray (kind, state, feature)
            Of each coordinate, but what those before have to say of it.
        shear : ndarray (3, state, feature)
            How far the rate's coordinate moves with a standard deviation of the location, and the
            bend's with one of location and rate.
        """
        observed = self.observed
        location, scale, rate, _ = self.emission.scaled(parameters, observed.series)
        of_others, of_scale = curvature(
            self.emission.kind, expected.sums, observed.family.gaps, location, scale, rate
        )
        df = self.emission.tails
        tails = 1.0 if df is None else df / (df + 3.0)  # what is known of a scale by Fisher
        of_scale = tails * of_scale + self.scale_beta / scale
        spread = np.broadcast_to(observed.series.spread, scale.shape)
        # from scaled features to the variables' own units
        units = np.stack([spread, np.ones(scale.shape), 1.0 / spread], axis=-1)
        sigma = [spread * self.location_sigma, self.rate_sigma, self.bend_sigma]
        precision = of_others / (units[..., :, None] * units[..., None, :])
        precision += np.stack(sigma, axis=-1)[..., None] ** -2 * np.eye(3)
        factor = np.linalg.cholesky(np.linalg.inv(precision))
        spreads = [factor[..., 0, 0], 1.0 / np.sqrt(of_scale), factor[..., 1, 1], factor[..., 2, 2]]
        shear = np.stack([factor[..., 1, 0], factor[..., 2, 0], factor[..., 2, 1]])
        return np.stack(spreads[: self.shape[0]]), shear
