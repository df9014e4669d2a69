"""What finished runs teach of when something happens: it, and where they were before."""

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

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


def read_criterion(converged: str) -> Criterion:
    """Read what convergence is; raises ValueError unless it is metric, < or >, number."""
    try:
        found = re.fullmatch(r"\s*(\w+)\s*([<>])\s*(\S*\d\S*)\s*", converged)  # not nan or inf
        return Criterion(found[1], found[2] == ">", float(found[3]))  # type: ignore[index]
    except (TypeError, ValueError):
        raise ValueError(
            f"converged must be a metric, > or <, and a number, such as 'eval_accuracy > 0.9', got "
            f"{converged!r}"
        ) from None


class Finished:
    """What finished runs teach: where they were, and when that was.

    Attributes
    ----------
    fit : DataTree
    runs : ndarray (run)
    steps : ndarray (step)
    gap : float
        The usual number of optimiser steps between checkpoints of a run.
    entries : ndarray (run, state)
        Of `entries`.
    """

    def __init__(self, fit: xr.DataTree) -> None:
        from bayesphase.model.ahead import filtered_in_fit, gap_ahead

        self.entries = entries(fit)  # says if it is no fit
        self.fit, self.gap = fit, gap_ahead(fit)
        features = fit["observed_data"].to_dataset()["features"]
        self.runs, self.steps = features["run"].values, features["step"].values.astype(float)
        probability = filtered_in_fit(fit, draws=_LEARNED_FROM)
        present = features.notnull().any("feature").transpose("run", "step").values
        first = self.steps[present.argmax(axis=1)]
        self.last = self.steps[-1 - present[:, ::-1].argmax(axis=1)]
        elapsed = np.maximum(self.steps - first[:, None], 0.0)
        self._probability = probability
        self._covariates = self.covariates(probability, elapsed)
        self._learned: dict[tuple[bytes, bool], Remaining | None] = {}

    def covariates(self, probability: np.ndarray, elapsed: np.ndarray) -> np.ndarray:
        """Covariates (..., covariate) of moments in runs, `elapsed` steps after their beginning."""
        log_time = np.broadcast_to(np.log1p(elapsed / self.gap), probability.shape[:-1])
        # the probability of the first phase is what the others leave
        return np.concatenate([probability[..., 1:], log_time[..., None]], axis=-1)

    def entry_steps(
        self,
        place: np.ndarray,
        ahead: "Ahead",
        rank: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Forecast steps (sample, run, state) of first entries; NaN where there is none.

        `place` and `rank` are as in `time_of`.
        """
        now_there = ahead.probability.mean(axis=0)
        # one noise for all states: what the run does is what one finished run did, if it can be
        noise = rng.gumbel(size=(*rank.shape, len(self.runs)))
        steps = np.empty(ahead.entered.shape)
        for state, event in enumerate(self.entries.T):
            so_far = ahead.entered[:, :, state]
            entered = ~np.isnan(event)
            learned_from = np.where(entered[:, None, None], self._covariates, np.nan)
            time = self.time_of(event, place, ahead.now, so_far, rank, learned_from=learned_from)
            ever = ahead.reachable[:, :, state] & self._ever(event, now_there, noise)
            steps[:, :, state] = np.where(ever | ~np.isnan(so_far), time, np.nan)
        if self.fit.attrs["transition"] != "left_to_right":
            return steps
        # none is entered before those that come first; nor without them, unless it may skip them
        skip = self.fit.attrs.get("transition_options", {}).get("skip", False)
        in_order = (np.fmax if skip else np.maximum).accumulate(steps, axis=2)
        return np.where(np.isnan(steps), np.nan, in_order)

    def _ever(self, event: np.ndarray, now_there: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Draw (sample, run) whether it ever happens: as in a finished run, drawn by its weight.

        The weight of a run is how probably it was, before it happened there, in the phase that the
        run in progress is in now (run, state); all runs together weigh one more. `noise` (sample,
        run, finished run) is Gumbel's, so that the largest sum with log weights is such a draw.
        """
        before = self.steps < np.where(np.isnan(event), np.inf, event)[:, None]
        then = np.where(before[..., None], np.nan_to_num(self._probability), 0.0)
        alike = np.einsum("fts,rs->rft", then, now_there).max(axis=2)
        chosen = (np.log(alike + 1.0 / len(event)) + noise).argmax(axis=2)
        return ~np.isnan(event)[chosen]

    def time_of(
        self,
        event: np.ndarray,
        place: np.ndarray,
        now: np.ndarray,
        so_far: np.ndarray,
        rank: np.ndarray,
        *,
        learned_from: np.ndarray | None = None,
    ) -> np.ndarray:
        """Forecast steps (sample, run) of what happens at `event` (run) in finished runs.

        Where it has happened `so_far` (sample, run) it is known, and NaN where it has not.
        `place` (sample, run, covariate) is where runs are `now` (run). `learned_from` (run, step,
        covariate) is where finished runs were, NaN where nothing is learned from it; by default all
        are learned from.
        """
        key = event.tobytes(), learned_from is None
        if key not in self._learned:
            examples = self._covariates if learned_from is None else learned_from
            self._learned[key] = learn(examples, self.steps, event, self.last)
        learned = self._learned[key]
        if learned is None:
            return so_far.copy()
        n_runs = rank.shape[1]
        # on average over what is not known of the phase now, as the finished runs were seen
        at = np.broadcast_to(place.mean(axis=0), place.shape)
        ahead = [learned.quantile(at[:, run], rank[:, run]) for run in range(n_runs)]
        return np.where(np.isnan(so_far), now + np.stack(ahead, axis=1), so_far)


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
