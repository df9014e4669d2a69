"""How probable a run is, given others, where the draws of a fit to these are too far from it.

The plain estimate, the mean of p(y_r | parameters) over such draws, rests on the few that come
nearest to the run. It is also the ratio of two normalising constants, of the posteriors with the
run and without it, and each of them is near normal, whatever lies between the two.
"""

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from bayesphase.model.bridge import bridge, fit_proposal
from bayesphase.model.density import Density, direct_density
from bayesphase.model.pointwise import flat_posterior, likelihood_of_rows
from bayesphase.model.rows import rows_of
from bayesphase.model.spec import recorded

# with fewer draws the error can't be told from two halves, or the covariance is of no use
_LEAST_DRAWS = 50
_DRAWS_PER_COORDINATE = 2

# Log density (draw) of the posterior at points (draw, coordinate), up to a constant
_Target = Callable[[np.ndarray], np.ndarray]
_Added = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def log_predictive(without: xr.DataTree, with_it: xr.DataTree, run: str) -> tuple[float, float]:
    """Log p(y_r | y) of one run given others, from a fit to the others and one to all of them.

    Parameters
    ----------
    without, with_it : DataTree
        Fits of one model, priors included, to some runs, and to these and the run.
    run : str
        Its label.

    Returns
    -------
    value : float
        Nats; NaN where the model's density is known to PyMC only, or there are too few draws.
    error : float
        Half the difference of two estimates from different halves of the draws.

    Notes
    -----
    As in `log_ratio`.
    """
    spec = recorded(with_it)
    if spec.emission.offsets:  # the fit without the run has no offset of it
        return _log_ratio_apart(without, with_it)
    features = with_it["observed_data"].to_dataset()["features"]
    rows = rows_of(features.sel(run=[run]), units_of=spec.rows)
    return log_ratio(
        without, with_it, lambda parameters: likelihood_of_rows(spec, rows, parameters)[:, 0]
    )


def log_ratio(without: xr.DataTree, with_it: xr.DataTree, added: _Added) -> tuple[float, float]:
    """Log of how much larger the evidence of one fit is than that of another, to fewer data.

    Parameters
    ----------
    without, with_it : DataTree
        Fits of one model, priors included, to some data, and to these and others.
    added : callable
        Log density (draw), nats, of those others given the rest, under parameters by name
        (draw, ...).

    Returns
    -------
    value, error : float
        As of `log_predictive`.

    Notes
    -----
    Bridge sampling (Meng & Wong 1996, Statistica Sinica 6, 831-860) between each posterior and a
    normal distribution with the moments of one half of its draws, by the other half, and the
    other way round. Draws in several modes are beyond it, and so are names of states that change
    within a fit.
    """
    density = direct_density(recorded(with_it))
    if density is None:
        return np.nan, np.nan

    def all_data(u: np.ndarray) -> np.ndarray:
        return np.array([density(point)[0] for point in u])

    def fewer(u: np.ndarray) -> np.ndarray:
        return all_data(u) - added(density.parameters(u))

    rng = np.random.default_rng(0)  # for proposals: the same fits have the same answer
    above = _log_constants(_coordinates(density, with_it), all_data, rng)
    below = _log_constants(_coordinates(density, without), fewer, rng)
    value = above - below
    return float(value.mean()), float(np.abs(value[0] - value[1]) / 2)


def _log_ratio_apart(without: xr.DataTree, with_it: xr.DataTree) -> tuple[float, float]:
    """Do what `log_ratio` does for fits whose parameters are not the same ones."""
    rng = np.random.default_rng(0)
    logs = []
    for fitted in (with_it, without):
        density = direct_density(recorded(fitted))
        if density is None:
            return np.nan, np.nan

        def target(u: np.ndarray, density: Density = density) -> np.ndarray:
            return np.array([density(point)[0] for point in u])

        logs.append(_log_constants(_coordinates(density, fitted), target, rng))
    value = logs[0] - logs[1]
    return float(value.mean()), float(np.abs(value[0] - value[1]) / 2)


def _coordinates(density: Density, fit: xr.DataTree) -> np.ndarray:
    """Draws of a fit (draw, coordinate), chains one after the other."""
    flat = flat_posterior(fit)
    n_draws = len(next(iter(flat.values())))
    points = ({name: values[draw] for name, values in flat.items()} for draw in range(n_draws))
    return np.stack([density.unconstrained(point) for point in points])


def _log_constants(u: np.ndarray, target: _Target, rng: np.random.Generator) -> np.ndarray:
    """Two estimates of the logarithm of a target's normalising constant from draws of it.

    The halves are of different chains, where there are several. NaN where they are too few to
    know moments from.
    """
    halves = u[: len(u) // 2], u[len(u) // 2 :]
    if len(halves[0]) < max(_LEAST_DRAWS, _DRAWS_PER_COORDINATE * u.shape[1]):
        return np.array([np.nan, np.nan])
    return np.array([_bridge(*halves, target, rng), _bridge(*halves[::-1], target, rng)])


def _bridge(
    fitted: np.ndarray, drawn: np.ndarray, target: _Target, rng: np.random.Generator
) -> float:
    """Bridge from the normal distribution fitted to some draws (draw, coordinate) to the others."""
    proposal = fit_proposal(fitted, len(fitted))
    proposed = proposal.draw(rng, len(drawn))
    at_draws = target(drawn) - proposal.log_density(drawn)
    at_proposals = target(proposed) - proposal.log_density(proposed)
    return bridge(at_draws[None], at_proposals).log_integral
