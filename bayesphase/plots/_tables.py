"""What a figure is made of: tables of `bayesphase.analysis`, given or taken from a fit."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import xarray as xr

from bayesphase.analysis.checks import predictive_checks
from bayesphase.analysis.dissimilarity import dissimilarity
from bayesphase.analysis.phases import boundaries, dwell_times, phase_probabilities
from bayesphase.analysis.pseudo_residuals import pseudo_residuals
from bayesphase.analysis.state_means import state_means
from bayesphase.analysis.trajectories import training_map
from bayesphase.analysis.visited import visited_counts

_BOUNDARY_VARIABLES = ("first_step", "lower", "upper", "visited")
_MAP_VARIABLES = (
    *("probability", "lower", "upper", "n_runs", "n_runs_lower", "n_runs_upper"),
    *("step", "step_lower", "step_upper"),
)
_DWELL_VARIABLES = ("total", "lower", "upper", "visits")
_MEAN_VARIABLES = ("mean", "lower", "upper")
_CHECK_VARIABLES = ("observed_median", "observed_lower", "observed_upper", "p_value")
_CI_PROB = 0.9


def probability_table(data: xr.DataTree | xr.DataArray) -> xr.DataArray:
    """Return phase probabilities, dims (run, step, state), computed if `data` is a fit."""
    if isinstance(data, xr.DataTree):
        return phase_probabilities(data)
    if not isinstance(data, xr.DataArray):
        raise TypeError(_wrong_type(data, "DataArray", "phase_probabilities"))
    require_dims(data, ("run", "step", "state"), name="the table of phase probabilities")
    return data.transpose("run", "step", "state")


def with_doubt(label: str, table: xr.Dataset) -> str:
    """Add to the label of an axis that the table does not believe its own numbers, if so."""
    if table.attrs.get("believable", True):
        return label
    return f"{label}\nnot to be believed yet: see the verdict of the table"


def _with_intervals(
    data: xr.DataTree | xr.Dataset,
    make: Callable[..., xr.Dataset],
    names: tuple[str, ...],
    dims: tuple[str, ...],
    ci_prob: float | None,
) -> xr.Dataset:
    """Return what `make` makes of a fit, or `data` if it is that already, with these variables."""
    if isinstance(data, xr.DataTree):
        return make(data, ci_prob=_CI_PROB if ci_prob is None else ci_prob)
    if not isinstance(data, xr.Dataset):
        raise TypeError(_wrong_type(data, "Dataset", make.__name__))
    require_variables(data, names, dims, made_by=make.__name__)
    _require_same_ci_prob(data, ci_prob)
    return data.transpose(*dims, ...)


def boundary_table(data: xr.DataTree | xr.Dataset, *, ci_prob: float | None) -> xr.Dataset:
    """Return boundaries, dims (run, state), computed if `data` is a fit."""
    return _with_intervals(data, boundaries, _BOUNDARY_VARIABLES, ("run", "state"), ci_prob)


def dwell_table(data: xr.DataTree | xr.Dataset, *, ci_prob: float | None) -> xr.Dataset:
    """Return dwell times, dims (run, state), computed if `data` is a fit."""
    return _with_intervals(data, dwell_times, _DWELL_VARIABLES, ("run", "state"), ci_prob)


def mean_table(data: xr.DataTree | xr.Dataset, *, ci_prob: float | None) -> xr.Dataset:
    """Return means of features in phases, dims (state, feature), computed if `data` is a fit."""
    return _with_intervals(data, state_means, _MEAN_VARIABLES, ("state", "feature"), ci_prob)


def map_table(data: xr.DataTree | xr.Dataset, *, ci_prob: float | None) -> xr.Dataset:
    """Return a training map, dims (state, state_next), computed if `data` is a fit."""
    return _with_intervals(data, training_map, _MAP_VARIABLES, ("state", "state_next"), ci_prob)


def pseudo_residual_table(data: xr.DataTree | xr.Dataset) -> xr.Dataset:
    """Return pseudo-residuals and their autocorrelations, computed if `data` is a fit."""
    if isinstance(data, xr.DataTree):
        return pseudo_residuals(data)
    if not isinstance(data, xr.Dataset):
        raise TypeError(_wrong_type(data, "Dataset", "pseudo_residuals"))
    of_values, of_lags = ("pseudo_residual",), ("autocorrelation", "autocorrelation_sd")
    for names, dims in ((of_values, ("run", "step", "feature")), (of_lags, ("feature", "lag"))):
        require_variables(data, names, dims, made_by="pseudo_residuals")
    return data.transpose("run", "step", "feature", "lag")


def check_table(data: xr.DataTree | xr.Dataset) -> xr.Dataset:
    """Return predictive checks, dims (check, sample), computed if `data` is a fit."""
    if isinstance(data, xr.DataTree):
        return predictive_checks(data)
    if not isinstance(data, xr.Dataset):
        raise TypeError(_wrong_type(data, "Dataset", "predictive_checks"))
    require_variables(data, ("replicated",), ("check", "sample"), made_by="predictive_checks")
    require_variables(data, _CHECK_VARIABLES, ("check",), made_by="predictive_checks")
    return data.transpose("check", "sample")


def dissimilarity_table(data: xr.DataTree | xr.Dataset) -> xr.Dataset:
    """Return the dissimilarity of runs, computed if `data` is a fit."""
    if isinstance(data, xr.DataTree):
        return dissimilarity(data)
    if not isinstance(data, xr.Dataset):
        raise TypeError(_wrong_type(data, "Dataset", "dissimilarity"))
    pairs = ("distance", "distance_lower", "distance_upper")
    require_variables(data, pairs, ("run", "run_other"), made_by="dissimilarity")
    require_variables(data, ("rank",), ("run",), made_by="dissimilarity")
    require_variables(
        data, ("expected", "expected_lower", "expected_upper"), (), made_by="dissimilarity"
    )
    return data.transpose("run", "run_other", ...)


def visited_table(data: xr.DataTree | xr.Dataset) -> xr.Dataset:
    """Return the number of visited states, dims (n_states) and (run, n_states)."""
    if isinstance(data, xr.DataTree):
        return visited_counts(data)
    if not isinstance(data, xr.Dataset):
        raise TypeError(_wrong_type(data, "Dataset", "visited_counts"))
    require_variables(data, ("probability", "mcse"), ("n_states",), made_by="visited_counts")
    require_variables(data, ("run_probability",), ("run", "n_states"), made_by="visited_counts")
    return data


def count_table(data: xr.Dataset) -> xr.Dataset:
    """Return what `state_counts` made, dims (n_states) or (variant, n_states)."""
    if not isinstance(data, xr.Dataset):
        raise TypeError(_made_by(data, "Dataset", "state_counts"))
    dims = ("variant", "n_states") if "variant" in data.dims else ("n_states",)
    names = ("probability", "mcse", "visited_probability")
    require_variables(data, names, dims, made_by="state_counts")
    return data.transpose(*dims)


def weight_table(data: xr.Dataset) -> xr.Dataset:
    """Return what `mode_weights` made, dims (mode)."""
    if not isinstance(data, xr.Dataset):
        raise TypeError(_made_by(data, "Dataset", "mode_weights"))
    names = ("probability", "mcse", "stacking_weight")
    require_variables(data, names, ("mode",), made_by="mode_weights")
    return data


def overlap_table(data: xr.Dataset) -> xr.Dataset:
    """Return what `subspace_overlap` made, dims (run, run_other)."""
    made_by = "subspace_overlap"
    if not isinstance(data, xr.Dataset):
        raise TypeError(_made_by(data, "Dataset", made_by))
    require_variables(data, ("rmsip",), ("run", "run_other"), made_by=made_by)
    require_variables(data, ("rmsip_joint",), ("run",), made_by=made_by)
    require_variables(data, ("rmsip_random",), (), made_by=made_by)
    return data.transpose("run", "run_other", ...)


def turn_table(data: xr.Dataset) -> xr.Dataset:
    """Return what `turning_points` made, dims (run, turn)."""
    if not isinstance(data, xr.Dataset):
        raise TypeError(_made_by(data, "Dataset", "turning_points"))
    for name in ("step", "lower", "upper"):
        if name not in data or set(data[name].dims) != {"run", "turn"}:
            raise ValueError(
                f"the table has no variable {name!r} with dims (run, turn): pass what "
                f"bayesphase.turning_points returns"
            )
    return data.transpose("run", "turn")


def searches_of(fit: xr.DataTree) -> tuple[xr.Dataset, xr.DataArray]:
    """Return the searches of a fit, dims (restart), and its label ambiguity (chain, draw)."""
    if not isinstance(fit, xr.DataTree):
        raise TypeError(_made_by(fit, "DataTree", "fit"))
    wanted = (("restarts", "log_density"), ("sample_stats", "label_ambiguity"))
    for group, name in wanted:
        if group not in fit.children or name not in fit[group].data_vars:
            raise ValueError(
                f"the fit has no variable {name!r} in a group {group!r}; its groups are "
                f"{sorted(fit.children)}: use the DataTree that bayesphase.fit returns"
            )
    return fit["restarts"].to_dataset(), fit["sample_stats"].to_dataset()["label_ambiguity"]


def require_variables(
    table: xr.Dataset, names: Iterable[str], dims: tuple[str, ...], *, made_by: str
) -> None:
    """Raise ValueError unless the table has these variables, with these dims in any order."""
    for name in names:
        if name not in table:
            raise ValueError(
                f"the table has no variable {name!r}, only {sorted(map(str, table.data_vars))}: "
                f"pass what bayesphase.{made_by} returns"
            )
        require_dims(table[name], dims, name=f"variable {name!r}")


def require_dims(table: xr.DataArray, dims: tuple[str, ...], *, name: str) -> None:
    """Raise ValueError unless the table has exactly these dims, in any order, none empty."""
    if set(table.dims) != set(dims) or not all(table.sizes.values()):
        sizes = ", ".join(f"{dim}: {n}" for dim, n in table.sizes.items()) or "none"
        raise ValueError(f"{name} must have dims {dims}, none of them empty, got {sizes}")


def choose(kind: str, asked: str | Sequence[str] | None, available: xr.DataArray) -> list[str]:
    """Return the labels asked for, all of them for None; ValueError lists those there are.

    `kind` is what they are labels of, and the name of the argument: "run", say.
    """
    there = available.values.tolist()
    if asked is None:
        return there
    wanted = [asked] if isinstance(asked, str) else list(asked)
    if not wanted:
        raise ValueError(
            f"{kind} is empty: name at least one {kind}, or leave it out for all of them"
        )
    for name in wanted:
        if name not in there:
            raise ValueError(f"there is no {kind} {name!r}; the {kind}s are {there}")
    return wanted


def checkpoints_of(path: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps at which one run has checkpoints, and its states there."""
    known = path.values >= 0
    return path["step"].values[known], path.values[known]


def held_states(path: xr.DataArray, steps: np.ndarray) -> np.ndarray:
    """Return one run's state at any steps: a checkpoint's holds until the next.

    path: dims (step), -1 where the run has no checkpoint. -1 before its first and past its last.
    """
    at, states = checkpoints_of(path)
    held = np.append(-1, states)[np.searchsorted(at, steps, side="right")]
    return np.where(steps <= at[-1], held, -1) if len(at) else held


def blocks(states: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (state, first, last) of every stretch of equal states; both ends belong to it."""
    if not len(states):
        return []
    changes = np.flatnonzero(states[1:] != states[:-1])
    starts, ends = np.append(0, changes + 1), np.append(changes, len(states) - 1)
    return [(int(states[a]), int(a), int(b)) for a, b in zip(starts, ends, strict=True)]


def _require_same_ci_prob(table: xr.Dataset, ci_prob: float | None) -> None:
    has = table.attrs.get("ci_prob")
    if ci_prob is not None and has is not None and not np.isclose(has, ci_prob):
        raise ValueError(
            f"ci_prob is {ci_prob}, but the table was made with ci_prob={has}: "
            "pass the fit to have other intervals, or leave ci_prob out"
        )


def _made_by(data: object, kind: str, function: str) -> str:
    return f"got a {type(data).__name__}, expected the {kind} that bayesphase.{function} returns"


def _wrong_type(data: object, kind: str, function: str) -> str:
    return (
        f"got a {type(data).__name__}, expected a fit (DataTree) or the {kind} that "
        f"bayesphase.{function} returns"
    )
