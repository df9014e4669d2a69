"""How many states are visited, where a fit has more of them than it needs."""

import warnings

import numpy as np
import xarray as xr
from scipy.special import gammaln

from bayesphase._checks import check_count
from bayesphase.analysis._elpd import GOOD_K, smoothed
from bayesphase.analysis._paths import each_run, sampled_paths
from bayesphase.analysis.counts import SETTLED
from bayesphase.analysis.diagnostics import ESS_PER_CHAIN, R_HAT_APART

# probability of the largest number there can be from which more states should be tried
AT_THE_LIMIT = 0.05
# the answer is also given for the concentration of the fit times these
FACTORS = (0.5, 1.0, 2.0)


def visited_counts(fit: xr.DataTree, *, min_steps: int = 1) -> xr.Dataset:
    """Give the posterior of the number of states that are visited, by all runs and by each.

    It is meant for a fit with more states than there can be phases and ``transition="sticky_hdp"``
    (`bayesphase.StickyHDP`), whose prior leaves most states unvisited. The question is another one
    than in `bayesphase.state_counts`, where models with different numbers of states are compared,
    and has one posterior for all numbers. About the emission it is the same: where states have
    constant means and metrics drift, states are visited to follow the drift.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    min_steps : int
        Checkpoints that a run has to spend in a state for the state to count as visited by it: 1
        counts each, a larger number leaves out what is there to explain single outliers.

    Returns
    -------
    Dataset
        With `n_states` from 1 (from 0, where `min_steps` is larger) to the number in the model.

        - `probability` (n_states) that the runs visit so many, all of them together: a state counts
          if any run visits it. `mcse`: its Monte Carlo standard error, which takes into account how
          slowly chains move; NaN where no draw, or every one, has this number: draws can't tell;
        - `run_probability` and `run_mcse` (run, n_states): the same by run;
        - `chain_probability` (chain, n_states), of all runs together;
        - `share` (state): part of all checkpoints that is spent in each state, on average, and
          `visited` (state), the probability that any run visits it;
        - `r_hat` and `ess` of the number, all runs together; NaN where it never varies;
        - `probability_by_concentration` (weight_concentration, n_states) and `pareto_k`
          (weight_concentration), for fits with ``"sticky_hdp"``: under half and twice the
          `weight_concentration` of the fit, from the same draws, which are weighted; not to be
          trusted where Pareto k-hat is above 0.7.

        The attributes hold the `verdict` in words and `believable`, True or False.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit, or `min_steps` is no integer of at least 1.

    Warns
    -----
    UserWarning
        If chains disagree, draws are too few, or all states of the model may be visited.

    Examples
    --------
    >>> fit = bp.fit(x, 8, transition="sticky_hdp", random_seed=1)  # doctest: +SKIP
    >>> bp.visited_counts(fit)["probability"]  # doctest: +SKIP
    """
    min_steps = check_count("min_steps", min_steps, least=1)
    state = sampled_paths(fit)
    n_states = fit["posterior"].sizes["state"]
    visits, time = _visits(state, n_states, min_steps)
    numbers = np.arange(1 if min_steps == 1 else 0, n_states + 1)
    by_run = xr.DataArray(visits.sum(axis=-1), dims=("chain", "draw", "run"))
    together = xr.DataArray(visits.any(axis=2).sum(axis=-1), dims=("chain", "draw"))
    n_states_dim = xr.DataArray(numbers, dims="n_states")
    probability, mcse = _share(together == n_states_dim)
    run_probability, run_mcse = _share(by_run == n_states_dim)
    r_hat, ess = _convergence(together)
    table = xr.Dataset(
        {
            "probability": probability,
            "mcse": mcse,
            "run_probability": run_probability,
            "run_mcse": run_mcse,
            "chain_probability": (together == n_states_dim).mean("draw"),
            "share": ("state", time / time.sum()),
            "visited": ("state", visits.any(axis=2).mean(axis=(0, 1))),
            "r_hat": r_hat,
            "ess": ess,
            **_by_concentration(fit, together == n_states_dim),
        },
        coords={
            "n_states": numbers,
            "run": state["run"].values,
            "chain": state["chain"].values,
            "state": np.arange(n_states),
        },
    )
    for name, (long_name, units) in _LONG_NAMES.items():
        if name in table:
            table[name].attrs = {"long_name": long_name, "units": units}
    problems, said = _verdict(table)
    table.attrs = {
        "verdict": " ".join([*problems, *said]),
        "believable": not problems,
        "min_steps": int(min_steps),
    }
    if problems:
        warnings.warn(" ".join(problems), stacklevel=2)
    return table


_LONG_NAMES = {
    "probability": ("posterior probability of the number of states visited", "1"),
    "mcse": ("Monte Carlo standard error of the probability", "1"),
    "run_probability": ("posterior probability of the number of states the run visits", "1"),
    "run_mcse": ("Monte Carlo standard error of the run's probability", "1"),
    "chain_probability": ("probability of the number of states visited, by chain", "1"),
    "share": ("share of checkpoints in the state", "1"),
    "visited": ("posterior probability that any run visits the state", "1"),
    "r_hat": ("rank-normalised split R-hat of the number of states visited", "1"),
    "ess": ("effective sample size of the number of states visited", "draws"),
    "probability_by_concentration": ("probability under another concentration", "1"),
    "pareto_k": ("Pareto k-hat of the ratio of the two priors", "1"),
}


def _visits(state: xr.DataArray, n_states: int, min_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Say who is visited, bool (chain, draw, run, state), and count checkpoints (state)."""
    n_chains, n_draws, n_runs = (state.sizes[dim] for dim in ("chain", "draw", "run"))
    visits = np.zeros((n_chains * n_draws, n_runs, n_states), bool)
    time = np.zeros(n_states)
    for run, (path, _, _) in enumerate(each_run(state)):
        counts = np.stack([(path == k).sum(axis=1) for k in range(n_states)], axis=1)
        visits[:, run] = counts >= min_steps
        time += counts.sum(axis=0)
    return visits.reshape(n_chains, n_draws, n_runs, n_states), time


def _share(happened: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean over the draws, and its Monte Carlo standard error."""
    import arviz_stats

    each = ("chain", "draw")
    mean = happened.mean(each)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = arviz_stats.mcse(happened.astype(float).rename("happened"), method="mean")
    return mean, error.where((mean > 0) & (mean < 1))


def _convergence(number: xr.DataArray) -> tuple[float, float]:
    import arviz_stats

    if number.min() == number.max():
        return np.nan, np.nan
    number = number.astype(float).rename("number")
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(arviz_stats.rhat(number)), float(arviz_stats.ess(number, method="mean"))


def _by_concentration(fit: xr.DataTree, happened: xr.DataArray) -> dict[str, xr.DataArray]:
    """Weigh the draws by what another concentration makes of their `state_weights`."""
    posterior = fit["posterior"].to_dataset()
    if "state_weights" not in posterior:
        return {}
    weights = posterior["state_weights"].transpose("chain", "draw", "state").values
    n_states = weights.shape[-1]
    concentration = fit.attrs["transition_options"]["weight_concentration"]
    logs = np.log(np.maximum(weights, np.finfo(float).tiny)).sum(axis=-1)
    others = concentration * np.array(FACTORS)
    change = (others - concentration) / n_states
    constant = gammaln(others) - n_states * gammaln(others / n_states)
    ratio = xr.DataArray(
        logs[..., None] * change + constant, dims=("chain", "draw", "weight_concentration")
    )
    smooth, pareto_k = smoothed(ratio)
    relative = xr.apply_ufunc(np.exp, smooth - smooth.max(("chain", "draw")))
    weighted = (happened * relative).sum(("chain", "draw")) / relative.sum(("chain", "draw"))
    names = {"weight_concentration": others}
    return {
        "probability_by_concentration": weighted.assign_coords(names),
        "pareto_k": pareto_k.assign_coords(names),
    }


def _verdict(table: xr.Dataset) -> tuple[list[str], list[str]]:
    """Say in words what is the matter with the answer, and the answer."""
    problems, said = [], []
    best = table.isel(n_states=int(table["probability"].argmax("n_states")))
    k, p, error = int(best["n_states"]), float(best["probability"]), float(best["mcse"])
    how = f"{p:.2f}" if np.isnan(error) else f"{p:.2f} (standard error {error:.2g})"
    unsettled = "" if p >= SETTLED else ", which does not settle it"
    said.append(
        f"{k} state{'s are' if k != 1 else ' is'} visited with probability {how}{unsettled}."
    )
    by_chain = table["chain_probability"]
    modes = table["n_states"].values[by_chain.argmax("n_states").values]
    r_hat, ess = float(table["r_hat"]), float(table["ess"])
    if by_chain.sizes["chain"] < 2:
        said.append("There is one chain only, so nothing tells whether it has converged.")
    elif r_hat > R_HAT_APART or (not np.isfinite(r_hat) and len(set(modes.tolist())) > 1):
        problems.append(
            f"The chains disagree about the number of states visited (R-hat {r_hat:.3g}; most "
            f"often {', '.join(map(str, modes))}, by chain): do not average over them. Draw more, "
            f"or see bayesphase.diagnose."
        )
    if (needed := ESS_PER_CHAIN * by_chain.sizes["chain"]) > ess and not p >= SETTLED:
        problems.append(
            f"The number of states visited has an effective sample size of {ess:.0f}, and {needed} "
            f"are wanted: draw more."
        )
    most = int(table["n_states"].max())
    at_limit = float(table["probability"].isel(n_states=-1))
    if most > 1 and at_limit > AT_THE_LIMIT:
        problems.append(
            f"All {most} states of the model are visited with probability {at_limit:.2f}: there "
            f"may be more. Fit more states."
        )
    if "probability_by_concentration" in table:
        said.append(_about_concentration(table, k))
    return problems, said


def _about_concentration(table: xr.Dataset, k: int) -> str:
    by = table["probability_by_concentration"]
    others = by["weight_concentration"].values
    trusted = (table["pareto_k"] <= GOOD_K).values
    modes = table["n_states"].values[by.argmax("n_states").values]
    if not trusted.all():
        return (
            f"For a weight_concentration of {', '.join(f'{c:g}' for c in others[~trusted])} these "
            f"draws do not say (k-hat above {GOOD_K}): fit with it."
        )
    if (modes == k).all():
        low, high = (float(x) for x in (by.sel(n_states=k).min(), by.sel(n_states=k).max()))
        return (
            f"The same number is the most probable for a weight_concentration from {others[0]:g} "
            f"to {others[-1]:g}, with a probability from {low:.2f} to {high:.2f}."
        )
    each = (f"{n} for {c:g}" for n, c in zip(modes, others, strict=True))
    return f"The most probable number depends on the weight_concentration: {', '.join(each)}."
