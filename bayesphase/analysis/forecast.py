"""Where a run that is still training is going: its phases, when it converges, its metrics."""

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from bayesphase.analysis._metrics_ahead import Metrics, metric_ahead
from bayesphase.analysis._paths import STEP_UNITS, check_ci_prob
from bayesphase.analysis._remaining import Remaining, learn
from bayesphase.analysis.phases import boundaries

if TYPE_CHECKING:
    from bayesphase.model.ahead import Ahead

# draws that the phases of finished runs, which forecasts are learned from, are averaged over
_LEARNED_FROM = 32


class Criterion(NamedTuple):
    """When a run has converged: a metric is above, or below, a threshold."""

    metric: str
    above: bool
    threshold: float

    def reached(self, values: np.ndarray) -> np.ndarray:
        """Say where values meet it."""
        return values > self.threshold if self.above else values < self.threshold


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
          in the past; NaN where fewer than three runs of the fit enter it after their beginning;
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
    count as one example, and a run in which it did not happen is censored at its end. A sample has
    the same rank in the distributions of all times: a run that is late is late for everything. Two
    runs of different phases may be as far from the end; what is not learned is when a phase ends
    because of what features are by then.

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
    finished: "Finished",
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
    from bayesphase.model.checks import check_seed
    from bayesphase.model.transfer import on_the_scale_of

    criterion = read_criterion(converged)
    features = on_the_scale_of(finished.fit, up_to(features, now))
    gap = finished.gap
    n_ahead = max(round(_horizon(horizon, finished.steps, gap) / gap), 1)
    for_model, for_times = np.random.SeedSequence(check_seed(random_seed)).spawn(2)
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
    entry = np.stack(
        [
            finished.time_of(entered, place, ahead.now, ahead.entered[:, :, state], rank)
            for state, entered in enumerate(finished.entries.T)
        ],
        axis=2,
    )
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
    if np.isnan(time).any():
        return table
    donor = rng.choice(np.flatnonzero(~np.isnan(event)), rank.shape)
    for name in known.names:
        values = metric_ahead(known, name, event, time, donor, ahead.now, table["ahead"].values)
        attrs = {"long_name": name, "units": "1", **metrics[name].attrs}
        table[name] = (("sample", "run", "ahead"), values, attrs)
    return table


def read_criterion(converged: str) -> Criterion:
    """Read what convergence is; raises ValueError unless it is metric, < or >, number."""
    found = re.fullmatch(r"\s*(\w+)\s*([<>])\s*(\S+)\s*", converged)
    try:
        return Criterion(found[1], found[2] == ">", float(found[3]))  # type: ignore[index]
    except (TypeError, ValueError):
        raise ValueError(
            f"converged must be a metric, > or <, and a number, such as 'eval_accuracy > 0.9', got "
            f"{converged!r}"
        ) from None


def up_to(features: xr.DataArray, now: int | None) -> xr.DataArray:
    """Leave out what comes after `now`."""
    if now is None or not isinstance(features, xr.DataArray) or "step" not in features.indexes:
        return features
    kept = features.sel(step=features["step"] <= now)
    if not kept.sizes["step"]:
        first = features["step"].values[:1].tolist()
        raise ValueError(f"now={now} is before the first step of the features, {first}")
    return kept


class Finished:
    """What finished runs teach: where they were, and when that was.

    Attributes
    ----------
    fit : DataTree
    runs : ndarray (run)
    steps : ndarray (step)
    gap : float
        The usual number of optimiser steps between checkpoints.
    entries : ndarray (run, state)
        Of `entries`.
    """

    def __init__(self, fit: xr.DataTree) -> None:
        from bayesphase.model.ahead import filtered_in_fit
        from bayesphase.model.spec import recorded

        self.entries = entries(fit)  # says if it is no fit
        self.fit, self.gap = fit, recorded(fit).rows.step_unit
        features = fit["observed_data"].to_dataset()["features"]
        self.runs, self.steps = features["run"].values, features["step"].values.astype(float)
        probability = filtered_in_fit(fit, draws=_LEARNED_FROM)
        present = ~np.isnan(probability).any(axis=2)
        first = self.steps[present.argmax(axis=1)]
        self.last = self.steps[-1 - present[:, ::-1].argmax(axis=1)]
        elapsed = np.maximum(self.steps - first[:, None], 0.0)
        self._covariates = self.covariates(probability, elapsed)
        self._learned: dict[bytes, Remaining | None] = {}

    def covariates(self, probability: np.ndarray, elapsed: np.ndarray) -> np.ndarray:
        """Covariates (..., covariate) of moments in runs, `elapsed` steps after their beginning."""
        log_time = np.broadcast_to(np.log1p(elapsed / self.gap), probability.shape[:-1])
        # the probability of the first phase is what the others leave
        return np.concatenate([probability[..., 1:], log_time[..., None]], axis=-1)

    def time_of(
        self,
        event: np.ndarray,
        place: np.ndarray,
        now: np.ndarray,
        so_far: np.ndarray,
        rank: np.ndarray,
    ) -> np.ndarray:
        """Forecast steps (sample, run) of what happens at `event` (run) in finished runs.

        Where it has happened `so_far` (sample, run) it is known, and NaN where it has not.
        `place` (sample, run, covariate) is where runs are `now` (run).
        """
        if event.tobytes() not in self._learned:
            learned = learn(self._covariates, self.steps, event, self.last)
            self._learned[event.tobytes()] = learned
        learned = self._learned[event.tobytes()]
        if learned is None:
            return so_far.copy()
        n_runs = rank.shape[1]
        # on average over what is not known of the phase now, as the finished runs were seen
        at = np.broadcast_to(place.mean(axis=0), place.shape)
        ahead = [learned.quantile(at[:, run], rank[:, run]) for run in range(n_runs)]
        return np.where(np.isnan(so_far), now + np.stack(ahead, axis=1), so_far)


def _ranks(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Ranks (sample, run) that are spread evenly over 0 to 1, in an order of each run's own."""
    even = (np.arange(shape[0]) + 0.5) / shape[0]
    return np.stack([rng.permutation(even) for _ in range(shape[1])], axis=1)


def entries(fit: xr.DataTree) -> np.ndarray:
    """Median steps (run, state) of first entries; NaN where a run rather does not enter."""
    table = boundaries(fit)
    entered = table["first_step"].where(table["visited"] >= 0.5)
    return entered.transpose("run", "state").values


def first_of(steps: np.ndarray, there: np.ndarray) -> np.ndarray:
    """First of the steps (run) at which something is `there` (run, step); NaN if it never is."""
    return np.where(there.any(axis=1), steps[there.argmax(axis=1)].astype(float), np.nan)


def first_reached(metrics: xr.Dataset, criterion: Criterion) -> np.ndarray:
    """Step (run) at which runs converge; NaN if they do not."""
    values = metrics[criterion.metric].transpose("run", "step")
    return first_of(values["step"].values, criterion.reached(values.values))


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


def forecast_intervals(table: xr.Dataset, *, ci_prob: tuple[float, ...] = (0.5, 0.9)) -> xr.Dataset:
    """Sum up a forecast: medians and equal-tailed intervals.

    Parameters
    ----------
    table : Dataset
        What `bayesphase.forecast` returns.
    ci_prob : tuple of float
        Probabilities of the intervals.

    Returns
    -------
    Dataset
        Every variable of the forecast with samples but ``path``, with the dim `quantile` instead
        of `sample`: the median and both ends of all intervals, in increasing order, each one of the
        samples. ``state_probability`` (run, ahead, state) is that of the phase that was the last
        to be entered for the first time by then, and ``phase_probability`` is kept.

    Raises
    ------
    TypeError, ValueError
        If `table` is no forecast, or a probability not between 0 and 1.
    """
    if not isinstance(table, xr.Dataset):
        raise TypeError(
            f"expected the Dataset that bayesphase.forecast returns, got {type(table).__name__}"
        )
    if "entry_step" not in table or "sample" not in table.dims:
        raise ValueError(
            f"expected the table that bayesphase.forecast returns, this one has {list(table)}"
        )
    tails = [(1 - check_ci_prob(p)) / 2 for p in ci_prob]
    # rounded, so that they can be selected by their names
    at = np.unique(np.round([0.5, *tails, *(1 - tail for tail in tails)], 9))
    out = {"phase_probability": table["phase_probability"]}
    for name, variable in table.data_vars.items():
        if "sample" not in variable.dims or name == "path":
            continue
        dims = [dim for dim in variable.dims if dim != "sample"]
        values = _quantiles(variable.transpose("sample", *dims).values, at)
        out[str(name)] = xr.DataArray(values, dims=("quantile", *dims), attrs=variable.attrs)
    attrs = {"long_name": "probability that the phase is the last one entered", "units": "1"}
    share = _last_entered(table)
    out["state_probability"] = xr.DataArray(share, dims=("run", "ahead", "state"), attrs=attrs)
    coords = {name: c for name, c in table.coords.items() if "sample" not in c.dims}
    return xr.Dataset(out, coords={**coords, "quantile": at}, attrs=table.attrs)


def _last_entered(table: xr.Dataset) -> np.ndarray:
    """Shares (run, ahead, state) of samples in which a state is the last one entered by then."""
    entry = table["entry_step"].transpose("sample", "run", "state").values
    at = (table["now"] + table["ahead"]).transpose("run", "ahead").values
    latest = np.full((len(entry), *at.shape), -np.inf)
    last = np.full(latest.shape, -1)
    for state, step in enumerate(np.moveaxis(entry, 2, 0)[..., None]):
        later = (step <= at) & (step > latest)  # not where it is NaN
        latest, last = np.where(later, step, latest), np.where(later, state, last)
    return np.stack([(last == k).mean(axis=0) for k in range(entry.shape[2])], axis=-1)


def _quantiles(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Quantiles (quantile, ...) of values (sample, ...), each one of them; NaN is left out."""
    ordered = np.sort(values, axis=0)  # NaN last
    count = (~np.isnan(values)).sum(axis=0)
    place = np.ceil(at.reshape(-1, *(1,) * count.ndim) * count - 1e-6).astype(int) - 1
    return np.take_along_axis(ordered, np.clip(place, 0, np.maximum(count - 1, 0)), axis=0)
