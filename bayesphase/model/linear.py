"""What all emission families share whose features vary about a line, see `lines`."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bayesphase.model.by_run import run_of_columns, shifted
from bayesphase.model.family import Emission, Parameters
from bayesphase.model.innovations import arrange, log_norm
from bayesphase.model.lines import LEVEL, Family, Plain, lines_of
from bayesphase.model.maximise import LOCATION_SPREADS, RATE_PRIOR, maximise
from bayesphase.model.observed import Lined
from bayesphase.model.passes import Expectation
from bayesphase.model.priors import Prior
from bayesphase.model.rows import Rows
from bayesphase.model.series import Series


@dataclass(frozen=True, kw_only=True)
class Linear(Emission):
    """Base of these families.

    A family says what `kind` of line, and in `dims` what its variables are called: the first is the
    location of the line, the second its scale and the third, if there is one, its rate.

    Parameters
    ----------
    offsets : bool
        Whether each run has a level of its own in each feature, see `offsets`.
    """

    offsets: bool = False

    kind: ClassVar[int]

    # inverse-gamma prior of the scale: its shape, and its scale in units of `_size`
    _shape: ClassVar[float] = 1.0
    _unit: ClassVar[float] = 0.1

    def __post_init__(self) -> None:  # noqa: D105
        if not isinstance(self.offsets, bool):
            raise TypeError(f"offsets must be True or False, got {self.offsets!r}")

    @property
    def positive(self) -> dict[str, bool]:
        """Say which variables are sampled by their logarithm: all but the location."""
        return {name: i > 0 for i, name in enumerate(self.dims)}

    @abstractmethod
    def series(self, rows: Rows) -> Series:
        """Return what is modelled of the rows."""

    @abstractmethod
    def follow(self, rows: Rows, parameters: tuple[Any, ...], noise: np.ndarray) -> np.ndarray:
        """Features (row, feature) with given innovations; `parameters` (row, feature)."""

    def _size(self, series: Series) -> np.ndarray:
        return series.typical

    def observe(self, rows: Rows) -> Lined:
        """Bring rows into the form that the kernels want."""
        series = self.series(rows)
        data, gaps = arrange(series, rows.layout)
        df = self.tails or 0.0
        plain = self.kind == LEVEL and not df
        family = Plain(gaps) if plain else Family(gaps, self.kind, df, log_norm(df))
        run_of = run_of_columns(data.place, rows.layout) if self.offsets else None
        return Lined(series, data, family, run_of)

    def priors(self, rows: Rows) -> dict[str, Prior]:
        """Give the default priors for these data."""
        series = self.series(rows)
        location, scale, *rate = self.dims
        defaults = {
            location: Prior("Normal", mu=series.location, sigma=LOCATION_SPREADS * series.spread),
            scale: self._scale_prior(series),
        }
        return defaults | {name: Prior("LogNormal", **RATE_PRIOR) for name in rate}

    def _scale_prior(self, series: Series) -> Prior:
        return Prior("InverseGamma", alpha=self._shape, beta=self._unit * self._size(series))

    def scaled(self, parameters: Parameters, series: Series) -> tuple[np.ndarray, ...]:
        """Return location, scale, rate and bend (state, feature) of the scaled features."""
        location, scale, *others = (parameters[name] for name in self.dims)
        location = (location - series.location) / series.spread
        rate = others[0] if others else np.ones(scale.shape)
        return location, scale / series.spread, rate, np.zeros(scale.shape)

    def lines(self, parameters: Parameters, observed: Lined) -> Any:
        """Return the lines of the scaled features, for the kernels."""
        return lines_of(observed.family, *self.scaled(parameters, observed.series))

    def at(self, parameters: Parameters, observed: Lined) -> Lined:
        """Return `observed` without the offsets of runs, where the parameters have any."""
        if observed.run_of is None or "offset" not in parameters:
            return observed
        shift = parameters["offset"] / observed.series.spread
        return observed._replace(data=shifted(observed.data, shift, observed.run_of))

    def maximise(
        self, observed: Lined, expected: Expectation, current: Parameters | None = None
    ) -> tuple[dict[str, np.ndarray], float]:
        """M-step: parameters that fit best what is `expected` of the states of the rows.

        The prior is that of the location and the logarithms of scale and rate, the default one.
        """
        series = observed.series
        unit = self._unit * self._size(series) / series.spread
        best = maximise(self.kind, expected.sums, observed.family.gaps, self._shape, unit)
        location = series.location + series.spread * best.location
        values = location, series.spread * best.scale, best.rate, best.bend / series.spread
        return dict(zip(self.dims, values, strict=False)), best.log_prior

    def jitter(
        self, rng: np.random.Generator, parameters: Parameters, size: float
    ) -> dict[str, np.ndarray]:
        """Move parameters by about `size` standard deviations of a checkpoint."""
        scale = parameters[list(self.dims)[1]]
        moved = {}
        for name, positive in self.positive.items():
            noise = size * rng.normal(size=scale.shape)
            if positive:
                moved[name] = parameters[name] * np.exp(noise)
            else:
                moved[name] = parameters[name] + scale * noise
        return moved

    def log_density(self, values: Any, rows: Rows, parameters: Parameters, xp: Any) -> Any:
        """Log p(y | z = k) of every row; features that are missing, or lack a past, add 0."""
        density, known = self._density_by_feature(values, rows, parameters, xp)
        return (density * known[:, None, :]).sum(axis=2)

    def density_by_feature(self, rows: Rows, parameters: Parameters) -> np.ndarray:
        """Log density (row, state, feature) of each feature by itself; NaN where there is none."""
        density, known = self._density_by_feature(rows.values, rows, parameters, np)
        return np.where(known[:, None, :], density, np.nan)

    def _density_by_feature(
        self, values: Any, rows: Rows, parameters: Parameters, xp: Any
    ) -> tuple[Any, np.ndarray]:
        by_state = tuple(parameters[name][None] for name in self.dims)
        deviation, scale, known = self.innovations(values, rows, by_state, xp)
        z = deviation / scale
        if self.tails is None:
            density = -0.5 * z**2
        else:
            density = -0.5 * (self.tails + 1.0) * xp.log1p(z**2 / self.tails)
        return density + log_norm(self.tails or 0.0) - xp.log(scale), known

    def score(self, rows: Rows, parameters: Parameters) -> np.ndarray:
        """Differentiate the log density by the features of its row (row, state, feature)."""
        by_state = tuple(parameters[name][None] for name in self.dims)
        deviation, scale, known = self.innovations(rows.values, rows, by_state, np)
        z = deviation / scale
        pull = z if self.tails is None else (self.tails + 1.0) * z / (self.tails + z**2)
        slope = -pull / scale * self.reach(rows)[:, None, :]
        return np.where(known[:, None, :], slope, np.nan)

    def reach(self, rows: Rows) -> np.ndarray:
        """How far an innovation (row, feature) moves with the feature itself."""
        return np.ones(rows.values.shape)

    def sample(
        self, rng: np.random.Generator, states: np.ndarray, parameters: Parameters, rows: Rows
    ) -> np.ndarray:
        """Draw features (row, feature) of rows in the given `states` (row), 0 where missing.

        Families of changes take the first values of each run, which they condition on, as observed,
        and go on from the last observation of a feature, as their density does.
        """
        by_row = tuple(parameters[name][states] for name in self.dims)
        shape = by_row[0].shape
        df = self.tails
        noise = rng.standard_normal(shape) if df is None else rng.standard_t(df, shape)
        return np.where(rows.observed, self.follow(rows, by_row, noise), 0.0)


def check_df(df: float | None) -> None:
    """Raise ValueError unless `df` is None or a positive number."""
    if df is not None and not df > 0:
        raise ValueError(
            f"df must be a positive number of degrees of freedom, or None for normal innovations, "
            f"got {df!r}"
        )
