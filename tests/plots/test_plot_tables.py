"""The figures that draw one table for all runs."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import same_color
from synthetic import fit_from_paths

from bayesphase.analysis.phases import boundaries, phase_probabilities
from bayesphase.plots import _style, plot_boundaries, plot_phase_probabilities

COLORS = _style.phase_colors(range(3))


def areas(ax):
    """Area of each filled region over the rows: (run, state)."""
    found = []
    for collection in ax.collections:
        x, y = collection.get_paths()[0].vertices.T
        found.append(abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2)
    return np.reshape(found, (3, 3))


def test_areas_are_the_probabilities_times_the_steps_held(fit):
    ax = plot_phase_probabilities(fit)
    drawn = areas(ax) / areas(ax).sum(axis=1, keepdims=True)
    # a: 40 steps in 0, then 30, 40, 40 or 50 in 1, of 110
    assert drawn[0] == pytest.approx([40 / 110, 40 / 110, 30 / 110])
    assert drawn[1] == pytest.approx([1 - 0.25 * 50 / 110, 0.25 * 50 / 110, 0])
    assert drawn[2] == pytest.approx([0.5, 0, 0.5])  # its last checkpoint is at 100
    for i, collection in enumerate(ax.collections):
        assert same_color(collection.get_facecolor()[0], COLORS[i % 3])


def test_runs_are_rows_from_the_top(fit):
    for ax in (plot_phase_probabilities(fit), plot_boundaries(fit)):
        assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
        assert ax.yaxis_inverted()
        assert ax.get_xlabel() == "optimiser steps"


def test_phases_are_named_in_place_and_in_the_legend(fit):
    ax = plot_phase_probabilities(fit)
    assert [t.get_text() for t in ax.texts] == ["0", "1", "2", "0", "0", "2"]
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert names == ["phase 0", "phase 1", "phase 2"]


def test_a_table_draws_as_its_fit(fit):
    by_fit, by_table = (
        plot_phase_probabilities(fit),
        plot_phase_probabilities(phase_probabilities(fit)),
    )
    assert np.array_equal(areas(by_fit), areas(by_table))
    by_fit, by_table = (
        plot_boundaries(fit, ci_prob=0.5),
        plot_boundaries(boundaries(fit, ci_prob=0.5)),
    )
    assert drawn_boundaries(by_fit) == drawn_boundaries(by_table)


def drawn_boundaries(ax):
    """(run, state) -> (first step, lower, upper) of what is drawn, and how it is filled."""
    result = {}
    for bar in ax.containers:
        point, _, (line,) = bar.lines
        (x,), (y,) = point.get_xdata(), point.get_ydata()
        (low, _), (high, _) = line.get_segments()[0]
        state = next(k for k, c in COLORS.items() if same_color(point.get_color(), c))
        assert point.get_marker() == _style.phase_marker(state)
        hollow = point.get_markerfacecolor() == "white"
        result["abc"[round(y)], state] = (x, round(low), round(high), hollow, bar[0].get_alpha())
    return result


def test_boundaries_are_those_of_the_table(fit):
    drawn = drawn_boundaries(plot_boundaries(fit, ci_prob=0.8))
    assert drawn == {
        ("a", 0): (0, 0, 0, False, 1),
        ("a", 1): (40, 40, 40, False, 1),
        ("a", 2): (80, 70, 90, False, 1),
        ("b", 0): (0, 0, 0, False, 1),
        ("b", 1): (60, 60, 60, True, pytest.approx(0.3 + 0.7 * 0.25)),
        ("c", 0): (0, 0, 0, False, 1),
        ("c", 2): (50, 50, 50, False, 1),
    }


def test_phases_of_a_run_have_heights_of_their_own(fit):
    ax = plot_boundaries(fit)
    heights = [bar.lines[0].get_ydata()[0] for bar in ax.containers]
    assert len(set(heights)) == len(heights)


@pytest.mark.parametrize("plot", [plot_boundaries, plot_phase_probabilities])
def test_given_axes_are_drawn_on_and_returned(fit, plot):
    figure, ax = plt.subplots()
    assert plot(fit, ax=ax, xscale="log") is ax
    assert ax.get_xscale() == "symlog"
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("plot", [plot_boundaries, plot_phase_probabilities])
def test_one_state_and_a_run_without_checkpoints_can_be_drawn(plot):
    paths = np.zeros((2, 2, 5), int)
    paths[:, 1] = -1
    plot(fit_from_paths(paths, n_states=1)).figure.draw_without_rendering()


def test_errors(fit):
    table = boundaries(fit)
    with pytest.raises(
        ValueError, match=r"has no variable 'upper'.*pass what bayesphase.boundaries"
    ):
        plot_boundaries(table.drop_vars("upper"))
    with pytest.raises(ValueError, match=r"'first_step' must have dims \('run', 'state'\)"):
        plot_boundaries(table.isel(run=0))
    with pytest.raises(
        ValueError, match=r"ci_prob is 0.5, but the table was made with ci_prob=0.9"
    ):
        plot_boundaries(table, ci_prob=0.5)
    with pytest.raises(TypeError, match=r"got a DataArray, expected a fit.*bayesphase.boundaries"):
        plot_boundaries(table["upper"])
    with pytest.raises(TypeError, match=r"got a Dataset, expected a fit.*bayesphase.phase_prob"):
        plot_phase_probabilities(table)
    with pytest.raises(ValueError, match=r"must have dims \('run', 'step', 'state'\)"):
        plot_phase_probabilities(phase_probabilities(fit).isel(run=0))
    with pytest.raises(ValueError, match="xscale is 'sqrt'"):
        plot_phase_probabilities(fit, xscale="sqrt")
    with pytest.raises(ValueError, match="xscale is 'sqrt'"):
        plot_boundaries(fit, xscale="sqrt")
    assert plt.get_fignums() == []
