"""Offsets of runs in the climbs of `initial`: one step of EM for them, given all else."""

from typing import Any

import numpy as np

from bayesphase.model.by_run import expect_by_run, shifted
from bayesphase.model.lines import CURVE
from bayesphase.model.observed import Lined

# least scale of the offsets, in spreads of the features: so that they can leave 0
_LEAST = 1e-3


def levels_of_runs(observed: Any) -> np.ndarray:
    """How far the mean level of runs (run, feature) lies from that of all, in spreads."""
    series, layout = observed.series, observed.data.layout
    values = series.previous if series.previous.size else series.values
    values = (values - series.location) / series.spread * series.observed
    counts = np.add.reduceat(series.observed.astype(float), layout.starts)
    means = np.add.reduceat(values, layout.starts) / np.maximum(counts, 1.0)
    return (means - means.mean(axis=0)) * (counts > 0.0)


class RunLevels:
    """Offsets (run, feature) of the scaled features, and their scale (feature), as they improve."""

    def __init__(self, observed: Any, emission: Any, offset: np.ndarray) -> None:
        self._observed, self._emission = observed, emission
        self._offset = offset
        self._scale = np.maximum(np.sqrt(np.mean(levels_of_runs(observed) ** 2, axis=0)), _LEAST)

    @property
    def here(self) -> Lined:
        """Features without the offsets."""
        observed = self._observed
        return observed._replace(data=shifted(observed.data, self._offset, observed.run_of))

    @property
    def log_prior(self) -> float:
        """Log density (nats) of the offsets given their scale, up to a constant."""
        return float(-0.5 * np.sum((self._offset / self._scale) ** 2))

    def improve(
        self, parameters: dict[str, np.ndarray], potentials: tuple[np.ndarray, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Move the offsets to where they fit best, given what is expected of the states.

        Returns the parameters: what all offsets have in common goes to the levels of the states.
        """
        lines = self._emission.lines(parameters, self._observed)
        _, slope, precision = expect_by_run(
            self.here.data, lines, self._observed.run_of, *potentials
        )
        precision = precision + self._scale**-2.0
        self._offset = self._offset + (slope - self._offset / self._scale**2) / precision
        if self._emission.kind != CURVE:
            common = self._offset.mean(axis=0)
            self._offset = self._offset - common
            location = next(iter(self._emission.dims))
            more = common * self._observed.series.spread
            parameters = {**parameters, location: parameters[location] + more}
        squares = np.mean(self._offset**2 + 1.0 / precision, axis=0)
        self._scale = np.maximum(np.sqrt(squares), _LEAST)
        return parameters

    def parameters(self) -> dict[str, Any]:
        """Return the offsets and their scale, in the features' units."""
        spread = self._observed.series.spread
        return {"offset_scale": self._scale * spread, "offset": self._offset * spread}
