"""Runs that go on: where they are by now, and checkpoints to come as a fit would make them."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from bayesphase._checks import check_seed
from bayesphase.model.emissions import AutoRegressive
from bayesphase.model.lanes import end_to_end
from bayesphase.model.lines import LEVEL
from bayesphase.model.paths import sample_states
from bayesphase.model.pointwise import chosen_draws, flat_posterior
from bayesphase.model.replicate import stopped
from bayesphase.model.rows import Rows
from bayesphase.model.spec import Spec, recorded
from bayesphase.model.transfer import (
    filtered_by_beginning,
    filtered_states,
    offsets_given,
    spec_of,
)
from bayesphase.model.transitions import ContinuousTime

# checkpoints of a run whose past alone is looked at, where its offset has to be drawn for each
_BEGINNINGS = 20
_LATE = 0.25  # of a run's checkpoints


class Ahead(NamedTuple):
    """What draws say of runs in progress; samples are draws, one of each.

    `reachable` (sample, run, state) says which states the transitions allow a run to enter from
    where its path is now. `probability` (sample, run, state) is that of the phase by now, given the
    past; `entered` (sample, run, state) is the step of the first entry on a path drawn given the
    past, NaN if there is none yet;
    `states` (sample, run, ahead) and `features` (sample, run, ahead, feature), as the fit has them,
    are of the checkpoints to come; `now` (run) is the last step, and `chain` and `draw` (sample)
    say which parameters a sample has.
    """

    probability: np.ndarray
    entered: np.ndarray
    reachable: np.ndarray
    states: np.ndarray
    features: np.ndarray
    now: np.ndarray
    chain: np.ndarray
    draw: np.ndarray


def filtered_in_fit(fit: xr.DataTree, *, draws: int) -> np.ndarray:
    """Probabilities of phases given the past (run, step, state) in the runs of a fit, over draws.

    As they would be of a run in progress: states that are known beforehand are not made use of, nor
    are offsets that later checkpoints have a part in. NaN where a run has no checkpoint, and, where
    runs have offsets, at all but 20 checkpoints of each run, spread evenly.
    """
    features = fit["observed_data"].to_dataset()["features"]
    spec = spec_of(recorded(fit), features)
    chosen = chosen_draws(fit, draws).ravel()
    flat = {
        name: values[chosen] for name, values in flat_posterior(fit).items() if name != "offset"
    }
    rows = np.arange(len(spec.rows.values))
    if spec.emission.offsets:
        layout = spec.rows.layout
        rows = np.concatenate(
            [
                start + np.unique(np.linspace(0, length - 1, _BEGINNINGS).round().astype(int))
                for start, length in zip(layout.starts, layout.lengths, strict=True)
            ]
        )
        by_row = filtered_by_beginning(
            spec, features, flat, rows=rows, seed=np.random.SeedSequence(0), cores=None
        )
    else:
        by_row = filtered_states(spec, flat).mean(axis=0)
    grid = np.full((features.sizes["run"], features.sizes["step"], spec.n_states), np.nan)
    grid[spec.rows.run[rows], spec.rows.step[rows]] = by_row
    return grid


def gap_ahead(fit: xr.DataTree) -> float:
    """How many optimiser steps apart checkpoints to come are: as those of a run usually are.

    Warns
    -----
    UserWarning
        If gaps late in runs are others than usual by more than a factor of 2, and transitions are
        by the checkpoint, so that they do not know: the late gap is taken.
    """
    spec = recorded(fit)
    rows, lengths = spec.rows, spec.rows.layout.lengths
    follows = rows.gap > 0.0
    if not follows.any():
        return rows.step_unit
    usual = float(np.median(rows.gap[follows]))
    to_the_end = np.concatenate([np.arange(length)[::-1] / length for length in lengths])
    late = float(np.median(rows.gap[follows & (to_the_end < _LATE)]))
    if isinstance(spec.structure, ContinuousTime) or usual / 2.0 <= late <= 2.0 * usual:
        return usual
    warnings.warn(
        f"checkpoints are {usual:g} optimiser steps apart, but {late:g} late in the runs; the "
        f"transitions {spec.structure.name!r} are by the checkpoint, so that the time that "
        f"simulated paths take is only right late in a run: fit with "
        f"transition='continuous_time'",
        stacklevel=2,
    )
    return late


def look_ahead(
    fit: xr.DataTree,
    features: xr.DataArray,
    *,
    n_ahead: int,
    gap: float,
    draws: int | None,
    random_seed: int | None,
    cores: int | None,
) -> Ahead:
    """Let runs go on under draws of a posterior.

    States follow the transitions from where the run is, and features the emission from where they
    were last observed.

    Parameters
    ----------
    fit : DataTree
    features : DataArray (run, step, feature)
        On the scale of the fit's: all that is known of the runs.
    n_ahead : int
        Checkpoints to come.
    gap : float
        Optimiser steps between them.
    draws, random_seed, cores
        As in `bayesphase.decode`.
    """
    for_offsets, for_paths, for_future = np.random.SeedSequence(check_seed(random_seed)).spawn(3)
    base = recorded(fit)
    spec = spec_of(base, features)
    chosen, posterior = chosen_draws(fit, draws), fit["posterior"].to_dataset()
    chain, draw = np.divmod(chosen.ravel(), posterior.sizes["draw"])
    flat = {
        name: values[chosen.ravel()]
        for name, values in flat_posterior(fit).items()
        if name != "offset"
    }
    if spec.emission.offsets:
        flat["offset"] = offsets_given(spec, flat, seed=for_offsets, cores=cores)
    paths, _ = sample_states(spec, flat, seed=for_paths, cores=cores)
    starts, lengths = spec.rows.layout.starts, spec.rows.layout.lengths
    last = starts + lengths - 1
    rng = np.random.default_rng(for_future)
    states = _states_to_come(base, flat, paths[:, last], n_ahead, gap, rng)
    to_come = [
        _features_to_come(spec, flat, run, states[:, run], gap, rng) for run in range(len(starts))
    ]
    return Ahead(
        filtered_states(spec, flat)[:, last],
        _entered(spec, paths),
        _reachable(base.transition.possible(base.n_states)[0])[paths[:, last]],
        states,
        np.stack(to_come, axis=1),
        spec.rows.time[last],
        posterior["chain"].values[chain],
        posterior["draw"].values[draw],
    )


def _entered(spec: Spec, paths: np.ndarray) -> np.ndarray:
    """First steps (draw, run, state) of states on the paths (draw, row)."""
    layout = spec.rows.layout
    out = np.full((len(paths), len(layout.starts), spec.n_states), np.nan)
    for run, (start, length) in enumerate(zip(layout.starts, layout.lengths, strict=True)):
        time = spec.rows.time[start : start + length]
        for state in range(spec.n_states):
            there = paths[:, start : start + length] == state
            out[:, run, state] = np.where(there.any(axis=1), time[there.argmax(axis=1)], np.nan)
    return out


def _reachable(possible: np.ndarray) -> np.ndarray:
    """Which states (state, state) can be entered from which, in any number of transitions."""
    reachable = possible.copy()
    for _ in range(len(possible)):
        reachable |= reachable @ possible
    return reachable


def _states_to_come(
    spec: Spec,
    flat: Mapping[str, np.ndarray],
    now: np.ndarray,
    n_ahead: int,
    gap: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw states (draw, run, ahead) that follow those of `now` (draw, run)."""
    pair = spec.rows._replace(
        time=np.array([0.0, gap]),
        layout=end_to_end(np.array([2])),
        run=np.zeros(2, int),
        step=np.arange(2),
    )
    chain, pair = spec.structure.laid_out(pair, spec.n_states)
    matrix = pair.layout.gap_index[1]
    draws = [{name: values[d] for name, values in flat.items()} for d in range(len(now))]
    with np.errstate(divide="ignore"):  # a probability may be 0
        probs = np.stack([np.exp(chain.log_potentials(named, np)[0][matrix]) for named in draws])
    cumulative = probs.cumsum(axis=2)
    # they end in 1, whatever the rounding, so that nothing of probability 0 is ever drawn
    cumulative /= cumulative[:, :, -1:]
    uniforms = rng.random((n_ahead, *now.shape))
    states = np.empty((*now.shape, n_ahead), np.int8)
    each = np.arange(len(now))[:, None]
    for ahead, uniform in enumerate(uniforms):
        now = (cumulative[each, now] <= uniform[..., None]).sum(axis=2)
        states[..., ahead] = now
    return states


def _features_to_come(
    spec: Spec,
    flat: Mapping[str, np.ndarray],
    run: int,
    states: np.ndarray,
    gap: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw features (draw, ahead, feature) of one run in `states` (draw, ahead) to come.

    All draws go on at a time: as if each were a run, with states of its own.
    """
    emission, rows = spec.emission, spec.rows
    n_draws, n_ahead = states.shape
    past = _to_depart_from(spec, run)
    n_past, n_features = past.observed.shape
    # a feature that changes from nowhere has no forecast
    begun = past.observed.sum(axis=0) >= _n_departed_from(spec)
    to_come = np.broadcast_to(begun, (n_ahead, n_features))
    values = np.vstack([past.values, np.zeros((n_ahead, n_features))])
    time = np.append(past.time, past.now + gap * np.arange(1, n_ahead + 1))
    offset = flat["offset"][:, run] if emission.offsets else np.zeros((n_draws, n_features))
    length = n_past + n_ahead
    observed = np.tile(np.vstack([past.observed, to_come]), (n_draws, 1))
    draws = Rows(
        (np.tile(values, (n_draws, 1)) - np.repeat(offset, length, axis=0)) * observed,
        observed,
        np.repeat(np.arange(n_draws), length),
        np.tile(np.arange(length), n_draws),
        np.tile(time, n_draws),
        rows.step_unit,
        end_to_end(np.full(n_draws, length)),
        rows.location,
        rows.spread,
    )
    own = np.hstack([np.zeros((n_draws, n_past), np.int64), states])  # nothing is drawn of the past
    own += spec.n_states * np.arange(n_draws)[:, None]
    named = {
        name: flat[name].reshape(n_draws * spec.n_states, *flat[name].shape[2:])
        for name in emission.dims  # a state of each draw is a state
    }
    drawn = emission.sample(rng, own.ravel(), named, draws)
    drawn = stopped(emission, draws, drawn + np.repeat(offset, length, axis=0) * observed)
    drawn = np.where(observed, drawn, np.nan)
    return drawn.reshape(n_draws, length, n_features)[:, n_past:]


class _Past(NamedTuple):
    """The rows that features go on from; `now` is the time of the run's last one."""

    values: np.ndarray
    observed: np.ndarray
    time: np.ndarray
    now: float


def _n_departed_from(spec: Spec) -> int:
    """How many of a feature's last observations its next one depends on."""
    if spec.emission.kind == LEVEL:
        return 0
    of_speeds = isinstance(spec.emission, AutoRegressive) and spec.emission.differences
    return 2 if of_speeds else 1


def _to_depart_from(spec: Spec, run: int) -> _Past:
    rows, layout = spec.rows, spec.rows.layout
    own = slice(layout.starts[run], layout.starts[run] + layout.lengths[run])
    seen = rows.observed[own]
    # how many observations of the feature come later
    later = seen[::-1].cumsum(axis=0)[::-1] - seen
    needed = seen & (later < _n_departed_from(spec))
    kept = needed.any(axis=1)
    return _Past(
        rows.values[own][kept], needed[kept], rows.time[own][kept], float(rows.time[own][-1])
    )
