"""The posterior density of a fit's model, data included, at points of unconstrained space.

This is all that marginal likelihoods need to know of a model, whatever its families: the log
density with every constant, the way from parameters to points, and which names of states could be
exchanged without changing the density.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from bayesphase.model import offsets
from bayesphase.model.density import direct_density
from bayesphase.model.spec import Spec

Parameters = Mapping[str, np.ndarray]
LogDensity = Callable[[np.ndarray], np.ndarray]

# log densities before and after an exchange differ by no more than this share of them, or nats
_ROUNDING = 1e-9


class Target:
    """Log of prior times likelihood, normalising constants and Jacobians included.

    Parameters
    ----------
    spec : Spec
    feature : ndarray (feature)
        Labels of the features.
    cores : int, optional
        Threads to share points out over, where the compiled density can be used; all by default.
    """

    def __init__(self, spec: Spec, feature: np.ndarray, *, cores: int | None = None) -> None:
        self.spec = spec
        self.feature = feature
        direct = direct_density(spec)
        self.compiled = direct is not None
        if direct is not None:
            self._cores = direct.threads(cores)
            self.n_dim: int = direct.n_dim
            self.value_and_gradient: Callable[[np.ndarray], tuple[float, np.ndarray]] = direct
            self.unconstrained: Callable[[Parameters], np.ndarray] = direct.unconstrained
            self._constrained: Callable[[np.ndarray], Parameters] = direct.parameters
        else:
            self._cores = 1  # what PyTensor compiles keeps its values in one place
            parts = _pymc_parts(spec, feature)
            self.n_dim, self.value_and_gradient, self.unconstrained, self._constrained = parts

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Log density (point), nats, at points (point, dim); minus infinity where it is no number.

        A point so far out that the density underflows has none.
        """
        with ThreadPoolExecutor(self._cores) as pool, np.errstate(all="ignore"):
            values = np.array(list(pool.map(lambda u: self.value_and_gradient(u)[0], points)))
        return np.where(np.isnan(values), -np.inf, values)

    def prior(self) -> "Target":
        """Return the density of the prior: the same model of features that are all missing."""
        rows = self.spec.rows
        nothing = rows._replace(
            values=np.zeros_like(rows.values), observed=np.zeros_like(rows.observed)
        )
        return Target(self.spec._replace(rows=nothing), self.feature, cores=self._cores)

    def points(self, posterior: xr.Dataset) -> np.ndarray:
        """Points (chain, draw, dim) of the draws in a fit's `posterior`.

        Raises
        ------
        ValueError
            If a draw has none, for example because a probability is 0.
        """
        drawn = posterior.transpose("chain", "draw", ...)
        chain_draw = drawn.sizes["chain"], drawn.sizes["draw"]
        names = list(self.spec.dims)
        arrays = [drawn[name].transpose("chain", "draw", *self.spec.dims[name]) for name in names]
        n_draws = chain_draw[0] * chain_draw[1]
        flat = [array.values.reshape(n_draws, *array.shape[2:]) for array in arrays]
        with np.errstate(divide="ignore", invalid="ignore"):
            points = np.stack(
                [
                    self.unconstrained(dict(zip(names, draw, strict=True)))
                    for draw in zip(*flat, strict=True)
                ]
            )
        if wrong := int((~np.isfinite(points)).any(axis=1).sum()):
            raise ValueError(
                f"{wrong} of {len(points)} draws lie on the border of parameter space, where a "
                f"probability or a scale is 0 to the last digit: use a prior that keeps away from "
                f"it, such as a larger concentration"
            )
        return points.reshape(*chain_draw, self.n_dim)

    def exchange(self, order: Iterable[int]) -> np.ndarray:
        """Matrix (dim, dim) that renumbers the states of a point: state k is to be `order[k]`.

        The coordinates are logarithms, centred log-ratios and the like, in which to renumber
        states is linear: the columns are what becomes of the unit vectors.
        """
        index = np.array(list(order))
        origin = self._renumbered(np.zeros(self.n_dim), index)
        units = np.eye(self.n_dim)
        return np.stack([self._renumbered(unit, index) - origin for unit in units], axis=1)

    def _renumbered(self, point: np.ndarray, order: np.ndarray) -> np.ndarray:
        parameters = dict(self._constrained(point))
        for name, dims in self.spec.dims.items():
            for axis, dim in enumerate(dims):
                if dim.startswith("state"):
                    parameters[name] = np.take(parameters[name], order, axis=axis)
        with np.errstate(all="ignore"):
            return self.unconstrained(parameters)

    def exchangeable(self, log_density: LogDensity, points: np.ndarray) -> list[list[int]]:
        """Group the states whose names could be exchanged with no change of a density.

        Found by doing so at some points: a prior that differs by state, an order of the transitions
        or known states all show in the density.

        Parameters
        ----------
        log_density : callable
            From points (point, dim) to nats (point).
        points : ndarray (point, dim)

        Raises
        ------
        ValueError
            If to exchange two of them is not linear in these coordinates, so that `exchange` can't
            do it: the support of a prior differs by state.
        """
        group = np.arange(self.spec.n_states)
        before = log_density(points)
        for i, j in combinations(group.tolist(), 2):
            if group[i] == group[j]:
                continue
            swapped = np.arange(len(group))
            swapped[[i, j]] = j, i
            moved = np.stack([self._renumbered(point, swapped) for point in points])
            if not np.isfinite(moved).all():
                continue
            if np.allclose(log_density(moved), before, rtol=_ROUNDING, atol=_ROUNDING):
                if not np.allclose(points @ self.exchange(swapped).T, moved, rtol=1e-6, atol=1e-6):
                    raise ValueError(
                        f"the priors of states {i} and {j} have different supports, so that no "
                        f"proposal can be averaged over their names: use method='smc'"
                    )
                group[group == group[j]] = group[i]
        return [np.flatnonzero(group == g).tolist() for g in np.unique(group)]


def free_variables(spec: Spec, parameters: Parameters) -> dict[str, np.ndarray]:
    """Values of what PyMC's model samples."""
    emission = {name: parameters[name] for name in spec.emission.dims}
    of_runs = offset_variables(spec, parameters)
    return {**spec.transition.free(parameters), **emission, **of_runs}


def offset_variables(spec: Spec, parameters: Parameters) -> dict[str, np.ndarray]:
    """Values of what PyMC's model samples of the offsets of runs, if there are any."""
    if not spec.emission.offsets:
        return {}
    offset, scale = parameters["offset"], parameters["offset_scale"]
    precision = offsets.precision(spec.rows, spec.emission.kind)
    return {"offset_scale": scale, "offset_unit": offsets.to_unit(offset, scale, precision)}


def _pymc_parts(spec: Spec, feature: np.ndarray) -> tuple[Any, ...]:
    """Make the number of dims, the log density, and both ways to parameters, all by PyMC."""
    import pymc as pm
    import pytensor

    from bayesphase.model.build import build_from
    from bayesphase.model.sampling import _unconstraining

    model = build_from(spec, feature)
    if not model.free_RVs:
        raise ValueError("the model has no free variables, so that there is nothing to sum over")
    function = model.logp_dlogp_function(ravel_inputs=True)
    function.set_extra_values({})
    layout = pm.blocking.DictToArrayBijection.map(model.initial_point()).point_map_info
    n_dim = sum(int(np.prod(info[1])) for info in layout)
    unconstrain = _unconstraining(model)

    def value_and_gradient(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = function(pm.blocking.RaveledVars(point, layout))
        return float(value), np.asarray(gradient)

    def unconstrained(parameters: Parameters) -> np.ndarray:
        return np.asarray(unconstrain(free_variables(spec, parameters)))

    names = list(spec.dims)
    outputs = model.replace_rvs_by_values([model[name] for name in names])
    inputs = model.value_vars
    compiled = pytensor.function(inputs, outputs, on_unused_input="ignore")

    def constrained(point: np.ndarray) -> Parameters:
        values = pm.blocking.DictToArrayBijection.rmap(pm.blocking.RaveledVars(point, layout))
        by_name = compiled(*(values[variable.name] for variable in inputs))
        return dict(zip(names, by_name, strict=True))

    return n_dim, value_and_gradient, unconstrained, constrained
