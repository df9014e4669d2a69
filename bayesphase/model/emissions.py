"""What a state says about the features of a checkpoint: one class per family."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bayesphase.model.gaussian import Expectation
from bayesphase.model.priors import Prior
from bayesphase.model.rows import Rows

Parameters = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Independent normal features: y[row, d] ~ Normal(mean[z, d], scale[z, d]).

    `mean` has dims (state, feature), the features' units; so has `scale`, a standard deviation.
    The default priors are set by location and spread of the data: means anywhere within a few
    spreads, scales inverse-gamma, which keeps a state that holds few or equal checkpoints from
    collapsing to a scale of 0.
    """

    name: ClassVar[str] = "gaussian"
    dims: ClassVar[dict[str, tuple[str, ...]]] = {
        "mean": ("state", "feature"),
        "scale": ("state", "feature"),
    }

    # inverse-gamma on the scale, in spreads: mean 0.2, no moments from the second on
    _shape: ClassVar[float] = 2.0
    _rate: ClassVar[float] = 0.2
    _mean_spreads: ClassVar[float] = 2.0

    def priors(self, rows: Rows) -> dict[str, Prior]:
        """Give the default priors for these data."""
        return {
            "mean": Prior("Normal", mu=rows.location, sigma=self._mean_spreads * rows.spread),
            "scale": Prior("InverseGamma", alpha=self._shape, beta=self._rate * rows.spread),
        }

    def log_density(self, values: Any, rows: Rows, parameters: Parameters, xp: Any) -> Any:
        """Log p(y | z = k) of every row, up to nothing; missing features add 0.

        Written as products with the sufficient statistics (y², y, 1), several times as fast as
        broadcasting. Location and spread are taken out first, so that little cancels.

        Parameters
        ----------
        values : array (row, feature)
            Any value where a feature is missing.
        rows : Rows
            Says what is observed.
        parameters : mapping
            `mean` and `scale` (state, feature).
        xp : module
            `numpy` or `pytensor.tensor`, whichever the parameters belong to.

        Returns
        -------
        array (row, state)
        """
        z = np.where(rows.observed, 1.0, 0.0) * ((values - rows.location) / rows.spread)
        mean = (parameters["mean"] - rows.location) / rows.spread
        log_scale = xp.log(parameters["scale"])
        precision = xp.exp(-2.0 * (log_scale - np.log(rows.spread)))
        constant = mean**2 * precision + 2.0 * log_scale + np.log(2.0 * np.pi)
        if rows.complete:
            constant = constant.sum(axis=1)[None, :]
        else:
            constant = rows.observed.astype(np.float64) @ constant.T
        return z @ (mean * precision).T - 0.5 * (z**2 @ precision.T + constant)

    def sample(
        self, rng: np.random.Generator, states: np.ndarray, parameters: Parameters
    ) -> np.ndarray:
        """Draw features (row, feature) of rows in the given `states` (row)."""
        mean, scale = parameters["mean"][states], parameters["scale"][states]
        return rng.normal(mean, scale)

    def maximise(self, rows: Rows, expected: Expectation) -> tuple[dict[str, np.ndarray], float]:
        """M-step: parameters that fit best what is `expected` of the states of the rows.

        Returns
        -------
        parameters : dict
        log_prior : float
            Of `mean` and the logarithm of `scale`, which is what the sampler moves, under the
            default priors, up to a constant.
        """
        tight = 1e-3  # stands for the prior of the means: enough to define an empty state's
        count = expected.counts + tight
        mean = expected.sums / count
        squares = np.maximum(expected.squares - mean**2 * count, 0.0)
        # mode in log scale of scale^-(count + shape) exp(-rate / scale - squares / (2 scale²))
        order = expected.counts + self._shape
        scale = (self._rate + np.sqrt(self._rate**2 + 4.0 * order * squares)) / (2.0 * order)
        log_prior = -np.sum(self._shape * np.log(scale) + self._rate / scale)
        log_prior -= 0.5 * np.sum((mean / self._mean_spreads) ** 2)
        parameters = {"mean": rows.location + rows.spread * mean, "scale": rows.spread * scale}
        return parameters, float(log_prior)

    def jitter(
        self, rng: np.random.Generator, parameters: Parameters, size: float
    ) -> dict[str, np.ndarray]:
        """Move parameters by about `size` standard deviations of a checkpoint."""
        scale = parameters["scale"]
        return {
            "mean": parameters["mean"] + size * scale * rng.normal(size=scale.shape),
            "scale": scale * np.exp(size * rng.normal(size=scale.shape)),
        }


EMISSIONS = {Gaussian.name: Gaussian}
