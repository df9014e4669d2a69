"""The marginal likelihood of a fit's model: parameters and states both summed out."""

from collections.abc import Iterator
from itertools import combinations, permutations, product
from math import factorial, prod
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from bayesphase._checks import check_count, check_seed
from bayesphase.model.bridge import (
    Proposal,
    bridge,
    effective_size,
    fit_proposal,
    symmetrised,
)
from bayesphase.model.spec import recorded
from bayesphase.model.target import LogDensity, Target
from bayesphase.model.tempering import Tempering

METHODS = ("bridge", "smc")  # the default first

# renumberings that are summed over one by one: all of six states
_MOST_RENUMBERINGS = 720
# two states are apart if exchanging them never leaves more than this of the proposal's density, in
# nats: over all draws together that is under the rounding of what anyone reads
_APART = -20.0
# share of density that two regions may have in common and be counted as two
MOST_OVERLAP = 0.01
# draws of a chain for each half to have a covariance and an autocorrelation
_LEAST_DRAWS = 20
# of sequential Monte Carlo, whose spread is its error
_REPEATS = 4


class Evidence(NamedTuple):
    """An estimate with what is needed to judge it.

    `log_evidence` (nats) of all `parts`, independent estimates (nats), together; `relative_error`
    of the evidence itself; `effective_draws`, how many independent ones the draws are worth, NaN
    without; `n_renumberings` of the states that were accounted for; `label_overlap`, the share of
    density that exchanging two states leaves where that was neglected; `wider` (chain, draw), how
    much larger the log density (nats) of the draws is under priors that say half as much, see
    `Prior.wider`, or None where that is not known.
    """

    log_evidence: float
    parts: np.ndarray
    relative_error: float
    effective_draws: float
    n_renumberings: int
    label_overlap: float
    wider: np.ndarray | None = None


def evidence(
    fit: xr.DataTree,
    *,
    method: str,
    random_seed: int | None,
    particles: int,
    cores: int | None,
) -> Evidence:
    """Estimate the marginal likelihood; arguments and errors as in `bayesphase.log_evidence`."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {list(METHODS)}, got {method!r}")
    check_seed(random_seed)
    check_count("particles", particles, least=20)
    if cores is not None:
        check_count("cores", cores, least=1)
    target = _target_of(fit, cores)
    rng = np.random.default_rng(random_seed)
    if method == "smc":
        return _tempered(target, rng, particles)
    points = target.points(fit["posterior"].to_dataset())
    found, at_draws = _bridged(target, points, rng)
    spec = target.spec
    priors = {name: other for name, prior in spec.priors.items() if (other := prior.wider())}
    if len(priors) < len(spec.priors):
        return found
    wider = Target(spec._replace(priors=priors), target.feature, cores=cores)
    return found._replace(wider=_symmetric(wider, points)[1] - at_draws)


def bridged_evidence(fit: xr.DataTree) -> Evidence:
    """Estimate the marginal likelihood by bridge sampling, the same each time.

    Raises
    ------
    ValueError
        As `evidence`.
    """
    target = _target_of(fit, None)
    points = target.points(fit["posterior"].to_dataset())
    return _bridged(target, points, np.random.default_rng(0))[0]


def _target_of(fit: xr.DataTree, cores: int | None) -> Target:
    spec = recorded(fit)
    return Target(spec, fit["observed_data"].to_dataset()["feature"].values, cores=cores)


def _bridged(
    target: Target, points: np.ndarray, rng: np.random.Generator
) -> tuple[Evidence, np.ndarray]:
    """Bridge twice, with the proposal from one half of each chain and the draws of the other.

    Also returns the log density (chain, draw) at the draws, the `points` (chain, draw, dim).
    """
    _, n_draws, n_dim = points.shape
    if n_draws < _LEAST_DRAWS:
        raise ValueError(
            f"the fit has {n_draws} draws in each chain, and at least {_LEAST_DRAWS} are needed; "
            f"hundreds are better"
        )
    log_density, at_draws, groups = _symmetric(target, points)
    first = np.arange(n_draws) < n_draws // 2
    logs, errors, sizes, overlaps = [], [], [], []
    for fitted_to in (first, ~first):
        known = points[:, fitted_to].reshape(-1, n_dim)
        proposal = fit_proposal(known, effective_size(at_draws[:, fitted_to]))
        draws, there = points[:, ~fitted_to], at_draws[:, ~fitted_to]
        proposed = proposal.draw(rng, there.size)
        all_ = np.concatenate([draws.reshape(-1, n_dim), proposed])
        mixed, overlap = _mixed(target, proposal, groups, all_)
        density = symmetrised(proposal, _exchanges(target, mixed), all_)
        estimate = bridge(
            there - density[: there.size].reshape(there.shape),
            log_density(proposed) - density[there.size :],
        )
        # the draws stand for as many regions like theirs as were not summed over
        regions = _n_renumberings(groups) / _n_renumberings(mixed)
        logs.append(estimate.log_integral + np.log(regions))
        errors.append(estimate.relative_error)
        sizes.append(estimate.effective_draws)
        overlaps.append(overlap)
    found = Evidence(
        float(np.mean(logs)),
        np.array(logs),
        float(np.sqrt(np.sum(np.square(errors)))) / 2.0,
        float(np.sum(sizes)),
        _n_renumberings(groups),
        max(overlaps),
    )
    return found, at_draws


def _symmetric(
    target: Target, points: np.ndarray
) -> tuple[LogDensity, np.ndarray, list[list[int]]]:
    """Make a density of the same integral that does not know names which the likelihood does not.

    A fit gives its draws names that are of use, whatever prior had made them differ. The posterior
    with its states renumbered at random does not mind.

    Returns
    -------
    log_density : callable
    at_points : ndarray (chain, draw)
        At the `points` (chain, draw, dim).
    groups : list of list of int
        States that can be exchanged.
    """
    flat = points.reshape(-1, target.n_dim)
    some = flat[np.unique(np.linspace(0, len(flat) - 1, 5).astype(int))]
    log_density, groups = _without_names(target, some)
    return log_density, log_density(flat).reshape(points.shape[:2]), groups


def _without_names(target: Target, points: np.ndarray) -> tuple[LogDensity, list[list[int]]]:
    groups = target.exchangeable(target, points)
    if len(groups) == 1:
        return target, groups
    prior = target.prior()

    def log_likelihood(points: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return target(points) - prior(points)

    wider = target.exchangeable(log_likelihood, points)
    if wider == groups:
        return target, groups
    if (n := _n_renumberings(wider)) > _MOST_RENUMBERINGS:
        raise ValueError(
            f"the prior differs by state, and {target.spec.n_states} states have {n} numberings to "
            f"be summed over, more than {_MOST_RENUMBERINGS}: use method='smc', or a prior that is "
            f"the same for all states"
        )
    exchanges = list(_exchanges(target, wider))

    def log_density(points: np.ndarray) -> np.ndarray:
        everywhere = np.stack([prior(points @ matrix.T) for matrix in exchanges])
        value = log_likelihood(points) + logsumexp(everywhere, axis=0) - np.log(len(exchanges))
        return np.where(np.isnan(value), -np.inf, value)

    return log_density, wider


def _tempered(target: Target, rng: np.random.Generator, particles: int) -> Evidence:
    if target.spec.known_states is not None:
        raise ValueError(
            "method='smc' starts from the prior, which does not know the states that the fit was "
            "told: use method='bridge'"
        )
    sampler = Tempering(target)
    logs = np.array([sampler.log_evidence(own, particles) for own in rng.spawn(_REPEATS)])
    shares = np.exp(logs - logs.max())
    return Evidence(
        float(np.log(shares.mean()) + logs.max()),
        logs,
        float(shares.std(ddof=1) / shares.mean() / np.sqrt(_REPEATS)),
        np.nan,
        1,
        0.0,
    )


def _n_renumberings(groups: list[list[int]]) -> int:
    return prod(factorial(len(group)) for group in groups)


def _mixed(
    target: Target, proposal: Proposal, groups: list[list[int]], points: np.ndarray
) -> tuple[list[list[int]], float]:
    """Group the states further: into those that the proposal does not keep apart at all points.

    Draws of states that are apart stay in one of several equivalent regions, and nothing is lost by
    looking at one of them. Where regions overlap, all have to be summed over.

    Returns
    -------
    mixed : list of list of int
        Some of the most alike are left out where the renumberings would be too many.
    overlap : float
        Share of density that an exchange leaves, on average, at most, of those left out.
    """
    n_states = target.spec.n_states
    here = proposal.log_density(points)
    pairs = []
    for group in groups:
        for i, j in combinations(group, 2):
            order = np.arange(n_states)
            order[[i, j]] = j, i
            change = proposal.log_density(points @ target.exchange(order).T) - here
            pairs.append((float(np.exp(np.minimum(change, 0.0)).mean()), change.max(), i, j))
    label, left_out = np.arange(n_states), 0.0
    for overlap, largest, i, j in sorted(pairs, reverse=True):
        if label[i] == label[j]:
            continue
        joined = np.where(label == label[j], label[i], label)
        if largest < _APART:
            left_out = max(left_out, overlap)
        elif _n_renumberings(_by_label(joined)) <= _MOST_RENUMBERINGS:
            label = joined
        else:
            left_out = max(left_out, overlap)
    return _by_label(label), left_out


def _by_label(label: np.ndarray) -> list[list[int]]:
    return [np.flatnonzero(label == name).tolist() for name in np.unique(label)]


def _exchanges(target: Target, groups: list[list[int]]) -> Iterator[np.ndarray]:
    """Make the matrices of all renumberings within groups, one after the other."""
    for orders in product(*(permutations(group) for group in groups)):
        order = np.arange(target.spec.n_states)
        for group, own in zip(groups, orders, strict=True):
            order[group] = own
        yield target.exchange(order)
