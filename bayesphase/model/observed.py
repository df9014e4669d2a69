"""Rows as a family of emissions sees them, and the recursions over their densities.

There are two ways. Features that vary about lines are read and summed up by kernels that never
write a density down (`Lined`). All other families make a table of log densities (row, state), which
the recursions then take as it is (`Tabled`).
"""

from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

from bayesphase.model import passes
from bayesphase.model.decoding import sample_paths_kernel
from bayesphase.model.forward_backward import floats, forward_backward
from bayesphase.model.innovations import Data, log_emission
from bayesphase.model.lanes import Layout
from bayesphase.model.leave_one_out import leave_one_out
from bayesphase.model.lines import Family, Plain, flat_lines
from bayesphase.model.one_step import one_step
from bayesphase.model.passes import Expectation
from bayesphase.model.series import Series

Potentials = tuple[np.ndarray, np.ndarray]


class Observed(Protocol):
    """What the rest of the model does with rows.

    `lines` are what the family's `lines` returns for some parameters, `potentials` the
    log-transitions (gap, state, state) and log-initial probabilities (state) of the chain.
    """

    @property
    def series(self) -> Series:
        """The numbers that have a density."""

    @property
    def unit(self) -> np.ndarray:
        """Log density (row), nats, to be taken off what the methods here say of features."""

    def expect(self, lines: Any, potentials: Potentials) -> Expectation:
        """Return the log-likelihood, and what is expected of states and features."""

    def sum_up(self, state_probs: np.ndarray) -> Expectation:
        """Return what is expected if the states have these probabilities (row, state)."""

    def draw_paths(
        self,
        lines: Any,
        potentials: Potentials,
        uniforms: np.ndarray,
        states: np.ndarray,
        log_likelihood: np.ndarray,
    ) -> None:
        """Write states (row) that are drawn with `uniforms` (row), and `log_likelihood` (run)."""

    def leave_one_out(self, lines: Any, potentials: Potentials) -> np.ndarray:
        """Log density (row) of every row given all others of its run."""

    def one_step(self, lines: Any, potentials: Potentials) -> np.ndarray:
        """Log density (row) of every row given those of its run before."""

    def log_emission(self, lines: Any) -> np.ndarray:
        """Log density (row, state) of every row given its state."""


class Lined(NamedTuple):
    """Features that vary about lines: what is modelled of rows, also as the kernels want it.

    `run_of` (column) says which run a column of `data` is of, where runs have offsets.
    """

    series: Series
    data: Data
    family: Plain | Family
    run_of: np.ndarray | None = None

    @property
    def unit(self) -> np.ndarray:
        """Log density (row) that features lose when they are scaled back."""
        return _unit(self.series)

    def expect(self, lines: Any, potentials: Potentials) -> Expectation:  # noqa: D102
        return passes.expect(self.data, lines, *potentials)

    def sum_up(self, state_probs: np.ndarray) -> Expectation:  # noqa: D102
        shape = (state_probs.shape[1], self.series.values.shape[1])
        return passes.sum_up(self.data, flat_lines(self.family, shape), state_probs)

    def draw_paths(  # noqa: D102
        self,
        lines: Any,
        potentials: Potentials,
        uniforms: np.ndarray,
        states: np.ndarray,
        log_likelihood: np.ndarray,
    ) -> None:
        passes.draw_paths(self.data, lines, *potentials, uniforms, states, log_likelihood)

    def leave_one_out(self, lines: Any, potentials: Potentials) -> np.ndarray:  # noqa: D102
        out = np.empty(len(self.series.values))
        passes.leave_one_out(self.data, lines, *potentials, out)
        return out

    def one_step(self, lines: Any, potentials: Potentials) -> np.ndarray:  # noqa: D102
        out = np.zeros(len(self.series.values))
        passes.one_step(self.data, lines, *potentials, out)
        return out

    def log_emission(self, lines: Any) -> np.ndarray:  # noqa: D102
        data, n_states = self.data, lines.scale.shape[-2]
        by_row = np.empty((len(self.series.values), n_states))
        # the kernel writes whole vectors
        by_state = np.empty((n_states, len(data.place)))
        for group, (begin, end) in enumerate(pairwise(data.begins)):
            log_emission(data, group, lines, by_state)
            by_row[data.place[begin:end]] = by_state[:, : end - begin].T
        return by_row


class Tabled(NamedTuple):
    """Any other features: `lines` are log densities (row, state) of scaled features.

    What is expected of the features themselves is left to the family: `Expectation.sums` are the
    probabilities (row, state) of the states. `parts` is whatever the family needs of the rows.
    """

    series: Series
    layout: Layout
    parts: Any

    @property
    def unit(self) -> np.ndarray:
        """Log density (row) that features lose when they are scaled back."""
        return _unit(self.series)

    def expect(self, lines: np.ndarray, potentials: Potentials) -> Expectation:  # noqa: D102
        smoothed = forward_backward(lines, *potentials, self.layout)
        return Expectation(
            smoothed.log_likelihood,
            smoothed.state_probs,
            smoothed.state_probs[self.layout.starts].sum(axis=0),
            smoothed.expected_transitions.sum(axis=0),
        )

    def sum_up(self, state_probs: np.ndarray) -> Expectation:  # noqa: D102
        n_states = state_probs.shape[1]
        return Expectation(
            np.full(1, -np.inf),
            state_probs,
            state_probs[self.layout.starts].sum(axis=0),
            np.zeros((1, n_states, n_states)),
        )

    def draw_paths(  # noqa: D102
        self,
        lines: np.ndarray,
        potentials: Potentials,
        uniforms: np.ndarray,
        states: np.ndarray,
        log_likelihood: np.ndarray,
    ) -> None:
        arrays = floats(lines, *potentials)
        states[:], log_likelihood[:] = sample_paths_kernel(*arrays, self.layout, uniforms)

    def leave_one_out(self, lines: np.ndarray, potentials: Potentials) -> np.ndarray:  # noqa: D102
        return leave_one_out(lines, *potentials, self.layout)

    def one_step(self, lines: np.ndarray, potentials: Potentials) -> np.ndarray:  # noqa: D102
        return one_step(lines, *potentials, self.layout)

    def log_emission(self, lines: np.ndarray) -> np.ndarray:  # noqa: D102
        return lines


def _unit(series: Series) -> np.ndarray:
    return series.observed @ np.log(series.spread)
