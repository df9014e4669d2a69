"""What several modes of one posterior are worth: their weights, never a silent average."""

import warnings
from collections.abc import Mapping

import numpy as np
import xarray as xr

from bayesphase.analysis._elpd import features_of
from bayesphase.analysis._paths import sampled_paths
from bayesphase.analysis.compare import stacking_weights
from bayesphase.analysis.diagnostics import R_HAT_APART, convergence, invariant_quantities
from bayesphase.analysis.elpd import loo
from bayesphase.analysis.evidence import bayes_rule, log_evidence

# what says that two fits are of one model
_MODEL = ("n_states", "emission", "emission_options", "transition", "transition_options", "priors")


def mode_weights(
    fits: Mapping[str, xr.DataTree], *, random_seed: int | None = None, cores: int | None = None
) -> xr.Dataset:
    """Weigh fits of one model whose chains sit in different modes.

    The weight of a mode is how much of the posterior it holds: the evidence of the region that its
    chains are in over that of all modes given here. It is about these modes; what no search found
    has no weight. Modes that are each other with the states renumbered are one.

    Parameters
    ----------
    fits : mapping of str to DataTree
        As `bayesphase.fit_modes` returns them.
    random_seed : int, optional
        The same seed gives the same estimates.
    cores : int, optional
        Threads to share draws out over; all cores by default.

    Returns
    -------
    Dataset
        Dim (mode), named as the fits:

        - `probability` and its Monte Carlo standard error `mcse`;
        - `log_evidence` of the mode, nats, and its standard error `log_evidence_mcse`;
        - `stacking_weight`: of the mixture of modes that best predicts runs that are left out, by
          `bayesphase.loo`, NaN for a single run. Unlike the probability it does not take one of the
          modes for the truth (Yao, Vehtari & Gelman 2022);
        - `found_in`: the modes that the chains are in, by the first fit that is in them alone;
          judged by R-hat of what does not depend on the names of states, as in `diagnose`. Where
          it is another mode, or several, the fit has no weight: NaN. Empty where it is not known.

        The attributes hold the `verdict` in words and `believable`, True or False: whether all
        evidences are, and all chains were found somewhere.

    Raises
    ------
    TypeError, ValueError
        If the fits are no fits, not all of one model and the same features, or chains disagree in
        each of them.

    Warns
    -----
    UserWarning
        If an evidence or a leave-one-out density is not to be believed.

    Notes
    -----
    Bridge sampling between a normal distribution fitted to the draws of a mode and these draws, see
    `bayesphase.log_evidence`, takes no notice of what is far from both. The number of ways to name
    the states is accounted for, and is the same for all modes, but for those in which some states
    are alike.

    To report something of all modes together, take it from each fit and weigh it with the
    probabilities. Yao, Vehtari & Gelman 2022 (Journal of Machine Learning Research 23, 79) weigh
    chains by stacking.

    Examples
    --------
    >>> fits = bp.fit_modes(x, 4, random_seed=1)  # doctest: +SKIP
    >>> bp.mode_weights(fits, random_seed=1)  # doctest: +SKIP
    """
    _check_one_model(fits)
    where = _where(fits)
    different = [name for name in fits if where[name] == [name]]
    if not different:
        raise ValueError(
            "no fit has chains that agree with each other, so that there is no mode to weigh: the "
            "chains move between modes; draw more, or look at what bayesphase.diagnose says"
        )
    evidences = {
        name: log_evidence(fits[name], random_seed=random_seed, cores=cores) for name in different
    }
    logs, errors = (
        np.array([float(evidence[key]) for evidence in evidences.values()])
        for key in ("log_evidence", "mcse")
    )
    probability, mcse = bayes_rule(logs, errors)
    columns = {
        "probability": probability,
        "mcse": mcse,
        "log_evidence": logs,
        "log_evidence_mcse": errors,
        "stacking_weight": _stacked({name: fits[name] for name in different}),
    }
    table = xr.Dataset(
        {name: ("mode", values) for name, values in columns.items()}, coords={"mode": different}
    ).reindex(mode=list(fits))
    table["found_in"] = ("mode", [", ".join(where[name]) for name in fits])
    for name, (long_name, units) in _LONG_NAMES.items():
        table[name].attrs = {"long_name": long_name, "units": units}
    doubts = [name for name, evidence in evidences.items() if not evidence.attrs["believable"]]
    believable = not doubts and all(where.values())
    table.attrs = {"verdict": _verdict(table, where, doubts), "believable": believable}
    return table


_LONG_NAMES = {
    "probability": ("posterior probability of the mode", "1"),
    "mcse": ("Monte Carlo standard error of the probability", "1"),
    "log_evidence": ("log marginal likelihood of the mode", "nats"),
    "log_evidence_mcse": ("Monte Carlo standard error of the log marginal likelihood", "nats"),
    "stacking_weight": ("weight in the mixture that best predicts a run that is left out", "1"),
    "found_in": ("modes that the chains are in", "1"),
}


def _check_one_model(fits: Mapping[str, xr.DataTree]) -> None:
    if not isinstance(fits, Mapping) or isinstance(fits, xr.DataTree) or not fits:
        raise TypeError(
            f"fits must be fits by name, as bayesphase.fit_modes returns them, got "
            f"{type(fits).__name__}{'' if fits else ' without any'}"
        )
    for fit in fits.values():
        sampled_paths(fit)  # raises where it is no fit
    first, *others = fits
    for name in others:
        differ = [key for key in _MODEL if fits[name].attrs.get(key) != fits[first].attrs.get(key)]
        if not features_of(fits[name]).equals(features_of(fits[first])):
            differ.append("features")
        if differ:
            raise ValueError(
                f"{first!r} and {name!r} are not of one model, they differ in {differ}: weigh "
                f"modes of one, and compare models by bayesphase.compare or state_counts"
            )


def _where(fits: Mapping[str, xr.DataTree]) -> dict[str, list[str]]:
    """Say of each fit which modes its chains are in, by the first fit that is in each alone.

    Empty where a chain is in none of them, or moves between several.
    """
    # without log densities, which have a constant of their own in each fit
    quantities = {
        name: invariant_quantities(fit, sampled_paths(fit)).drop_vars("log posterior density")
        for name, fit in fits.items()
    }
    where: dict[str, list[str]] = {}
    settled = [name for name, own in quantities.items() if _agree(own)]
    for name in settled:
        known = [first for first in where if where[first] == [first]]
        same = [first for first in known if _agree(quantities[first], quantities[name])]
        where[name] = same[:1] or [name]
    known = [first for first in where if where[first] == [first]]
    for name in quantities.keys() - where.keys():
        own = quantities[name]
        chains = [own.isel(chain=[chain]) for chain in range(own.sizes["chain"])]
        found = [[first for first in known if _agree(quantities[first], c)][:1] for c in chains]
        where[name] = sorted({first for one in found for first in one}) if all(found) else []
    return where


def _agree(*fits: xr.Dataset) -> bool:
    """Say whether chains (chain, draw, ...) agree on all quantities, as if they were of one fit."""
    chains = xr.concat([fit.drop_vars("chain") for fit in fits], dim="chain", join="inner")
    r_hat = convergence(chains.assign_coords(chain=np.arange(chains.sizes["chain"])))["r_hat"]
    return not bool((r_hat > R_HAT_APART).any())


def _stacked(fits: Mapping[str, xr.DataTree]) -> np.ndarray:
    """Stacking weights (mode) by leave-one-run-out, NaN where there is one run."""
    if len(fits) == 1:
        return np.ones(1)
    if features_of(next(iter(fits.values()))).sizes["run"] < 2:
        return np.full(len(fits), np.nan)
    columns = []
    for name, fit in fits.items():
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            columns.append(loo(fit).elpd_i.values)
        for warning in raised:
            warnings.warn(f"fit {name!r}: {warning.message}", warning.category, stacklevel=3)
    return stacking_weights(np.stack(columns, axis=1))


def _verdict(table: xr.Dataset, where: Mapping[str, list[str]], doubts: list[str]) -> str:
    sentences = []
    if doubts:
        sentences.append(f"Do not trust this yet: the evidence of {', '.join(doubts)} is not sure.")
    if lost := [name for name, modes in where.items() if not modes]:
        sentences.append(
            f"Do not trust this yet: chains of {', '.join(lost)} move between modes, or are in one "
            f"that no fit is in alone."
        )
    weighed = table.dropna("mode", subset=["probability"])
    shares = ", ".join(
        f"{name} holds {p:.2f}"
        for name, p in zip(weighed["mode"].values, weighed["probability"].values, strict=True)
    )
    sentences.append(f"Of the modes that were fitted, {shares} of the posterior.")
    for name, modes in where.items():
        if modes and modes != [name]:
            sentences.append(f"The chains of {name} went to {' and '.join(modes)}.")
    return " ".join(sentences)
