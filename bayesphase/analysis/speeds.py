"""What features do in each phase, how high they are and how fast they move, and what changes."""

import numpy as np
import xarray as xr

from bayesphase.analysis._paths import (
    STEP_UNITS,
    check_ci_prob,
    each_run,
    sampled_paths,
    state_labels,
)
from bayesphase.analysis._summary import intervals, variable

PER_STEPS = 1000  # speeds are per so many optimiser steps


def phase_speeds(fit: xr.DataTree, *, ci_prob: float = 0.9) -> xr.Dataset:
    """Say how high each feature is and how fast it moves in each phase, and what a switch changes.

    It is about the features as they were observed, whatever the emission: a state's level is the
    mean of a feature over all checkpoints in the state, of all runs, and its speed is the sum of
    the changes that end at these checkpoints over the steps that they take. Intervals are over the
    sampled paths: they say how sure it is which checkpoints are in which phase, and no more.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    ci_prob : float, default 0.9
        Probability that each equal-tailed interval holds.

    Returns
    -------
    Dataset
        - ``level`` and ``speed`` (state, feature): posterior medians, in the units of the features,
          and those per 1000 optimiser steps;
        - ``level_change`` and ``speed_change`` (state, state_next, feature): what a switch from
          ``state`` to ``state_next`` changes, the difference of the two in each draw; NaN on the
          diagonal;
        - each with its ends ``..._lower`` and ``..._upper``.

        NaN where no draw has such checkpoints: a change counts if both of its ends, successive
        checkpoints of a run, are observed. The attribute is ``ci_prob``.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit or lacks its features, or `ci_prob` is not between 0 and 1.

    Examples
    --------
    >>> bp.phase_speeds(fit)["speed"]  # doctest: +SKIP
    """
    ci_prob = check_ci_prob(ci_prob)
    state, labels = sampled_paths(fit), state_labels(fit)
    if "observed_data" not in fit.children or "features" not in fit["observed_data"].data_vars:
        raise ValueError(
            "the fit has no variable 'features' in a group 'observed_data'; its groups are "
            f"{sorted(fit.children)}: use the DataTree that bayesphase.fit returns"
        )
    features = fit["observed_data"].to_dataset()["features"].transpose("run", "step", "feature")
    units = str(features.attrs.get("units", "1"))
    speed_units = f"{'' if units == '1' else units + ' '}per {PER_STEPS} {STEP_UNITS}"
    level, speed = _levels_and_speeds(state, features.values, labels.size)
    columns = {
        "level": (level, "mean of the feature in the phase", units),
        "speed": (speed, "mean speed of the feature in the phase", speed_units),
        "level_change": (_changes(level), "change of the level at the switch", units),
        "speed_change": (_changes(speed), "change of the speed at the switch", speed_units),
    }
    words = {"": "{}, median", "_lower": "lower end of the {}", "_upper": "upper end of the {}"}
    variables = {}
    for name, (values, long_name, its_units) in columns.items():
        dims = ("state", "state_next", "feature") if values.ndim == 4 else ("state", "feature")
        ends = intervals(values, ci_prob=ci_prob)
        for (suffix, text), end in zip(words.items(), ends, strict=True):
            variables[name + suffix] = variable(dims, end, text.format(long_name), its_units)
    coords = {"state": labels, "state_next": labels, "feature": features["feature"].values}
    return xr.Dataset(variables, coords=coords, attrs={"ci_prob": ci_prob})


def _levels_and_speeds(
    state: xr.DataArray, features: np.ndarray, n_states: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return both, dims (sample, state, feature); NaN where a sample has nothing to say."""
    n_samples = state.sizes["chain"] * state.sizes["draw"]
    # sums over checkpoints of values, and of changes; how many values, and steps that changes take
    sums = np.zeros((4, n_samples, n_states, features.shape[-1]))
    for r, (path, present, steps) in enumerate(each_run(state)):
        values = features[r, present]
        change = np.diff(values, axis=0, prepend=np.full_like(values[:1], np.nan))
        gap = np.diff(steps, prepend=steps[:1])[:, None] / PER_STEPS
        both = ~np.isnan(change)
        terms = [np.nan_to_num(values), np.nan_to_num(change), ~np.isnan(values), both * gap]
        of_checkpoint = np.concatenate(terms, axis=1)
        for k in range(n_states):
            added = (path == k).astype(float) @ of_checkpoint
            sums[:, :, k] += np.moveaxis(added.reshape(n_samples, 4, -1), 1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[0] / sums[2], sums[1] / sums[3]


def _changes(values: np.ndarray) -> np.ndarray:
    """Return the differences between any two states, dims (sample, state, state_next, feature)."""
    change = values[:, None] - values[:, :, None]
    n_states = values.shape[1]
    change[:, range(n_states), range(n_states)] = np.nan
    return change
