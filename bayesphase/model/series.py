"""What an emission models of the rows: their values, or how these change from one to the next.

Functions of `values` (row, feature) take arrays of NumPy or PyTensor alike.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bayesphase.model.lanes import Layout
from bayesphase.model.rows import Rows, location_and_spread


class Lag(NamedTuple):
    """Where a feature was observed before; all (row, feature).

    `before` is the row of the last earlier observation in the same run, -1 where there is none or
    the feature is missing itself; `gap` the time since then, in units of `Rows.step_unit`, 1 where
    there is none; `time` that of the row, in the same units.
    """

    before: np.ndarray
    gap: np.ndarray
    time: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Whether there is an earlier observation."""
        return self.before >= 0

    def previous(self, values: Any) -> Any:
        """Values of the earlier observation, 0 where there is none."""
        at = np.maximum(self.before, 0)
        return self.known * values[at, np.arange(at.shape[1])]

    def change(self, values: Any) -> Any:
        """Change of the values since the earlier observation, 0 where there is none."""
        return self.known * values - self.previous(values)


def lag(rows: Rows) -> Lag:
    """Look back from every row to the last observation of each feature."""
    time = np.broadcast_to(rows.time[:, None] / rows.step_unit, rows.values.shape)
    return _lag(rows, rows.observed, time)


def lag_of_speeds(rows: Rows, levels: Lag) -> Lag:
    """Look back from the speed of every feature to the one before.

    A speed is a change over its gap, and its time the middle of that stretch.
    """
    return _lag(rows, levels.known, levels.time - 0.5 * levels.gap)


def _lag(rows: Rows, observed: np.ndarray, time: np.ndarray) -> Lag:
    index = np.where(observed, np.arange(len(observed))[:, None], -1)
    last = np.maximum.accumulate(index, axis=0)
    before = np.vstack([np.full((1, index.shape[1]), -1), last[:-1]])
    starts = np.repeat(rows.layout.starts, rows.layout.lengths)[:, None]
    before = np.where((before >= starts) & observed, before, -1)
    earlier = np.take_along_axis(time, np.maximum(before, 0), axis=0)
    # rounded, so that rounding errors do not make equal gaps differ
    return Lag(before, np.where(before >= 0, np.round(time - earlier, 9), 1.0), time)


def in_turn(
    values: np.ndarray,
    at: Lag,
    layout: Layout,
    go_on: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Make values (row, feature) from those before them, at the same checkpoint of all runs.

    `go_on` takes what was made of the earlier observations, and the rows. Values that have none
    stay as they are.
    """
    made, known = values.copy(), at.known
    with np.errstate(over="ignore", invalid="ignore"):  # a drift that grows with itself may explode
        for turn in turns(layout):
            before = np.take_along_axis(made, np.maximum(at.before[turn], 0), axis=0)
            made[turn] = np.where(known[turn], go_on(before, turn), made[turn])
    return made


def turns(layout: Layout) -> Iterator[np.ndarray]:
    """Go through rows by their place in the run: the first of all runs, the second, and so on.

    Runs come longest first, so that those which go on are the first of those before.
    """
    starts, lengths = layout.starts[layout.by_length], layout.lengths[layout.by_length]
    for t in range(lengths[0]):
        yield starts[lengths > t] + t


class Series(NamedTuple):
    """The numbers that an emission gives a density to; all (row, feature) but for what says not.

    `values` are modelled where `observed`, and are 0 elsewhere. `previous` is the level that a
    change departs from, or empty where it does not matter; `gap` the time that a change took, or
    empty. `location` and `spread` (feature) are where the levels lie, in the mean and by standard
    deviation; `typical` (feature) is the median magnitude of what is left of values without
    location and gap.
    """

    values: np.ndarray
    previous: np.ndarray
    observed: np.ndarray
    gap: np.ndarray
    location: np.ndarray
    spread: np.ndarray
    typical: np.ndarray

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return bool(self.observed.all())


_NONE = np.zeros((0, 0))


def series_of_levels(rows: Rows) -> Series:
    """Take the features as they are."""
    location, spread = rows.location, rows.spread
    typical = _typical(rows.values - location, rows.observed)
    return Series(rows.values, _NONE, rows.observed, _NONE, location, spread, typical)


def series_of_changes(rows: Rows) -> Series:
    """Take the change of each feature since it was last observed in the run."""
    at = lag(rows)
    change = at.change(rows.values)
    _, spread = location_and_spread(change / at.gap, at.known)
    typical = _typical(change / np.sqrt(at.gap), at.known)
    return Series(change, _NONE, at.known, at.gap, np.zeros(len(spread)), spread, typical)


def series_of_reversions(values: np.ndarray, at: Lag) -> Series:
    """Take the change of `values`, and what they change from; `at` looks back from each."""
    change = at.change(values)
    location, spread = location_and_spread(at.previous(values), at.known)
    typical = _typical(change / np.sqrt(at.gap), at.known)
    return Series(change, at.previous(values), at.known, at.gap, location, spread, typical)


def series_of_drifts(rows: Rows) -> Series:
    """Take the change of each feature, and the value, as it is, that it departs from."""
    at = lag(rows)
    series = series_of_reversions(rows.values, at)
    before = np.where(at.known, series.previous, 0.0)
    size = np.sqrt((before**2).sum(axis=0) / np.maximum(at.known.sum(axis=0), 1))
    return series._replace(
        location=np.zeros(len(size)), spread=np.where(size > 0.0, size, series.spread)
    )


def _typical(values: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Median magnitude (feature) of what is observed; the standard deviation where it is 0."""
    _, spread = location_and_spread(values, observed)
    columns = (np.abs(column[seen]) for column, seen in zip(values.T, observed.T, strict=True))
    typical = np.array([np.median(column) if column.size else 0.0 for column in columns])
    return np.where(typical > 1e-9 * spread, typical, spread)
