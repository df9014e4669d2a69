"""Build, sample, draw paths, relabel: features in, a DataTree out."""

from collections.abc import Mapping
from contextlib import ExitStack
from threading import Lock
from typing import Any

import numpy as np
import xarray as xr

from bayesphase import __version__
from bayesphase._checks import check_count, check_seed
from bayesphase.model.build import build_from
from bayesphase.model.density import Density, direct_density
from bayesphase.model.initial import TRIED_PER_RESTART, Start, starting_points
from bayesphase.model.modes import number_modes
from bayesphase.model.paths import draw_paths
from bayesphase.model.priors import Prior
from bayesphase.model.sampling import SAMPLERS, sample, sample_direct
from bayesphase.model.spec import Emission, Transition, record, specify
from bayesphase.model.target import offset_variables
from bayesphase.model.tree import as_tree, posterior_of

# chains start this far from the mode, in standard deviations of one checkpoint: far enough to
# tell chains apart, near enough to stay in its basin
_JITTER = 0.05

# tuning steps in the coordinates of `DirectDensity.around` and in PyMC's
_TUNE = 200
_TUNE_PYMC = 1000


def fit(
    features: xr.DataArray,
    n_states: int,
    *,
    emission: str | Emission = "quadratic_drift",
    transition: str | Transition = "sticky",
    priors: Mapping[str, Prior] | None = None,
    known_states: xr.DataArray | None = None,
    draws: int = 1000,
    tune: int | None = None,
    chains: int = 4,
    cores: int | None = None,
    target_accept: float = 0.8,
    sampler: str = "nutpie",
    n_restarts: int = 12,
    mode: int = 0,
    random_seed: int | None = None,
    progressbar: bool = True,
) -> xr.DataTree:
    """Sample the posterior of a hidden Markov model and of the paths through its states.

    Parameters
    ----------
    features : DataArray (run, step, feature)
        As `bayesphase.features` returns them; NaN where missing.
    n_states : int
    emission, transition, priors, known_states
        As in `bayesphase.build_model`.
    draws : int
        Kept draws of each chain.
    tune : int, optional
        Tuning steps of each chain, which are not kept: by default 200, for chains start in
        coordinates in which the posterior is about standard normal, or 1000 where PyMC's compiler
        and its own coordinates are needed.
    chains : int
    cores : int, optional
        How many chains run at the same time, and threads of the search and of paths; by default
        all that this process may use. With offsets or ``"full_gaussian"``, chains of fewer than
        10,000 checkpoints take turns, which is faster: they would wait for each other.
    target_accept : float
        Acceptance probability that the step size is tuned for: raise it where draws diverge.
    sampler : {"nutpie", "pymc"}
    n_restarts : int
        Restarts of the search for starting points.
    mode : int
        Which of the modes that the search found all chains start in, counted from the best, 0. See
        `bayesphase.fit_modes` for several of them.
    random_seed : int, optional
        The same seed gives the same draws.
    progressbar : bool

    Returns
    -------
    DataTree
        - `posterior`: `initial_probs` (state), `transition_probs` (state, state_next) and those of
          the emission, such as `mean` and `scale` (state, feature), each with (chain, draw); drifts
          and rates of an emission are per `step_unit` optimiser steps, an attribute of the tree;
          in continuous time also `rates` (state, state_next), per optimiser step, and
          `transition_probs` are those of the median gap between checkpoints, the attribute `gap`
          of the variable; where the emission has offsets, also `offset_scale` (feature) and
          `offset` (run, feature);
        - `paths`: `state` (chain, draw, run, step), one path per draw, drawn jointly, and
          `most_likely` (run, step), the path of the largest posterior-mean log density; -1 where a
          run has no checkpoint;
        - `log_likelihood`: `run_log_likelihood` (chain, draw, run), nats, of features and known
          states; an offset of the run is integrated over its prior, as a new run's would be;
        - `sample_stats`, also with `label_ambiguity` (chain, draw), see `bayesphase.diagnose`;
        - `restarts`: `log_density` (restart) of the modes found before sampling, nats, up to a
          constant, where the priors are of families that only PyMC knows under the default ones;
          with ``"sticky_hdp"`` the log of the mass about each, as if it were normal, since modes
          that visit more states are higher and narrower;
          and `mode` (restart), the same number where two searches ended in the same mode;
        - `residuals`: `standardized` (run, step, feature), how far each feature is off what its
          phase on the most likely path expects, in scales of that phase, at the posterior mean;
        - `observed_data`: the `features`, and the `known_states` (run, step), if any.

        States count from 0 in the order in which runs first enter them, unless transitions that
        are ruled out give them an order, or they are known somewhere.

    Raises
    ------
    TypeError, ValueError
        If an argument can't be used; the message says which and why.

    Examples
    --------
    >>> import bayesphase as bp
    >>> data = bp.simulate(n_states=2, n_runs=2, n_steps=60, random_seed=1)
    >>> fit = bp.fit(data["features"], 2, random_seed=1, progressbar=False)  # doctest: +SKIP
    >>> bp.boundaries(fit, ci_prob=0.9)  # doctest: +SKIP
    """
    _check_settings(draws, tune, chains, cores, target_accept, random_seed, sampler)
    spec = specify(
        features,
        n_states,
        emission=emission,
        transition=transition,
        priors=priors,
        known_states=known_states,
    )
    seeds = np.random.SeedSequence(random_seed).spawn(3)
    with _one_thread_each:
        modes = starting_points(
            spec.rows,
            spec.n_states,
            emission=spec.emission,
            transition=spec.transition,
            n_restarts=n_restarts,
            rng=np.random.default_rng(seeds[0]),
            cores=cores,
        )
        density = direct_density(spec)
        scored_under = "default"
        if density is not None:
            modes = _rescored(modes, density, by_mass=spec.transition.spare)
            scored_under = "the model's"
        numbers = number_modes(modes, spec)
        if check_count("mode", mode, least=0) > max(numbers):
            raise ValueError(
                f"mode must lie between 0 and {max(numbers)}, the modes that {n_restarts} searches "
                f"found, got {mode}"
            )
        best = modes[numbers.index(mode)].parameters
        if sampler != "nutpie":
            density = None
        if tune is None:
            tune = _TUNE_PYMC if density is None else _TUNE
        settings: dict[str, Any] = {
            "draws": draws,
            "tune": tune,
            "chains": chains,
            "cores": cores,
            "target_accept": target_accept,
            "random_seed": int(seeds[1].generate_state(1)[0]),
            "progressbar": progressbar,
        }
        if density is not None:
            sampled = sample_direct(density.around(best), **settings)
        else:
            model = build_from(spec, features["feature"].values)

            of_runs = offset_variables(spec, best)

            def start(rng: np.random.Generator) -> dict[str, np.ndarray]:
                return {
                    **spec.emission.jitter(rng, best, _JITTER),
                    **spec.transition.jitter(rng, best, _JITTER),
                    **of_runs,
                }

            sampled = sample(model, start=start, sampler=sampler, **settings)
        labels = {dim: features[dim].values for dim in ("run", "feature")}
        posterior = posterior_of(spec, sampled, labels)
        paths = draw_paths(spec, posterior, seed=seeds[2], cores=cores)
    tree = as_tree(features, spec, paths, sampled["sample_stats"].to_dataset(), modes, numbers)
    tree["restarts"].attrs = {
        "n_tried": TRIED_PER_RESTART * n_restarts,
        "priors": scored_under,
    }
    tree.attrs = {
        "bayesphase_version": __version__,
        **record(spec),
        "sampler": sampler,
        "tune": tune,
        "target_accept": target_accept,
        "mode": mode,
        "random_seed": random_seed,
    }
    return tree


def _check_settings(
    draws: int,
    tune: int | None,
    chains: int,
    cores: int | None,
    target_accept: float,
    random_seed: int | None,
    sampler: str,
) -> None:
    check_count("draws", draws, least=1)
    if tune is not None:
        check_count("tune", tune, least=1)  # nutpie fails without any
    check_count("chains", chains, least=1)
    if cores is not None:
        check_count("cores", cores, least=1)
    if not 0 < target_accept < 1:
        raise ValueError(f"target_accept must lie between 0 and 1, got {target_accept!r}")
    check_seed(random_seed)
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {list(SAMPLERS)}, got {sampler!r}")


def _rescored(modes: list[Start], density: Density, *, by_mass: bool) -> list[Start]:
    """Order modes by the density that is sampled; EM's has the default priors, roughly.

    Modes that use different numbers of states differ in width by many orders of magnitude: then
    what counts is not the height but the mass. It is that about the top, where EM does not end if
    priors are not the default ones: states that are not visited have their parameters from those.
    """

    def height(parameters: Mapping[str, np.ndarray]) -> float:
        return density(density.unconstrained(parameters))[0]

    score = density.log_mass if by_mass else height
    tops = [_top(density, m.parameters) if by_mass else m.parameters for m in modes]
    scored = [Start(score(parameters), parameters) for parameters in tops]
    if not all(np.isfinite(start.log_density) for start in scored):
        raise ValueError(
            "the log density is not finite where sampling would start: do the priors allow the "
            "features' location and spread?"
        )
    return sorted(scored, key=lambda start: -start.log_density)


def _top(density: Density, parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Climb the density that is sampled to the top of a mode."""
    from scipy.optimize import minimize

    def downhill(u: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = density(u)
        return -value, -gradient

    return density.parameters(
        minimize(downhill, density.unconstrained(parameters), jac=True, method="L-BFGS-B").x
    )


class _OneThreadEach:
    """Keep libraries from using several threads: chains and draws already share out the cores.

    The limit is the process's: of fits in several threads the first sets it, the last lifts it.
    """

    def __init__(self) -> None:
        self._lock, self._n_fits, self._limits = Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        from threadpoolctl import threadpool_limits

        with self._lock:
            if not self._n_fits:
                self._limits.enter_context(threadpool_limits(1))
            self._n_fits += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_fits -= 1
            if not self._n_fits:
                self._limits.close()


_one_thread_each = _OneThreadEach()
