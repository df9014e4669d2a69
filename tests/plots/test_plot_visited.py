import numpy as np
import pytest
import xarray as xr

from bayesphase.analysis.visited import visited_counts
from bayesphase.plots import plot_visited_counts


@pytest.fixture
def table(fit):
    with pytest.warns(UserWarning, match="All 3 states"):
        return visited_counts(fit)


def test_bars_are_the_probabilities_and_dots_those_of_runs(table):
    ax = plot_visited_counts(table)
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], table["probability"])
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(dots) == 3
    for line, run in zip(dots, table["run_probability"], strict=True):
        np.testing.assert_allclose(line.get_ydata(), run)
    assert ax.get_xlabel() == "number of states visited"
    assert ax.get_ylabel() == "posterior probability"
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["all runs together", "each run"]


def test_other_concentrations_are_dashes(table):
    others = [0.5, 1.0, 2.0]
    table["probability_by_concentration"] = (
        ("weight_concentration", "n_states"),
        np.array([[0.6, 0.3, 0.1], [0.4, 0.3, 0.3], [0.1, 0.2, 0.7]]),
    )
    ax = plot_visited_counts(table.assign_coords(weight_concentration=others))
    left, right = ax.collections[-2:]
    assert [s[0][1] for s in left.get_segments()] == [0.6, 0.3, 0.1]
    assert [s[0][1] for s in right.get_segments()] == [0.1, 0.2, 0.7]
    assert ax.get_legend().get_texts()[-1].get_text().startswith("weight concentration 0.5 (left)")


def test_what_is_no_table():
    with pytest.raises(TypeError, match="got a int, expected a fit"):
        plot_visited_counts(3)
    with pytest.raises(ValueError, match=r"pass what bayesphase\.visited_counts returns"):
        plot_visited_counts(xr.Dataset())
