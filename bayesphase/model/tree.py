"""The DataTree of a fit: groups, dims and attributes of what was sampled."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from bayesphase.model import offsets
from bayesphase.model.initial import Start
from bayesphase.model.paths import Paths
from bayesphase.model.spec import Spec


def posterior_of(spec: Spec, sampled: xr.DataTree, labels: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Parameters with the model's dims, whatever the sampler called them.

    `labels` are those of runs and features.
    """
    drawn = sampled["posterior"].to_dataset().transpose("chain", "draw", ...)
    feature = labels["feature"]
    state, attrs = np.arange(spec.n_states), spec.transition.attrs
    values = {name: drawn[name].values for name in spec.dims}
    values |= spec.emission.derive(values, len(feature), np)
    return xr.Dataset(
        {
            name: (("chain", "draw", *dims), values[name], attrs.get(name, {}))
            for name, dims in spec.variables.items()
        },
        coords={
            "chain": drawn["chain"].values,
            "draw": drawn["draw"].values,
            "state": state,
            "state_next": state,
            "feature": feature,
            **spec.emission.coords(feature),
            **({"run": labels["run"]} if spec.emission.offsets else {}),
        },
    )


def as_tree(
    features: xr.DataArray,
    spec: Spec,
    paths: Paths,
    stats: xr.Dataset,
    modes: list[Start],
    numbers: list[int],
) -> xr.DataTree:
    """Put together what `bayesphase.fit` returns, but for its attributes.

    `numbers` are those of the `modes`, see `number_modes`.
    """
    restarts = xr.Dataset(
        {
            "log_density": (
                "restart",
                [mode.log_density for mode in modes],
                {"long_name": "log posterior density of a mode, up to a constant", "units": "nats"},
            ),
            "mode": ("restart", numbers, {"long_name": "number of the mode", "units": "1"}),
        },
        coords={"restart": np.arange(len(modes))},
    )
    return xr.DataTree.from_dict(
        {
            "posterior": paths.posterior,
            "sample_stats": _tidy_stats(stats, paths.ambiguity),
            "restarts": restarts,
            **groups_of_data(features, spec, paths),
        }
    )


def groups_of_data(features: xr.DataArray, spec: Spec, paths: Paths) -> dict[str, xr.Dataset]:
    """Make the groups of a fit that are about its runs: paths, likelihoods, residuals, data."""
    features = features.transpose("run", "step", "feature").rename("features")
    grid = (features.sizes["run"], features.sizes["step"])
    along = {name: c for name, c in features.coords.items() if "feature" not in c.dims}
    chain_draw = {dim: paths.posterior[dim] for dim in ("chain", "draw")}
    path_dataset = xr.Dataset(
        {
            "state": (
                ("chain", "draw", "run", "step"),
                spec.rows.to_grid(paths.states, grid, -1),
                {"long_name": "state on the sampled path, -1 without a checkpoint", "units": "1"},
            ),
            "most_likely": (
                ("run", "step"),
                spec.rows.to_grid(paths.most_likely, grid, -1),
                {"long_name": "state on the most likely path", "units": "1"},
            ),
        },
        coords={**chain_draw, **along},
    )
    log_likelihood = xr.DataArray(
        paths.log_likelihood,
        dims=("chain", "draw", "run"),
        coords={**chain_draw, "run": features["run"]},
        attrs={"long_name": "log-likelihood of the whole run", "units": "nats"},
    )
    return {
        "paths": path_dataset,
        "log_likelihood": log_likelihood.to_dataset(name="run_log_likelihood"),
        "residuals": _residuals(features, spec, paths).to_dataset(name="standardized"),
        "observed_data": _observed(features, spec),
    }


def _residuals(features: xr.DataArray, spec: Spec, paths: Paths) -> xr.DataArray:
    """Standardized innovations on the most likely path, at the posterior mean of the parameters."""
    means = {
        name: paths.posterior[name].mean(("chain", "draw")).transpose(*dims).values
        for name, dims in spec.dims.items()
        if name not in spec.transition.dims
    }
    rows = offsets.without(spec.rows, means)
    by_row = spec.emission.residuals(rows, paths.most_likely, means)
    standardized = features.copy(data=np.full(features.shape, np.nan))
    standardized.values[spec.rows.run, spec.rows.step] = by_row
    standardized.attrs = {"long_name": "standardized residual", "units": "1"}
    return standardized


def _observed(features: xr.DataArray, spec: Spec) -> xr.Dataset:
    observed = features.to_dataset()
    return (
        observed if spec.known_states is None else observed.assign(known_states=spec.known_states)
    )


def _tidy_stats(stats: xr.Dataset, ambiguity: np.ndarray) -> xr.Dataset:
    """Scalar statistics under ArviZ's names; vectors with an entry per parameter are left out."""
    if "lp" not in stats:
        stats = stats.rename(logp="lp")
    scalars = [name for name, v in stats.items() if v.dims == ("chain", "draw") and v.dtype != "O"]
    return stats[scalars].assign(
        label_ambiguity=(
            ("chain", "draw"),
            ambiguity,
            {"long_name": "how nearly two states' names could be swapped", "units": "1"},
        )
    )
