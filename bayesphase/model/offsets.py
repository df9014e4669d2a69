"""Levels of runs: how far a run lies, in each feature, from what all runs have in common.

The families of `emissions` see features without the offset of their run, y[row, d] -
offset[run, d], with offset[run, d] ~ Normal(0, offset_scale[d]). Runs are exchangeable and a run
more or less leaves the model of the others as it is, which is why offsets are not made to sum to
zero: the prior alone tells them from the levels of states, and a new run has an offset, too.

What is sampled is `offset_unit`: the offset over the width that it would have, given
`offset_scale` s, if a run of T checkpoints told its level with a precision P, which is T times a
constant. As offset_unit ~ Normal(0, sqrt(1 + P s²)), it is the offset itself up to a factor where
runs say far more than the prior, and the offset over s where they say far less: centred and not,
either where it is good (Papaspiliopoulos, Roberts & Sköld 2007, doi:10.1214/088342307000000014).

Functions take arrays of NumPy or PyTensor alike, where they say `xp`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayesphase.model.lines import LEVEL
from bayesphase.model.priors import Prior
from bayesphase.model.rows import Rows

Parameters = Mapping[str, Any]

DIMS: dict[str, tuple[str, ...]] = {"offset_scale": ("feature",), "offset": ("run", "feature")}

# prior width of the scale, in spreads of the features
_WIDTH = 0.5

# how precisely one checkpoint tells the level of its run, in spreads of the feature: a family of
# levels, and those where the level shows in where features drift to
_OF_LEVELS, _OF_DRIFTS = 25.0, 0.4


def priors(rows: Rows) -> dict[str, Prior]:
    """Give the default prior of the scale: runs need not differ at all."""
    return {"offset_scale": Prior("HalfNormal", sigma=_WIDTH * rows.spread)}


def precision(rows: Rows, kind: int) -> np.ndarray:
    """Precision (run, feature) with which a run is taken to tell its level; see above.

    It does not depend on what is observed, so that the density of the prior has the coordinates of
    the posterior.
    """
    each = (_OF_LEVELS if kind == LEVEL else _OF_DRIFTS) / rows.spread**2
    return rows.layout.lengths[:, None] * each


def to_unit(offset: Any, scale: Any, precision: np.ndarray) -> Any:
    """Turn offsets (run, feature) into what is sampled."""
    return offset * np.sqrt(precision + scale**-2.0)


def of_unit(unit: Any, scale: Any, precision: np.ndarray) -> Any:
    """Undo `to_unit`."""
    return unit * scale / (1.0 + precision * scale**2) ** 0.5


def build(prior: Prior, precision: np.ndarray) -> dict[str, Any]:
    """Add the variables of `DIMS` to the PyMC model in context."""
    import pymc as pm

    scale = prior.build("offset_scale", DIMS["offset_scale"])
    width = (1.0 + precision * scale**2) ** 0.5
    unit = pm.Normal("offset_unit", 0.0, width, dims=DIMS["offset"])
    offset = pm.Deterministic("offset", of_unit(unit, scale, precision), dims=DIMS["offset"])
    return {"offset_scale": scale, "offset": offset}


def of_rows(parameters: Parameters, rows: Rows) -> Any:
    """Offset (row, feature) of every row; 0 where the model has none."""
    return parameters["offset"][rows.run] if "offset" in parameters else 0.0


def without(rows: Rows, parameters: Parameters) -> Rows:
    """Return the rows with the offsets of their runs taken off."""
    if "offset" not in parameters:
        return rows
    values = (rows.values - of_rows(parameters, rows)) * rows.observed
    return rows._replace(values=values)
