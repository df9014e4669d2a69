"""Where a run that is still training is going: its phases, when it converges, its metrics."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayesphase._checks import check_seed
from bayesphase.analysis._finished import Finished, first_of, read_criterion
from bayesphase.analysis._metrics_ahead import Metrics, metric_ahead
from bayesphase.analysis._paths import STEP_UNITS

if TYPE_CHECKING:
    from bayesphase.model.ahead import Ahead


def forecast(
    fit: xr.DataTree,
    features: xr.DataArray,
    *,
    metrics: xr.Dataset | None = None,
    converged: str = "eval_accuracy > 0.9",
    now: int | None = None,
    horizon: float | None = None,
    draws: int | None = 400,
    random_seed: int | None = None,
    cores: int | None = None,
) -> xr.Dataset:
    """Forecast runs in progress with a fit to finished ones: phases, convergence and metrics.

    Nothing looks ahead: all that is used of a run is what it has so far, on the scale of the fit.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns, of finished runs.
    features : DataArray (run, step, feature)
        Those of the fit, of the runs in progress as far as they have come; see `bayesphase.decode`
        for their scale.
    metrics : Dataset, optional
        Metrics with dims (run, step), such as losses and accuracies, of the runs of the fit, which
        convergence is learned from, and of those in progress as far as they have come. Others, of
        matrices say, are not looked at.
    converged : str
        What convergence is: a metric, ``>`` or ``<``, and a number. It happens at the first
        checkpoint at which it holds.
    now : int, optional
        Forget what runs have after this step: for forecasts that could have been made.
    horizon : float, optional
        How many optimiser steps ahead states, features and metrics go; by default as many as the
        longest run of the fit has. Times are forecast further than that.
    draws : int, optional
        How many draws of the posterior at most, one sample for each; None for all.
    random_seed : int, optional
        The same seed gives the same forecast.
    cores : int, optional
        Threads to share the draws out over; all cores by default.

    Returns
    -------
    Dataset
        Samples of the predictive distribution. Dims are `sample`, `run`, `state`, `feature` and
        `ahead`, optimiser steps after ``now`` (run), the last step of the run.

        - ``phase_probability`` (run, state): of the phase it is in now, given its past;
        - ``entry_step`` (sample, run, state): step of the first entry into a phase, which may lie
          in the past; NaN in the share of samples in which the run never enters it, and in all
          where fewer than three runs of the fit enter it after their beginning;
        - ``converged_step`` (sample, run), if there are `metrics`: step of convergence, which may
          lie in the past; NaN where fewer than three runs of the fit converge;
        - ``path`` (sample, run, ahead) and ``features`` (sample, run, ahead, feature): states and
          features simulated from the model, the latter in units of the metrics where the fit knows
          their scale;
        - the metrics themselves (sample, run, ahead), if runs of the fit converge.

        `bayesphase.forecast_intervals` sums them up, and `bayesphase.plot_forecast` draws them.

    Raises
    ------
    TypeError, ValueError
        If features are not those of the fit, a run has no checkpoint or is one of the fit's,
        `metrics` lacks runs of the fit or the metric of `converged`, or another argument can't be
        used.

    Warns
    -----
    UserWarning
        If transitions are by the checkpoint, and checkpoints late in the runs of the fit are more
        than twice, or less than half, as far apart as usual: paths are then simulated with the late
        gap. Times do not depend on it, and ``transition="continuous_time"`` knows about gaps.

    Notes
    -----
    *States and features* follow the transitions and the emission of each draw, from a state that is
    drawn given the run's past. The dwell times of a hidden Markov model are geometric: how long a
    run has been in a phase tells it nothing about when it will leave.

    *Times*, of entries and of convergence, therefore come from another model, learned from the
    finished runs given their phases: the logarithm of the time that remains is linear in the
    probabilities of the phases, given the past, and in the logarithm of the time passed. How far
    off it may be is what such a line was off in each finished run when it did not know that run,
    with the tails of a Student-t distribution for so few runs. All checkpoints of a run together
    count as one example, and a run that does not converge is censored at its end. A sample has the
    same rank in the distributions of all times: a run that is late is late for everything. Two
    runs of different phases may be as far from the end; what is not learned is when a phase ends
    because of what features are by then.

    *Never* is an entry that did not happen in a finished run up to its end. Each sample does what a
    finished run did, drawn with a weight: the probability that, before its own entry, it was in the
    phase that the run in progress is in now, at its most; one run's weight is shared out over all.
    Nor is a state entered which the transitions do not allow from where the run is; where no phase
    comes back (``"left_to_right"``), entries are in the order of states. Convergence, in contrast,
    is taken to come in the end.

    *Metrics* go the way that they went in a finished run, drawn at random for each sample, from as
    long before convergence as the run in progress is now, and from where they are now.

    Examples
    --------
    >>> import bayesphase as bp
    >>> x = bp.simulate(n_states=2, n_runs=4, n_steps=60, random_seed=1)["features"]
    >>> fit = bp.fit(x[:3], 2, random_seed=1, progressbar=False)  # doctest: +SKIP
    >>> ahead = bp.forecast(fit, x[3:], now=200, random_seed=1)  # doctest: +SKIP
    >>> bp.forecast_intervals(ahead)["entry_step"]  # doctest: +SKIP
    """
    return forecast_from(
        Finished(fit),
        features,
        metrics=metrics,
        converged=converged,
        now=now,
        horizon=horizon,
        draws=draws,
        random_seed=random_seed,
        cores=cores,
    )


def forecast_from(
    finished: Finished,
    features: xr.DataArray,
    *,
    metrics: xr.Dataset | None,
    converged: str,
    now: int | None,
    horizon: float | None = None,
    draws: int | None,
    random_seed: int | None,
    cores: int | None = None,
) -> xr.Dataset:
    """Forecast with what was learned of finished runs once; see `forecast`."""
    from bayesphase.model.ahead import look_ahead
    from bayesphase.model.transfer import on_the_scale_of

    criterion = read_criterion(converged)
    features = on_the_scale_of(finished.fit, up_to(features, now))
    gap = finished.gap
    n_ahead = max(round(_horizon(horizon, finished.steps, gap) / gap), 1)
    for_model, for_times, for_ever = np.random.SeedSequence(check_seed(random_seed)).spawn(3)
    ahead = look_ahead(
        finished.fit,
        features,
        n_ahead=n_ahead,
        gap=gap,
        draws=draws,
        random_seed=int(for_model.generate_state(1)[0]),
        cores=cores,
    )
    runs = features["run"].values
    _check_new(runs, finished.runs)
    rng = np.random.default_rng(for_times)
    # one rank for all times of a run, so that what is late is late for everything
    rank = _ranks(rng, ahead.states.shape[:2])
    place = finished.covariates(ahead.probability, ahead.now - _first_steps(features))
    entry = finished.entry_steps(place, ahead, rank, np.random.default_rng(for_ever))
    table = _of_the_model(features, ahead, entry, gap)
    if metrics is None:
        return table
    known = Metrics(metrics, finished.runs, runs, ahead.now, criterion.metric)
    event, so_far = (
        first_of(known.steps, criterion.reached(values[criterion.metric]))
        for values in (known.finished, known.so_far)
    )
    time = finished.time_of(event, place, ahead.now, np.broadcast_to(so_far, rank.shape), rank)
    attrs = {"long_name": f"step at which {converged}", "units": STEP_UNITS}
    table["converged_step"] = (("sample", "run"), time, attrs)
    table.attrs["converged"] = converged
    if np.isnan(time).any() or np.isnan(event).all():  # nobody to go the way of
        return table
    donor = rng.choice(np.flatnonzero(~np.isnan(event)), rank.shape)
    for name in known.names:
        values = metric_ahead(known, name, event, time, donor, ahead.now, table["ahead"].values)
        attrs = {"long_name": name, "units": "1", **metrics[name].attrs}
        table[name] = (("sample", "run", "ahead"), values, attrs)
    return table


def up_to(features: xr.DataArray, now: int | None) -> xr.DataArray:
    """Leave out what comes after `now`."""
    if now is None or not isinstance(features, xr.DataArray) or "step" not in features.indexes:
        return features
    kept = features.sel(step=features["step"] <= now)
    if not kept.sizes["step"]:
        first = features["step"].values[:1].tolist()
        raise ValueError(f"now={now} is before the first step of the features, {first}")
    return kept


def _ranks(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Ranks (sample, run) that are spread evenly over 0 to 1, in an order of each run's own."""
    even = (np.arange(shape[0]) + 0.5) / shape[0]
    return np.stack([rng.permutation(even) for _ in range(shape[1])], axis=1)


def _first_steps(features: xr.DataArray) -> np.ndarray:
    present = features.notnull().any("feature").transpose("run", "step").values
    return features["step"].values[present.argmax(axis=1)].astype(float)


def _horizon(horizon: float | None, steps: np.ndarray, gap: float) -> float:
    if horizon is None:
        return float(steps[-1] - steps[0])
    if isinstance(horizon, bool) or not isinstance(horizon, int | float | np.number):
        raise TypeError(f"horizon must be a number of optimiser steps, got {horizon!r}")
    if not gap <= horizon < np.inf:
        raise ValueError(
            f"horizon must be at least {gap:g} optimiser steps, the distance of two checkpoints, "
            f"got {horizon}"
        )
    return float(horizon)


def _check_new(runs: np.ndarray, finished: np.ndarray) -> None:
    both = sorted(set(runs.tolist()) & set(finished.tolist()))
    if both:
        raise ValueError(
            f"the runs {both} are among those that were fitted, so that the fit has seen how they "
            "go on: forecast runs that it does not know"
        )


def _of_the_model(
    features: xr.DataArray, ahead: "Ahead", entry: np.ndarray, gap: float
) -> xr.Dataset:
    values, units = ahead.features, "1"
    if "feature_scale" in features.coords:
        scale, location = features["feature_scale"].values, features["feature_location"].values
        values, units = values * scale + location, "mixed"
    to_come = ("sample", "run", "ahead")
    variables = {
        "phase_probability": (
            ("run", "state"),
            ahead.probability.mean(axis=0),
            "probability of the phase now, given the past",
            "1",
        ),
        "entry_step": (("sample", "run", "state"), entry, "first step of the phase", STEP_UNITS),
        "path": (to_come, ahead.states, "phase to come", "1"),
        "features": ((*to_come, "feature"), values, "features to come", units),
    }
    ahead_attrs = {"long_name": "time after the last checkpoint", "units": STEP_UNITS}
    return xr.Dataset(
        {
            name: (dims, data, {"long_name": long_name, "units": unit})
            for name, (dims, data, long_name, unit) in variables.items()
        },
        coords={
            "run": features["run"].values,
            "ahead": ("ahead", gap * np.arange(1, ahead.states.shape[2] + 1), ahead_attrs),
            "state": np.arange(ahead.probability.shape[2]),
            "feature": features["feature"].values,
            "chain": ("sample", ahead.chain),
            "draw": ("sample", ahead.draw),
            "now": (
                "run",
                ahead.now,
                {"long_name": "last step of the run", "units": STEP_UNITS},
            ),
        },
    )
