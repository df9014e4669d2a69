"""Would the model have made such data? Its own are compared with them by statistics that matter."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from bayesphase.analysis._paths import check_ci_prob, checkpoint_quantiles, sampled_paths
from bayesphase.analysis.statistics import STATISTICS, Function, Statistic

# a probability of at most that much, in either tail, is worth a sentence
_UNLIKELY = 0.025
_MOST_NAMED = 4


def predictive_checks(
    fit: xr.DataTree,
    *,
    draws: int | None = 100,
    statistics: Mapping[str, Function] | None = None,
    ci_prob: float = 0.9,
    random_seed: int | None = None,
) -> xr.Dataset:
    """Compare statistics of the data with those of data that the model makes.

    For each of some draws of the posterior, a statistic of the observed data, explained by the path
    of states that was sampled with the draw, stands beside that of data simulated with the same
    parameters, explained by the path that they were simulated from. Where the two differ is why the
    model is wrong.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    draws : int, optional
        How many draws of the posterior at most, as many of each chain and spread evenly; None for
        all.
    statistics : mapping of str to callable, optional
        Further statistics by name. Each takes a Dataset with `features` and `residual` (run, step,
        feature), NaN where there is none, and `state` (run, step), -1 where there is no checkpoint,
        and returns a number, or a DataArray with the dim `feature` or `state`. What the residuals
        are, ``fit["residuals"]`` says: innovations in scales of their state.
    ci_prob : float, default 0.9
        Probability that the equal-tailed intervals hold.
    random_seed : int, optional
        The same seed gives the same simulated data.

    Returns
    -------
    Dataset
        Dims (check) and (check, sample); a check is a statistic of a feature, of a state or of all,
        which the coordinates `statistic`, `of`, `units` and `description` (check) say.

        - `observed`, `replicated` (check, sample): the statistic of the observed data under each
          draw, and of the simulated ones; NaN where it is not defined;
        - `observed_median`, `observed_lower`, `observed_upper`, and the same of `replicated`;
        - `p_value`: the probability that data of the model have a larger statistic than the
          observed ones, equal ones counted half. Near 0, the observed one is larger than the model
          would have it, near 1 smaller;
        - `mcse`: its Monte Carlo error;
        - `n_draws`: the draws for which both statistics are defined.

        The statistics are `autocorrelation`, of residuals of successive checkpoints in the same
        phase (by feature, lag 1); `largest_residual`, by magnitude (by feature); `n_switches`, of a
        run on average; `mean_dwell` and `longest_dwell`, of visits (by state), optimiser steps. The
        attribute `verdict` says in words what the model would not have made.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit, an argument can't be used, or a statistic is no number and has other
        dims, is called as one of ours or returns something of another shape for simulated data.

    Notes
    -----
    Posterior predictive p-values of realised discrepancies (Gelman, Meng & Stern 1996, Statistica
    Sinica 6, 733-760). Over data of the model with parameters from the prior they are 1/2 on
    average and more concentrated about it than uniform: values of at most a are mostly rarer than
    a, and never more frequent than 2 a (Meng 1994, doi:10.1214/aos/1176325622).

    The Monte Carlo error takes into account how the draws are correlated, and counts half a draw on
    either side, so that it is not 0 where all agree.

    Examples
    --------
    >>> import bayesphase as bp
    >>> data = bp.simulate(n_states=2, n_runs=2, n_steps=60, random_seed=1)
    >>> fit = bp.fit(data["features"], 2, random_seed=1, progressbar=False)  # doctest: +SKIP
    >>> bp.predictive_checks(fit, random_seed=1)["p_value"].to_series()  # doctest: +SKIP
    """
    from bayesphase.model.replicate import realisations

    ci_prob = check_ci_prob(ci_prob)
    wanted = {**STATISTICS, **_own(statistics)}
    sampled_paths(fit)
    attrs = {"n_states": fit["posterior"].sizes["state"]}
    pairs: list[tuple[dict[str, xr.DataArray], ...]] = []
    samples = []
    for both in realisations(fit, draws=draws, random_seed=random_seed):
        samples.append([both[0][dim].item() for dim in ("chain", "draw")])
        pairs.append(tuple(_evaluate(wanted, data.assign_attrs(attrs)) for data in both))
    observed, replicated = (np.stack([_flat(p[i], pairs[0][0]) for p in pairs], 1) for i in (0, 1))
    chain, draw = np.transpose(samples)
    coords = {**_labels(wanted, pairs[0][0]), "chain": ("sample", chain), "draw": ("sample", draw)}
    table = _table(observed, replicated, coords, ci_prob)
    table.attrs = {"ci_prob": ci_prob, "verdict": _verdict(table, wanted)}
    return table


def _own(statistics: Mapping[str, Function] | None) -> dict[str, Statistic]:
    for name, function in (statistics or {}).items():
        if name in STATISTICS:
            raise ValueError(f"there is a statistic {name!r} already: choose another name")
        if not callable(function):
            raise TypeError(f"statistic {name!r} must be a function of a Dataset, got {function!r}")
    return {name: Statistic(f, long_name=name) for name, f in (statistics or {}).items()}


def _evaluate(wanted: Mapping[str, Statistic], data: xr.Dataset) -> dict[str, xr.DataArray]:
    found = {}
    for name, statistic in wanted.items():
        value: Any = statistic.function(data)
        if not isinstance(value, xr.DataArray) and np.ndim(value):
            raise TypeError(
                f"statistic {name!r} returned {type(value).__name__} of shape {np.shape(value)}, "
                f"expected a number or a DataArray with the dim 'feature' or 'state'"
            )
        value = xr.DataArray(value)
        if value.dims not in ((), ("feature",), ("state",)):
            raise ValueError(
                f"statistic {name!r} has the dims {value.dims}, expected none, 'feature' or 'state'"
            )
        found[name] = value
    return found


def _flat(values: dict[str, xr.DataArray], like: dict[str, xr.DataArray]) -> np.ndarray:
    """Values (check) of all statistics, one after the other."""
    for name, value in values.items():
        if value.sizes != like[name].sizes:
            raise ValueError(
                f"statistic {name!r} must have one shape, got {dict(value.sizes)} after "
                f"{dict(like[name].sizes)}"
            )
    return np.concatenate([np.ravel(value.values).astype(float) for value in values.values()])


def _labels(wanted: Mapping[str, Statistic], values: dict[str, xr.DataArray]) -> dict[str, Any]:
    statistic, of, units, long_name = [], [], [], []
    for name, value in values.items():
        if not value.ndim:
            names = [""]
        elif value.dims == ("state",):
            names = [f"phase {k}" for k in range(value.size)]
        else:
            names = [str(label) for label in value["feature"].values]
        statistic += [name] * len(names)
        of += names
        units += [wanted[name].units] * len(names)
        long_name += [wanted[name].long_name] * len(names)
    check = [f"{name} {label}".rstrip() for name, label in zip(statistic, of, strict=True)]
    columns = {"check": check, "statistic": statistic, "of": of, "units": units}
    columns["description"] = long_name
    return {name: ("check", labels) for name, labels in columns.items()}


def _table(
    observed: np.ndarray, replicated: np.ndarray, coords: dict[str, Any], ci_prob: float
) -> xr.Dataset:
    n_chains = len(np.unique(coords["chain"][1]))
    both = ~np.isnan(observed) & ~np.isnan(replicated)  # infinite is as large as can be
    larger = np.where(both, (replicated > observed) + 0.5 * (replicated == observed), np.nan)
    p_value, mcse = np.transpose([_mean_and_error(row, n_chains) for row in larger])
    by_sample = ("check", "sample")
    long_names = {"observed": "of the observed data", "replicated": "of data that the model makes"}
    variables: dict[str, Any] = {
        "observed": (by_sample, observed, {"long_name": f"statistic {long_names['observed']}"}),
        "replicated": (
            by_sample,
            replicated,
            {"long_name": f"statistic {long_names['replicated']}"},
        ),
    }
    for name, values in (("observed", observed), ("replicated", replicated)):
        ends = checkpoint_quantiles(values.T, ci_prob=ci_prob)
        for end, quantile in zip(("median", "lower", "upper"), ends, strict=True):
            label = f"{end} of the statistic {long_names[name]}"
            variables[f"{name}_{end}"] = ("check", quantile, {"long_name": label})
    variables["p_value"] = (
        "check",
        p_value,
        {"long_name": "probability of a larger statistic", "units": "1"},
    )
    variables["mcse"] = ("check", mcse, {"long_name": "Monte Carlo error of that", "units": "1"})
    variables["n_draws"] = (
        "check",
        both.sum(axis=1),
        {"long_name": "draws with both statistics", "units": "draws"},
    )
    return xr.Dataset(variables, coords=coords)


def _mean_and_error(larger: np.ndarray, n_chains: int) -> tuple[float, float]:
    """Mean of what was larger (sample), and its Monte Carlo error."""
    from arviz_stats import ess

    known = larger[~np.isnan(larger)]
    if not known.size:
        return np.nan, np.nan
    efficiency = 1.0
    if known.size == larger.size and larger.size >= 4 * n_chains and np.ptp(known) > 0:
        by_chain = xr.DataArray(larger.reshape(n_chains, -1), dims=("chain", "draw"), name="larger")
        with np.errstate(invalid="ignore", divide="ignore"):
            efficiency = float(np.clip(ess(by_chain, method="mean") / larger.size, 0.0, 1.0))
    smoothed = (known.sum() + 0.5) / (known.size + 1)
    variance = smoothed * (1.0 - smoothed) / (known.size * (efficiency or 1.0))
    return float(known.mean()), float(np.sqrt(variance))


def _verdict(table: xr.Dataset, wanted: Mapping[str, Statistic]) -> str:
    """Say in words which statistics the model would not have made."""
    said = []
    for name, statistic in wanted.items():
        of_it = table.isel(check=np.flatnonzero(table["statistic"].values == name))
        for is_larger, word in ((True, "larger"), (False, "smaller")):
            p = of_it["p_value"] if is_larger else 1.0 - of_it["p_value"]
            odd = of_it.isel(check=np.flatnonzero(p.values <= _UNLIKELY))
            if not odd.sizes["check"]:
                continue
            names = [label for label in odd["of"].values.tolist() if label]
            listed = ", ".join(names[:_MOST_NAMED])
            if len(names) > _MOST_NAMED:
                listed += f" and {len(names) - _MOST_NAMED} more"
            where = f" ({listed})" if names else ""
            medians = [float(odd[f"{k}_median"].median()) for k in ("observed", "replicated")]
            seen, made = (f"{value:,.{_decimals(medians)}f}" for value in medians)
            said.append(
                f"The {statistic.long_name}{where} is {word} than the model would have it: "
                f"{seen} and not {made}."
            )
    if not said:
        return "By none of these statistics do the data differ from what the model would make."
    return " ".join(said)


def _decimals(values: list[float]) -> int:
    """Return how many decimals give the largest of some values three digits."""
    largest = max((abs(v) for v in values if np.isfinite(v)), default=1.0)
    return max(0, 2 - int(np.floor(np.log10(largest)))) if largest > 0 else 0
