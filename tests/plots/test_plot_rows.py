"""Figures with a row for each run, feature or model show the values of their tables."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.colors import same_color

from bayesphase.analysis.phases import dwell_times
from bayesphase.analysis.state_means import state_means
from bayesphase.plots import _style, plot_comparison, plot_dwell_times, plot_state_means


def intervals(ax):
    """(row, lower, middle, upper, colour of the marker's edge, whether it is hollow) of each."""
    found = []
    for bar in ax.containers:
        point, _, (line,) = bar.lines
        (ends,) = line.get_segments()
        x, y = point.get_xydata()[0]
        assert ends[0, 1] == ends[1, 1] == y
        hollow = same_color(point.get_markerfacecolor(), "white")
        found.append((round(y), ends[0, 0], x, ends[1, 0], point.get_color(), hollow))
    return found


def labels(texts):
    return [text.get_text() for text in texts]


def boxes(ax):
    ax.figure.draw_without_rendering()
    return [text.get_window_extent() for text in ax.texts]


def test_dwell_times_are_those_of_the_table(fit):
    table = dwell_times(fit, ci_prob=0.8)
    ax = plot_dwell_times(table)
    colors = _style.phase_colors(range(3))
    drawn = {(row, color): rest for row, *rest, color, _ in intervals(ax)}
    for r, k in np.ndindex(3, 3):
        cell = table.isel(run=r, state=k)
        expected = [float(cell[name]) for name in ("lower", "total", "upper")]
        assert drawn[r, colors[k]] == pytest.approx(expected)
    assert labels(ax.get_yticklabels()) == ["a", "b", "c"]
    assert ax.get_xlabel() == "optimiser steps in the phase"
    assert ax.get_xlim()[0] == 0


def test_phases_that_are_hardly_visited_are_hollow_and_returns_are_counted(fit):
    table = dwell_times(fit)
    table["visits"][:] = [[1, 1, 1], [1, 0.25, 0], [2.4, 1, 1]]
    ax = plot_dwell_times(table)
    hollow = {(row, color) for row, *_, color, is_hollow in intervals(ax) if is_hollow}
    colors = _style.phase_colors(range(3))
    assert hollow == {(1, colors[1]), (1, colors[2])}
    assert labels(ax.texts) == ["2.4×"]


def test_a_run_without_checkpoints_has_an_empty_row(fit):
    table = dwell_times(fit).where(xr.DataArray([True, False, True], dims="run"))
    assert {row for row, *_ in intervals(plot_dwell_times(table, xscale="log"))} == {0, 2}


def test_means_are_those_of_the_table(fit):
    table = state_means(fit)
    table["mean"][:, 0] = [-1.0, 0.5, np.nan]
    table["lower"][:, 0] = [-1.5, 0.4, np.nan]
    table["upper"][:, 0] = [-0.5, 0.8, np.nan]
    ax = plot_state_means(table)
    colors = _style.phase_colors(range(3))
    assert [row[:5] for row in intervals(ax)] == [
        (0, -1.5, -1.0, -0.5, colors[0]),
        (0, 0.4, 0.5, 0.8, colors[1]),
    ]
    assert labels(ax.get_yticklabels()) == ["metric0"]
    assert ax.get_xlabel() == "mean level"
    assert ax.get_xscale() == "linear"
    logarithmic = plot_state_means(table, xscale="log")
    assert logarithmic.get_xscale() == "symlog"
    assert 0 in logarithmic.get_xticks()


def test_units_of_speeds_are_on_the_axis(fit):
    table = state_means(fit)
    table.attrs["quantity"] = "speed"
    table["mean"].attrs["units"] = "1 per 20 optimiser steps"
    assert plot_state_means(table).get_xlabel() == "mean speed (per 20 optimiser steps)"
    narrow = plt.figure(figsize=(2, 2)).add_subplot()
    assert plot_state_means(table, ax=narrow) is narrow
    assert narrow.get_xlabel() == "mean speed\n(per 20 optimiser steps)"


@pytest.fixture
def comparison():
    return pd.DataFrame(
        {
            "rank": [0, 1, 2],
            "elpd": [10.0, 5.0, -40.0],
            "p": [1.0, 2.0, 3.0],
            "elpd_diff": [0.0, -5.0, -50.0],
            "weight": [0.7, 0.3, 0.0],
            "se": [4.0, 4.0, 4.0],
            "dse": [0.0, 2.0, np.nan],
            "warning": [False, True, False],
        },
        index=["4", "3", "wide 2"],
    )


def test_differences_and_weights_are_those_of_the_table(comparison):
    ax = plot_comparison(comparison.iloc[[2, 0, 1]])  # the best is on top, in any order
    assert [(row, *ends) for row, *ends, _, _ in intervals(ax)] == [
        (0, 0, 0, 0),
        (1, -9, -5, -1),
        (2, -50, -50, -50),
    ]
    assert [hollow for *_, hollow in intervals(ax)] == [False, True, False]
    assert labels(ax.get_yticklabels()) == ["4", "3", "wide 2"]
    assert labels(ax.texts) == ["0.70", "0.30", "± ?", "0.00", "weight"]
    assert ax.get_xlabel() == "log predictive density less that of the best (nats)"
    shown = boxes(ax)
    assert not any(a.overlaps(b) for i, a in enumerate(shown) for b in shown[:i])


def test_unknown_standard_errors_are_no_intervals_of_no_width(comparison):
    comparison["dse"] = np.nan  # as of one run alone
    comparison.loc["3", "elpd_diff"] = -0.1  # close to the best, and to the weights
    ax = plot_comparison(comparison)
    marks = [text for text in ax.texts if text.get_text() == "± ?"]
    assert [text.xy for text in marks] == [(-0.1, 1), (-50.0, 2)]  # the best has no error
    shown = boxes(ax)
    assert not any(a.overlaps(b) for i, a in enumerate(shown) for b in shown[:i])


def test_differences_over_decades_are_on_a_log_scale(comparison):
    comparison.loc["wide 2", "elpd_diff"] = -5000.0
    ax = plot_comparison(comparison)
    assert ax.get_xscale() == "symlog"
    assert ax.get_xlim()[0] < -5000


def test_bad_input_is_named(fit, comparison):
    with pytest.raises(TypeError, match=r"got a list, expected a fit .* bayesphase.dwell_times"):
        plot_dwell_times([1])
    with pytest.raises(ValueError, match=r"pass what bayesphase.dwell_times returns"):
        plot_dwell_times(xr.Dataset())
    with pytest.raises(
        ValueError, match=r"ci_prob is 0.5, but the table was made with ci_prob=0.9"
    ):
        plot_dwell_times(dwell_times(fit), ci_prob=0.5)
    with pytest.raises(ValueError, match=r"xscale is 'logit'"):
        plot_dwell_times(fit, xscale="logit")
    with pytest.raises(ValueError, match=r"there is no feature 'x'; the features are"):
        plot_state_means(fit, feature="x")
    with pytest.raises(ValueError, match=r"pass what bayesphase.state_means returns"):
        plot_state_means(xr.Dataset())
    with pytest.raises(TypeError, match="got a Dataset, expected the DataFrame"):
        plot_comparison(xr.Dataset())
    with pytest.raises(ValueError, match=r"the table has no column 'dse'"):
        plot_comparison(comparison.drop(columns="dse"))
    with pytest.raises(ValueError, match="has no row"):
        plot_comparison(comparison.iloc[:0])
    assert plt.get_fignums() == []
