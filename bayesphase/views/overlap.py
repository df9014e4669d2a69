"""Do runs move in the same directions? Their principal components, one run with another."""

import numpy as np
import xarray as xr

from bayesphase.views.components import pca


def subspace_overlap(x: xr.DataArray, *, n_components: int = 5) -> xr.Dataset:
    """Compare the directions in which each run moves, with other runs and with a random walk's.

    Each run has principal components of its own, and all runs have those of `bayesphase.pca`, which
    takes their checkpoints as one sample: the essential dynamics of several simulations (Amadei,
    Linssen & Berendsen 1993, doi:10.1002/prot.340170408). Where the overlap is small, the joint
    components mix what is different.

    Parameters
    ----------
    x : DataArray
        Dims (run, step, feature), or (run, step, example) as ``ds["example_loss"]``.
    n_components : int, default 5
        Dimension of the subspaces.

    Returns
    -------
    Dataset
        - ``rmsip`` (run, run_other): root mean square inner product of the components of two runs,
          from 0 to 1, for the same subspace (Amadei, Ceruso & Di Nola 1999,
          doi:10.1002/(SICI)1097-0134(19990901)36:4<419::AID-PROT5>3.0.CO;2-U);
        - ``rmsip_joint`` (run): the same with the joint components;
        - ``rmsip_random``: what random subspaces have, the square root of the share of dimensions;
        - ``explained_by_joint`` (run): share of the run's own variance in the joint components;
        - ``cosine_content`` (run, component): squared correlation of the scores of the run's own
          components with a cosine of as many half periods as the number of the component. Random
          walks have 1 in their first ones (Hess 2000, doi:10.1103/PhysRevE.62.8438): there, arcs
          and turns in the plane of components say nothing about the network.

        NaN for a run with too few complete checkpoints.

    Raises
    ------
    TypeError, ValueError
        As by `bayesphase.pca`.

    Examples
    --------
    >>> metrics = bp.open_metrics("data/modular_addition_80_20.nc")  # doctest: +SKIP
    >>> bp.subspace_overlap(metrics["example_loss"])["rmsip"]  # doctest: +SKIP
    """
    joint = pca(x, n_components=n_components)
    (column,) = (dim for dim in joint["loadings"].dims if dim != "component")
    n_runs = x.sizes["run"]
    own = np.full((n_runs, x.sizes[str(column)], n_components), np.nan)
    shared, content = np.full(n_runs, np.nan), np.full((n_runs, n_components), np.nan)
    loadings = joint["loadings"].values
    for r, run in enumerate(x.transpose("run", "step", column)):
        complete = ~np.isnan(run.values).any(axis=1)
        values = run.values[complete].astype(float)
        values -= values.mean(axis=0, keepdims=True) if len(values) else 0.0
        if np.linalg.matrix_rank(values) < n_components:
            continue
        left, sizes, right = np.linalg.svd(values, full_matrices=False)
        own[r] = right[:n_components].T
        shared[r] = ((values @ loadings) ** 2).sum() / (sizes**2).sum()
        content[r] = _cosine_content(left[:, :n_components], run["step"].values[complete])
    labels = x["run"].values
    columns = {
        "rmsip": (("run", "run_other"), _rmsip(own, own), "overlap of the components of two runs"),
        "rmsip_joint": ("run", _rmsip(own, loadings[None])[:, 0], "overlap with joint components"),
        "rmsip_random": ((), (n_components / x.sizes[str(column)]) ** 0.5, "of random subspaces"),
        "explained_by_joint": ("run", shared, "share of the run's variance in joint components"),
        "cosine_content": (("run", "component"), content, "likeness to a random walk's component"),
    }
    return xr.Dataset(
        {
            name: (dims, values, {"long_name": long_name, "units": "1"})
            for name, (dims, values, long_name) in columns.items()
        },
        coords={"run": labels, "run_other": labels, "component": joint["component"].values},
        attrs={"n_components": n_components},
    )


def _rmsip(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Root mean square inner products (run, run) of bases (run, column, component)."""
    products = np.einsum("rci,scj->rsij", a, b)
    return np.sqrt((products**2).sum(axis=(2, 3)) / a.shape[-1])


def _cosine_content(scores: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Squared correlation of each column with its cosine, integrals over steps."""
    time = (steps - steps[0]) / (steps[-1] - steps[0])
    half_periods = np.arange(1, scores.shape[1] + 1)
    cosine = np.cos(np.pi * half_periods * time[:, None])
    along = np.trapezoid(cosine * scores, time, axis=0)
    return 2.0 * along**2 / np.trapezoid(scores**2, time, axis=0)
