"""ArviZ's own plots take our DataTree and our tables as they are, whichever ArviZ is there."""

import arviz_plots
import numpy as np
import pytest
import xarray as xr
from synthetic import synthetic_fit

import bayesphase as bp


@pytest.fixture(scope="module")
def fit():
    return synthetic_fit(n_chains=4, n_draws=60, n_runs=3)


@pytest.mark.parametrize(
    "plot", ["plot_trace", "plot_rank", "plot_forest", "plot_ess", "plot_mcse"]
)
def test_draws(fit, plot):
    drawn = getattr(arviz_plots, plot)(fit, var_names=["transition_probs", "mean"])
    figure = drawn.viz["figure"].item()
    assert figure.axes
    assert any(ax.lines or ax.collections for ax in figure.axes)


def test_a_trace_shows_the_draws(fit):
    drawn = arviz_plots.plot_trace(
        fit, var_names=["mean"], coords={"state": 0, "feature": "metric0"}
    )
    (ax,) = drawn.viz["figure"].item().axes
    values = fit["posterior"]["mean"].sel(state=0, feature="metric0").values
    for chain in values:
        assert any(np.array_equal(line.get_ydata(), chain) for line in ax.lines)


def replicated(fit):
    """The simulated data that `posterior_predictive` returns, made by hand."""
    features = fit["observed_data"]["features"]
    rng = np.random.default_rng(0)
    made = features.values + rng.normal(size=(24, *features.shape))
    state = np.zeros((24, *features.shape[:2]), np.int8)
    return xr.Dataset(
        {
            "features": (("sample", *features.dims), made),
            "state": (("sample", *features.dims[:2]), state),
        },
        coords={
            **{name: features[name] for name in features.dims},
            "chain": ("sample", np.repeat([0, 1], 12)),
            "draw": ("sample", np.tile(2 * np.arange(12), 2)),
        },
    )


def test_predictive_checks(fit):
    # as the documentation has it: each sample under its own chain and draw
    made = replicated(fit).set_index(sample=["chain", "draw"]).unstack("sample")
    tree = fit.copy()
    tree["posterior_predictive"] = xr.DataTree(made)
    drawn = arviz_plots.plot_ppc_dist(tree, var_names="features", num_samples=10)
    axes = drawn.viz["figure"].item().axes
    assert sum(len(ax.lines) for ax in axes) >= 11  # ten simulated data sets and the observed one


def estimates(n_units=12):
    from bayesphase.analysis._elpd import elpd_data

    rng = np.random.default_rng(1)
    found = {}
    for k in (2, 3, 4):
        values = rng.normal(k if k < 4 else 1.0, 1.0, n_units)
        elpd_i = xr.DataArray(
            values,
            dims="run",
            coords={"run": np.arange(n_units)},
            attrs={"data": "these", "unit": "run"},
        )
        pareto_k = xr.DataArray(rng.uniform(0, 0.9, n_units), dims="run", coords=elpd_i.coords)
        found[str(k)] = elpd_data(
            "loo",
            elpd_i,
            elpd=values.sum(),
            se=1.0,
            p=2.0,
            n_samples=100,
            n_data_points=n_units,
            scale="log",
            warning=False,
            good_k=0.7,
            pareto_k=pareto_k,
        )
    return found


def test_comparison():
    table = bp.compare(estimates())
    drawn = arviz_plots.plot_compare(table)
    (ax,) = drawn.viz["figure"].item().axes
    written = " ".join(text.get_text() for text in [*ax.get_yticklabels(), *ax.get_xticklabels()])
    assert all(name in written for name in ("2", "3", "4"))
    assert bp.plot_comparison(table).get_yticklabels()[0].get_text() == table.index[0]


def test_pareto_k():
    (first, *_) = estimates().values()
    drawn = arviz_plots.plot_khat(first)
    axes = drawn.viz["figure"].item().axes
    points = np.concatenate(
        [c.get_offsets()[:, 1] for ax in axes for c in ax.collections if len(c.get_offsets())]
        + [line.get_ydata() for ax in axes for line in ax.lines]
    )
    assert all(np.isclose(points, k).any() for k in first.pareto_k.values)
