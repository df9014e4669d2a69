"""The figure of a forecast shows the numbers of its table."""

import numpy as np
import pytest
import xarray as xr

from bayesphase.analysis.forecast_intervals import forecast_intervals
from bayesphase.plots import _style, plot_forecast

N, AHEAD = 41, 10.0 * np.arange(1, 31)


@pytest.fixture
def table():
    """One run at step 100, in phase 0, and one at 150."""
    rng = np.random.default_rng(0)
    order = np.linspace(0.0, 1.0, N)
    loss = np.exp(-AHEAD / 100 + (order[:, None] - 0.5) * np.sqrt(AHEAD / 100))[:, None]
    entry = np.stack([np.zeros(N), 150 + 200 * order], axis=1)
    features = rng.normal(size=(N, 2, 30, 1))
    features[20:, 0, 20:] = np.inf  # one that runs away
    to_come = ("sample", "run", "ahead")
    return xr.Dataset(
        {
            "phase_probability": (("run", "state"), [[0.9, 0.1], [0.5, 0.5]]),
            "entry_step": (("sample", "run", "state"), np.stack([entry, entry + 5], axis=1)),
            "converged_step": (
                ("sample", "run"),
                np.stack([200 + 300 * order, np.full(N, 120.0)], axis=1),
            ),
            "path": (to_come, np.zeros((N, 2, 30), np.int8)),
            "features": ((*to_come, "feature"), features),
            "eval_loss": (to_come, np.concatenate([loss, 2 * loss], axis=1)),
        },
        coords={
            "run": ["a", "b"],
            "ahead": AHEAD,
            "state": [0, 1],
            "feature": ["l2_norm"],
            "now": ("run", [100.0, 150.0]),
        },
        attrs={"converged": "eval_loss < 0.1"},
    )


@pytest.fixture
def history():
    steps = 10 * np.arange(40)
    values = np.stack([np.linspace(3, 1, 40), np.linspace(2, 1, 40)])
    return xr.Dataset(
        {"eval_loss": (("run", "step"), values)}, coords={"run": ["a", "b"], "step": steps}
    )


def test_the_fan_is_the_median_and_two_intervals(table, history):
    ax = plot_forecast(table, history=history)
    fan = forecast_intervals(table)["eval_loss"].sel(run="a")
    recorded, median = (line for line in ax.lines if len(line.get_xdata()) > 5)
    np.testing.assert_array_equal(recorded.get_xdata(), np.arange(0, 101, 10))
    np.testing.assert_allclose(recorded.get_ydata(), history["eval_loss"][0, :11])
    # it goes on from the last value that is known
    np.testing.assert_array_equal(median.get_xdata(), np.append(100, 100 + AHEAD))
    np.testing.assert_allclose(median.get_ydata()[1:], fan.sel(quantile=0.5))
    assert median.get_ydata()[0] == recorded.get_ydata()[-1]
    outer, inner = ax.collections[-2:]
    for band, low, high in ((outer, 0.05, 0.95), (inner, 0.25, 0.75)):
        corners = band.get_paths()[0].vertices
        at = corners[corners[:, 0] == 200.0][:, 1]
        expected = [fan.sel(quantile=q, ahead=100.0).item() for q in (low, high)]
        np.testing.assert_allclose([at.min(), at.max()], expected)
    assert ax.get_ylabel() == "eval loss"
    assert ax.get_xlabel() == _style.STEP_LABEL


def test_times_to_come_are_above_it_and_past_ones_are_not(table, history):
    ax = plot_forecast(table, history=history)
    texts = [text.get_text() for text in ax.texts]
    # of 41 samples, each quantile is one
    assert texts == ["phase 1 (p = 1.00): 250 [160, 340]", "converged: 350 [215, 485]"]
    stars = [line for line in ax.lines if line.get_marker() == "*"]
    assert [line.get_xdata()[0] for line in stars] == [350.0]
    other = plot_forecast(table, run="b", history=history)
    assert [text.get_text() for text in other.texts] == ["phase 1 (p = 1.00): 255 [165, 345]"]
    table["converged_step"][:] = np.where(np.arange(N) < 5, 300.0, np.inf)[:, None]
    ax = plot_forecast(table)
    assert ax.texts[-1].get_text() == "converged: ∞ [300, ∞]"
    assert [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "*"] == []


@pytest.mark.parametrize(("never", "p", "hollow"), [(10, "0.76", False), (31, "0.24", True)])
def test_a_phase_that_may_never_come_says_how_probable_it_is(table, never, p, hollow):
    rng = np.random.default_rng(1)
    table["entry_step"][rng.permutation(N)[:never], 0, 1] = np.nan
    ax = plot_forecast(table)
    middle, low, high = (
        forecast_intervals(table)["entry_step"].sel(run="a", state=1, quantile=q).item()
        for q in (0.5, 0.05, 0.95)
    )
    text = f"phase 1 (p = {p}): {middle:.0f} [{low:.0f}, {high:.0f}]"  # of the samples in which
    assert ax.texts[0].get_text() == text
    (mark,) = (line for line in ax.lines if line.get_marker() == _style.phase_marker(1))
    assert mark.get_xdata() == [middle]
    assert (mark.get_markerfacecolor() == "white") == hollow
    table["entry_step"][:, 0, 1] = np.nan  # nothing is known of it
    assert [text.get_text() for text in plot_forecast(table).texts] == ["converged: 350 [215, 485]"]


def test_probabilities_of_phases_fill_the_axes_from_now_on(table):
    ax = plot_forecast(table)
    below, above = ax.collections[:2]
    share = forecast_intervals(table)["state_probability"].sel(run="a", ahead=150.0)
    edge = below.get_paths()[0].vertices
    assert edge[edge[:, 0] == 250.0][:, 1].max() == pytest.approx(float(share.sel(state=0)))
    edge = above.get_paths()[0].vertices
    assert edge[edge[:, 0] == 250.0][:, 1].max() == pytest.approx(1.0)
    assert edge[:, 0].min() == 100.0


def test_what_runs_away_leaves_the_axes_and_does_not_stretch_them(table):
    ax = plot_forecast(table, metric="l2_norm")
    assert ax.get_ylabel() == "l2 norm"
    low, high = ax.get_ylim()
    assert -8 < low < high < 8
    for line in ax.lines:
        assert np.isfinite(line.get_ydata()).all()


def test_shares_have_a_linear_axis_however_small_they_begin(table, history):
    shares = table.rename({"eval_loss": "eval_accuracy"})
    shares["eval_accuracy"][:] = np.geomspace(1e-3, 1.0, table.sizes["ahead"])
    assert plot_forecast(shares, metric="eval_accuracy").get_yscale() == "linear"
    shares = shares.rename({"eval_accuracy": "eval_loss"})
    assert plot_forecast(shares, metric="eval_loss").get_yscale() == "log"


def test_features_as_history_are_in_the_units_of_the_forecast(table):
    steps = 10 * np.arange(40)
    own = np.stack([np.linspace(3, 1, 40), np.linspace(2, 1, 40)])[..., None]
    for location, scale, dims in ((1.5, 0.25, ("feature",)), (1.5, 0.25, ("run", "feature"))):
        shape = [{"run": 2, "feature": 1}[dim] for dim in dims]
        features = xr.DataArray(
            (own - location) / scale,
            dims=("run", "step", "feature"),
            coords={
                "run": ["a", "b"],
                "step": steps,
                "feature": ["l2_norm"],
                "feature_location": (dims, np.full(shape, location)),
                "feature_scale": (dims, np.full(shape, scale)),
            },
        )
        ax = plot_forecast(table, metric="l2_norm", history=features)
        recorded = next(line for line in ax.lines if len(line.get_xdata()) == 11)
        np.testing.assert_allclose(recorded.get_ydata(), own[0, :11, 0])
    plain = features.drop_vars(["feature_location", "feature_scale"])
    ax = plot_forecast(table, metric="l2_norm", history=plain)
    recorded = next(line for line in ax.lines if len(line.get_xdata()) == 11)
    np.testing.assert_array_equal(recorded.get_ydata(), plain[0, :11, 0])
    with pytest.raises(ValueError, match="there is no feature 'l2_norm'; the features are"):
        plot_forecast(table, metric="l2_norm", history=plain.assign_coords(feature=["trace"]))


@pytest.mark.parametrize("converged", ["eval_loss<0.1", " eval_loss  < 0.1"])
def test_what_convergence_is_told_by_is_drawn(table, converged):
    table.attrs["converged"] = converged
    assert plot_forecast(table).get_ylabel() == "eval loss"


def test_axes_of_ones_own_and_what_is_missing(table, history):
    from matplotlib import pyplot as plt

    _, own = plt.subplots()
    assert plot_forecast(table, ax=own) is own
    with pytest.raises(ValueError, match="there is no metric 'loss' in the forecast"):
        plot_forecast(table, metric="loss")
    with pytest.raises(ValueError, match="there is no run 'c'; the runs are"):
        plot_forecast(table, run="c")
    with pytest.raises(ValueError, match="history has no 'eval_loss'"):
        plot_forecast(table, history=history.rename(eval_loss="loss"))
    with pytest.raises(TypeError, match="history must be a DataArray or a Dataset, got list"):
        plot_forecast(table, history=[1.0])
    with pytest.raises(TypeError, match=r"expected the Dataset that bayesphase\.forecast returns"):
        plot_forecast(history["eval_loss"])
