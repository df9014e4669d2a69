"""Which of several models predicts best, and how to weigh them: the table that ArviZ makes."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy.special import softmax

from bayesphase.analysis._elpd import features_of, fingerprint, standard_error
from bayesphase.analysis.elpd import loo

if TYPE_CHECKING:
    import pandas as pd
    from arviz_stats import ELPDData

METHODS = ("stacking", "bb-pseudo-bma", "pseudo-bma")

# nats by which the sum of log scores may fall short of the best weights'
_SHORT = 1e-6
_MOST_STEPS = 20_000
_RESAMPLES = 1000


def compare(
    fits: Mapping[str, "xr.DataTree | ELPDData"], *, by: str = "run", method: str = "stacking"
) -> "pd.DataFrame":
    """Compare models of the same features by how well they predict what they have not seen.

    Parameters
    ----------
    fits : mapping of str to DataTree or ELPDData
        As `bayesphase.fit_range` returns them, or what `loo`, `waic`, `kfold` or `lfo` made of
        them.
    by : {"run", "checkpoint"}
        The unit that is left out of fits, see `bayesphase.loo`.
    method : {"stacking", "bb-pseudo-bma", "pseudo-bma"}
        How models are weighed: so that their mixture predicts best, or by the exponential of their
        elpd, with or without a Bayesian bootstrap over the units.

    Returns
    -------
    DataFrame
        A row for each model, the best first, in the form in which `arviz_plots.plot_compare` takes
        it: `rank` from 0; `elpd`, its effective number of parameters `p`; `elpd_diff`, what it
        has less than the best (0 or negative); `weight`; the standard errors `se` of `elpd` and
        `dse` of `elpd_diff`, NaN with a single unit; `warning`, whether the estimate is unreliable.
        Nats, not rounded.

    Warns
    -----
    UserWarning
        As `loo` does; or if estimates by K-fold that leave out several runs at a time are compared
        with leave-one-out.

    Raises
    ------
    TypeError
        If `fits` is no mapping, or holds something else.
    ValueError
        If there are none, or they are of different data, units or kinds, or an argument is unknown.

    Notes
    -----
    Stacking weights maximise the sum over units of log sum_k w_k exp(elpd_i,k) (Yao et al. 2018,
    doi:10.1214/17-BA1091, eq. 4, where pseudo-BMA is, too). They are found by EM for mixture
    weights, up to 1e-6 nats of that sum. ArviZ's own table is not made use of because it takes
    exp(elpd_i) as it is, which is 0 or infinite for a whole run of some hundred checkpoints.

    With few runs, weights and standard errors are themselves uncertain; elpd differences of under 4
    are small, and `dse` is then too small (Sivula et al. 2020, arXiv:2008.10296).

    Examples
    --------
    >>> fits = bp.fit_range(x, n_states=range(1, 7), random_seed=1)  # doctest: +SKIP
    >>> bp.compare(fits)  # doctest: +SKIP
    """
    import pandas as pd

    if method not in METHODS:
        raise ValueError(f"method must be one of {list(METHODS)}, got {method!r}")
    estimates = _estimates(fits, by)
    elpd_i = np.stack([estimate.elpd_i.values for estimate in estimates.values()], axis=1)
    weigh = {
        "stacking": stacking_weights,
        "bb-pseudo-bma": _bootstrapped_weights,
        "pseudo-bma": lambda elpd_i: softmax(elpd_i.sum(axis=0)),
    }[method]
    total = elpd_i.sum(axis=0)
    short = elpd_i - elpd_i[:, [total.argmax()]]
    table = pd.DataFrame(
        {
            "rank": 0,
            "elpd": total,
            "p": [float(estimate.p) for estimate in estimates.values()],
            "elpd_diff": short.sum(axis=0),
            "weight": weigh(elpd_i),
            "se": [standard_error(column) for column in elpd_i.T],
            "dse": [standard_error(column) for column in short.T],
            "warning": [bool(estimate.warning) for estimate in estimates.values()],
        },
        index=list(estimates),
    ).sort_values("elpd", ascending=False, kind="stable")
    return table.assign(rank=np.arange(len(table)))


def stacking_weights(elpd_i: np.ndarray) -> np.ndarray:
    """Weights (model) whose mixture has the largest log score.

    Parameters
    ----------
    elpd_i : ndarray (unit, model)
        Log predictive densities, of any size.

    Notes
    -----
    A step of EM multiplies each weight by its gain, the mean over units of p_k / sum_j w_j p_j. The
    mean log score of the best weights is above that of the present ones by the largest gain less 1
    at most, because it is concave.
    """
    density = np.exp(elpd_i - elpd_i.max(axis=1, keepdims=True))
    n_units, n_models = density.shape
    weights = np.full(n_models, 1.0 / n_models)
    for _ in range(_MOST_STEPS):
        gain = (density / (density @ weights)[:, None]).mean(axis=0)
        if n_units * (gain.max() - 1.0) < _SHORT:
            break
        weights = weights * gain
    return weights / weights.sum()


def _bootstrapped_weights(elpd_i: np.ndarray) -> np.ndarray:
    """Mean over Bayesian bootstraps of the units of the pseudo-BMA weights (model)."""
    n_units, n_models = elpd_i.shape
    rng = np.random.default_rng(124)
    weights = np.zeros(n_models)
    for _ in range(_RESAMPLES):
        weights += softmax(n_units * rng.dirichlet(np.ones(n_units)) @ elpd_i)
    return weights / _RESAMPLES


def _estimates(fits: Mapping[str, Any], by: str) -> dict[str, "ELPDData"]:
    """Estimate where there are fits only; all shall be of one data set, unit and kind."""
    from arviz_stats import ELPDData

    if isinstance(fits, xr.DataTree) or not isinstance(fits, Mapping):
        raise TypeError(
            f"fits must be fits by name, as bayesphase.fit_range returns them, got "
            f"{type(fits).__name__}"
        )
    if not fits:
        raise ValueError("fits is empty: there is nothing to compare")
    for name, given in fits.items():
        if not isinstance(given, xr.DataTree | ELPDData):
            raise TypeError(
                f"{name!r} must be a fit or what bayesphase.loo, waic, kfold or lfo return, got "
                f"{type(given).__name__}"
            )
    _check_same_data(fits)
    estimates = {}
    for name, given in fits.items():
        if isinstance(given, ELPDData):
            estimates[name] = given
            continue
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            estimates[name] = loo(given, by=by)
        for warning in raised:
            text = f"fit {name!r}: {warning.message}"
            warnings.warn(text, warning.category, stacklevel=3)
    _check_same_kind(estimates)
    return estimates


def _check_same_data(fits: Mapping[str, Any]) -> None:
    """Raise if one is of other data than the first."""
    marks = {}
    for name, given in fits.items():
        if isinstance(given, xr.DataTree):
            if "observed_data" not in given.children:
                raise ValueError(f"the fit {name!r} lacks the group 'observed_data'")
            marks[name] = fingerprint(features_of(given))
        else:
            attrs = {} if given.elpd_i is None else given.elpd_i.attrs
            if not {"data", "unit"} <= set(attrs):
                raise ValueError(
                    f"{name!r} does not say what it left out, of which data: use bayesphase.loo, "
                    f"waic or kfold"
                )
            marks[name] = attrs["data"]
    first, *others = marks
    for name in others:
        if marks[name] != marks[first]:
            raise ValueError(
                f"{first!r} and {name!r} are of different data"
                f"{_difference(fits[first], fits[name])}: fit both to the same features"
            )


def _difference(one: Any, other: Any) -> str:
    """Say in what the data of two fits differ, as far as that is known."""
    if not (isinstance(one, xr.DataTree) and isinstance(other, xr.DataTree)):
        return ""
    a, b = features_of(one), features_of(other)
    for dim in ("feature", "run"):
        if not np.array_equal(a[dim], b[dim]):
            return f" (the {dim}s {a[dim].values.tolist()} and {b[dim].values.tolist()})"
    if not np.array_equal(a["step"], b["step"]):
        return f" ({a.sizes['step']} and {b.sizes['step']} steps, not the same ones)"
    n = int((~((a == b) | (a.isnull() & b.isnull()))).sum())
    return f" ({n} of {a.size} values)"


def _check_same_kind(estimates: Mapping[str, "ELPDData"]) -> None:
    """Raise if estimates are of different units or kinds; warn if folds are of different sizes."""
    first, *others = estimates
    for name in others:
        a, b = estimates[first], estimates[name]
        units = [estimate.elpd_i.attrs["unit"] for estimate in (a, b)]
        if units[0] != units[1]:
            raise ValueError(f"{first!r} is by {units[0]}, but {name!r} by {units[1]}")
        if _units(a) != _units(b):
            raise ValueError(
                f"{first!r} and {name!r} predict different {units[0]}s: use the same horizon, "
                f"n_origins and min_steps"
            )
        if "waic" in (a.kind, b.kind) and a.kind != b.kind:
            raise ValueError(
                f"{first!r} is of kind {a.kind!r}, but {name!r} of kind {b.kind!r}: use the same"
            )
    folds = {name: _n_folds(estimate) for name, estimate in estimates.items()}
    if len(set(folds.values())) > 1:
        warnings.warn(
            f"not all leave out the same number of runs at a time: the numbers of folds are "
            f"{folds}, and models that learn from less predict worse",
            UserWarning,
            stacklevel=4,
        )


def _units(estimate: "ELPDData") -> list[list[Any]]:
    """Say what is predicted, by the labels of the units."""
    known = [name for name in ("run", "origin", "step") if name in estimate.elpd_i.coords]
    return [estimate.elpd_i[name].values.tolist() for name in known]


def _n_folds(estimate: "ELPDData") -> int:
    folds = estimate.n_folds if estimate.kind == "loo_kfold" else estimate.n_data_points
    return int(folds)
