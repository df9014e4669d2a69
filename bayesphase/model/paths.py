"""One sampled path per posterior draw, and one labelling of the states for all draws."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from bayesphase._checks import threads
from bayesphase.model.decoding import viterbi
from bayesphase.model.observed import Observed
from bayesphase.model.offset_integral import log_integral
from bayesphase.model.relabel import permutations, rename
from bayesphase.model.spec import Spec

# draws that the posterior mean of the log-potentials is taken over
_MEAN_DRAWS = 400


class Paths(NamedTuple):
    """Draws with their paths, exchangeable states numbered in the order of first entry.

    `posterior` Dataset (chain, draw, ...); `states` int8 (chain, draw, row); `log_likelihood`
    (chain, draw, run); `ambiguity` (chain, draw), see `relabel.permutations`; `most_likely` int8
    (row).
    """

    posterior: xr.Dataset
    states: np.ndarray
    log_likelihood: np.ndarray
    ambiguity: np.ndarray
    most_likely: np.ndarray


def draw_paths(
    spec: Spec, posterior: xr.Dataset, *, seed: np.random.SeedSequence, cores: int | None
) -> Paths:
    """Draw a path from p(z | y, parameters) for each posterior draw, then relabel.

    Parameters
    ----------
    spec : Spec
    posterior : Dataset
        The model's variables with dims (chain, draw, ...), states numbered as they come.
    seed : SeedSequence
    cores : int or None
        Threads to share the draws out over; all cores by default.
    """
    chain_draw = (posterior.sizes["chain"], posterior.sizes["draw"])
    n_draws = chain_draw[0] * chain_draw[1]
    flat = {
        str(name): variable.values.reshape(n_draws, *variable.shape[2:])
        for name, variable in posterior.transpose("chain", "draw", ...).items()
    }
    states, log_likelihood = sample_states(spec, flat, seed=seed, cores=cores)
    free = spec.transition.exchangeable(spec.n_states)
    order, ambiguity = permutations(states, spec.n_states, spec.rows.layout.starts, free=free)
    flat = _renumber(spec, flat, order)
    return Paths(
        posterior.assign(
            {
                name: (
                    ("chain", "draw", *dims),
                    flat[name].reshape(*chain_draw, *flat[name].shape[1:]),
                    posterior[name].attrs,
                )
                for name, dims in spec.variables.items()
            }
        ),
        rename(states, order).reshape(*chain_draw, -1),
        log_likelihood.reshape(*chain_draw, -1),
        ambiguity.reshape(chain_draw),
        most_likely(spec, flat),
    )


def sample_states(
    spec: Spec, flat: Mapping[str, np.ndarray], *, seed: np.random.SeedSequence, cores: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a path from p(z | y, parameters) for each draw of the parameters.

    Parameters
    ----------
    spec : Spec
    flat : mapping
        The model's variables by name (draw, ...).
    seed : SeedSequence
    cores : int or None

    Returns
    -------
    states : int8 ndarray (draw, row)
    log_likelihood : ndarray (draw, run)
        Nats; offsets of runs are integrated over their prior.
    """
    n_draws = len(next(iter(flat.values())))
    # a seed per draw: what is drawn does not depend on how draws are shared out over threads
    seeds = seed.spawn(n_draws)
    rows, observed = spec.rows, spec.emission.observe(spec.rows)
    states = np.empty((n_draws, len(rows.values)), np.int8)
    log_likelihood = np.empty((n_draws, len(rows.layout.starts)))

    def one(draw: int) -> None:
        parameters = {name: values[draw] for name, values in flat.items()}
        here, lines, potentials = at_parameters(spec, observed, parameters)
        rng = np.random.default_rng(seeds[draw])
        uniforms = rng.random(len(rows.values))
        here.draw_paths(lines, potentials, uniforms, states[draw], log_likelihood[draw])
        if spec.emission.offsets:
            scale, near = parameters["offset_scale"], parameters["offset"]
            log_likelihood[draw] = log_integral(observed, lines, potentials, scale, rng, near=near)

    with ThreadPoolExecutor(threads(cores)) as pool:
        list(pool.map(one, range(n_draws)))
    log_likelihood -= np.add.reduceat(observed.unit, rows.layout.starts)
    return states, log_likelihood


def _renumber(
    spec: Spec, flat: Mapping[str, np.ndarray], order: np.ndarray
) -> dict[str, np.ndarray]:
    """Put the states of every parameter (draw, ...) into the `order` (draw, state)."""
    renumbered = dict(flat)
    for name, dims in spec.variables.items():
        for axis, dim in enumerate(dims, start=1):
            if dim.startswith("state"):
                others = tuple(a for a in range(1, len(dims) + 1) if a != axis)
                index = np.expand_dims(order, others)
                renumbered[name] = np.take_along_axis(renumbered[name], index, axis=axis)
    return renumbered


def at_parameters(
    spec: Spec, observed: Observed, parameters: Mapping[str, np.ndarray]
) -> tuple[Observed, Any, tuple[np.ndarray, np.ndarray]]:
    """Rows without offsets of runs, lines of the scaled features and log-potentials."""
    with np.errstate(divide="ignore"):  # a probability may have underflowed to 0
        potentials = spec.transition.log_potentials(parameters, np)
    emission = spec.emission
    return emission.at(parameters, observed), emission.lines(parameters, observed), potentials


def most_likely(spec: Spec, flat: Mapping[str, np.ndarray]) -> np.ndarray:
    """Path (row) that maximises the posterior mean of log p(y, z | parameters).

    The mean of the log-potentials over (at most 400, evenly spread) draws goes into Viterbi's
    recursion, whose objective is linear in them.
    """
    n_draws, observed = len(next(iter(flat.values()))), spec.emission.observe(spec.rows)
    chosen = np.unique(np.linspace(0, n_draws - 1, _MEAN_DRAWS).astype(int))
    sums: list[Any] = [0.0, 0.0, 0.0]
    for draw in chosen:
        parameters = {name: values[draw] for name, values in flat.items()}
        here, lines, potentials = at_parameters(spec, observed, parameters)
        one = here.log_emission(lines), *potentials
        sums = [total + more for total, more in zip(sums, one, strict=True)]
    emission, transition, initial = (total / len(chosen) for total in sums)
    return viterbi(emission, transition, initial, spec.rows.layout)
