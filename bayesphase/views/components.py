"""Principal components of what was measured along training."""

import numpy as np
import xarray as xr

from bayesphase._checks import check_integer


def pca(x: xr.DataArray, *, n_components: int = 2) -> xr.Dataset:
    """Find the principal components of features, or of vectors of losses per example.

    All checkpoints of all runs are one sample: the runs share their components. Features are
    centred and not scaled, so standardize them first. A checkpoint with any NaN is left out and has
    NaN scores.

    Parameters
    ----------
    x : DataArray
        Dims (run, step, feature), or (run, step, example) as ``ds["example_loss"]``.
    n_components : int, default 2
        Number of components.

    Returns
    -------
    Dataset
        - ``scores`` (run, step, component), in the units of `x`
        - ``loadings`` (feature | example, component), of unit length
        - ``explained_variance`` (component), ``explained_variance_ratio`` (component)
        - ``mean`` (feature | example)

        Components count from 1. The sign of each is such that its loading of the largest magnitude
        is positive. ``mean + scores @ loadings`` approximates `x`.

    Raises
    ------
    TypeError
        If `x` is no DataArray of numbers, or `n_components` no integer.
    ValueError
        If the dims are others, values are infinite, too few checkpoints are complete, or they are
        all equal.
    """
    from sklearn.decomposition import PCA

    column = _column_dim(x)
    x = x.transpose("run", "step", column)
    rows = x.values.reshape(-1, x.sizes[column]).astype(float)
    complete = _complete_rows(x, rows, column, n_components)
    # A fixed seed: wide inputs are decomposed by a randomized method.
    fitted = PCA(n_components=n_components, random_state=0).fit(rows[complete])
    largest = np.abs(fitted.components_).argmax(axis=1)
    sign = np.sign(fitted.components_[np.arange(n_components), largest])
    loadings = (fitted.components_ * sign[:, None]).T
    scores = np.full((len(rows), n_components), np.nan)
    scores[complete] = (rows[complete] - fitted.mean_) @ loadings

    units = str(x.attrs.get("units", "1"))
    variables = {
        "scores": (
            ("run", "step", "component"),
            scores.reshape(*x.shape[:2], n_components),
            {"long_name": "score", "units": units},
        ),
        "loadings": ((column, "component"), loadings, {"long_name": "loading", "units": "1"}),
        "explained_variance": (
            "component",
            fitted.explained_variance_,
            {"long_name": "explained variance", "units": "1" if units == "1" else f"({units})^2"},
        ),
        "explained_variance_ratio": (
            "component",
            fitted.explained_variance_ratio_,
            {"long_name": "share of the variance explained", "units": "1"},
        ),
        "mean": (column, fitted.mean_, {"long_name": "mean over checkpoints", "units": units}),
    }
    coords = {n: c.variable for n, c in x.coords.items() if n in ("run", "step", "epoch", column)}
    coords["component"] = np.arange(1, n_components + 1)
    attrs = {"n_checkpoints": int(complete.sum()), "n_incomplete": _n_partial(rows)}
    return xr.Dataset(variables, coords=coords, attrs=attrs)


def require_scores(table: xr.Dataset) -> xr.DataArray:
    """Return the scores (run, step, component) of a table that `pca` made; raise if it is none."""
    if not isinstance(table, xr.Dataset):
        raise TypeError(
            f"pca_table is a {type(table).__name__}, expected the Dataset that bayesphase.pca "
            f"returns"
        )
    if "scores" not in table:
        raise ValueError(
            f"the table has no variable 'scores', only {sorted(map(str, table.data_vars))}: pass "
            f"what bayesphase.pca returns"
        )
    scores = table["scores"]
    if set(scores.dims) != {"run", "step", "component"} or not all(scores.sizes.values()):
        raise ValueError(
            f"scores must have dims (run, step, component), none of them empty, got "
            f"{dict(scores.sizes)}"
        )
    if np.isinf(scores.values).any():
        raise ValueError("scores holds infinite values: make them NaN first")
    return scores


def _column_dim(x: xr.DataArray) -> str:
    if not isinstance(x, xr.DataArray):
        raise TypeError(f"x must be a DataArray, got {type(x).__name__}: take features(ds), say")
    if x.dtype.kind not in "fiu":
        raise TypeError(f"x must hold numbers, got dtype {x.dtype}")
    for column in ("feature", "example"):
        if set(x.dims) == {"run", "step", column}:
            return column
    raise ValueError(f"x must have dims (run, step, feature) or (run, step, example), got {x.dims}")


def _complete_rows(x: xr.DataArray, rows: np.ndarray, column: str, n_components: int) -> np.ndarray:
    """Tell which rows have no NaN, having checked that a fit to them makes sense."""
    check_integer("n_components", n_components)
    if np.isinf(rows).any():
        name = x[column].values[np.isinf(rows).any(axis=0).argmax()]
        raise ValueError(f"x has infinite values at {column} {name!s}: make them NaN first")
    missing = np.isnan(rows)
    complete = ~missing.any(axis=1)
    if not 1 <= n_components <= rows.shape[1]:
        raise ValueError(
            f"n_components must be from 1 to the {rows.shape[1]} {column}s, got {n_components}"
        )
    if complete.sum() <= n_components:
        worst = x[column].values[missing.sum(axis=0).argmax()]
        raise ValueError(
            f"only {int(complete.sum())} of {len(rows)} checkpoints are complete, more than "
            f"n_components={n_components} are needed; most NaN are at {column} {worst!s}"
        )
    if not np.ptp(rows[complete], axis=0).any():
        raise ValueError("all complete checkpoints are equal: there is no direction to find")
    return complete


def _n_partial(rows: np.ndarray) -> int:
    missing = np.isnan(rows)
    return int(np.count_nonzero(missing.any(axis=1) & ~missing.all(axis=1)))
