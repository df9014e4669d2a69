"""One fit for each of the modes that a search found, so that they can be weighed."""

from typing import Any

import numpy as np
import xarray as xr

from bayesphase._checks import check_count
from bayesphase.model.fit import fit


def fit_modes(
    features: xr.DataArray,
    n_states: int,
    *,
    n_modes: int = 3,
    random_seed: int | None = None,
    **settings: Any,
) -> dict[str, xr.DataTree]:
    """Fit one model from several starting points: the best modes that the search found.

    Chains do not leave the mode that they start in where others are far from it. So each fit is
    about its own mode, and what they say apart is to be weighed by `bayesphase.mode_weights`.

    Parameters
    ----------
    features : DataArray (run, step, feature)
        NaN where missing.
    n_states : int
    n_modes : int
        How many modes at most, the best first; there are as many fits as different modes found.
    random_seed : int, optional
        The same seed gives the same draws, and the first fit is that of `fit`.
    **settings
        Passed on to `fit`.

    Returns
    -------
    dict
        Fits by mode, ``{"mode 0": ..., "mode 1": ...}``.

    Raises
    ------
    TypeError, ValueError
        As `fit` does, or if `n_modes` is no positive integer.

    Examples
    --------
    >>> import bayesphase as bp
    >>> x = bp.simulate(n_states=3, n_runs=2, n_steps=60, random_seed=1)["features"]
    >>> fits = bp.fit_modes(x, 2, random_seed=1)  # doctest: +SKIP
    >>> bp.mode_weights(fits)["probability"]  # doctest: +SKIP
    """
    check_count("n_modes", n_modes, least=1)
    if random_seed is None:  # all searches have to find the same modes
        random_seed = int(np.random.SeedSequence().generate_state(1)[0])
    first = fit(features, n_states, random_seed=random_seed, **settings)
    n_found = int(first["restarts"]["mode"].max()) + 1
    others = {
        f"mode {mode}": fit(features, n_states, mode=mode, random_seed=random_seed, **settings)
        for mode in range(1, min(n_modes, n_found))
    }
    return {"mode 0": first, **others}
