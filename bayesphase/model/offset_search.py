"""Offsets of runs in the climbs of `initial`: one step of EM for them, given all else."""

from typing import Any

import numpy as np

from bayesphase.model.by_run import expect_by_run, shifted
from bayesphase.model.lines import CURVE, parabola_at
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
    """Offsets of the scaled features, `offset` (run, feature), and their scale, as they improve."""

    def __init__(self, observed: Any, emission: Any, offset: np.ndarray) -> None:
        self._observed, self._emission = observed, emission
        self.offset = offset
        self._scale = np.maximum(np.sqrt(np.mean(levels_of_runs(observed) ** 2, axis=0)), _LEAST)

    @property
    def here(self) -> Lined:
        """Features without the offsets."""
        observed = self._observed
        return observed._replace(data=shifted(observed.data, self.offset, observed.run_of))

    @property
    def log_prior(self) -> float:
        """Log density (nats) of the offsets given their scale, up to a constant."""
        return float(-0.5 * np.sum((self.offset / self._scale) ** 2))

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
        self.offset = self.offset + (slope - self.offset / self._scale**2) / precision
        common = self.offset.mean(axis=0)
        self.offset = self.offset - common
        parameters = self._moved(parameters, common * self._observed.series.spread)
        squares = np.mean(self.offset**2 + 1.0 / precision, axis=0)
        self._scale = np.maximum(np.sqrt(squares), _LEAST)
        return parameters

    def _moved(self, parameters: dict[str, np.ndarray], by: np.ndarray) -> dict[str, np.ndarray]:
        """Move the lines of all states (feature) up, or what they say of values so much lower."""
        location, _, *others = self._emission.dims
        if self._emission.kind != CURVE:
            return {**parameters, location: parameters[location] + by}
        rate, bend = others
        at = parabola_at(parameters[location], parameters[rate], parameters[bend], -by)
        return {**parameters, location: at[0], rate: at[1]}

    def parameters(self) -> dict[str, Any]:
        """Return the offsets and their scale, in the features' units."""
        spread = self._observed.series.spread
        return {"offset_scale": self._scale * spread, "offset": self.offset * spread}
