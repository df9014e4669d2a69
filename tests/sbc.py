"""Simulation-based calibration: parameters from the prior, data from these, and what a fit says.

Where parameters and data come from the model itself, the rank of any true quantity among its
posterior draws is uniform (Talts et al. 2018, arXiv:1804.06788), whatever the data are like. Names
of states mean nothing, so that the quantities here do not depend on them; the log-likelihood is
among them, for errors that no parameter shows alone (Modrák et al. 2023, doi:10.1214/23-BA1404).
"""

from collections.abc import Iterable, Mapping
from functools import cache
from math import comb
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import binom

from bayesphase.model import sparse
from bayesphase.model.hdp import Weighted
from bayesphase.model.paths import draw_paths
from bayesphase.model.priors import Prior
from bayesphase.model.simulate import draw_states
from bayesphase.model.spec import Spec, specify

# draws of a fit that are kept, far enough apart to be independent, and bins that ranks fall into
N_KEPT, N_BINS = 99, 20
# of the null distribution of the test
_N_SIMULATED = 20_000


class Truth(NamedTuple):
    """A data set and what it was made of: `states` (row), `parameters` by name."""

    features: xr.DataArray
    states: np.ndarray
    parameters: dict[str, np.ndarray]
    spec: Spec

    def with_known(self, known_states: xr.DataArray) -> "Truth":
        """Reveal some of the states (run, step)."""
        model = {"emission": self.spec.emission, "transition": self.spec.structure}
        model |= {"priors": self.spec.priors, "known_states": known_states}
        return self._replace(spec=specify(self.features, self.spec.n_states, **model))


def grid(
    rng: np.random.Generator,
    n_runs: int = 2,
    n_steps: int = 60,
    n_features: int = 2,
    *,
    uneven: bool = True,
) -> xr.DataArray:
    """Return where there are checkpoints: standard normal features, NaN where there are none.

    Families of changes start from its first values. Where it is uneven, the second run lacks every
    seventh checkpoint and the steps go on at half the pace from the middle.
    """
    values = rng.normal(size=(n_runs, n_steps, n_features))
    gap = np.full(n_steps, 10)
    if uneven:
        gap[n_steps // 2 :] = 20
        values[1::2, 6::7] = np.nan
    return xr.DataArray(
        values,
        dims=("run", "step", "feature"),
        coords={
            "run": [f"run-{r}" for r in range(n_runs)],
            "step": gap.cumsum(),
            "feature": [f"feature-{d}" for d in range(n_features)],
        },
    )


def simulate(on: xr.DataArray, rng: np.random.Generator, n_states: int, **model: Any) -> Truth:
    """Draw parameters from the prior, and paths and features from these.

    Parameters
    ----------
    on : DataArray (run, step, feature)
        See `grid`.
    rng : Generator
    n_states : int
    **model
        `emission`, `transition` and `priors`, as `fit` takes them. None may depend on the data.
    """
    spec = specify(on, n_states, **model)
    parameters = _from_prior(spec, rng)
    states = _path(spec, parameters, rng)
    values = spec.emission.sample(rng, states, parameters, spec.rows)
    if spec.emission.offsets:  # right for families of levels only
        values += np.where(spec.rows.observed, parameters["offset"][spec.rows.run], 0.0)
    full = spec.rows.to_grid(values.T, on.shape[:2], np.nan)
    features = on.copy(data=np.moveaxis(full, 0, -1))
    return Truth(features, states, parameters, specify(features, n_states, **model))


def _from_prior(spec: Spec, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw every variable of the model."""
    chain = _chain_from_prior(spec, rng)
    n_features = spec.rows.values.shape[1]
    sizes = {"state": spec.n_states, "feature": n_features, "pair": comb(n_features, 2)}
    emission = {
        name: draw(spec.priors[name], tuple(sizes[dim] for dim in dims), rng)
        for name, dims in spec.emission.dims.items()
    }
    if spec.emission.offsets:
        spread = draw(spec.priors["offset_scale"], (n_features,), rng)
        runs = len(spec.rows.layout.lengths), n_features
        emission |= {"offset_scale": spread, "offset": spread * rng.normal(size=runs)}
    return {**chain, **emission}


def _chain_from_prior(spec: Spec, rng: np.random.Generator) -> dict[str, np.ndarray]:
    n, chain = spec.n_states, spec.transition
    if isinstance(chain, Weighted):
        return _weighted_from_prior(chain, rng)
    any_, _ = chain.maximise(np.zeros((1, n, n)), np.zeros(n))
    shapes = {name: np.shape(value) for name, value in chain.free(any_).items()}
    free = {name: draw(spec.priors[name], shape, rng) for name, shape in shapes.items()}
    # without any freedom, as of one state, it is what it was
    return chain.named(free) if free else any_


def _weighted_from_prior(chain: Weighted, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the scores of the weights, and then those that are about these."""
    weights = sparse.draw(rng, chain.base)
    log_weights = sparse.log_gamma(weights, chain.base)
    about = np.log(chain.concentration) + log_weights - logsumexp(log_weights)
    rows = np.tile(about, (chain.n_states, 1))
    np.fill_diagonal(rows, np.logaddexp(about, np.log(chain.stickiness)))
    return chain.named(
        {
            "weight_scores": weights,
            "initial_scores": sparse.draw(rng, about),
            "transition_scores": sparse.draw(rng, rows),
        }
    )


def _path(spec: Spec, parameters: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Draw the states (row)."""
    with np.errstate(divide="ignore"):
        transition, initial = map(np.exp, spec.transition.log_potentials(parameters, np))
    return draw_states(rng, transition, initial, spec.rows.layout)


def draw(prior: Prior, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw a variable of this shape."""
    p = {name: np.asarray(value, float) for name, value in prior.parameters.items()}
    if prior.distribution == "Dirichlet":
        parts = rng.standard_gamma(np.broadcast_to(p["a"], shape))
        return parts / parts.sum(axis=-1, keepdims=True)
    if prior.distribution == "InverseGamma":
        return p["beta"] / rng.gamma(p["alpha"], size=shape)
    if prior.distribution == "Gamma":
        return rng.gamma(p["alpha"], 1.0 / p["beta"], shape)
    if prior.distribution == "Beta":
        return rng.beta(p["alpha"], p["beta"], shape)
    if prior.distribution == "LogNormal":
        return np.exp(rng.normal(p["mu"], p["sigma"], shape))
    if prior.distribution == "HalfNormal":
        return abs(rng.normal(0.0, p["sigma"], shape))
    if prior.distribution == "Normal":
        return rng.normal(p["mu"], p["sigma"], shape)
    raise ValueError(f"no draws from a {prior.distribution} prior here")


def ranks(truth: Truth, fit: xr.DataTree, rng: np.random.Generator) -> dict[str, int]:
    """Rank of each quantity at the true parameters and paths among those of a fit's draws."""
    posterior = fit["posterior"].to_dataset().stack(sample=("chain", "draw"), create_index=False)
    rows, dims = truth.spec.rows, truth.spec.dims
    kept = np.linspace(0, posterior.sizes["sample"] - 1, N_KEPT).round().astype(int)
    parameters = {
        name: posterior[name].transpose("sample", *dims[name]).values[kept] for name in dims
    }
    paths = fit["paths"]["state"].values[:, :, rows.run, rows.step].reshape(-1, len(rows.run))
    likelihood = fit["log_likelihood"]["run_log_likelihood"].sum("run").values.ravel()
    return _ranks(truth, _quantities(truth.spec, parameters, paths[kept], likelihood[kept]), rng)


def ranks_in_prior(truth: Truth, rng: np.random.Generator) -> dict[str, int]:
    """Rank of each quantity among those of draws that know nothing of the data."""
    spec = truth.spec
    drawn = [_from_prior(spec, rng) for _ in range(N_KEPT)]
    paths = np.stack([_path(spec, parameters, rng) for parameters in drawn])
    parameters = {name: np.stack([one[name] for one in drawn]) for name in spec.dims}
    likelihood = _log_likelihood(spec, parameters)
    return _ranks(truth, _quantities(spec, parameters, paths, likelihood), rng)


def _ranks(
    truth: Truth, drawn: Mapping[str, np.ndarray], rng: np.random.Generator
) -> dict[str, int]:
    """Ranks from 0 to 99; equal values are put in any order."""
    known = {name: truth.parameters[name][None] for name in truth.spec.dims}
    likelihood = _log_likelihood(truth.spec, known)
    at_truth = _quantities(truth.spec, known, truth.states[None], likelihood)
    found = {}
    for name, values in drawn.items():
        equal = int((values == at_truth[name]).sum())
        found[name] = int((values < at_truth[name]).sum()) + int(rng.integers(equal + 1))
    return found


def _log_likelihood(spec: Spec, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
    """Log p(features | parameters) (draw), nats."""
    derived = spec.emission.derive(parameters, spec.rows.values.shape[1], np)
    one = xr.Dataset(
        {
            name: (("chain", "draw", *spec.variables[name]), value[None])
            for name, value in {**parameters, **derived}.items()
        }
    )
    return draw_paths(spec, one, seed=np.random.SeedSequence(0), cores=1).log_likelihood.sum(-1)[0]


def _quantities(
    spec: Spec, parameters: Mapping[str, np.ndarray], states: np.ndarray, likelihood: np.ndarray
) -> dict[str, np.ndarray]:
    """Functions (draw) of parameters (draw, ...) and paths (draw, row) that names do not change."""
    stay = np.diagonal(parameters["transition_probs"], axis1=1, axis2=2)
    out = {"log likelihood": likelihood, "largest stay": stay.max(1), "sum of stays": stay.sum(1)}
    for name in spec.emission.dims:
        by_state = parameters[name]
        out[f"smallest {name}"] = by_state[:, :, 0].min(axis=1)
        out[f"largest {name}"] = by_state[:, :, 0].max(axis=1)
        out[f"sum of {name}"] = by_state.sum(axis=(1, 2))
    follows = np.ones(states.shape[1], bool)
    follows[spec.rows.layout.starts] = False
    switch = np.diff(states, axis=1, prepend=states[:, :1]) != 0
    switch &= follows
    first_run = switch[:, : spec.rows.layout.lengths[0]]
    out["switches"] = switch.sum(axis=1)
    out["first boundary"] = np.where(first_run.any(1), first_run.argmax(1), first_run.shape[1])
    shares = [(states == k).sum(axis=1) for k in range(spec.n_states)]
    out["most common state"] = np.max(shares, axis=0)
    return out


def p_value(values: Iterable[int]) -> float:
    """P-value of ranks being uniform, by the largest excursion of their distribution function.

    It is the smallest probability, over the borders of bins, of a binomial count as extreme as that
    of the ranks below; with its own distribution for a threshold this is the simultaneous band of
    Säilynoja, Bürkner & Vehtari 2022 (doi:10.1007/s11222-022-10090-6).
    """
    bins = np.asarray(list(values)) * N_BINS // (N_KEPT + 1)
    counts = np.bincount(bins, minlength=N_BINS)
    null = _null_distribution(len(bins))
    extreme = int((null <= _excursion(counts[None])[0] * (1 + 1e-9)).sum())
    return (1 + extreme) / (1 + len(null))


def _excursion(counts: np.ndarray) -> np.ndarray:
    """Smallest two-sided binomial probability (set) of counts (set, bin) up to a border."""
    n = int(counts[0].sum())
    below = counts.cumsum(axis=1)[:, :-1]
    share = np.arange(1, N_BINS) / N_BINS
    table = np.arange(n + 1)[:, None]
    least = np.minimum(binom.cdf(table, n, share), binom.sf(table - 1, n, share))
    return 2.0 * least[below, np.arange(N_BINS - 1)].min(axis=1)


@cache
def _null_distribution(n: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return _excursion(rng.multinomial(n, np.full(N_BINS, 1.0 / N_BINS), _N_SIMULATED))
