"""Starting points: the posterior has many modes, and a chain never leaves the one it starts in.

Expectation-maximisation (Baum-Welch; Rabiner 1989, doi:10.1109/5.18626) from many partitions of the
checkpoints finds the modes at a small cost, and every chain starts near the best. Most partitions
are climbed from for a few steps only, the best of these to the top (Biernacki, Celeux & Govaert
2003, doi:10.1016/S0167-9473(02)00163-9).
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from bayesphase._checks import check_count, threads
from bayesphase.model.family import Emission
from bayesphase.model.numbering import numbered
from bayesphase.model.observed import Observed
from bayesphase.model.offset_search import RunLevels, levels_of_runs
from bayesphase.model.offsets import without
from bayesphase.model.rows import Rows

# partitions tried for each one that is climbed to the top, and the steps taken from each
TRIED_PER_RESTART = 5
_SHORT = 10
_LONG = 500

# how often each climb is asked for better offsets of single features
_ROUNDS = 2

# nats apart that two climbs into the same mode may be, if they are near its top
_SAME_HEIGHT = 0.1

# checkpoints that k-means looks at: enough to place the centres, the climb does the rest
_LOOKED_AT = 2000


class Start(NamedTuple):
    """A mode: its log density under the default priors up to a constant, and its parameters."""

    log_density: float
    parameters: dict[str, np.ndarray]


def starting_points(
    rows: Rows,
    n_states: int,
    *,
    emission: Emission,
    transition: Any,
    n_restarts: int,
    rng: np.random.Generator,
    cores: int | None = None,
) -> list[Start]:
    """Modes of the posterior density found by EM, the best first.

    Half of the partitions are by what checkpoints look like (k-means), half by when they come
    (random cuts in the time of a run). Of five times `n_restarts` partitions the most promising
    `n_restarts` are climbed to the top: half of them the best, and half the best of those that are
    not as high as one that is chosen, where there are any. Where data are few, the best mode is
    found so often that another would never be seen otherwise. `cores` (all by default) is how many
    climbs are made at a time. `rows` are laid out for `transition`, a chain as `transitions`
    describes it. Where it has states to spare (`transition.spare`), partitions have any number of
    parts up to `n_states`, and the most promising of each number are climbed. Where runs have
    offsets, half of the partitions are of runs brought to one level.

    Raises
    ------
    TypeError, ValueError
        If `n_restarts` is no integer of at least 1.
    """
    check_count("n_restarts", n_restarts, least=1)
    observed = emission.observe(rows)
    looks = _looks(observed)
    spare = transition.spare
    levels = levels_of_runs(observed) if emission.offsets else None
    climbs = []
    for attempt in range(TRIED_PER_RESTART * n_restarts):
        by_look = attempt % 2 == 0
        n_parts = 1 + attempt // 2 % n_states if spare else n_states
        offset = None if levels is None else levels * (attempt // 3 % 2)
        seen = looks if offset is None or observed.series.gap.size else looks - offset[rows.run]
        states = _by_look(seen, n_parts, rng) if by_look else _by_time(rows, n_parts, rng)
        states = numbered(states, rows, transition, n_states)
        climbs.append(_Climb(observed, states, n_states, emission, transition, offset))
        climbs[-1].n_parts = n_parts
    with ThreadPoolExecutor(threads(cores)) as pool:
        climbs = list(pool.map(lambda climb: climb.run(_SHORT), climbs))
        promising = (_of_each_number if spare else _promising)(climbs, n_restarts)
        climbs = list(pool.map(lambda climb: climb.run(_LONG), promising))
    climbs.sort(key=lambda climb: -climb.log_density)
    if emission.offsets:
        climbs[0] = _crossed(climbs[0], climbs[1:], rows)
    return [climb.start() for climb in climbs]


def _crossed(best: "_Climb", others: list["_Climb"], rows: Rows) -> "_Climb":
    """Let the best take over the offsets of single features that others have found better.

    Given the path features are independent, and each may have its offsets in several modes: a climb
    that is the best in some features is seldom so in all.
    """

    def seen(climb: "_Climb") -> tuple[np.ndarray, np.ndarray]:
        states = climb.path(rows)
        return states, climb.explained(rows, states)

    states, own = seen(best)
    for other in others * _ROUNDS:
        better = other.explained(rows, states) > own
        if better.any():
            offset = np.where(better, other.offset, best.offset)
            crossed = best.from_here(states, offset).run(_LONG)
            if crossed.log_density > best.log_density:
                best, (states, own) = crossed, seen(crossed)
    return best


def _promising(climbs: list["_Climb"], n: int) -> list["_Climb"]:
    """Choose the best half, and then the best of those that seem to be somewhere else."""
    ranked = sorted(climbs, key=lambda climb: -climb.log_density)
    chosen, rest = ranked[: n - n // 2], ranked[n - n // 2 :]
    alike: list[_Climb] = []
    for climb in rest:
        near = min(abs(climb.log_density - other.log_density) for other in chosen)
        (alike if near < _SAME_HEIGHT else chosen).append(climb)
    return (chosen + alike)[:n]


def _of_each_number(climbs: list["_Climb"], n: int) -> list["_Climb"]:
    """Choose the best of each number of parts, then the second best, and so on."""
    ranked = sorted(climbs, key=lambda climb: -climb.log_density)
    seen: Counter[int] = Counter()
    turns = []
    for climb in ranked:
        turns.append(seen[climb.n_parts])
        seen[climb.n_parts] += 1
    return [ranked[i] for i in np.argsort(turns, kind="stable")[:n]]


def _looks(observed: Observed) -> np.ndarray:
    """Describe checkpoints (row, feature): by levels, or by how large changes are and which way."""
    series = observed.series
    if not series.gap.size:
        return (series.values - series.location) / series.spread * series.observed
    change = series.values / np.sqrt(series.gap) / series.typical
    return np.arcsinh(change) * series.observed


def _by_look(z: np.ndarray, n_states: int, rng: np.random.Generator) -> np.ndarray:
    from scipy.cluster.vq import ClusterError, kmeans2, vq

    some = z[rng.choice(len(z), min(len(z), _LOOKED_AT), replace=False)]
    n_clusters = min(n_states, len(np.unique(some, axis=0)))
    while True:
        try:
            centres, _ = kmeans2(some, n_clusters, minit="++", missing="raise", seed=rng)
            return vq(z, centres, check_finite=False)[0]
        except ClusterError:  # one came out empty; a state that is left over fills in the climb
            n_clusters -= 1


def _by_time(rows: Rows, n_states: int, rng: np.random.Generator) -> np.ndarray:
    cuts = np.sort(rng.random(n_states - 1))
    lengths = np.repeat(rows.layout.lengths, rows.layout.lengths)
    since_start = np.arange(len(rows.values)) - np.repeat(rows.layout.starts, rows.layout.lengths)
    return np.searchsorted(cuts, since_start / lengths, "right")


class _Climb:
    """EM from a partition, the `states` (row) of all rows, which can be taken up again."""

    def __init__(
        self,
        observed: Observed,
        states: np.ndarray,
        n_states: int,
        emission: Emission,
        transition: Any,
        offset: np.ndarray | None = None,
    ) -> None:
        self._observed, self._emission, self._transition = observed, emission, transition
        self._levels = None if offset is None else RunLevels(observed, emission, offset)
        self._expected = self._here.sum_up(np.eye(n_states)[states])
        self._parameters: dict[str, np.ndarray] = {}
        self.n_parts = n_states
        self.log_density = -np.inf

    @property
    def offset(self) -> np.ndarray:
        """Offsets (run, feature) of the scaled features, 0 where there are none."""
        return np.zeros(()) if self._levels is None else self._levels.offset

    @property
    def _here(self) -> Observed:
        return self._observed if self._levels is None else self._levels.here

    def run(self, max_steps: int, *, tolerance: float = 1e-3) -> "_Climb":
        """Climb until a step gains less than `tolerance` nats."""
        observed = self._observed
        for _ in range(max_steps):
            expected = self._expected
            emission, emission_prior = self._emission.maximise(observed, expected, self._parameters)
            transition, transition_prior = self._transition.maximise(
                expected.transitions, expected.first_states, self._parameters
            )
            parameters = {**transition, **emission}
            potentials = self._transition.log_potentials(parameters, np)
            if self._levels is not None:
                parameters = self._levels.improve(parameters, potentials)
            lines = self._emission.lines(parameters, observed)
            self._expected = self._here.expect(lines, potentials)
            log_density = self._expected.log_likelihood.sum() + emission_prior + transition_prior
            if self._levels is not None:
                log_density += self._levels.log_prior
            gained = log_density - self.log_density
            self.log_density = float(log_density)
            self._parameters = parameters
            if gained < tolerance:
                break
        return self

    def path(self, rows: Rows) -> np.ndarray:
        """Draw a path (row) with middling luck: the likely one where states are clear."""
        states = np.empty(len(rows.values), np.int8)
        potentials = self._transition.log_potentials(self._parameters, np)
        lines = self._emission.lines(self._parameters, self._observed)
        middle, log_likelihood = np.full(len(states), 0.5), np.empty(len(rows.layout.starts))
        self._here.draw_paths(lines, potentials, middle, states, log_likelihood)
        return states

    def explained(self, rows: Rows, states: np.ndarray) -> np.ndarray:
        """Log density (feature), nats, of the features given a path."""
        parameters = self.start().parameters
        density = self._emission.density_by_feature(without(rows, parameters), parameters)
        return np.nansum(density[np.arange(len(states)), states], axis=0)

    def from_here(self, states: np.ndarray, offset: np.ndarray) -> "_Climb":
        """Begin another climb, from a path and offsets (run, feature)."""
        n_states = len(self._expected.first_states)
        return _Climb(self._observed, states, n_states, self._emission, self._transition, offset)

    def start(self) -> Start:
        """Return where the climb is."""
        levels = {} if self._levels is None else self._levels.parameters()
        return Start(self.log_density, {**self._parameters, **levels})
