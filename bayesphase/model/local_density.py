"""What densities have in common that can be seen in coordinates of a mode."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np

from bayesphase._checks import threads
from bayesphase.model.spec import Spec

# chains with states to spare start so many standard deviations from the mode
_NEAR = 0.2

# with fewer rows most of a call is Python's, and calls from several threads wait for each other
_MANY_ROWS = 10_000


class LocalDensity(ABC):
    """A log density of unconstrained points, `n_dim` numbers each, and their parameters."""

    _spec: Spec
    n_dim: int

    @abstractmethod
    def __call__(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """Log density (nats) and its gradient at `u`, an unconstrained point."""

    @abstractmethod
    def around(self, parameters: Mapping[str, np.ndarray]) -> Self:
        """Return the same density in coordinates in which it is about standard normal at a mode."""

    @abstractmethod
    def unconstrained(self, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the point that has these parameters."""

    @abstractmethod
    def _diagonals(self) -> Iterable[np.ndarray]:
        """Diagonals of the triangular matrices that stretch these coordinates to PyMC's."""

    def log_mass(self, parameters: Mapping[str, np.ndarray]) -> float:
        """Integral of the density about a mode, as if it were normal there: its logarithm, nats."""
        near = self.around(parameters)
        volume = sum(float(np.log(diagonal).sum()) for diagonal in near._diagonals())
        at_mode = near(near.unconstrained(parameters))[0]
        return at_mode + volume + 0.5 * self.n_dim * np.log(2.0 * np.pi)

    def threads(self, cores: int | None) -> int:
        """How many threads it is best called from, of so many `cores`; all by default."""
        return threads(cores) if len(self._spec.rows.values) >= _MANY_ROWS else 1

    def start(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a point for a chain to start from: standard normal, or nearer with spare states.

        A state that is entered with no probability at the start has nothing that draws it back.
        """
        return (_NEAR if self._spec.transition.spare else 1.0) * rng.normal(size=self.n_dim)
