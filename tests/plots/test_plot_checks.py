"""Figures of model checking draw what is in the tables."""

import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt

from bayesphase.plots import plot_predictive_checks, plot_pseudo_residuals


@pytest.fixture
def residuals():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(2, 60, 3))
    values[..., 2] *= 3.0  # a noise three times as large as the model has it
    values[0, :5, 1] = np.nan
    return xr.Dataset(
        {
            "pseudo_residual": (("run", "step", "feature"), values),
            "autocorrelation": (("feature", "lag"), [[0.0, 0.1], [0.05, 0.9], [-0.6, 0.0]]),
            "autocorrelation_sd": (("feature", "lag"), np.full((3, 2), 0.1)),
        },
        coords={
            "run": ["a", "b"],
            "step": 10 * np.arange(60),
            "feature": ["l1_norm", "l2_norm", "trace"],
            "lag": [1, 2],
        },
    )


@pytest.fixture
def checks():
    rng = np.random.default_rng(2)
    replicated = rng.normal(size=(3, 40))
    replicated[2, :2] = np.inf, np.nan
    middle = np.array([0.0, 5.0, 1.0])
    return xr.Dataset(
        {
            "replicated": (("check", "sample"), replicated),
            "observed_median": ("check", middle),
            "observed_lower": ("check", middle - 0.5),
            "observed_upper": ("check", middle + 0.5),
            "p_value": ("check", [0.5, 0.0, np.nan]),
        },
        coords={
            "check": ["size x_1", "size y", "switches"],
            "statistic": ("check", ["size", "size", "switches"]),
            "of": ("check", ["x_1", "y", ""]),
            "units": ("check", ["scales", "scales", "1"]),
            "description": ("check", ["largest residual", "largest residual", "switches"]),
        },
        attrs={"ci_prob": 0.9},
    )


def points(ax):
    """x, y and filled or not, of all marks."""
    found = []
    for line in ax.lines:
        if line.get_marker() == "o":
            filled = line.get_markerfacecolor() != "white"
            found += [(x, y, filled) for x, y in zip(*line.get_data(), strict=True)]
    return sorted(found)


def test_quantiles_are_the_values_in_order(residuals):
    pairs = plot_pseudo_residuals(residuals)
    assert pairs.shape == (3, 2)
    for feature in range(3):
        x, y, filled = np.transpose(points(pairs[feature, 0]))
        values = residuals["pseudo_residual"].values[..., feature].ravel()
        np.testing.assert_allclose(y, np.sort(values[~np.isnan(values)]))
        assert (np.diff(x) > 0).all()
        assert filled.any() == (feature == 2)  # the one outside its band
    assert pairs[0, 0].texts[0].get_text() == "l1 norm"


def test_correlations_outside_their_band_are_filled(residuals):
    pairs = plot_pseudo_residuals(residuals, ci_prob=0.95)
    assert points(pairs[0, 1]) == [(1, 0.0, False), (2, 0.1, False)]
    assert points(pairs[1, 1]) == [(1, 0.05, False), (2, 0.9, True)]
    assert points(pairs[2, 1]) == [(1, -0.6, True), (2, 0.0, False)]
    assert min(pairs[2, 1].get_ylim()) < -0.6
    assert pairs[2, 1].get_xlabel() == "lag (checkpoints)"
    assert "95% band if the model held" in [
        text.get_text() for text in pairs[0, 0].figure.legends[0].get_texts()
    ]


def test_features_and_axes_can_be_chosen(residuals):
    _, axes = plt.subplots(1, 2)
    pairs = plot_pseudo_residuals(residuals, feature="trace", ax=axes)
    assert pairs.tolist() == [axes.tolist()]
    with pytest.raises(ValueError, match="ax holds 2 axes, expected two for each of"):
        plot_pseudo_residuals(residuals, ax=axes)
    with pytest.raises(ValueError, match="there is no feature 'l3'; the features are"):
        plot_pseudo_residuals(residuals, feature="l3")
    with pytest.raises(ValueError, match="feature is empty: name at least one feature"):
        plot_pseudo_residuals(residuals, feature=[])


def test_a_statistic_has_a_panel_and_what_it_is_of_a_row(checks):
    panels = plot_predictive_checks(checks)
    assert len(panels) == 2
    assert [t.get_text() for t in panels[0].get_yticklabels()] == ["x 1", "y"]
    assert [t.get_text() for t in panels[1].get_yticklabels()] == ["all runs"]
    assert panels[0].get_xlabel() == "largest residual (scales)"
    assert panels[1].get_xlabel() == "switches"
    assert [(t.get_text(), t.get_weight()) for t in panels[0].texts] == [
        ("p = 0.50", "normal"),
        ("p < 0.01", "bold"),
    ]
    assert panels[1].texts[0].get_text() == "p unknown"
    marks = [line.get_xdata()[0] for line in panels[0].lines if line.get_marker() == "D"]
    assert marks == [0.0, 5.0]
    assert len(panels[0].patches) == 2
    edges = panels[0].patches[0].get_data().edges
    made = checks["replicated"].values[0]
    assert (edges[0], edges[-1]) == (made.min(), made.max())


def test_data_that_are_all_alike_are_one_line(checks):
    checks["replicated"][0] = 3.0
    panels = plot_predictive_checks(checks, statistic="size")
    assert len(panels) == 1
    assert len(panels[0].patches) == 1
    assert [3.0, 3.0] in [list(line.get_xdata()) for line in panels[0].lines]


def test_statistics_and_axes_can_be_chosen(checks):
    _, ax = plt.subplots()
    assert plot_predictive_checks(checks, statistic="switches", ax=ax).tolist() == [ax]
    with pytest.raises(ValueError, match="ax holds 1 axes, expected one for each of"):
        plot_predictive_checks(checks, ax=ax)
    with pytest.raises(ValueError, match="there is no statistic 'other'; the statistics are"):
        plot_predictive_checks(checks, statistic="other")


@pytest.mark.parametrize(
    ("plot", "made_by"),
    [(plot_predictive_checks, "predictive_checks"), (plot_pseudo_residuals, "pseudo_residuals")],
)
def test_what_is_no_table_is_named(plot, made_by):
    with pytest.raises(TypeError, match=f"got a list, expected .* that bayesphase.{made_by}"):
        plot([1])
    with pytest.raises(ValueError, match=f"pass what bayesphase.{made_by} returns"):
        plot(xr.Dataset())
