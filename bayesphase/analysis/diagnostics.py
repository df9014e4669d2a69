"""Can this fit be believed? Numbers from ArviZ, and what they say in plain words."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from bayesphase.analysis._lagged import lagged_correlation
from bayesphase.analysis._paths import each_run, sampled_paths

# Vehtari et al. 2021, doi:10.1214/20-BA1221, section 4, advise 1.01. At the smallest effective
# sample size accepted here one good fit in twenty is above that, one in 250 above this
R_HAT_LIMIT = 1.02
# for the worst of many elements: the largest of some hundred R-hats reaches this in good fits
R_HAT_LIMIT_WORST = 1.03
# from here on chains are in different places, not just short
R_HAT_APART = 1.1
ESS_PER_CHAIN = 100
# restarts within so many nats found the same mode
SAME_MODE = 0.1
# a mode so many nats under the best may hold as much of the posterior
NEAR_MODE = 10.0
# two states whose names could be swapped in so large a share of draws are not told apart
AMBIGUOUS, MOST_AMBIGUOUS = 0.5, 0.05
# correlation of successive residuals from which intervals are clearly too narrow
CORRELATED = 0.2


def diagnose(fit: xr.DataTree) -> xr.Dataset:
    """Judge whether the chains of a fit agree and whether its states can be told apart.

    What does not depend on how states are numbered comes first, because only if that has converged
    is there a posterior whose states could be numbered: the log density, each run's log-likelihood,
    how often the path switches, when it first and last does, how many states it visits and how much
    of the run the commonest takes. The parameters of the numbered states follow, each variable by
    its worst element.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.

    Returns
    -------
    Dataset
        - `r_hat`, `ess_bulk`, `ess_tail` (quantity): rank-normalised split R-hat and effective
          sample sizes; NaN for what never varies. The coordinate `label_invariant` says which
          kind a quantity is;
        - `n_divergences`, and `share_ambiguous`, the share of draws in which two states' names
          could be swapped and match half as well or better;
        - `n_best_restarts`, how many of the `n_restarts` searches that were followed to the top
          ended in the best mode, and `gap_to_next_mode` (nats; NaN where there is just one). All
          chains start there, so that they can't find another;
        - `residual_autocorrelation`: of successive checkpoints, given the phases of the most likely
          path; the median over features. The model takes it for 0; where it is not, intervals are
          too narrow and differences of log density too large. NaN without `residuals`;
        - `chain_log_density` (chain), the mean, nats.

        The attributes hold the `verdict` in words and `believable`, True or False: whether the
        draws can be taken for the posterior of this model, not whether the model is right.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit.

    Examples
    --------
    >>> print(bp.diagnose(fit).attrs["verdict"])  # doctest: +SKIP
    """
    state = sampled_paths(fit)
    missing = [group for group in _GROUPS if group not in fit.children]
    if missing:
        raise ValueError(
            f"the fit lacks the groups {missing}; its groups are {sorted(fit.children)}: use the "
            f"DataTree that bayesphase.fit returns"
        )
    invariant = invariant_quantities(fit, state)
    posterior = fit["posterior"].to_dataset()
    # of a single feature there are no pairs
    posterior = posterior.drop_vars([name for name, v in posterior.items() if not v.size])
    table = xr.concat(
        [
            convergence(invariant).assign_coords(
                label_invariant=("quantity", [True] * len(invariant.data_vars))
            ),
            convergence(posterior).assign_coords(
                label_invariant=("quantity", [False] * len(posterior.data_vars))
            ),
        ],
        dim="quantity",
    )
    stats = fit["sample_stats"].to_dataset()
    restarts = np.sort(fit["restarts"].to_dataset()["log_density"].values)[::-1]
    gaps = restarts[0] - restarts
    others = gaps[gaps > SAME_MODE]
    table["n_divergences"] = int(stats["diverging"].sum())
    table["share_ambiguous"] = float((stats["label_ambiguity"] > AMBIGUOUS).mean())
    table["n_restarts"] = len(restarts)
    table["n_best_restarts"] = len(restarts) - len(others)
    table["gap_to_next_mode"] = others.min() if len(others) else np.nan
    table["residual_autocorrelation"] = _residual_autocorrelation(fit)
    table["chain_log_density"] = stats["lp"].mean("draw")
    for name, (long_name, units) in _LONG_NAMES.items():
        table[name].attrs = {"long_name": long_name, "units": units}
    searches = {"mode": fit.attrs.get("mode", 0), **fit["restarts"].attrs}
    sentences, believable = _verdict(table, searches, n_states=posterior.sizes["state"])
    table.attrs = {"verdict": " ".join(sentences), "believable": believable}
    return table


_GROUPS = ("posterior", "sample_stats", "log_likelihood", "restarts", "observed_data")
_SINGLE = ("log posterior density",)

_LONG_NAMES = {
    "r_hat": ("rank-normalised split R-hat", "1"),
    "ess_bulk": ("bulk effective sample size", "draws"),
    "ess_tail": ("tail effective sample size", "draws"),
    "n_divergences": ("divergent transitions after tuning", "draws"),
    "share_ambiguous": ("share of draws whose states' names could be swapped", "1"),
    "n_restarts": ("restarts of the search for starting points", "1"),
    "n_best_restarts": ("restarts that ended in the best mode", "1"),
    "gap_to_next_mode": ("log density of the best mode over the next", "nats"),
    "residual_autocorrelation": ("lag-1 autocorrelation of residuals within phases", "1"),
    "chain_log_density": ("mean log posterior density of the chain", "nats"),
}


def invariant_quantities(fit: xr.DataTree, state: xr.DataArray) -> xr.Dataset:
    """Functions of the draws that no renumbering of states changes, (chain, draw[, run])."""
    shape = (state.sizes["chain"], state.sizes["draw"], state.sizes["run"])
    switches, first, last, visited, most = np.zeros((5, *shape))
    states = np.arange(int(state.max()) + 1)
    for r, (path, _, steps) in enumerate(each_run(state)):
        changed = path[:, 1:] != path[:, :-1]
        n_switches = changed.sum(axis=1)
        # a path that never switches does so after the end, for both
        after = len(steps)
        first_at = np.where(n_switches > 0, changed.argmax(axis=1), after)
        last_at = np.where(
            n_switches > 0, changed.shape[1] - changed[:, ::-1].argmax(axis=1), after
        )
        share = np.stack([(path == k).mean(axis=1) for k in states])
        found = (n_switches, first_at, last_at, (share > 0).sum(axis=0), share.max(axis=0))
        for out, values in zip((switches, first, last, visited, most), found, strict=True):
            out[..., r] = values.reshape(shape[:2])
    dims = ("chain", "draw", "run")
    return xr.Dataset(
        {
            "log posterior density": fit["sample_stats"]["lp"],
            "log-likelihood of a run": fit["log_likelihood"]["run_log_likelihood"],
            "number of switches in a run": (dims, switches),
            "first switch in a run": (dims, first),
            "last switch in a run": (dims, last),
            "number of states in a run": (dims, visited),
            "share of a run in one state": (dims, most),
        },
        coords={dim: state[dim] for dim in dims},
    )


def convergence(quantities: xr.Dataset) -> xr.Dataset:
    """R-hat and effective sample sizes of each variable, of its worst element."""
    import arviz_stats

    with np.errstate(divide="ignore", invalid="ignore"):
        r_hat = arviz_stats.rhat(quantities).max()
        sizes = {
            f"ess_{method}": arviz_stats.ess(quantities, method=method)
            for method in ("bulk", "tail")
        }
    # not by their standard deviation, which rounding makes positive where nothing varies
    each = ("chain", "draw")
    varies = quantities.max(each) > quantities.min(each)
    table = {"r_hat": r_hat, **{name: ess.where(varies).min() for name, ess in sizes.items()}}
    names = list(quantities.data_vars)
    return xr.Dataset(
        {
            key: ("quantity", np.array([float(values[name]) for name in names]))
            for key, values in table.items()
        },
        coords={"quantity": [str(name) for name in names]},
    )


def _residual_autocorrelation(fit: xr.DataTree) -> float:
    """Correlate standardized residuals of successive checkpoints; median over the features."""
    if "residuals" not in fit.children:
        return np.nan
    residuals = fit["residuals"].to_dataset()["standardized"].transpose("run", "step", "feature")
    state = fit["paths"]["most_likely"].transpose("run", "step")
    correlation, _ = lagged_correlation(residuals.values, state=state.values)
    known = correlation[~np.isnan(correlation)]
    return float(np.median(known)) if known.size else np.nan


def _verdict(
    table: xr.Dataset, searches: Mapping[Any, Any], *, n_states: int
) -> tuple[list[str], bool]:
    """Say in words what the table means, and whether the draws are the posterior's."""
    invariant = table.sel(quantity=table["label_invariant"].values)
    said: list[str] = []
    problems: list[str] = []

    sentence, problem = _about_chains(table, invariant["r_hat"])
    (problems if problem else said).append(sentence)

    needed = ESS_PER_CHAIN * table.sizes["chain"]
    # both are wanted: an interval's ends are tails
    smallest = _worst(table[["ess_bulk", "ess_tail"]].to_array().min("variable"), largest=False)
    if smallest and smallest[1] < needed:
        problems.append(
            f"The {smallest[0]} has an effective sample size of {smallest[1]:.0f}, and {needed} "
            f"are wanted for stable intervals: draw more."
        )
    elif smallest:
        said.append(f"Effective sample sizes are at least {smallest[1]:.0f}.")

    if divergences := int(table["n_divergences"]):
        problems.append(
            f"{divergences} draws diverged, so parts of the posterior may be missing: tune longer "
            f"or use tighter priors."
        )
    ambiguous = float(table["share_ambiguous"])
    if ambiguous > MOST_AMBIGUOUS:
        problems.append(
            f"In {ambiguous:.0%} of the draws two states could swap names: what is said of single "
            f"states mixes them. {n_states} states may be more than the data tell apart."
        )
    elif n_states > 1:
        said.append("States can be told apart in nearly all draws.")
    sentence, problem = _about_restarts(table, searches)
    (problems if problem else said).append(sentence)
    correlation = float(table["residual_autocorrelation"])
    if correlation > CORRELATED:
        said.append(
            f"The model itself is too sure: given the phases, successive checkpoints have a "
            f"correlation of {correlation:.2f} where it assumes none, so that intervals are too "
            f"narrow, the more so the denser the checkpoints."
        )
    if problems:
        return ["Do not trust this fit yet.", *problems, *said], False
    return ["The sampler has converged.", *said], True


def _about_chains(table: xr.Dataset, r_hat: xr.DataArray) -> tuple[str, bool]:
    """Do the chains agree on what is label-invariant? In words, and whether that is a problem."""
    if table.sizes["chain"] < 2:
        return "There is one chain only, so nothing can tell whether it has converged.", True
    worst = _worst(r_hat, largest=True)
    if worst is None:
        return "R-hat is unknown: the draws are too few, or all the same. Draw more.", True
    if worst[1] > R_HAT_APART:
        means = table["chain_log_density"].values.round(1).tolist()
        return (
            f"The chains disagree about the {worst[0]} (R-hat {worst[1]:.3g}): they sit in "
            f"different modes. Their mean log densities are {means} nats; do not average over "
            f"them."
        ), True
    if worst[1] > (R_HAT_LIMIT if worst[0] in _SINGLE else R_HAT_LIMIT_WORST):
        return (
            f"The chains nearly agree (R-hat of the {worst[0]} is {worst[1]:.3f}): draw more."
        ), True
    return "The chains agree on everything that does not depend on names of states.", False


def _about_restarts(table: xr.Dataset, searches: Mapping[Any, Any]) -> tuple[str, bool]:
    """Say how the searches for a starting point ended, and whether that is a problem."""
    best, all_ = int(table["n_best_restarts"]), int(table["n_restarts"])
    tried = f", the most promising of {searches['n_tried']}," if "n_tried" in searches else ""
    under = " (under the default priors)" if searches.get("priors") == "default" else ""
    if searches["mode"]:
        return (
            f"All chains were started in mode {searches['mode']} of those that {all_} searches "
            f"found, which is not the best: this is a part of the posterior only. "
            f"bayesphase.mode_weights says how large a part."
        ), True
    if best == all_:
        return f"All {all_} searches for a starting point{tried} found the same mode.", False
    gap = float(table["gap_to_next_mode"])
    sentence = (
        f"{best} of {all_} searches for a starting point{tried} ended in the best mode found; the "
        f"next is {gap:.1f} nats lower{under}."
    )
    if gap < NEAR_MODE:
        return (
            f"{sentence} That one may matter as much, and no chain was started in it: what is "
            f"said here leaves it out. bayesphase.fit_modes fits both apart."
        ), True
    if best == 1:
        return f"{sentence} There may be a better one: raise n_restarts.", False
    return sentence, False


def _worst(values: xr.DataArray, *, largest: bool) -> tuple[str, float] | None:
    """Name and value of the extreme quantity; None where none varies."""
    known = values.dropna("quantity")
    if not known.size:
        return None
    at = known.argmax("quantity") if largest else known.argmin("quantity")
    return str(known["quantity"].values[int(at)]), float(known[int(at)])
