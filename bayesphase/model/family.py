"""What the model wants of a family of emissions, whatever its features do."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bayesphase.model.observed import Observed
from bayesphase.model.passes import Expectation
from bayesphase.model.priors import Prior
from bayesphase.model.rows import Rows

Parameters = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Emission(ABC):
    """Base of all families: dataclasses whose fields are the options that users give.

    `kind` is what features vary about, a level or a kind of line, see `lines`.
    `dims` are the dims of the variables that are sampled, in the order of the parameters, and
    `derived` those of what `derive` makes of them for the user.
    """

    name: ClassVar[str]
    kind: ClassVar[int]
    dims: ClassVar[dict[str, tuple[str, ...]]]
    derived: ClassVar[dict[str, tuple[str, ...]]] = {}

    @property
    def tails(self) -> float | None:
        """Degrees of freedom of the innovations, None where they are normal."""
        return None

    @property
    def offsets(self) -> bool:
        """Whether each run has levels of its own, see `offsets`; some have it as a field."""
        return False

    @abstractmethod
    def priors(self, rows: Rows) -> dict[str, Prior]:
        """Give the default priors for these data."""

    @abstractmethod
    def observe(self, rows: Rows) -> Observed:
        """Bring rows into the form that the recursions want."""

    @abstractmethod
    def lines(self, parameters: Parameters, observed: Any) -> Any:
        """Return what the methods of `observed` take of the parameters."""

    def at(self, parameters: Parameters, observed: Any) -> Any:
        """Return `observed` without the offsets of runs, where the parameters have any."""
        return observed

    @abstractmethod
    def maximise(
        self, observed: Any, expected: Expectation, current: Parameters | None = None
    ) -> tuple[dict[str, np.ndarray], float]:
        """M-step: parameters that fit best what is `expected` of the states of the rows.

        Parameters
        ----------
        observed : Observed
        expected : Expectation
        current : mapping, optional
            The parameters that it was expected under, if any.

        Returns
        -------
        parameters : dict
        log_prior : float
            Of the coordinates that the sampler moves, up to a constant, about as under the default
            priors.
        """

    @abstractmethod
    def jitter(
        self, rng: np.random.Generator, parameters: Parameters, size: float
    ) -> dict[str, np.ndarray]:
        """Move parameters by about `size` standard deviations of a checkpoint."""

    @abstractmethod
    def log_density(self, values: Any, rows: Rows, parameters: Parameters, xp: Any) -> Any:
        """Log p(y | z = k) of every row; features that are missing, or lack a past, add 0.

        Parameters
        ----------
        values : array (row, feature)
            Any value where a feature is missing.
        rows : Rows
            Says what is observed.
        parameters : mapping
            The variables of `dims`.
        xp : module
            `numpy` or `pytensor.tensor`, whichever the parameters belong to.

        Returns
        -------
        array (row, state)
        """

    @abstractmethod
    def density_by_feature(self, rows: Rows, parameters: Parameters) -> np.ndarray:
        """Split the log density of a row, in every state, into what each feature adds to it.

        Returns
        -------
        ndarray (row, state, feature)
            In nats; they add up to `log_density`. NaN where a feature is missing or lacks a past.
        """

    @abstractmethod
    def score(self, rows: Rows, parameters: Parameters) -> np.ndarray:
        """Differentiate the log density of a row, in every state, by each of its own features.

        Returns
        -------
        ndarray (row, state, feature)
            In nats per unit of the feature. NaN where a feature is missing or lacks a past.
        """

    @abstractmethod
    def innovations(
        self, values: Any, rows: Rows, parameters: tuple[Any, ...], xp: Any
    ) -> tuple[Any, Any, np.ndarray]:
        """How far each feature, by itself, is off what each state expects, and may be.

        `parameters` are those of `dims`, (1, state, feature) or (row, 1, feature).

        Returns
        -------
        deviation, scale : array (row, state, feature)
        known : ndarray (row, feature)
            Where there is a deviation.
        """

    @abstractmethod
    def sample(
        self, rng: np.random.Generator, states: np.ndarray, parameters: Parameters, rows: Rows
    ) -> np.ndarray:
        """Draw features (row, feature) of rows in the given `states` (row), 0 where missing."""

    def residuals(self, rows: Rows, states: np.ndarray, parameters: Parameters) -> np.ndarray:
        """Standardized innovations (row, feature) in given `states` (row); NaN where unknown."""
        by_row = tuple(parameters[name][states][:, None] for name in self.dims)
        deviation, scale, known = self.innovations(rows.values, rows, by_row, np)
        return np.where(known, (deviation / scale)[:, 0], np.nan)

    def coords(self, feature: np.ndarray) -> dict[str, Any]:
        """Labels of dims that only this family has, given those of the features."""
        return {}

    def derive(self, parameters: Parameters, n_features: int, xp: Any) -> dict[str, Any]:
        """Make the variables of `derived` of parameters (..., state, ...)."""
        return {}
