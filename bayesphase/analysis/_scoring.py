"""One run that is forecast from its beginning by a fit to others, and what happened."""

import numpy as np
import xarray as xr

from bayesphase.analysis import _baselines
from bayesphase.analysis._finished import Criterion, Finished, entries, first_reached
from bayesphase.analysis._paths import STEP_UNITS
from bayesphase.analysis.forecast import forecast_from

METHODS = ("forecast", "geometric", "empirical", "mean", "constant_hazard", "extrapolated")
OF_METRICS = ("forecast", "last", "empirical", "extrapolated")
# of the median time to convergence: how far ahead metrics are scored
_AHEAD = (0.1, 0.25, 0.5)
_TAILS = (0.05, 0.95)  # of the interval that is reported


def crps(samples: np.ndarray, value: float) -> float:
    """Continuous ranked probability score of samples, in their units: the smaller, the better.

    E|X - y| - E|X - X'| / 2 (Gneiting & Raftery 2007, doi:10.1198/016214506000001437, eq. 21) of
    the empirical distribution. Of a point it is the absolute error.

    Parameters
    ----------
    samples : ndarray (sample)
        Finite.
    value : float
        What happened.
    """
    ordered, n = np.sort(samples), len(samples)
    weight = 2.0 * np.arange(1, n + 1) - n - 1.0
    return float(np.abs(ordered - value).mean() - weight @ ordered / n**2)


class Scored:
    """What others teach of a run, and how good forecasts of it are; see `forecast_scores`."""

    def __init__(
        self,
        fit: xr.DataTree,
        features: xr.DataArray,
        metrics: xr.Dataset,
        criterion: Criterion,
        converged: str,
        draws: int,
    ) -> None:
        from bayesphase.model.transfer import decode

        self._finished, self._features, self._draws = Finished(fit), features, draws
        self._criterion, self._converged = criterion, converged
        others = self._finished
        used = [str(n) for n, v in metrics.items() if set(v.dims) == {"run", "step"}]
        metrics = metrics[used].transpose("run", "step")
        self._metrics = metrics
        self._known = metrics.sel(run=others.runs)
        self._own = metrics.sel(run=features["run"].values[0])
        event = first_reached(self._known, criterion)
        own = float(first_reached(metrics.sel(run=features["run"].values), criterion)[0])
        of_phases = entries(decode(fit, features, draws=draws, random_seed=0))[0]
        self._events = {"converged": (event, own)} | {
            f"phase {k}": (others.entries[:, k], float(of_phases[k]))
            for k in range(1, len(of_phases))
        }
        seen = features.notnull().any("feature").squeeze("run").values
        self._steps = features["step"].values[seen].astype(float)
        self._end = own if np.isfinite(own) else self._steps[-1]
        self._most = 2.0 * max(self._steps[-1], others.last.max())
        typical = np.nanmedian(event) if np.isfinite(event).any() else others.last.max()
        self.ahead = np.round(np.array(_AHEAD) * typical / others.gap) * others.gap

    def scores(self, shares: np.ndarray, *, random_seed: int) -> xr.Dataset:
        """Score forecasts at `shares` of the run's way; a table without the dim run."""
        of_times = np.full((5, len(self._events), len(METHODS), len(shares)), np.nan)
        names = [str(name) for name in self._metrics]
        of_metrics = np.full((2, len(names), len(_AHEAD), len(OF_METRICS), len(shares)), np.nan)
        rng = np.random.default_rng(random_seed)
        for at, share in enumerate(shares):
            goal = self._steps[0] + share * (self._end - self._steps[0])
            now = self._steps[self._steps <= goal][-1]
            table = forecast_from(
                self._finished,
                self._features,
                metrics=self._metrics,
                converged=self._converged,
                now=int(now),
                draws=self._draws,
                random_seed=random_seed,
            ).isel(run=0)
            trends = {name: self._trend(name, now, rng) for name in names}
            for e, (event, (_, truth)) in enumerate(self._events.items()):
                if not truth <= now:
                    times = self._times(event, table, trends, now)
                    of_times[:, e, :, at] = np.transpose([self._score(t, truth) for t in times])
            for i, name in enumerate(names):
                for j, h in enumerate(self.ahead):
                    of_metrics[:, i, j, :, at] = self._metric(name, now, h, table, trends[name])
        return self._table(of_times, of_metrics, shares, names)

    def _times(
        self, event: str, table: xr.Dataset, trends: dict[str, _baselines.Trend], now: float
    ) -> list[np.ndarray]:
        """Draw the time of an event by each method: samples, none where it has no forecast."""
        happened = self._events[event][0]
        geometric = extrapolated = np.empty(0)
        if event == "converged":
            ours = table["converged_step"].values
            trend = trends[self._criterion.metric]
            extrapolated = trend.crosses(
                self._criterion.threshold, now, above=self._criterion.above
            )
        else:
            state = int(event.split()[1])
            ours = table["entry_step"].sel(state=state).values
            path = table["path"].transpose("sample", "ahead").values == state
            ahead = now + table["ahead"].values
            geometric = np.where(path.any(axis=1), ahead[path.argmax(axis=1)], np.inf)
        # NaN is never, unless nothing is said at all
        ours = np.where(np.isnan(ours), np.inf, ours)[: np.isfinite(ours).any() * len(ours)]
        return [
            np.maximum(ours, now),  # a path may have entered it already
            geometric,
            _baselines.later_ones(happened, now),
            _baselines.mean(happened, now),
            _baselines.constant_hazard(happened, self._finished.last, now),
            extrapolated,
        ]

    def _score(self, samples: np.ndarray, truth: float) -> tuple[float, ...]:
        """Score, rank, median, lower and upper end of samples of a time."""
        if not len(samples):
            return (np.nan,) * 5
        most = self._most if np.isfinite(truth) else self._steps[-1]
        within = np.minimum(samples, most)
        quantiles = np.quantile(within, [0.5, *_TAILS], method="inverted_cdf")
        rank = float(np.mean(samples < truth)) if np.isfinite(truth) else np.nan
        return (crps(within, min(truth, most) if np.isfinite(truth) else most), rank, *quantiles)

    def _trend(self, name: str, now: float, rng: np.random.Generator) -> _baselines.Trend:
        own = self._own[name].where(self._own["step"] <= now)
        own = own.where(np.isfinite(own)).dropna("step")
        steps, values = own["step"].values.astype(float), own.values.astype(float)
        return _baselines.Trend(steps, values, self._known[name].values.ravel(), rng)

    def _metric(
        self, name: str, now: float, h: float, table: xr.Dataset, trend: _baselines.Trend
    ) -> np.ndarray:
        """Score and rank (2, forecaster) of a metric's value some steps from now."""
        out = np.full((2, len(OF_METRICS)), np.nan)
        here = now + h
        if here not in self._own.indexes["step"] or name not in table:
            return out
        truth = float(self._own[name].sel(step=here))
        so_far = self._own[name].sel(step=slice(None, now)).dropna("step").values
        others = self._known[name].sel(step=here).dropna("run").values
        ours = table[name].interp(ahead=h).values
        if not np.isfinite(truth) or not len(so_far):
            return out
        each = [s[np.isfinite(s)] for s in (ours, so_far[-1:], others, trend.at(here))]
        # of one case all forecasters are scored on the same scale
        involved = np.concatenate([self._known[name].values.ravel(), so_far, [truth], *each])
        positive = not (involved <= 0.0).any()
        for m, samples in enumerate(each):
            if not len(samples):
                continue
            scaled, value = (np.log(samples), np.log(truth)) if positive else (samples, truth)
            out[:, m] = crps(scaled, value), np.mean(samples < truth)
        return out

    def _table(
        self, of_times: np.ndarray, of_metrics: np.ndarray, shares: np.ndarray, names: list[str]
    ) -> xr.Dataset:
        by_event = ("event", "forecaster", "seen")
        by_metric = ("metric", "ahead", "metric_forecaster", "seen")
        low, high = (f"{tail:.0%}" for tail in _TAILS)
        columns = {
            "crps": (by_event, of_times[0], "score of the forecast time", STEP_UNITS),
            "rank": (by_event, of_times[1], "share of samples before what happened", "1"),
            "median": (by_event, of_times[2], "median of the forecast time", STEP_UNITS),
            "lower": (by_event, of_times[3], f"{low} quantile of the forecast time", STEP_UNITS),
            "upper": (by_event, of_times[4], f"{high} quantile of the forecast time", STEP_UNITS),
            "step": ("event", [t for _, t in self._events.values()], "true step", STEP_UNITS),
            "metric_crps": (by_metric, of_metrics[0], "score of the forecast metric", "mixed"),
            "metric_rank": (by_metric, of_metrics[1], "share of samples below the metric", "1"),
        }
        return xr.Dataset(
            {
                name: (dims, values, {"long_name": long_name, "units": units})
                for name, (dims, values, long_name, units) in columns.items()
            },
            coords={
                "event": list(self._events),
                "forecaster": list(METHODS),
                "metric": names,
                "metric_forecaster": list(OF_METRICS),
                "ahead": ("ahead", list(_AHEAD), {"long_name": "share of the typical time"}),
                "seen": ("seen", shares, {"long_name": "share seen of the way", "units": "1"}),
            },
        ).assign(
            steps_ahead=("ahead", self.ahead, {"long_name": "steps ahead", "units": STEP_UNITS})
        )
