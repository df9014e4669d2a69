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
    """A point: location, scale and rate (state, feature) of the scaled features, and the lines."""

    location: np.ndarray
    scale: np.ndarray
    rate: np.ndarray
    lines: Any


class LinePrior:
    """Coordinates (kind, state, feature) are locations, log scales and, if any, log rates.

    The prior of the location is normal, that of the scale inverse-gamma and that of the rate
    log-normal. What is kept of them is for scaled features, all (state, feature); `constant` (nats)
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
        location, scale, *rate = emission.dims
        mu, sigma = (parameter(priors, location, key, size) for key in ("mu", "sigma"))
        alpha, beta = (parameter(priors, scale, key, size) for key in ("alpha", "beta"))
        self.location_mu = (mu - series.location) / series.spread
        self.location_sigma = sigma / series.spread
        self.scale_alpha, self.scale_beta = alpha, beta / series.spread
        self.rate_mu, self.rate_sigma = np.zeros(size), np.ones(size)
        self.constant = -np.sum(series.observed @ np.log(series.spread))
        self.constant -= np.sum(np.log(sigma) + 0.5 * np.log(2.0 * np.pi))
        self.constant += np.sum(alpha * np.log(beta) - gammaln(alpha))
        for name in rate:
            self.rate_mu, self.rate_sigma = (
                parameter(priors, name, key, size) for key in ("mu", "sigma")
            )
            self.constant -= np.sum(np.log(self.rate_sigma) + 0.5 * np.log(2.0 * np.pi))

    def parameters(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters, by name, at coordinates (..., kind, state, feature)."""
        location, *positive = self.emission.dims
        logs = {name: x[..., i, :, :] for i, name in enumerate(positive, start=1)}
        return {location: x[..., 0, :, :], **{name: np.exp(log) for name, log in logs.items()}}

    def coordinates(self, parameters: Parameters) -> np.ndarray:
        """Undo `parameters` for one point."""
        location, *positive = self.emission.dims
        return np.stack([parameters[location], *(np.log(parameters[name]) for name in positive)])

    def at(self, x: np.ndarray) -> LinePoint:
        """Read coordinates."""
        series = self.observed.series
        location = (x[0] - series.location) / series.spread
        scale = np.exp(x[1]) / series.spread
        rate = np.exp(x[2]) if len(x) > 2 else np.ones(scale.shape)
        lines = lines_of(self.observed.family, location, scale, rate)
        return LinePoint(location, scale, rate, lines)

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
        if len(x) > 2:
            deviation = (x[2] - self.rate_mu) / self.rate_sigma
            value -= 0.5 * np.sum(deviation**2)
            slope[2] = slopes[2] - deviation / self.rate_sigma
        return float(value), slope

    def spreads(
        self, parameters: Parameters, expected: Expectation
    ) -> tuple[np.ndarray, np.ndarray]:
        """How wide the posterior is about a mode, if the states were known.

        Returns
        -------
        spread : ndarray (kind, state, feature)
            Of each coordinate, but what the location has to say of the rate.
        shear : ndarray (state, feature)
            How far the rate's coordinate moves with a standard deviation of the location.
        """
        observed = self.observed
        location, scale, rate = self.emission.scaled(parameters, observed.series)
        bends = curvature(
            self.emission.kind, expected.sums, observed.family.gaps, location, scale, rate
        )
        df = self.emission.tails
        tails = 1.0 if df is None else df / (df + 3.0)  # what is known of a scale by Fisher
        of_location = bends[0] + self.location_sigma**-2
        of_scale = tails * bends[1] + self.scale_beta / scale
        of_rate, tie = bends[2] + self.rate_sigma**-2, bends[3]
        # Cholesky factor of the inverse of ((of_location, tie), (tie, of_rate))
        width = np.sqrt(1.0 / (of_location - tie**2 / of_rate))
        spreads = [observed.series.spread * width, 1.0 / np.sqrt(of_scale), 1.0 / np.sqrt(of_rate)]
        return np.stack(spreads[: self.shape[0]]), -tie / of_rate * width
