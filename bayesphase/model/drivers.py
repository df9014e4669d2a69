"""What each feature has to do with the switches of the sampled paths."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import xarray as xr

from bayesphase._checks import threads
from bayesphase.model import offsets
from bayesphase.model.forecast import log_filtered_states
from bayesphase.model.pointwise import chosen_draws, flat_posterior
from bayesphase.model.rows import Rows
from bayesphase.model.spec import Spec, recorded

# draws that are filtered together, which is quicker than one by one
_BLOCK = 16


class Switches(NamedTuple):
    """The first time that each run takes each edge on a path; all (switch).

    `edge` is state * n_states + state_next, `begin` and `end` are the first row of the visit and
    the row after its last, and `left` is the first row of the visit before.
    """

    edge: np.ndarray
    left: np.ndarray
    begin: np.ndarray
    end: np.ndarray


class Drivers(NamedTuple):
    """Switches of all draws, one after the other, and what features do there.

    `edge` (switch), as in `Switches`; all others (switch, feature), see `switch_drivers`.
    """

    edge: np.ndarray
    gradient: np.ndarray
    log_odds: np.ndarray
    change: np.ndarray


def first_switches(rows: Rows, path: np.ndarray, n_states: int) -> Switches:
    """Find the first time that each run takes each edge on a `path` (row)."""
    enters = np.append(True, path[1:] != path[:-1])
    enters[rows.layout.starts] = True
    begin = np.flatnonzero(enters)
    end = np.append(begin[1:], len(path))
    follows = ~np.isin(begin, rows.layout.starts)
    visit = np.flatnonzero(follows)
    at = begin[visit]
    edge = path[at - 1].astype(int) * n_states + path[at]
    _, first = np.unique(rows.run[at] * n_states**2 + edge, return_index=True)
    visit = visit[first]
    return Switches(edge[first], begin[visit - 1], begin[visit], end[visit])


def switch_drivers(
    fit: xr.DataTree, *, draws: int | None, window: int, cores: int | None
) -> Drivers:
    """Compute how features take part in the switches of the sampled paths.

    Parameters
    ----------
    fit : DataTree
    draws : int or None
        How many of the draws at most; all if None.
    window : int
        Checkpoints from the switch on over which the log-odds are averaged.
    cores : int or None
        Threads to share the draws out over; all cores by default.

    Returns
    -------
    Drivers
        `gradient` is the derivative of log p(state_next | features up to the switch) by the
        features of the first checkpoint after it; `log_odds` what a feature adds to the log density
        there under state_next, less that under state, mean over the window; `change` the mean of a
        feature in the visit after the switch, less that in the visit before. NaN where a feature
        is missing.
    """
    spec = recorded(fit)
    chosen = chosen_draws(fit, draws).ravel()
    flat = flat_posterior(fit)
    each = [{name: values[draw] for name, values in flat.items()} for draw in chosen]
    states = fit["paths"].to_dataset()["state"].transpose("chain", "draw", "run", "step").values
    paths = states[:, :, spec.rows.run, spec.rows.step].reshape(-1, len(spec.rows.values))[chosen]
    found: list[Drivers] = []
    with ThreadPoolExecutor(threads(cores)) as pool:
        for first in range(0, len(each), _BLOCK):
            block = slice(first, first + _BLOCK)
            filtered = np.exp(log_filtered_states(spec, each[block]))
            found += pool.map(
                lambda one: _under_a_draw(spec, *one, window=window),
                zip(each[block], paths[block], filtered, strict=True),
            )
    return Drivers(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _under_a_draw(
    spec: Spec,
    named: Mapping[str, np.ndarray],
    path: np.ndarray,
    filtered: np.ndarray,
    *,
    window: int,
) -> Drivers:
    rows = offsets.without(spec.rows, named)
    density = spec.emission.density_by_feature(rows, named)
    switches = first_switches(rows, path, spec.n_states)
    here, there = np.divmod(switches.edge, spec.n_states)
    each = np.arange(len(switches.edge))
    slope = spec.emission.score(rows, named)[switches.begin]
    expected = (filtered[switches.begin][:, :, None] * slope).sum(axis=1)
    until = np.minimum(switches.end, switches.begin + window)
    log_odds = [
        _mean(density[a:b, j] - density[a:b, i])
        for a, b, i, j in zip(switches.begin, until, here, there, strict=True)
    ]
    seen = np.where(spec.rows.observed, spec.rows.values, np.nan)
    change = [
        _mean(seen[b:c]) - _mean(seen[a:b])
        for a, b, c in zip(switches.left, switches.begin, switches.end, strict=True)
    ]
    shape = (len(each), rows.values.shape[1])
    return Drivers(
        switches.edge,
        slope[each, there] - expected,
        np.reshape(log_odds, shape),
        np.reshape(change, shape),
    )


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean (feature) over rows of what there is; NaN where there is nothing."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
