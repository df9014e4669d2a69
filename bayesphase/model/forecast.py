"""What the past of a run says of its next checkpoint, and where in that forecast a feature fell."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import log_ndtr, ndtri_exp, stdtr

from bayesphase._checks import threads
from bayesphase.model import offsets
from bayesphase.model.lanes import Layout
from bayesphase.model.pointwise import chosen_draws, flat_posterior
from bayesphase.model.series import turns
from bayesphase.model.spec import Spec, recorded

# draws that are filtered together, which is quicker than one by one
_BLOCK = 16


def forecast_residuals(
    fit: xr.DataTree, *, draws: int | None, cores: int | None
) -> tuple[xr.DataArray, int]:
    """Return normal quantiles of features in their one-step forecasts, averaged over draws.

    Parameters
    ----------
    fit : DataTree
    draws : int or None
        How many of the draws at most; all if None.
    cores : int or None
        Threads to share the draws out over; all cores by default.

    Returns
    -------
    residual : DataArray (run, step, feature)
        NaN where a feature is missing or has no forecast.
    n_draws : int
        How many draws were used.
    """
    spec = recorded(fit)
    chosen = chosen_draws(fit, draws).ravel()
    parameters = {name: values[chosen] for name, values in flat_posterior(fit).items()}
    lower, upper = log_tails(spec, parameters, cores=cores)
    features = fit["observed_data"].to_dataset()["features"].transpose("run", "step", "feature")
    residual = xr.full_like(features, np.nan, dtype=np.float64)
    residual.values[spec.rows.run, spec.rows.step] = normal_quantile(lower, upper)
    return residual, len(chosen)


def normal_quantile(log_lower: np.ndarray, log_upper: np.ndarray) -> np.ndarray:
    """Return standard normal quantiles from the logarithms of both tails: exact far out in each."""
    smaller = ndtri_exp(np.minimum(np.minimum(log_lower, log_upper), 0.0))
    return np.where(log_lower <= log_upper, smaller, -smaller)


def log_tails(
    spec: Spec, parameters: Mapping[str, np.ndarray], *, cores: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities that features are smaller, and larger, than they were, before they were.

    The forecast of a feature is the mixture over states of its distributions given the state and
    its own last observation, weighted by the probabilities of the states given all features of the
    run's earlier checkpoints, and averaged over the draws.

    Parameters
    ----------
    spec : Spec
    parameters : mapping
        The model's variables, with dims (draw, ...).
    cores : int or None

    Returns
    -------
    lower, upper : ndarray (row, feature)
        NaN where a feature is missing, or is conditioned on.
    """
    n_draws = len(next(iter(parameters.values())))
    each = [{name: values[d] for name, values in parameters.items()} for d in range(n_draws)]
    total = np.full((2, *spec.rows.values.shape), -np.inf)
    with ThreadPoolExecutor(threads(cores)) as pool:
        for first in range(0, n_draws, _BLOCK):
            block = each[first : first + _BLOCK]
            weights = log_predicted_states(spec, block)
            # added up in the order of the draws, so that threads make no difference
            for tails in pool.map(partial(_tails, spec), block, weights):
                with np.errstate(invalid="ignore"):  # NaN where there is no forecast
                    np.logaddexp(total, tails, out=total)
    lower, upper = total - np.log(n_draws)
    return lower, upper


def log_predicted_states(spec: Spec, draws: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Log p(z_t = k | y_1..t-1), and what is known of the states up to t (draw, row, state)."""
    return _predicted(spec, draws)[0]


def log_filtered_states(spec: Spec, draws: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Log p(z_t = k | y_1..t), and what is known of the states up to t (draw, row, state).

    A row depends on nothing that comes after it in its run, to the last bit.
    """
    predicted, log_emission = _predicted(spec, draws)
    joint = predicted + log_emission
    return joint - _log_sum(joint, axis=-1)[..., None]


def _predicted(spec: Spec, draws: list[dict[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of predicted states, and log densities of features (draw, row, state)."""
    with np.errstate(divide="ignore"):  # a probability may be 0
        potentials = [spec.transition.log_potentials(named, np) for named in draws]
    emission, rows = spec.emission, spec.rows
    log_emission = np.stack(
        [
            emission.log_density(offsets.without(rows, named).values, rows, named, np)
            for named in draws
        ]
    )
    log_transition, log_initial = (np.stack(parts) for parts in zip(*potentials, strict=True))
    ruled_out = np.zeros((len(rows.values), spec.n_states), bool)
    known = spec.transition.known
    if known is not None:
        ruled_out = (known[:, None] >= 0) & (known[:, None] != np.arange(spec.n_states))
    log_emission[:, ruled_out] = -np.inf
    predicted = predict(log_emission, log_transition, log_initial, rows.layout)
    predicted[:, ruled_out] = -np.inf
    return predicted - _log_sum(predicted, axis=-1)[..., None], log_emission


def predict(
    log_emission: np.ndarray, log_transition: np.ndarray, log_initial: np.ndarray, layout: Layout
) -> np.ndarray:
    """Log-probabilities of the states given what came before, for many draws at a time.

    Parameters
    ----------
    log_emission : ndarray (draw, row, state)
    log_transition : ndarray (draw, gap, state, state)
    log_initial : ndarray (draw, state)
    layout : Layout

    Returns
    -------
    ndarray (draw, row, state)
        Normalised if the potentials are.

    Notes
    -----
    The forward recursion (Zucchini, MacDonald & Langrock 2016, section 2.3) in log space, one
    checkpoint of all runs and draws at a time.
    """
    predicted = np.empty_like(log_emission)
    filtered = log_emission[:, :0]
    for t, rows in enumerate(turns(layout)):
        if t == 0:
            ahead = np.broadcast_to(log_initial[:, None], log_emission[:, rows].shape)
        else:
            before = filtered[:, : len(rows), :, None]  # runs that go on come first
            ahead = _log_sum(before + log_transition[:, layout.gap_index[rows]], axis=2)
        predicted[:, rows] = ahead
        joint = ahead + log_emission[:, rows]
        filtered = joint - _log_sum(joint, axis=-1)[..., None]
    return predicted


def _tails(spec: Spec, named: dict[str, np.ndarray], log_weights: np.ndarray) -> np.ndarray:
    """Logarithms of both tails (tail, row, feature) under one draw."""
    emission, rows = spec.emission, spec.rows
    by_state = tuple(named[name][None] for name in emission.dims)
    values = offsets.without(rows, named).values
    deviation, scale, known = emission.innovations(values, rows, by_state, np)
    z = deviation / scale
    near = np.minimum(_log_cdf(-np.abs(z), emission.tails), -np.log(2.0))
    far = np.log1p(-np.exp(near))
    weights = log_weights[:, :, None]
    tails = np.stack(
        [
            _log_sum(weights + np.where(z < 0.0, near, far), axis=1),
            _log_sum(weights + np.where(z < 0.0, far, near), axis=1),
        ]
    )
    return np.where(known, tails, np.nan)


def _log_cdf(z: np.ndarray, df: float | None) -> np.ndarray:
    if df is None:
        return log_ndtr(z)
    with np.errstate(divide="ignore"):  # a tail that is 0 to the last digit
        return np.log(stdtr(df, z))


def _log_sum(x: np.ndarray, axis: int) -> Any:
    """Log of the sum of exponentials along an axis; minus infinity where nothing is to be added."""
    top = x.max(axis=axis, keepdims=True)
    top = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        return np.squeeze(np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top, axis)
