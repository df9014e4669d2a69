import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from bayesphase.views import (
    WEIGHT_METRICS,
    ConstantMetricWarning,
    MetricLeftOutWarning,
    aggregate,
    features,
    pca,
    standardize,
)

MATRICES = ["embed", "block0.up", "block0.down", "block1.up"]
LAYERS = ["embed", "block0", "block0", "block1"]


@pytest.fixture
def metrics():
    """Two runs, five steps, four matrices; the second run lacks the fourth checkpoint."""
    rng = np.random.default_rng(0)
    dims = ("run", "step", "parameter")
    ds = xr.Dataset(
        {
            "l2_norm": (dims, rng.gamma(5, size=(2, 5, 4)), {"long_name": "Frobenius norm"}),
            "trace": (dims, rng.normal(size=(2, 5, 4))),
            "weight_mean": (("run", "step"), rng.normal(size=(2, 5))),
            "eval_loss": (("run", "step"), rng.gamma(2, size=(2, 5))),
            "example_loss": (("run", "step", "example"), rng.gamma(2, size=(2, 5, 6))),
            "nonfinite_count": (("run", "step"), np.zeros((2, 5))),
        },
        coords={
            "run": ["a", "b"],
            "step": [0, 1, 10, 100, 1000],
            "epoch": ("step", [0.0, 0.1, 1.0, 10.0, 100.0]),
            "parameter": MATRICES,
            "layer": ("parameter", LAYERS),
        },
    )
    lost = (ds["run"] == "b") & (ds["step"] == 100)
    return ds.map(lambda v: v.where(~lost).transpose(*v.dims), keep_attrs=True)


@pytest.fixture
def x():
    rng = np.random.default_rng(1)
    values = rng.normal([3.0, -40.0, 0.01], [1.0, 20.0, 1e-6], size=(3, 20, 3))
    values[1, 4:7] = np.nan
    values[2, 10, 0] = np.nan
    return xr.DataArray(
        values,
        dims=("run", "step", "feature"),
        coords={
            "run": ["a", "b", "c"],
            "step": 5 * np.arange(20),
            "feature": ["l2_norm", "trace", "weight_var"],
        },
        name="features",
    )


# aggregate


@pytest.mark.parametrize("how", ["mean", "median", "min", "max", "sum"])
def test_aggregate_is_numpys_reduction_over_matrices(metrics, how):
    result = aggregate(metrics, how=how)
    expected = getattr(np, how)(metrics["l2_norm"].values, axis=-1)
    np.testing.assert_allclose(result["l2_norm"], expected, rtol=1e-14)
    assert result["l2_norm"].dims == ("run", "step")
    assert result["l2_norm"].attrs["long_name"] == f"{how} over matrices of: Frobenius norm"
    assert result.attrs["aggregation"] == how
    assert "parameter" not in result.dims
    assert "layer" not in result.coords
    assert "epoch" in result.coords
    xr.testing.assert_identical(result["example_loss"], metrics["example_loss"])


def test_aggregate_within_groups_keeps_their_order(metrics):
    result = aggregate(metrics, by="layer", metrics=["l2_norm"])
    assert list(result) == ["l2_norm"]
    assert result["l2_norm"].dims == ("run", "step", "layer")
    assert result["layer"].values.tolist() == ["embed", "block0", "block1"]
    np.testing.assert_allclose(
        result["l2_norm"].sel(layer="block0"), metrics["l2_norm"].values[..., 1:3].mean(-1)
    )


@pytest.mark.parametrize("how", ["mean", "sum", "max"])
def test_nan_of_one_matrix_at_one_checkpoint_is_not_averaged_away(metrics, how):
    metrics["l2_norm"][0, 2, 1] = np.nan
    metrics["nonfinite_count"][0, 2] = 3
    result = aggregate(metrics, how=how)["l2_norm"]
    assert np.isnan(result[0, 2])
    assert result.isnull().sum() == 2  # and the checkpoint that run b lacks
    by_layer = aggregate(metrics, how=how, by="layer")["l2_norm"]
    assert by_layer[0, 2].isnull().values.tolist() == [False, True, False]


def test_matrix_that_no_run_has_a_metric_for_is_left_out(metrics):
    metrics["trace"][:, :, 3] = np.nan
    result = aggregate(metrics)["trace"]
    np.testing.assert_allclose(result, metrics["trace"].values[..., :3].mean(-1))


def test_matrix_that_one_run_lacks_is_left_out_and_said(metrics):
    metrics["trace"][1, :, 3] = np.nan
    with pytest.warns(UserWarning, match=r"run 'b' has none for 'block1\.up'"):
        result = aggregate(metrics, metrics=["trace"])["trace"]
    np.testing.assert_allclose(result[0], metrics["trace"].values[0].mean(-1))
    np.testing.assert_allclose(result[1], metrics["trace"].values[1, :, :3].mean(-1))


def test_matrix_that_was_never_finite_is_not_taken_for_absent(metrics):
    metrics["trace"][1, :, 3] = np.nan
    metrics["nonfinite_count"][1] = 1
    result = aggregate(metrics)["trace"]
    assert result[1].isnull().all()
    assert result[0].notnull().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"how": "mode"}, r"how must be one of .*'mean'.* got 'mode'"),
        (
            {"by": "depth"},
            r"by must be a coordinate of 'parameter', one of .*'layer'.* got 'depth'",
        ),
        ({"metrics": ["l2norm"]}, r"no metric 'l2norm'; did you mean 'l2_norm'\?"),
        ({"metrics": ["trace", "trace"]}, "'trace' is named twice"),
    ],
)
def test_aggregate_errors(metrics, arguments, message):
    with pytest.raises(ValueError, match=message):
        aggregate(metrics, **arguments)


def test_text_for_metrics_is_an_error(metrics):
    with pytest.raises(TypeError, match=r"use metrics=\['trace'\]"):
        aggregate(metrics, metrics="trace")


# standardize


def test_pooled_is_sklearns_scaler_on_all_rows(x):
    result = standardize(x)
    rows = x.values.reshape(-1, 3)
    np.testing.assert_allclose(
        result.values.reshape(-1, 3), StandardScaler().fit_transform(rows), rtol=1e-9, atol=1e-9
    )
    assert result["feature_location"].dims == ("feature",)
    assert result.attrs["standardization"] == "pooled"


def test_run_is_sklearns_scaler_on_each_run(x):
    result = standardize(x, how="run")
    for r in range(3):
        expected = StandardScaler().fit_transform(x.values[r])
        np.testing.assert_allclose(result.values[r], expected, rtol=1e-9, atol=1e-9)
    assert result["feature_scale"].dims == ("run", "feature")


@pytest.mark.parametrize("window", [slice(0, 45), (0, 45)])
def test_window_of_steps_includes_both_ends_and_does_not_look_ahead(x, window):
    result = standardize(x, how="reference", reference=window)
    expected = StandardScaler().fit(x.values[:, :10].reshape(-1, 3)).transform(x.values[0])
    np.testing.assert_allclose(result.values[0], expected, rtol=1e-9, atol=1e-9)
    later = x.copy(deep=True)
    later[:, 10:] += 100.0
    np.testing.assert_array_equal(
        standardize(later, how="reference", reference=window)[:, :10], result[:, :10]
    )


def test_scale_of_one_set_of_runs_is_applied_to_another(x):
    old, new = x.isel(run=[0, 1]), x.isel(run=[2])
    by_raw = standardize(new, how="reference", reference=old)
    by_stored = standardize(new, how="reference", reference=standardize(old))
    xr.testing.assert_allclose(by_raw, by_stored, rtol=1e-12)
    np.testing.assert_allclose(by_raw, (new - old.mean(["run", "step"])) / old.std(["run", "step"]))


@pytest.mark.parametrize("how", ["pooled", "run"])
def test_standardizing_can_be_undone(x, how):
    z = standardize(x, how=how)
    undone = z * z["feature_scale"] + z["feature_location"]
    np.testing.assert_allclose(undone.transpose(*x.dims), x, rtol=1e-12)


def test_constant_metric_has_scale_1_and_is_named_with_its_run(x):
    x[2, :, 1] = 0.1
    with pytest.warns(ConstantMetricWarning, match="metric 'trace' is constant in run 'c'"):
        result = standardize(x, how="run")
    assert float(result["feature_scale"].sel(run="c", feature="trace")) == 1
    np.testing.assert_allclose(result.sel(run="c", feature="trace"), 0, atol=1e-15)
    x[..., 1] = 0.1
    with pytest.warns(ConstantMetricWarning, match="metric 'trace' is constant; it"):
        standardize(x)


def test_metric_that_a_run_lacks_stays_missing(x):
    x[1, :, 2] = np.nan
    result = standardize(x, how="run")
    assert result.sel(run="b", feature="weight_var").isnull().all()
    assert float(result["feature_scale"].sel(run="b", feature="weight_var")) == 1


@given(shift=st.floats(-1e3, 1e3), stretch=st.floats(1e-3, 1e3))
def test_standardized_features_do_not_depend_on_units(shift, stretch):
    values = np.random.default_rng(2).normal(size=(2, 9, 1))
    x = xr.DataArray(values, dims=("run", "step", "feature"), coords={"feature": ["trace"]})
    np.testing.assert_allclose(standardize(x * stretch + shift), standardize(x), atol=1e-8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"how": "zscore"}, r"how must be one of .* got 'zscore'"),
        ({"how": "reference"}, "how='reference' with reference=None"),
        ({"how": "run", "reference": (0, 5)}, "how='run' with reference=given"),
        ({"how": "reference", "reference": (500, 600)}, r"holds no value of .*go from 0 to 95"),
        ({"how": "reference", "reference": slice(0, 50, 2)}, "a start and a stop of steps"),
    ],
)
def test_standardize_errors(x, arguments, message):
    with pytest.raises(ValueError, match=message):
        standardize(x, **arguments)


def test_standardize_refuses_what_does_not_fit(x):
    z = standardize(x)
    with pytest.raises(ValueError, match="x is standardized already"):
        standardize(z)
    with pytest.raises(ValueError, match="within each run, so it has no scale for other runs"):
        standardize(x, how="reference", reference=standardize(x, how="run"))
    with pytest.raises(ValueError, match=r"lacks the features \['trace'\]"):
        standardize(x, how="reference", reference=x.drop_sel(feature="trace"))
    with pytest.raises(TypeError, match=r"of steps, or features of .* runs, got list"):
        standardize(x, how="reference", reference=[0, 5])
    with pytest.raises(TypeError, match=r"DataArray, got Dataset: bayesphase\.features makes"):
        standardize(x.to_dataset())
    with pytest.raises(ValueError, match=r"must have dims \(run, step, feature\)"):
        standardize(x.isel(run=0))


# features


def test_features_are_aggregated_standardized_and_in_the_documented_order(metrics):
    result = features(metrics)
    assert result.dims == ("run", "step", "feature")
    assert result.dtype == np.float64
    assert result["feature"].values.tolist() == ["l2_norm", "trace", "weight_mean"]
    assert [m for m in WEIGHT_METRICS if m in metrics] == result["feature"].values.tolist()
    assert "epoch" in result.coords
    assert result.sel(run="b", step=100).isnull().all()
    expected = metrics["trace"].mean("parameter", skipna=False)
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(result.sel(feature="trace"), expected, rtol=1e-12)


def test_features_record_how_they_were_made(metrics):
    attrs = features(metrics, how="max", metrics=["l2_norm", "trace"], log=["l2_norm"]).attrs
    assert attrs["metrics"] == ["l2_norm", "trace"]
    assert attrs["aggregation"] == "max"
    assert attrs["log"] == ["l2_norm"]
    assert attrs["standardization"] == "pooled"


def test_losses_come_in_by_name_and_on_a_log_scale(metrics):
    result = features(metrics, metrics=["eval_loss", "trace"], log=["eval_loss"], standardize=None)
    assert result["feature"].values.tolist() == ["log_eval_loss", "trace"]
    np.testing.assert_allclose(result.sel(feature="log_eval_loss"), np.log(metrics["eval_loss"]))


def test_features_by_layer(metrics):
    result = features(metrics, metrics=["trace", "weight_mean"], by="layer", standardize=None)
    names = ["trace[embed]", "trace[block0]", "trace[block1]", "weight_mean"]
    assert result["feature"].values.tolist() == names
    np.testing.assert_allclose(
        result.sel(feature="trace[block0]"), metrics["trace"].values[..., 1:3].mean(-1)
    )


def test_reference_runs_may_be_metrics_or_features(metrics):
    old, new = metrics.sel(run=["a"]), metrics.sel(run=["b"])
    by_metrics = features(new, standardize="reference", reference=old)
    by_features = features(new, standardize="reference", reference=features(old))
    xr.testing.assert_identical(by_metrics, by_features)


def test_default_metric_that_tells_nothing_is_left_out_with_a_warning(metrics):
    metrics["bias_mean"] = xr.full_like(metrics["weight_mean"], np.nan)
    metrics["weight_var"] = metrics["weight_mean"] * 0 + 0.1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = features(metrics)
    assert [w.category for w in caught] == [MetricLeftOutWarning] * 2
    assert "'bias_mean' is NaN everywhere" in str(caught[0].message)
    assert "'weight_var' is constant (0.1)" in str(caught[1].message)
    assert result["feature"].values.tolist() == ["l2_norm", "trace", "weight_mean"]
    for name, message in (("bias_mean", "bias_mean is NaN at every"), ("weight_var", "constant")):
        with pytest.raises(ValueError, match=message):
            features(metrics, metrics=[name, "trace"])


def test_features_do_not_change_their_input(metrics):
    before = metrics.copy(deep=True)
    features(metrics)
    xr.testing.assert_identical(metrics, before)


def test_order_of_runs_does_not_matter(metrics):
    xr.testing.assert_allclose(
        features(metrics.isel(run=[1, 0])).isel(run=[1, 0]), features(metrics), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.isel(run=[]), "no runs"),
        (lambda ds: ds.isel(step=[0]), "run a has 1 checkpoint, at least 2"),
        (lambda ds: ds.isel(step=[0, 0, 1]), "step 0 occurs more than once"),
        (lambda ds: ds.isel(step=[1, 0, 2]), "steps are not in order"),
        (lambda ds: ds.assign(trace=ds["trace"] * np.inf), "trace has .* infinite"),
        (lambda ds: ds.sel(run="a"), r"'run' is gone, .* with a list, ds.sel\(run=\['a'\]\)"),
        (lambda ds: ds.sel(step=10), r"'step' is gone, .* with a list, ds.sel\(step=\[10\]\)"),
        (lambda ds: ds[["eval_loss"]], "none of the 14 weight metrics; .*eval_loss"),
    ],
)
def test_features_errors(metrics, change, message):
    with pytest.raises(ValueError, match=message):
        features(change(metrics))


def test_features_refuse_what_they_can_not_use(metrics):
    with pytest.raises(TypeError, match="trace has dtype"):
        features(metrics.assign(trace=metrics["trace"].astype(str)))
    with pytest.raises(TypeError, match=r"metrics are a DataArray, expected an xarray.Dataset"):
        features(metrics["trace"])
    with pytest.raises(ValueError, match=r"no metric 'eval_los'; did you mean 'eval_loss'"):
        features(metrics, metrics=["eval_los"])
    with pytest.raises(ValueError, match="metrics is empty; there are: l2_norm"):
        features(metrics, metrics=[])
    with pytest.raises(ValueError, match=r"\['example_loss'\] hold a value per example"):
        features(metrics, metrics=["example_loss"])
    with pytest.raises(ValueError, match="log of 'trace' needs positive values, its least is -"):
        features(metrics, log=["trace"])
    with pytest.raises(ValueError, match="no metric 'eval_loss'"):
        features(metrics, log=["eval_loss"])  # it is not among those that are used
    with pytest.raises(ValueError, match="of use with standardize='reference' only"):
        features(metrics, standardize=None, reference=(0, 10))
    with pytest.raises(ValueError, match="standardize='reference' needs a reference"):
        features(metrics, standardize="reference")


@pytest.mark.parametrize("function", [features, aggregate])
def test_metrics_have_to_be_opened_first(function):
    with pytest.raises(TypeError, match=r"metrics are a str, .*bayesphase\.open_metrics\(path\)"):
        function("m.nc")
    with pytest.raises(TypeError, match=r"metrics are a DataFrame, expected an xarray.Dataset"):
        function(pd.DataFrame({"trace": [1.0, 2.0]}))


@pytest.mark.parametrize("given", ["zscore", True, False])
def test_what_features_can_be_scaled_by_is_said(metrics, given):
    with pytest.raises(
        ValueError,
        match=f"standardize must be one of 'pooled', 'run', 'reference' or None, got {given!r}",
    ):
        features(metrics, standardize=given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"log": True}, r"log is True, expected a list of metric names: use log=\['l2_norm'\]"),
        ({"log": "l2_norm"}, r"log is 'l2_norm', .*: use log=\['l2_norm'\]"),
        ({"metrics": 3}, r"metrics is 3, expected a list of metric names: use metrics=\['l2_norm'"),
    ],
)
def test_names_of_metrics_are_a_list(metrics, arguments, message):
    with pytest.raises(TypeError, match=message):
        features(metrics, **arguments)


# pca


def test_pca_is_sklearns_up_to_sign(x):
    z = standardize(x)
    result = pca(z, n_components=3)
    rows = z.values.reshape(-1, 3)
    complete = ~np.isnan(rows).any(axis=1)
    expected = PCA(n_components=3).fit(rows[complete])
    np.testing.assert_allclose(np.abs(result["loadings"].T), np.abs(expected.components_))
    np.testing.assert_allclose(result["explained_variance"], expected.explained_variance_)
    np.testing.assert_allclose(result["explained_variance_ratio"].sum(), 1)
    np.testing.assert_allclose(result["mean"], expected.mean_, atol=1e-12)
    assert result["component"].values.tolist() == [1, 2, 3]
    assert result.attrs == {"n_checkpoints": 56, "n_incomplete": 1}


def test_scores_rebuild_the_data_and_are_nan_where_it_is_incomplete(x):
    result = pca(x, n_components=3)
    rebuilt = result["mean"] + (result["scores"] * result["loadings"]).sum(
        "component", skipna=False
    )
    complete = x.notnull().all("feature")
    np.testing.assert_allclose(
        rebuilt.transpose(*x.dims).where(complete), x.where(complete), rtol=1e-10
    )
    assert (result["scores"].isnull().all("component") == ~complete).all()


def test_largest_loading_is_positive(x):
    for sign in (1, -1):
        loadings = pca(sign * standardize(x), n_components=2)["loadings"]
        largest = np.abs(loadings).argmax("feature")
        assert (loadings.isel(feature=largest) > 0).all()


def test_pca_of_loss_vectors_has_examples_as_columns(metrics):
    result = pca(metrics["example_loss"])
    assert result["loadings"].dims == ("example", "component")
    assert result["scores"].sel(run="b", step=100).isnull().all()
    assert "epoch" in result.coords
    assert all({"long_name", "units"} <= set(v.attrs) for v in result.data_vars.values())


def test_pca_errors(x):
    with pytest.raises(
        ValueError, match=r"only 0 of 60 checkpoints.*most NaN are at feature trace"
    ):
        pca(x.where(x["feature"] != "trace"))
    with pytest.raises(ValueError, match="from 1 to the 3 features, got 4"):
        pca(x, n_components=4)
    with pytest.raises(ValueError, match="from 1 to the 3 features, got 0"):
        pca(x, n_components=0)
    with pytest.raises(TypeError, match=r"n_components must be an integer, got 0\.9"):
        pca(x, n_components=0.9)
    with pytest.raises(ValueError, match="infinite values at feature trace"):
        pca(x.where(x["feature"] != "trace", np.inf))
    with pytest.raises(ValueError, match="checkpoints are equal"):
        pca(x * 0)
    with pytest.raises(ValueError, match=r"must have dims .* got \('step', 'feature'\)"):
        pca(x.isel(run=0))
    with pytest.raises(TypeError, match="got Dataset"):
        pca(x.to_dataset())
    with pytest.raises(TypeError, match="must hold numbers"):
        pca(x.astype(str))
