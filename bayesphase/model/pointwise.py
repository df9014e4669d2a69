"""Leave-one-out densities of every checkpoint under every posterior draw."""

from concurrent.futures import ThreadPoolExecutor
from os import cpu_count

import numpy as np
import xarray as xr

from bayesphase.model import passes
from bayesphase.model.checks import check_count
from bayesphase.model.paths import at_parameters, lost_to_scaling
from bayesphase.model.spec import recorded


def checkpoint_log_likelihood(fit: xr.DataTree, *, cores: int | None = None) -> xr.DataArray:
    """Log density of each checkpoint given all others of its run, for every posterior draw.

    It is what ArviZ's leave-one-out methods want where the unit is the checkpoint:
    p(y_t | y_-t, parameters), with the states summed out, and not the one-step prediction
    p(y_t | y_1..t-1). The unit of `fit["log_likelihood"]` is the run.

    Parameters
    ----------
    fit : DataTree
        As `bayesphase.fit` returns it.
    cores : int, optional
        Threads to share the draws out over; all cores by default.

    Returns
    -------
    DataArray (chain, draw, run, step)
        In nats; NaN where a run has no checkpoint. It holds eight bytes for every draw and
        checkpoint: select draws before (``fit.sel(draw=slice(None, None, 4))``) where that is much.

    Raises
    ------
    TypeError, ValueError
        If `cores` is no positive integer.

    Notes
    -----
    The density is the sum over states k of a_t(k) b_t(k) beta_t(k), over that of a_t(k) beta_t(k),
    with the predicted probabilities a, the emission densities b and the backward messages beta.

    Examples
    --------
    >>> import bayesphase as bp
    >>> data = bp.simulate(n_states=2, n_runs=2, n_steps=60, random_seed=1)
    >>> fit = bp.fit(data["features"], 2, random_seed=1, progressbar=False)  # doctest: +SKIP
    >>> bp.checkpoint_log_likelihood(fit).dims  # doctest: +SKIP
    ('chain', 'draw', 'run', 'step')
    """
    if cores is not None:
        check_count("cores", cores, least=1)
    spec = recorded(fit)
    rows = spec.rows
    observed = spec.emission.observe(rows)
    posterior = fit["posterior"].to_dataset().transpose("chain", "draw", ...)
    chain_draw = posterior.sizes["chain"], posterior.sizes["draw"]
    flat = {
        str(name): variable.values.reshape(-1, *variable.shape[2:])
        for name, variable in posterior.items()
    }
    features = fit["observed_data"]["features"]
    grid = (features.sizes["run"], features.sizes["step"])
    densities = np.full((chain_draw[0] * chain_draw[1], *grid), np.nan)
    unit = lost_to_scaling(observed)  # the kernel's density is of the scaled features

    def one(draw: int) -> None:
        parameters = {name: values[draw] for name, values in flat.items()}
        lines, potentials = at_parameters(spec, observed, parameters)
        by_row = np.empty(len(unit))
        passes.leave_one_out(observed.data, lines, *potentials, by_row)
        densities[draw, rows.run, rows.step] = by_row - unit

    with ThreadPoolExecutor(cores or cpu_count()) as pool:
        list(pool.map(one, range(len(densities))))
    along = {name: c for name, c in features.coords.items() if "feature" not in c.dims}
    return xr.DataArray(
        densities.reshape(*chain_draw, *grid),
        dims=("chain", "draw", "run", "step"),
        coords={**{dim: posterior[dim] for dim in ("chain", "draw")}, **along},
        name="checkpoint_log_likelihood",
        attrs={"long_name": "log density of a checkpoint given the others", "units": "nats"},
    )
