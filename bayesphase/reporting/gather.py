"""Everything that a report says, as tables, asked of the analysis before anything is drawn."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from bayesphase.analysis.compare import compare
from bayesphase.analysis.counts import state_counts
from bayesphase.analysis.diagnostics import diagnose
from bayesphase.analysis.forecast_intervals import forecast_intervals
from bayesphase.analysis.phases import (
    boundaries,
    dwell_times,
    most_likely_path,
    phase_probabilities,
    switches,
)
from bayesphase.analysis.speeds import phase_speeds
from bayesphase.analysis.trajectories import training_map
from bayesphase.analysis.visited import visited_counts
from bayesphase.reporting.words import believed
from bayesphase.views import pca, turning_points

# edges that fewer runs are expected to take are left to the table of switches
LEAST_RUNS = 0.5
_COMPONENTS = 5  # in which paths turn: in two they may seem to
_INNER = 0.5  # of forecasts, the interval that is drawn within that of the page


class Asked(NamedTuple):
    """A table that not every fit has: None where there is none, and what there is to say of it."""

    table: Any
    notes: tuple[str, ...] = ()


class FitTables(NamedTuple):
    """The tables of one fit, under the name that it has among the fits."""

    name: str
    fit: xr.DataTree
    path: xr.DataArray
    probability: xr.DataArray
    switches: xr.Dataset
    boundaries: xr.Dataset
    dwell_times: xr.Dataset
    diagnosis: Asked
    training_map: Asked
    speeds: Asked
    visited: Asked

    @property
    def states(self) -> list[int]:
        """Number the states of the model, also those that no path visits."""
        return self.probability["state"].values.tolist()

    @property
    def edges(self) -> list[tuple[int, int]]:
        """List the pairs of states between which runs switch, as (state, state_next)."""
        if self.training_map.table is None:
            return []
        n_runs = self.training_map.table["n_runs"].transpose("state", "state_next").values
        return [(int(a), int(b)) for a, b in np.argwhere(np.nan_to_num(n_runs) >= LEAST_RUNS)]

    @property
    def title(self) -> str:
        """Say what the fit is called on the page."""
        n = len(self.states)
        phases = f"{n} phase{'s' if n > 1 else ''}"
        return phases if self.name == str(n) else f"{self.name} ({phases})"


class Analysis(NamedTuple):
    """All that a report is made of: each fit's tables, those about all fits, and the curves."""

    fits: list[FitTables]
    shown: int
    counts: Asked
    comparison: Asked
    features: xr.DataArray
    pca: Asked
    turns: Asked
    metrics: xr.Dataset | None
    forecasts: xr.Dataset | None
    ci_prob: float

    @property
    def runs(self) -> list[str]:
        """Name the runs, in the order of the fits."""
        return [str(run) for run in self.features["run"].values.tolist()]


def gather(
    fits: xr.DataTree | Mapping[str, xr.DataTree],
    metrics: xr.Dataset | None,
    *,
    forecasts: xr.Dataset | None = None,
    ci_prob: float,
    random_seed: int | None,
) -> Analysis:
    """Compute the tables of all fits.

    Raises
    ------
    TypeError, ValueError
        If something is no fit, or the fits are of different features, `metrics` of other runs, or
        `forecasts` no forecast or of another number of phases.
    """
    named = _by_name(fits)
    features = _same_features(named)
    tables = [_of_one(name, fit, ci_prob) for name, fit in named.items()]
    several = len(named) > 1
    counts = _ask(lambda: state_counts(named, random_seed=random_seed)) if several else Asked(None)
    components = _ask(lambda: pca(features, n_components=_n_components(features)))
    return Analysis(
        fits=tables,
        shown=_shown_first(tables, counts.table),
        counts=counts,
        comparison=_ask(lambda: compare(named)) if several else Asked(None),
        features=features,
        pca=components,
        turns=Asked(None)
        if components.table is None
        else _ask(lambda: _turns(components.table, random_seed)),
        metrics=_of_runs(metrics, features),
        forecasts=_of_fits(forecasts, tables, ci_prob),
        ci_prob=ci_prob,
    )


def _n_components(features: xr.DataArray) -> int:
    """Say how many components there are to be: two to be drawn, and up to five."""
    complete = int(features.notnull().all("feature").sum())
    return max(2, min(_COMPONENTS, features.sizes["feature"], complete))


def _turns(components: xr.Dataset, random_seed: int | None) -> xr.Dataset:
    """Find where paths turn; in fewer resamples of so many checkpoints that it would be slow."""
    most, least, in_all = 100, 25, 500_000
    n_resamples = in_all // components.attrs["n_checkpoints"]
    return turning_points(
        components, n_resamples=max(least, min(most, n_resamples)), random_seed=random_seed
    )


def _of_one(name: str, fit: xr.DataTree, ci_prob: float) -> FitTables:
    return FitTables(
        name=name,
        fit=fit,
        path=most_likely_path(fit),
        probability=phase_probabilities(fit),
        switches=switches(fit, ci_prob=ci_prob),
        boundaries=boundaries(fit, ci_prob=ci_prob),
        dwell_times=dwell_times(fit, ci_prob=ci_prob),
        diagnosis=_ask(lambda: diagnose(fit)),
        training_map=_ask(lambda: training_map(fit, ci_prob=ci_prob)),
        speeds=_ask(lambda: phase_speeds(fit, ci_prob=ci_prob)),
        visited=_ask(lambda: visited_counts(fit)),
    )


def _ask(make: Callable[[], Any]) -> Asked:
    """Make a table; what it warns of, or why it can't be made, is for the page to say."""
    failure: tuple[str, ...] = ()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            table = make()
        except ValueError as error:
            table, failure = None, (f"Not available: {error}.",)
    ours = (str(w.message) for w in said if issubclass(w.category, UserWarning))
    return Asked(table, (*failure, *dict.fromkeys(ours)))


def _by_name(fits: Any) -> dict[str, xr.DataTree]:
    """Return fits by name; a single one is named by its number of states."""
    if isinstance(fits, xr.DataTree):
        probability = phase_probabilities(fits)  # raises where it is no fit
        return {str(probability.sizes["state"]): fits}
    if not isinstance(fits, Mapping) or not fits:
        raise TypeError(
            f"fits must be a fit or fits by name, as bayesphase.fit_range returns them, got "
            f"{type(fits).__name__}{' without any' if isinstance(fits, Mapping) else ''}"
        )
    for name, fit in fits.items():
        if not isinstance(fit, xr.DataTree):
            raise TypeError(
                f"fits[{name!r}] is a {type(fit).__name__}, expected the DataTree that "
                f"bayesphase.fit returns"
            )
    return {str(name): fit for name, fit in fits.items()}


def _same_features(named: Mapping[str, xr.DataTree]) -> xr.DataArray:
    """Return the features that all fits are of, dims (run, step, feature)."""
    first = None
    for name, fit in named.items():
        if "observed_data" not in fit.children or "features" not in fit["observed_data"].data_vars:
            raise ValueError(
                f"the fit {name!r} has no variable 'features' in a group 'observed_data'; its "
                f"groups are {sorted(fit.children)}: use the DataTree that bayesphase.fit returns"
            )
        features = fit["observed_data"].to_dataset()["features"]
        first = features if first is None else first
        if not features.equals(first):
            raise ValueError(
                f"the fit {name!r} is of other features than {next(iter(named))!r}: a report is "
                f"about one set of runs; write one for each"
            )
    assert first is not None
    return first.transpose("run", "step", "feature")


def _of_runs(metrics: Any, features: xr.DataArray) -> xr.Dataset | None:
    """Return the metrics if they are of any of the runs that were fitted."""
    if metrics is None:
        return None
    if not isinstance(metrics, xr.Dataset):
        raise TypeError(
            f"metrics is a {type(metrics).__name__}, expected an xarray.Dataset; "
            "bayesphase.open_metrics(path) reads one from a file"
        )
    if lacking := [name for name in ("run", "step") if name not in metrics.coords]:
        raise ValueError(f"metrics has no coordinate {lacking[0]!r}: use a metrics Dataset")
    fitted = features["run"].values
    if not np.isin(fitted, metrics["run"].values).any():
        raise ValueError(
            f"metrics is of the runs {metrics['run'].values.tolist()}, and none of them was "
            f"fitted: those are {fitted.tolist()}"
        )
    return metrics


def _of_fits(
    forecasts: xr.Dataset | None, tables: list[FitTables], ci_prob: float
) -> xr.Dataset | None:
    """Sum forecasts up, if they can be by any of the fits."""
    if forecasts is None:
        return None
    inner = (_INNER,) if ci_prob > _INNER else ()  # the first and the last are those of the page
    summed = forecast_intervals(forecasts, ci_prob=(ci_prob, *inner))
    numbers = sorted({len(of_fit.states) for of_fit in tables})
    if summed.sizes["state"] not in numbers:
        raise ValueError(
            f"forecasts are of {summed.sizes['state']} phases, and the fits have {numbers}: give "
            f"those that bayesphase.forecast makes with one of these fits"
        )
    return summed


def _shown_first(tables: list[FitTables], counts: xr.Dataset | None) -> int:
    """Choose the fit to begin with: the most probable of those that can be believed.

    The last of those where nothing is known of how probable they are.
    """

    def rank(i: int) -> tuple[bool, float, int]:
        evidence = np.nan
        if counts is not None:  # not the probabilities: they are 0 far below the best, and tie
            n = len(tables[i].states)
            at = counts["log_evidence"].reindex(n_states=[n])
            if "variant" in at.dims:
                at = at.reindex(variant=[tables[i].name.removesuffix(str(n)).rstrip()])
            evidence = float(at.squeeze())
        return believed(tables[i]), np.nan_to_num(evidence, nan=-np.inf), i

    return max(range(len(tables)), key=rank)
