"""NUTS from given starting points, on a PyMC model or on the compiled density of our own."""

import dataclasses
from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesphase._compat import to_datatree
from bayesphase.model.compiled import compiled_copy
from bayesphase.model.density import Density, DirectDensity

if TYPE_CHECKING:
    import pymc as pm

SAMPLERS = ("nutpie", "pymc")  # the default first

# Draws where a chain starts: values of the free variables by name, in their own (constrained)
# space. nutpie asks from the threads of the chains in no certain order, but gives each chain a seed
# of its own.
Start = Callable[[np.random.Generator], Mapping[str, np.ndarray]]


def sample(
    model: "pm.Model",
    *,
    start: Start,
    sampler: str,
    draws: int,
    tune: int,
    chains: int,
    cores: int | None,
    target_accept: float,
    random_seed: int,
    progressbar: bool,
) -> xr.DataTree:
    """Draw from the posterior of `model`.

    Parameters
    ----------
    model : pymc.Model
    start : callable
        Draws the point that a chain starts from.
    sampler : {"nutpie", "pymc"}
    draws, tune : int
        Per chain; the tuning steps are not kept.
    chains : int
    cores : int or None
        How many chains run at the same time; all cores by default.
    target_accept : float
        Acceptance probability that the step size is tuned for.
    random_seed : int
    progressbar : bool

    Returns
    -------
    DataTree
        With the groups `posterior` and `sample_stats`.
    """
    settings = {
        "draws": draws,
        "tune": tune,
        "chains": chains,
        "cores": cores,
        "target_accept": target_accept,
    }
    if sampler == "nutpie":
        import nutpie

        unconstrain = _unconstraining(model)
        compiled = dataclasses.replace(
            nutpie.compile_pymc_model(model),
            initial_point_func=lambda seed: unconstrain(start(np.random.default_rng(seed))),
        )
        result = nutpie.sample(
            compiled, **settings, seed=random_seed, save_warmup=False, progress_bar=progressbar
        )
    else:
        import pymc as pm

        free = {variable.name for variable in model.free_RVs}
        points = [start(rng) for rng in np.random.default_rng(random_seed).spawn(chains)]
        result = pm.sample(
            **settings,
            model=model,
            initvals=[{name: point[name] for name in free} for point in points],
            init="adapt_diag",
            nuts_sampler="pymc",
            random_seed=random_seed,
            progressbar=progressbar,
            compute_convergence_checks=False,
        )
    return to_datatree(result)


def sample_direct(
    density: Density,
    *,
    draws: int,
    tune: int,
    chains: int,
    cores: int | None,
    target_accept: float,
    random_seed: int,
    progressbar: bool,
) -> xr.DataTree:
    """Draw from a `Density` with nutpie; PyMC's compiler has no part in it.

    Arguments and result as in `sample`, but that its `start` says where chains start. The
    posterior holds parameters as arrays of the model's shapes, with dims
    that xarray makes up.
    """
    import nutpie

    result = nutpie.sample(
        _for_nutpie(density),
        draws=draws,
        tune=tune,
        chains=chains,
        cores=density.threads(cores),
        target_accept=target_accept,
        seed=random_seed,
        save_warmup=False,
        progress_bar=progressbar,
    )
    tree = to_datatree(result)
    u = tree["posterior"].to_dataset()["u"]
    parameters = density.parameters(u.values)
    arrays = {
        name: (("chain", "draw", *(f"{name}_{axis}" for axis in range(value.ndim - 2))), value)
        for name, value in parameters.items()
    }
    tree["posterior"] = xr.Dataset(arrays, coords={dim: u[dim] for dim in ("chain", "draw")})
    return tree


def _for_nutpie(density: Density) -> Any:
    """Hand a density to nutpie.

    nutpie calls compiled code without Python in between where it is told its address, in the class
    that it keeps a compiled PyMC model in. Should a later version have another such class, or the
    density not be compiled as a whole, it is given a Python function instead, which it takes in a
    public and slower way.
    """
    from nutpie.compiled_pyfunc import from_pyfunc

    def start(seed: int) -> np.ndarray:
        return density.start(np.random.default_rng(seed))

    if isinstance(density, DirectDensity):
        try:
            return _by_address(density, start)
        except (ImportError, TypeError):
            pass
    return from_pyfunc(
        density.n_dim,
        make_logp_fn=lambda: density,
        make_expand_fn=lambda *seeds: lambda u: {"u": u},
        expanded_dtypes=[np.dtype("float64")],
        expanded_shapes=[(density.n_dim,)],
        expanded_names=["u"],
        make_initial_point_fn=start,
    )


def _by_address(density: DirectDensity, start: Callable[[int], np.ndarray]) -> Any:
    """Make what nutpie keeps a compiled model in; ImportError or TypeError if it has changed."""
    from nutpie.compile_pymc import CompiledPyMCModel

    # draws are kept as they are and turned into parameters all at once
    names, shapes = ["u"], [(density.n_dim,)]
    known = {
        "_n_dim": density.n_dim,
        "_shapes": dict(zip(names, shapes, strict=True)),
        "dims": {},
        "_coords": {},
        "compiled_logp_func": density.compiled,
        "compiled_expand_func": compiled_copy(),
        "initial_point_func": start,
        "shared_data": {},
        "user_data": density.block,
        "n_expanded": density.n_dim,
        "shape_info": (names, [slice(density.n_dim)], shapes),
    }
    fields = dataclasses.fields(CompiledPyMCModel)
    if not set(known) <= {field.name for field in fields}:
        raise ImportError("nutpie keeps compiled models in another way")
    return CompiledPyMCModel(**{field.name: known.get(field.name) for field in fields})


def _unconstraining(model: "pm.Model") -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Make the function from values of the free variables to the sampler's flat vector."""
    import pytensor
    from pytensor import tensor as pt
    from pytensor.compile.mode import Mode

    inputs, outputs = [], []
    for variable in model.free_RVs:
        value = variable.type()
        transform = model.rvs_to_transforms[variable]
        inputs.append(value)
        if transform is not None:
            outputs.append(transform.forward(value, *variable.owner.inputs).ravel())
        else:
            outputs.append(value.ravel())
    plain = Mode(linker="py", optimizer="None")
    compiled = pytensor.function(inputs, pt.concatenate(outputs), mode=plain)
    lock = Lock()  # the function keeps its values in one place, and chains ask from many threads

    def unconstrain(point: Mapping[str, np.ndarray]) -> np.ndarray:
        with lock:
            return compiled(*(point[variable.name] for variable in model.free_RVs))

    return unconstrain
