"""Priors, emission and transition put together as a PyMC model; nothing is sampled here."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesphase.model import offsets
from bayesphase.model.priors import Prior
from bayesphase.model.replicate import draw_rows
from bayesphase.model.spec import Emission, Spec, Transition, specify

if TYPE_CHECKING:
    import pymc as pm


def build_model(
    features: xr.DataArray,
    n_states: int,
    *,
    emission: str | Emission = "quadratic_drift",
    transition: str | Transition = "sticky",
    priors: Mapping[str, Prior] | None = None,
    known_states: xr.DataArray | None = None,
) -> "pm.Model":
    """Build the PyMC model of a Bayesian hidden Markov model with its states summed out.

    Runs are independent given the parameters and share them. One transition is made per
    checkpoint of a run, whatever the number of steps between unless the structure is in continuous
    time; a step at which a run has no feature at all is no checkpoint.

    Parameters
    ----------
    features : DataArray (run, step, feature)
        NaN where missing.
    n_states : int
    emission : str or emission object
        Family of p(features | state), by its name or as an object: "gaussian", "student_t",
        "full_gaussian", "random_walk", "autoregressive" or "quadratic_drift";
        `bayesphase.Gaussian`, `bayesphase.StudentT`, `bayesphase.FullGaussian`,
        `bayesphase.RandomWalk`, `bayesphase.AutoRegressive` or `bayesphase.QuadraticDrift`.
    transition : {"sticky", "left_to_right", "continuous_time", "sticky_hdp"} or transition object
        Structure of the transition matrix: `bayesphase.Sticky`, `bayesphase.LeftToRight`,
        `bayesphase.ContinuousTime`, `bayesphase.StickyHDP`.
    priors : mapping of str to Prior, optional
        Replaces the default prior of the variables it names, for example
        ``{"scale": Prior("HalfNormal", sigma=0.5)}``.
    known_states : DataArray (run, step), optional
        The state of some runs at some of their checkpoints, -1 or NaN where it is not known. It may
        leave out runs and steps. States that are known somewhere keep their numbers in a fit.

    Returns
    -------
    pymc.Model
        With the variables `initial_probs` (state), `transition_probs` (state, state_next) and
        those of the emission, such as `mean` and `scale` (state, feature), and the observed
        `features` (row, feature): the checkpoints of all runs end to end, 0 where a feature is
        missing. Where transitions are ruled out, `transition_probs` is made of `transition_sticks`
        (stick), shares of what the row has left; in continuous time, it and `rates` (state,
        state_next) are made of `switch_rates` (switch); with ``"sticky_hdp"``, all probabilities
        and `state_weights` (state) are made of scores, see `bayesphase.StickyHDP`. With offsets,
        `offset_scale` (feature) is free, and `offset` (run, feature) is made of `offset_unit`.
        Draws of `features` go through the known states.

    Raises
    ------
    TypeError, ValueError
        If the features, `n_states` or `known_states` can't be used (see the message), or a name is
        unknown.

    Examples
    --------
    >>> import bayesphase as bp
    >>> data = bp.simulate(n_states=2, n_runs=2, n_steps=50, n_features=1, random_seed=1)
    >>> model = bp.build_model(data["features"], 2)
    >>> sorted(variable.name for variable in model.free_RVs)
    ['curvature', 'drift', 'initial_probs', 'scale', 'slope', 'transition_probs']
    """
    spec = specify(
        features,
        n_states,
        emission=emission,
        transition=transition,
        priors=priors,
        known_states=known_states,
    )
    return build_from(spec, features["feature"].values)


def build_from(spec: Spec, feature: np.ndarray) -> "pm.Model":
    """Build the PyMC model of a `Spec` whose features have the labels `feature`."""
    import pymc as pm
    import pytensor.tensor as pt

    coords = {
        "state": np.arange(spec.n_states),
        "state_next": np.arange(spec.n_states),
        "feature": feature,
        "row": np.arange(len(spec.rows.values)),
        "run": np.arange(len(spec.rows.layout.lengths)),
        **spec.emission.coords(feature),
    }
    with pm.Model(coords=coords) as model:
        variables = spec.transition.build(spec.priors, spec.n_states)
        for name, dims in spec.emission.dims.items():
            variables[name] = spec.priors[name].build(name, dims)
        if spec.emission.offsets:
            precision = offsets.precision(spec.rows, spec.emission.kind)
            variables |= offsets.build(spec.priors["offset_scale"], precision)
        derived = spec.emission.derive(variables, len(feature), pt)
        for name, value in derived.items():
            pm.Deterministic(name, value, dims=spec.emission.derived[name])
        _observe(spec, variables)
    return model


def _observe(spec: Spec, variables: Mapping[str, Any]) -> None:
    """Add the observed features, with their marginal likelihood and a way to draw them."""
    import pymc as pm
    import pytensor.tensor as pt

    from bayesphase.model.likelihood import hmm_logp

    rows, emission, transition = spec.rows, spec.emission, spec.transition
    names = [name for name in variables if name != "offset_scale"]

    def logp(value: Any, _row: Any, *parameters: Any) -> Any:
        named = dict(zip(names, parameters, strict=True))
        value = value - offsets.of_rows(named, rows)
        log_emission = emission.log_density(value, rows, named, pt)
        log_emission = pt.specify_shape(log_emission, (len(rows.values), None))
        potentials = transition.log_potentials(named, pt)
        layout = {"gap_index": rows.layout.gap_index, "lengths": rows.layout.lengths}
        return hmm_logp(log_emission, *potentials, **layout).sum()

    def random(_row: Any, *parameters: Any, rng: np.random.Generator, size: Any) -> np.ndarray:
        named = dict(zip(names, parameters, strict=True))
        return draw_rows(spec, named, rng)[1]

    # one letter per dim, as NumPy's generalised ufuncs write their signatures
    letters = {"state": "k", "state_next": "k", "feature": "d", "pair": "p", "run": "r"}
    signature = ",".join(f"({','.join(letters[dim] for dim in spec.dims[name])})" for name in names)
    # the number of rows is a parameter's length because PyMC infers the shape of a draw from those
    pm.CustomDist(
        "features",
        np.arange(len(rows.values)),
        *(variables[name] for name in names),
        logp=logp,
        random=random,
        signature=f"(n),{signature}->(n,d)",
        observed=rows.values,
        dims=("row", "feature"),
    )
