"""How many states? Probabilities of each number, of quantities that are not the same."""

from collections.abc import Mapping
from numbers import Real

import numpy as np
import xarray as xr

from bayesphase.analysis._elpd import GOOD_K
from bayesphase.analysis._paths import each_run, sampled_paths
from bayesphase.analysis.evidence import bayes_rule, log_evidence

# posterior probability of a number of states from which it is said to be settled
SETTLED = 0.95


def state_counts(
    fits: Mapping[str, xr.DataTree],
    *,
    prior: Mapping[int, float] | None = None,
    random_seed: int | None = None,
    cores: int | None = None,
) -> xr.Dataset:
    """Give the posterior of the number of states, and of the number that are visited.

    They answer different questions. `probability` compares models by their marginal likelihoods: it
    depends on the priors of the parameters, however many data there are, so that it is also given
    under wider ones; fits under priors of your own are compared where they are named as variants.
    And it is about this emission: where states have constant means
    and metrics drift, more states will fit better, and be the more probable.

    Parameters
    ----------
    fits : mapping of str to DataTree
        As `bayesphase.fit_range` returns it: by number of states, or by variant and number, such as
        ``"wide 3"``. All of the same features.
    prior : mapping of int to float, optional
        Prior probability of each number of states, up to a factor; all the same by default.
    random_seed : int, optional
        The same seed gives the same estimates.
    cores : int, optional
        Threads to share draws out over; all cores by default.

    Returns
    -------
    Dataset
        Dims (n_states), or (variant, n_states) where the keys name variants; NaN where there is no
        such fit.

        - `probability` of the number of states given the features, and its Monte Carlo standard
          error `mcse`;
        - `log_evidence` and its standard error `log_evidence_mcse`, nats, see
          `bayesphase.log_evidence`;
        - `probability_wider`, `mcse_wider`: the same under priors that say half as much, see
          `bayesphase.log_evidence`, with `log_evidence_wider` and its error, and `pareto_k`, above
          0.7 where they are not to be trusted; the probability is NaN where one is not known;
        - `visited_probability`: in the fit with the most states, of the number of them that the
          runs visit, all runs together; see `bayesphase.visited_counts`.

        The attributes hold the `verdict` in words and `believable`, True or False: whether all
        evidences are.

    Raises
    ------
    TypeError, ValueError
        If the fits are no fits or of different features, two are of the same number of states, or
        `prior` lacks one of the numbers or is negative.

    Warns
    -----
    UserWarning
        If an evidence is not to be believed.

    Examples
    --------
    >>> fits = bp.fit_range(x, range(1, 6), random_seed=1)  # doctest: +SKIP
    >>> bp.state_counts(fits, random_seed=1)["probability"]  # doctest: +SKIP
    """
    by_variant = _by_variant(fits)
    fitted = sorted({k for group in by_variant.values() for k in group})
    weights = _prior_weights(prior, fitted)
    tables, doubts = [], []
    for variant, group in by_variant.items():
        evidences = {
            k: log_evidence(fit, random_seed=random_seed, cores=cores)
            for k, fit in sorted(group.items())
        }
        doubts += [
            f"{variant} {k}".strip() for k, e in evidences.items() if not e.attrs["believable"]
        ]
        visited = _visited(group[max(group)])
        columns = [
            _posterior(evidences, weights, ""),
            _posterior(evidences, weights, "_wider"),
            _pareto_k(evidences),
            visited,
        ]
        # one row for every number that any column is about
        tables.append(xr.merge(columns, join="outer"))
    table = xr.concat(tables, dim="variant", join="outer")
    table = table.assign_coords(variant=list(by_variant))
    for name, (long_name, units) in _LONG_NAMES.items():
        table[name].attrs = {"long_name": long_name, "units": units}
    table.attrs = {"verdict": _verdict(table, doubts), "believable": not doubts}
    return table.isel(variant=0, drop=True) if list(by_variant) == [""] else table


_LONG_NAMES = {
    "probability": ("posterior probability of the number of states", "1"),
    "mcse": ("Monte Carlo standard error of the probability", "1"),
    "log_evidence": ("log marginal likelihood", "nats"),
    "log_evidence_mcse": ("Monte Carlo standard error of the log marginal likelihood", "nats"),
    "probability_wider": ("posterior probability under wider priors", "1"),
    "mcse_wider": ("Monte Carlo standard error of the probability under wider priors", "1"),
    "log_evidence_wider": ("log marginal likelihood under wider priors", "nats"),
    "log_evidence_mcse_wider": ("Monte Carlo standard error of that under wider priors", "nats"),
    "pareto_k": ("Pareto k-hat of the ratio of wider priors to the fit's", "1"),
    "visited_probability": ("posterior probability of the number of states visited", "1"),
}


def _by_variant(fits: Mapping[str, xr.DataTree]) -> dict[str, dict[int, xr.DataTree]]:
    """Sort fits by variant, the part of the key before the number, and number of states."""
    if not isinstance(fits, Mapping) or isinstance(fits, xr.DataTree) or not fits:
        raise TypeError(
            f"fits must be fits by name, as bayesphase.fit_range returns them, got "
            f"{type(fits).__name__}{'' if fits else ' without any'}"
        )
    sorted_: dict[str, dict[int, xr.DataTree]] = {}
    first = None
    for key, fit in fits.items():
        sampled_paths(fit)  # raises where it is no fit
        if "n_states" not in fit.attrs or "observed_data" not in fit.children:
            raise ValueError(
                f"the fit {key!r} does not say its number of states or its features: use the "
                f"DataTree that bayesphase.fit returns"
            )
        features = fit["observed_data"].to_dataset()["features"]
        first = features if first is None else first
        if not features.equals(first):
            raise ValueError(
                f"the fit {key!r} is of other features than {next(iter(fits))!r}, so that their "
                f"evidences can't be compared: fit all models to the same ones"
            )
        n_states = int(fit.attrs["n_states"])
        variant = str(key).removesuffix(str(n_states)).rstrip()
        group = sorted_.setdefault(variant, {})
        if n_states in group:
            raise ValueError(
                f"two fits of {n_states} states have the variant {variant!r}: name them apart, "
                f"such as 'wide {n_states}' and 'default {n_states}'"
            )
        group[n_states] = fit
    return sorted_


def _prior_weights(prior: Mapping[int, float] | None, fitted: list[int]) -> dict[int, float]:
    """Prior weight of each number of states that was fitted."""
    if prior is None:
        return dict.fromkeys(fitted, 1.0)
    if not isinstance(prior, Mapping):
        raise TypeError(f"prior must map numbers of states to probabilities, got {prior!r}")
    if lacking := [k for k in fitted if k not in prior]:
        raise ValueError(f"prior has no probability of {lacking} states, which were fitted")
    weights = {k: prior[k] for k in fitted}
    for k, weight in weights.items():
        if not isinstance(weight, Real) or not 0 <= weight < np.inf:
            raise ValueError(f"prior must be numbers of at least 0, got {weight!r} for {k} states")
    if not any(weights.values()):
        raise ValueError("prior is 0 for all numbers of states that were fitted")
    return {k: float(weight) for k, weight in weights.items()}


def _posterior(
    evidences: Mapping[int, xr.Dataset], weights: Mapping[int, float], under: str
) -> xr.Dataset:
    """Bayes' rule for the number of states.

    `under` is what names end with: "" for the priors of the fits, "_wider" for others.
    """
    numbers = list(evidences)
    logs, errors = (
        np.array([float(evidences[k][name + under]) for k in numbers])
        for name in ("log_evidence", "mcse")
    )
    with np.errstate(divide="ignore"):
        log_joint = np.log([weights[k] for k in numbers]) + logs
    probability, mcse = bayes_rule(log_joint, errors)
    return xr.Dataset(
        {
            f"probability{under}": ("n_states", probability),
            f"mcse{under}": ("n_states", mcse),
            f"log_evidence{under}": ("n_states", logs),
            f"log_evidence_mcse{under}": ("n_states", errors),
        },
        coords={"n_states": numbers},
    )


def _pareto_k(evidences: Mapping[int, xr.Dataset]) -> xr.Dataset:
    values = [float(evidence["pareto_k"]) for evidence in evidences.values()]
    return xr.Dataset({"pareto_k": ("n_states", values)}, coords={"n_states": list(evidences)})


def _visited(fit: xr.DataTree) -> xr.Dataset:
    """Probability that so many states are visited by any run."""
    state = sampled_paths(fit)
    n_states = int(fit.attrs["n_states"])
    visited = np.zeros((state.sizes["chain"] * state.sizes["draw"], n_states), bool)
    for path, _, _ in each_run(state):
        for k in range(n_states):
            visited[:, k] |= (path == k).any(axis=1)
    counts = np.arange(1, n_states + 1)
    share = (visited.sum(axis=1)[:, None] == counts).mean(axis=0)
    return xr.Dataset({"visited_probability": ("n_states", share)}, coords={"n_states": counts})


def _verdict(table: xr.Dataset, doubts: list[str]) -> str:
    """Say in words which number is the most probable, under each prior, and how sure that is."""
    sentences = []
    if doubts:
        sentences.append(f"Do not trust this yet: the evidence of {', '.join(doubts)} is not sure.")
    best = []
    for variant in table["variant"].values.tolist():
        row = table.sel(variant=variant).dropna("n_states", subset=["probability"])
        k, how = _most_probable(row, "probability")
        best.append(k)
        under = f" under {variant!r}" if variant else ""
        sentences.append(f"{k} states are the most probable{under}, with probability {how}.")
        if k == int(row["n_states"].max()) and row.sizes["n_states"] > 1:
            sentences.append(f"More than {k} were not tried: they may be more probable still.")
        if row["probability_wider"].isnull().all():
            sentences.append("Under wider priors it is not known: compare fits under at least two.")
            continue
        k, how = _most_probable(row, "probability_wider")
        sentences.append(f"Under wider priors it is {k}, with probability {how}.")
        if doubted := row["n_states"].values[~(row["pareto_k"] <= GOOD_K).values].tolist():
            sentences.append(
                f"Do not trust that: priors of {', '.join(map(str, doubted))} states are too far "
                f"apart for these draws (k-hat above {GOOD_K}). Fit them as a variant."
            )
        else:
            best.append(k)
    if len(best) > 1:
        sentences.append(
            "The number does not depend on which of these priors is used."
            if len(set(best)) == 1
            else "The number depends on the prior."
        )
    return " ".join(sentences)


def _most_probable(row: xr.Dataset, name: str) -> tuple[int, str]:
    """Return the number with the largest probability, and that in words."""
    at = row.isel(n_states=int(row[name].argmax("n_states")))
    p = float(at[name])
    return int(at["n_states"]), f"{p:.2f}{'' if p >= SETTLED else ', which does not settle it'}"
