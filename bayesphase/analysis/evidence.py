"""The marginal likelihood of a fit, and whether it can be believed."""

import warnings
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayesphase.analysis._elpd import SAMPLE, log_mean_exp, relative_efficiency, smoothed
from bayesphase.analysis._paths import sampled_paths
from bayesphase.analysis.diagnostics import (
    NEAR_MODE,
    R_HAT_APART,
    SAME_MODE,
    convergence,
    invariant_quantities,
)

if TYPE_CHECKING:
    from bayesphase.model.evidence import Evidence

# standard error in nats from which an answer could be another one
PRECISE = 0.3
# independent draws that the estimate of the error itself needs
LEAST_DRAWS = 100
# estimates from parts of the draws are this many standard errors apart, and nats: not by chance
FAR, FAR_NATS = 4.0, 0.1
# share of draws that diverged from which a part of the posterior may be missing
MOST_DIVERGED = 0.005


def log_evidence(
    fit: xr.DataTree,
    *,
    method: str = "bridge",
    random_seed: int | None = None,
    particles: int = 400,
    cores: int | None = None,
) -> xr.Dataset:
    """Estimate the log marginal likelihood of a fit's model: log p(features | number of states).

    Parameters and states are both summed out, under the model's priors, so that differences of it
    compare models of the same features. Names of states make no difference to it: all K! numberings
    that the likelihood does not tell apart are accounted for, also where draws mix some of them up,
    each with its own prior where priors differ by state.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    method : {"bridge", "smc"}
        Bridge sampling uses the draws of the fit and takes seconds. Sequential Monte Carlo goes
        from the prior to the posterior by itself and takes minutes where models are small, far
        longer where they are not: it checks the other, and finds modes that chains did not.
    random_seed : int, optional
        The same seed gives the same estimate.
    particles : int
        Of each of the four repeats of sequential Monte Carlo.
    cores : int, optional
        Threads to share draws out over; all cores by default.

    Returns
    -------
    Dataset
        - `log_evidence` and `mcse`, its Monte Carlo standard error, nats;
        - `relative_error` of the evidence itself;
        - `part` (part): estimates, nats, of either half of the draws, or by repeat;
        - `ess`: how many independent draws those of the fit are worth here; NaN for ``"smc"``;
        - `n_renumberings` of the states that were accounted for, K! where all can be exchanged; 1
          for ``"smc"``, whose particles have all;
        - `label_overlap`: the share of density that exchanging two states leaves, on average, where
          it was neglected, of the pair with the largest. Nothing of note is for up to six states;
        - `log_evidence_wider` and `mcse_wider`: the same under *wider priors*, which say half as
          much: variances are doubled, and what counts as observations, such as the stickiness, is
          halved. From the same draws, and only to be trusted where their `pareto_k` is at most 0.7.
          NaN for ``"smc"``, and where a prior is of a family that has no such other.

        The attributes hold the `verdict` in words and `believable`, True or False.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit or has too few draws, or another argument can't be used.

    Warns
    -----
    UserWarning
        If the estimate is not to be believed; it is the verdict.

    Notes
    -----
    Bridge sampling (Meng & Wong 1996) with a normal proposal fitted to one half of the draws and
    the other half as the draws, then the other way round, with the effective number of draws in the
    optimal bridge function (Gronau et al. 2017, doi:10.1016/j.jmp.2017.09.005) and the standard
    error of Frühwirth-Schnatter 2004 (doi:10.1111/j.1368-423X.2004.00125.x). The proposal is
    averaged over the numberings of all states that any point mixes up, which is what her random
    permutations do at random. For more than six such states only some are: see `label_overlap`.

    The evidence under other priors is that under the fit's times the posterior mean of the ratio of
    the priors' densities. Wider ones have a density in proportion to the square root of the fit's.

    Examples
    --------
    >>> bp.log_evidence(fit, random_seed=1)  # doctest: +SKIP
    """
    from bayesphase.model.evidence import evidence

    found = evidence(fit, method=method, random_seed=random_seed, particles=particles, cores=cores)
    mcse = float(np.sqrt(np.log1p(found.relative_error**2)))
    table = xr.Dataset(
        {
            "log_evidence": found.log_evidence,
            "mcse": mcse,
            "relative_error": found.relative_error,
            "part": ("part", found.parts),
            "ess": found.effective_draws,
            "n_renumberings": found.n_renumberings,
            "label_overlap": found.label_overlap,
            **_under_wider_priors(found, mcse),
        }
    )
    for name, (long_name, units) in _LONG_NAMES.items():
        table[name].attrs = {"long_name": long_name, "units": units}
    problems, said = _about_estimate(table)
    if method == "bridge":
        more_problems, more = _about_draws(fit)
        problems, said = problems + more_problems, said + more
    sentences, n_states = [*problems, *said], int(fit.attrs["n_states"])
    if problems:
        states = f"{n_states} state{'s' if n_states > 1 else ''}"
        sentences.insert(0, f"Do not trust this evidence of {states} yet.")
    table.attrs = {
        "verdict": " ".join(sentences),
        "believable": not problems,
        "method": method,
        "n_states": n_states,
    }
    if problems:
        warnings.warn(table.attrs["verdict"], stacklevel=2)
    return table


_LONG_NAMES = {
    "log_evidence": ("log marginal likelihood", "nats"),
    "mcse": ("Monte Carlo standard error of the log marginal likelihood", "nats"),
    "relative_error": ("relative standard error of the marginal likelihood", "1"),
    "part": ("log marginal likelihood, from a part", "nats"),
    "ess": ("effective sample size", "draws"),
    "n_renumberings": ("numberings of the states accounted for", "1"),
    "label_overlap": ("neglected overlap of two numberings", "1"),
    "log_evidence_wider": ("log marginal likelihood under wider priors", "nats"),
    "mcse_wider": ("Monte Carlo standard error of that under wider priors", "nats"),
    "pareto_k": ("Pareto k-hat of the ratio of the priors", "1"),
}


def _under_wider_priors(found: "Evidence", mcse: float) -> dict[str, float]:
    """Estimate the evidence under other priors from the draws under the fit's."""
    if found.wider is None:
        return dict.fromkeys(("log_evidence_wider", "mcse_wider", "pareto_k"), np.nan)
    ratio = xr.DataArray(found.wider[..., None], dims=(*SAMPLE, "unit"))
    _, pareto_k = smoothed(ratio)
    relative = np.exp(ratio - ratio.max())
    n_effective = relative_efficiency(ratio) * ratio.size
    error = float(relative.std() / relative.mean() / np.sqrt(n_effective))
    return {
        "log_evidence_wider": found.log_evidence + float(log_mean_exp(ratio)[0]),
        # both come from the same draws: their correlation is neglected
        "mcse_wider": float(np.sqrt(mcse**2 + np.log1p(error**2))),
        "pareto_k": float(pareto_k[0]),
    }


def bayes_rule(log_joint: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn logs of prior times evidence (model), nats, into probabilities with their errors.

    Errors of the logs, taken to be independent, are carried over to first order.
    """
    probability = np.exp(log_joint - log_joint.max())
    probability /= probability.sum()
    # dp_k / dlog_j = p_k (1 if j is k else 0) - p_k p_j
    slope = np.diag(probability) - np.outer(probability, probability)
    return probability, np.sqrt(slope**2 @ errors**2)


def _about_estimate(table: xr.Dataset) -> tuple[list[str], list[str]]:
    """Problems with the numbers, and what else is to be said of them."""
    from bayesphase.model.evidence import MOST_OVERLAP

    problems, said = [], []
    value, mcse = float(table["log_evidence"]), float(table["mcse"])
    if not np.isfinite(value) or not np.isfinite(mcse):
        problems.append("It could not be estimated: it or its standard error is not finite.")
    elif mcse > PRECISE:
        problems.append(
            f"Its standard error is {mcse:.2g} nats, and {PRECISE} is the most that tells numbers "
            f"of states apart: draw more."
        )
    else:
        said.append(f"The log evidence is {value:.2f} with a standard error of {mcse:.2g} nats.")
    parts = table["part"].values
    apart = float(parts.max() - parts.min())
    # the parts' errors are larger than that of their mean by the root of their number
    if apart > max(FAR * mcse * np.sqrt(2.0 * len(parts)), FAR_NATS):
        problems.append(
            f"Estimates from parts of the draws differ by {apart:.2g} nats, more than their "
            f"errors explain."
        )
    if float(table["ess"]) < LEAST_DRAWS:  # not where it is NaN
        problems.append(
            f"The draws are worth {float(table['ess']):.0f} independent ones, and {LEAST_DRAWS} "
            f"are needed for a standard error: draw more."
        )
    if float(table["label_overlap"]) > MOST_OVERLAP:
        problems.append(
            f"More states are mixed up than all numberings can be summed over for: two of them "
            f"have {float(table['label_overlap']):.0%} of their density in common, which was "
            f"neglected. The evidence may be too large by a factor of the numberings."
        )
    return problems, said


def _about_draws(fit: xr.DataTree) -> tuple[list[str], list[str]]:
    """Problems with the chains that no estimate from them shows, and what else is to be said."""
    problems, said = [], []
    if "sample_stats" in fit.children:
        diverged = fit["sample_stats"]["diverging"]
        if float(diverged.mean()) > MOST_DIVERGED:
            problems.append(
                f"{int(diverged.sum())} of {diverged.size} draws diverged: the chains may have "
                f"kept out of a part of the posterior."
            )
    if fit["posterior"].sizes["chain"] < 2:
        said.append("There is one chain only, so nothing tells whether it has converged.")
    else:
        r_hats = convergence(invariant_quantities(fit, sampled_paths(fit)))["r_hat"].fillna(0.0)
        worst = r_hats.isel(quantity=int(r_hats.values.argmax()))
        if worst > R_HAT_APART:
            problems.append(
                f"The chains disagree about the {worst['quantity'].item()} (R-hat "
                f"{float(worst):.3g}): they sit in different modes, and the evidence is of none of "
                f"them."
            )
    if "restarts" in fit.children:
        modes = fit["restarts"].to_dataset()["log_density"].values
        gaps = modes.max() - modes
        near = gaps[(gaps > SAME_MODE) & (gaps < NEAR_MODE)]
        if len(near):
            said.append(
                f"Searches for a starting point found another mode {near.min():.1f} nats lower; if "
                f"no chain went there, the evidence lacks it: method='smc' would find it."
            )
    return problems, said
