"""What a state says about the features of a checkpoint: one class per family."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bayesphase.model.family import Emission
from bayesphase.model.full_gaussian import FullGaussian
from bayesphase.model.linear import Linear, Parameters, check_df
from bayesphase.model.lines import CURVE, LEVEL, REVERSION, WALK
from bayesphase.model.maximise import LOCATION_SPREADS
from bayesphase.model.priors import Prior
from bayesphase.model.rows import Rows, location_and_spread
from bayesphase.model.series import (
    Lag,
    Series,
    in_turn,
    lag,
    lag_of_speeds,
    series_of_changes,
    series_of_drifts,
    series_of_levels,
    series_of_reversions,
)

_STATE_FEATURE = ("state", "feature")


@dataclass(frozen=True, kw_only=True)
class _Levels(Linear):
    """Independent features about the level of their state."""

    kind: ClassVar[int] = LEVEL
    dims: ClassVar[dict[str, tuple[str, ...]]] = {"mean": _STATE_FEATURE, "scale": _STATE_FEATURE}
    # in spreads of the features: mean 0.2, no moments from the second on
    _shape: ClassVar[float] = 2.0
    _unit: ClassVar[float] = 0.2

    def series(self, rows: Rows) -> Series:
        """Return the features as they are."""
        return series_of_levels(rows)

    def _size(self, series: Series) -> np.ndarray:
        return series.spread

    def innovations(
        self, values: Any, rows: Rows, parameters: tuple[Any, ...], xp: Any
    ) -> tuple[Any, Any, np.ndarray]:
        """Distance from the mean."""
        mean, scale = parameters
        return values[:, None, :] - mean, scale, rows.observed

    def follow(self, rows: Rows, parameters: tuple[Any, ...], noise: np.ndarray) -> np.ndarray:
        """Features are mean and noise."""
        mean, scale = parameters
        return mean + scale * noise


@dataclass(frozen=True, kw_only=True)
class _Tailed(Linear):
    """Innovations are Student-t with `df` degrees of freedom, or normal where that is None."""

    df: float | None = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_df(self.df)

    @property
    def tails(self) -> float | None:
        """Degrees of freedom of the innovations."""
        return self.df


@dataclass(frozen=True, kw_only=True)
class Gaussian(_Levels):
    """Independent normal features: y[row, d] ~ Normal(mean[z, d], scale[z, d]).

    `mean` has dims (state, feature), the features' units; so has `scale`, a standard deviation.
    The default priors are set by location and spread of the data: means anywhere within a few
    spreads, scales inverse-gamma, which keeps a state that holds few or equal checkpoints from
    collapsing to a scale of 0.

    Parameters
    ----------
    offsets : bool
        Whether each run has a level of its own in each feature: the features of run r are those of
        this model plus `offset` (run, feature), which is Normal(0, offset_scale[feature]). Runs
        that go through the same phases at slightly different levels then need no phases of their
        own. `offset_scale` (feature) is half-normal by default, with half the spread of the data,
        and tends to 0 where runs do not differ. Means and offsets are told apart by the prior of
        the latter alone. Nothing is lost but time: a fit takes several times as long.
    """

    name: ClassVar[str] = "gaussian"

    def log_density(self, values: Any, rows: Rows, parameters: Parameters, xp: Any) -> Any:
        """Log p(y | z = k) of every row; missing features add 0.

        Written as products with the sufficient statistics (y², y, 1), several times as fast as
        broadcasting. Location and spread are taken out first, so that little cancels.
        Arguments and result as in `Linear.log_density`.
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


@dataclass(frozen=True, kw_only=True)
class StudentT(_Tailed, _Levels):
    """Independent features with heavy tails, so that outliers need no state of their own.

    y[row, d] ~ StudentT(df, mean[z, d], scale[z, d]); otherwise as `Gaussian`.

    Parameters
    ----------
    offsets : bool
        As of `Gaussian`.
    df : float
        Degrees of freedom; positive.
    """

    name: ClassVar[str] = "student_t"


@dataclass(frozen=True, kw_only=True)
class _Changes(_Tailed):
    """Features that go on from where they were last observed in their run."""

    @abstractmethod
    def _change(self, before: Any, gap: Any, parameters: tuple[Any, ...], xp: Any) -> Any:
        """Return the expected change from `before` on over a gap, and how far it may be off."""

    def _moving(self, values: Any, rows: Rows) -> tuple[Any, Lag]:
        """Return what changes, and how it lags."""
        return values, lag(rows)

    def innovations(
        self, values: Any, rows: Rows, parameters: tuple[Any, ...], xp: Any
    ) -> tuple[Any, Any, np.ndarray]:
        """Change without what was expected of it."""
        y, at = self._moving(values, rows)
        before, gap = at.previous(y)[:, None, :], at.gap[:, None, :]
        expected, scale = self._change(before, gap, parameters, xp)
        return at.change(y)[:, None, :] - expected, scale, at.known

    def follow(self, rows: Rows, parameters: tuple[Any, ...], noise: np.ndarray) -> np.ndarray:
        """Go from each observation of a feature to the next in its run, however far that is."""
        y, at = self._moving(rows.values, rows)

        def go_on(before: np.ndarray, turn: np.ndarray) -> np.ndarray:
            there = tuple(parameter[turn] for parameter in parameters)
            change, scale = self._change(before, at.gap[turn], there, np)
            return before + change + scale * noise[turn]

        return in_turn(y, at, rows.layout, go_on)


@dataclass(frozen=True, kw_only=True)
class RandomWalk(_Changes):
    """Features that drift: a random walk whose drift and noise belong to the phase.

    The change of a feature over a gap g since it was last observed, in units of the median gap
    between checkpoints, is drift[z, d] g + scale[z, d] sqrt(g) e, which holds for gaps of any
    length; e is standard Student-t. The state is that of the checkpoint at the end of the change.
    The first value of a run is conditioned on.

    `drift` (state, feature) is per median gap; `scale` (state, feature) per its square root.

    Parameters
    ----------
    offsets : bool
        Must be False: changes do not show where a run lies.
    df : float or None
        Degrees of freedom of the innovations e; None for normal ones.
    """

    name: ClassVar[str] = "random_walk"
    kind: ClassVar[int] = WALK
    dims: ClassVar[dict[str, tuple[str, ...]]] = {"drift": _STATE_FEATURE, "scale": _STATE_FEATURE}

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        if self.offsets:
            raise ValueError(
                "a random walk has no offsets: it models changes, which are the same at any level, "
                "so that runs at other levels need no more phases"
            )

    def series(self, rows: Rows) -> Series:
        """Return the changes of the features."""
        return series_of_changes(rows)

    def _change(self, before: Any, gap: Any, parameters: tuple[Any, ...], xp: Any) -> Any:
        drift, scale = parameters
        return drift * gap, scale * np.sqrt(gap)


@dataclass(frozen=True, kw_only=True)
class AutoRegressive(_Changes):
    """Features that return to the level of their phase, at its rate and with its noise.

    An Ornstein-Uhlenbeck process (Uhlenbeck & Ornstein 1930, doi:10.1103/PhysRev.36.823) seen at
    checkpoints any distance g apart: the expected change is (exp(-rate g) - 1) (y - level), and its
    standard deviation scale sqrt((1 - exp(-2 rate g)) / (2 rate)). At even gaps it is the
    autoregression of order one with coefficient exp(-rate g); where the rate is near 0 it is a
    random walk. Gaps are in units of the median gap between checkpoints.

    With ``differences=1`` it is not a feature that reverts but its speed, the change per median
    gap: a trend that lasts, whatever its shape, is then no reason for a new phase.

    `level`, `rate` and `scale` have dims (state, feature); `rate` is per median gap.

    Parameters
    ----------
    offsets : bool
        As of `Gaussian`: the levels of a run are those of the phases plus its offset. Not with
        ``differences=1``.
    df : float or None
        Degrees of freedom of Student-t innovations; None for normal ones.
    differences : {0, 1}
    """

    differences: int = 0
    name: ClassVar[str] = "autoregressive"
    kind: ClassVar[int] = REVERSION
    dims: ClassVar[dict[str, tuple[str, ...]]] = {
        "level": _STATE_FEATURE,
        "scale": _STATE_FEATURE,
        "rate": _STATE_FEATURE,
    }

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        if self.differences not in (0, 1):
            raise ValueError(f"differences must be 0 or 1, got {self.differences!r}")
        if self.offsets and self.differences:
            raise ValueError(
                "differences=1 goes without offsets: it models speeds, which are the same at any "
                "level"
            )

    def _moving(self, values: Any, rows: Rows) -> tuple[Any, Lag]:
        """Return what goes back to its level, and how it lags."""
        at = lag(rows)
        if not self.differences:
            return values, at
        return at.change(values) / at.gap, lag_of_speeds(rows, at)

    def reach(self, rows: Rows) -> np.ndarray:
        """How far an innovation (row, feature) moves with the feature: speeds are per gap."""
        return 1.0 / lag(rows).gap if self.differences else super().reach(rows)

    def series(self, rows: Rows) -> Series:
        """Return changes and what they depart from."""
        return series_of_reversions(*self._moving(rows.values, rows))

    def _change(self, before: Any, gap: Any, parameters: tuple[Any, ...], xp: Any) -> Any:
        level, scale, rate = parameters
        pull = xp.expm1(-rate * gap)
        spread = xp.sqrt(-xp.expm1(-2.0 * rate * gap) / (2.0 * rate))
        return pull * (before - level), scale * spread

    def follow(self, rows: Rows, parameters: tuple[Any, ...], noise: np.ndarray) -> np.ndarray:
        """Follow the process, or that of the speeds, which are then added up."""
        followed = super().follow(rows, parameters, noise)
        if not self.differences:
            return followed
        at = lag(rows)

        def go_on(before: np.ndarray, turn: np.ndarray) -> np.ndarray:
            return before + followed[turn] * at.gap[turn]

        return in_turn(rows.values, at, rows.layout, go_on)


@dataclass(frozen=True, kw_only=True)
class QuadraticDrift(_Changes):
    """Features that drift as fast as where they are says: one law of motion for each phase.

    The change of a feature y over a gap g since it was last observed, in units of the median gap
    between checkpoints, is (drift + slope y + curvature y²) g + scale sqrt(g) e, with e standard
    Student-t: the Euler approximation to a diffusion, good where gaps are short against how long
    the drift takes to change. A steady drift, an exponential decay to a level and, by the
    curvature, nearly a power law are each one phase. It does not matter what time it is, only
    where the feature is. The first value of a run is conditioned on.

    `drift`, `slope` and `curvature` (state, feature) are per median gap, `slope` and `curvature`
    also per power of the feature; `scale` (state, feature) is per square root of the gap. Features
    are best standardized: powers are of values as they are, not of distances from a mean.

    Parameters
    ----------
    offsets : bool
        As of `Gaussian`: the law of motion is about where the feature is from the offset of its
        run, y - offset, so that runs may slow down at different levels in one phase.
    df : float or None
        Degrees of freedom of the innovations e; None for normal ones.
    """

    name: ClassVar[str] = "quadratic_drift"
    kind: ClassVar[int] = CURVE
    dims: ClassVar[dict[str, tuple[str, ...]]] = {
        "drift": _STATE_FEATURE,
        "scale": _STATE_FEATURE,
        "slope": _STATE_FEATURE,
        "curvature": _STATE_FEATURE,
    }

    @property
    def positive(self) -> dict[str, bool]:
        """Say which variables are sampled by their logarithm: the scale."""
        return {name: name == "scale" for name in self.dims}

    def series(self, rows: Rows) -> Series:
        """Return changes and what they depart from."""
        return series_of_drifts(rows)

    def priors(self, rows: Rows) -> dict[str, Prior]:
        """Give the default priors: the drift is of the size of changes, wherever a feature is."""
        series = self.series(rows)
        _, pace = location_and_spread(series.values / series.gap, series.observed)
        width = LOCATION_SPREADS * pace
        return {
            "drift": Prior("Normal", mu=0.0, sigma=width),
            "scale": self._scale_prior(series),
            "slope": Prior("Normal", mu=0.0, sigma=width / series.spread),
            "curvature": Prior("Normal", mu=0.0, sigma=width / series.spread**2),
        }

    def scaled(self, parameters: Parameters, series: Series) -> tuple[np.ndarray, ...]:
        """Return location, scale, rate and bend (state, feature) of the scaled features."""
        drift, scale, slope, curvature = (parameters[name] for name in self.dims)
        return drift / series.spread, scale / series.spread, slope, curvature * series.spread

    def _change(self, before: Any, gap: Any, parameters: tuple[Any, ...], xp: Any) -> Any:
        drift, scale, slope, curvature = parameters
        return (drift + (slope + curvature * before) * before) * gap, scale * np.sqrt(gap)


EMISSIONS: dict[str, type[Emission]] = {
    family.name: family
    for family in (Gaussian, StudentT, RandomWalk, AutoRegressive, QuadraticDrift, FullGaussian)
}
