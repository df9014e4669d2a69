"""What a state says about the features of a checkpoint: one class per family."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from bayesphase.model.innovations import Data, Lines, arrange, log_norm
from bayesphase.model.lines import LEVEL, REVERSION, WALK, lines_of
from bayesphase.model.maximise import Fitted, maximise
from bayesphase.model.passes import Expectation
from bayesphase.model.priors import Prior
from bayesphase.model.rows import Rows
from bayesphase.model.series import (
    Lag,
    Series,
    lag,
    lag_of_speeds,
    series_of_changes,
    series_of_levels,
    series_of_reversions,
)

Parameters = Mapping[str, Any]


class Observed(NamedTuple):
    """Rows as a family sees them: what it models, and that as the kernels want it.

    `gaps` (gap) are the different times that a change took.
    """

    series: Series
    data: Data
    gaps: np.ndarray


class Linear:
    """What all families share whose features vary about a line, see `lines`.

    A family says what `kind` of line, and its variables `dims`: the first is the location of the
    line, the second its scale, and the third, if any, its rate.
    """

    name: ClassVar[str]
    kind: ClassVar[int]
    dims: ClassVar[dict[str, tuple[str, ...]]]
    df: float | None = None

    # inverse-gamma prior of the scale, in the sizes that `_scale_unit` gives
    _shape: ClassVar[float] = 1.0
    _rate: ClassVar[float] = 0.1

    def series(self, rows: Rows) -> Series:
        """Return what is modelled of the rows."""
        raise TypeError(f"{type(self).__name__} is no family of its own")

    def observe(self, rows: Rows) -> Observed:
        """Bring rows into the form that the kernels want."""
        series = self.series(rows)
        return Observed(series, *arrange(series, rows.layout))

    def _scale_unit(self, series: Series) -> np.ndarray:
        return series.typical

    def priors(self, rows: Rows) -> dict[str, Prior]:
        """Give the default priors for these data."""
        series = self.series(rows)
        location, scale, *rate = self.dims
        defaults = {
            location: Prior("Normal", mu=series.location, sigma=LOCATION_SPREADS * series.spread),
            scale: Prior(
                "InverseGamma", alpha=self._shape, beta=self._rate * self._scale_unit(series)
            ),
        }
        return defaults | {name: Prior("LogNormal", **RATE_PRIOR) for name in rate}

    def scaled(self, parameters: Parameters, series: Series) -> tuple[np.ndarray, ...]:
        """Return location, scale and rate (state, feature) of the scaled features."""
        location, scale, *rate = (parameters[name] for name in self.dims)
        return (
            (location - series.location) / series.spread,
            scale / series.spread,
            rate[0] if rate else np.ones(scale.shape),
        )

    def lines(self, parameters: Parameters, observed: Observed) -> Lines:
        """Return the lines of the scaled features."""
        scaled = self.scaled(parameters, observed.series)
        df = self.df or 0.0
        return lines_of(self.kind, *scaled, observed.gaps, df, log_norm(df))

    def maximise(
        self, observed: Observed, expected: Expectation
    ) -> tuple[dict[str, np.ndarray], float]:
        """M-step: parameters that fit best what is `expected` of the states of the rows.

        Returns
        -------
        parameters : dict
        log_prior : float
            Of the location and the logarithms of scale and rate, which is what the sampler moves,
            under the default priors, up to a constant.
        """
        series = observed.series
        prior = self._shape, self._rate * self._scale_unit(series) / series.spread
        found = maximise(self.kind, expected.sums, observed.gaps, prior)
        values = (
            series.location + series.spread * found.location,
            series.spread * found.scale,
            found.rate,
        )
        return dict(zip(self.dims, values, strict=False)), found.log_prior

    def jitter(
        self, rng: np.random.Generator, parameters: Parameters, size: float
    ) -> dict[str, np.ndarray]:
        """Move parameters by about `size` standard deviations of a checkpoint."""
        location, *positive = self.dims
        scale = parameters[positive[0]]
        moved = {location: parameters[location] + size * scale * rng.normal(size=scale.shape)}
        for name in positive:
            moved[name] = parameters[name] * np.exp(size * rng.normal(size=scale.shape))
        return moved
