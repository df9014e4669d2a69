"""Many runs at one glance: every panel shows its own run, and all have the same scales."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from synthetic import synthetic_fit

from bayesphase.analysis.phases import boundaries, phase_probabilities
from bayesphase.plots import _style, plot_overview

COLORS = _style.phase_colors(range(3))


def curve(ax):
    pieces = [line for line in ax.lines if line.get_transform() == ax.transData]
    return pieces, np.unique(np.concatenate([piece.get_xydata() for piece in pieces]), axis=0)


def across(ax):
    place = ax.get_xaxis_transform()
    return [line.get_xdata()[0] for line in ax.lines if line.get_transform() == place]


def test_each_run_has_its_curve_its_phases_and_its_boundaries(fit, loss):
    panels = plot_overview(fit, loss=loss["eval_loss"], ci_prob=0.8)
    table = boundaries(fit, ci_prob=0.8)
    assert [panel.texts[0].get_text() for panel in panels] == ["a", "b", "c"]
    for panel, name in zip(panels, "abc", strict=True):
        pieces, points = curve(panel)
        np.testing.assert_array_equal(points[:, 0], loss["step"])
        np.testing.assert_array_equal(points[:, 1], loss["eval_loss"].sel(run=name))
        likely = table.sel(run=name)["visited"].values >= 0.5
        steps = table.sel(run=name)["first_step"].values
        assert across(panel) == steps[likely & (steps > 0)].tolist()
        # bands of intervals are the only patches
        ends = [(p.get_x(), p.get_x() + p.get_width()) for p in panel.patches]
        cells = table.sel(run=name).isel(state=likely & (steps > 0))
        assert ends == list(zip(cells["lower"].values, cells["upper"].values, strict=True))
    pieces, _ = curve(panels[0])
    assert [piece.get_color() for piece in pieces] == list(COLORS.values())


def test_strips_are_the_probabilities(fit):
    (panel,) = plot_overview(fit, run=["a"])
    probability = phase_probabilities(fit).sel(run="a")
    heights = []
    for strip, k in zip(panel.collections, range(3), strict=True):
        path = strip.get_paths()[0].vertices
        at = path[path[:, 0] == 80][:, 1]
        heights.append(at.max() - at.min())
        assert probability.sel(state=k).notnull().all()
    total = sum(probability.sel(step=80).values)
    assert total == pytest.approx(1)


def test_all_panels_have_the_same_scales(fit, loss):
    loss["eval_loss"][1] *= 1000
    panels = plot_overview(fit, loss=loss["eval_loss"], xscale="log")
    assert len({panel.get_xlim() for panel in panels}) == len({p.get_ylim() for p in panels}) == 1
    low, high = panels[0].get_ylim()
    assert low < loss["eval_loss"].min()
    assert high > loss["eval_loss"].max()
    assert panels[0].get_yscale() == "log"


def test_forty_runs_are_legible_on_a_page():
    fit = synthetic_fit(n_runs=40, n_draws=5, n_chains=1, n_steps=12, n_states=2)
    with plt.style.context(["bayesphase.style", "bayesphase.column"]):
        narrow = plot_overview(fit)
    panels = plot_overview(fit)
    for drawn in (panels, narrow):
        figure = drawn[0].figure
        assert figure.get_figheight() <= 9.5
        figure.draw_without_rendering()
        frames = [panel.get_window_extent() for panel in drawn]
        assert min(frame.width for frame in frames) / figure.dpi > 0.5
        names = [panel.texts[0].get_window_extent() for panel in drawn]
        for i, name in enumerate(names):
            assert not any(name.overlaps(other) for other in names[:i])
            assert not any(name.overlaps(frame) for frame in frames)
        assert all(panel.texts[0].get_size() >= 6 for panel in drawn)


def test_axes_can_be_given_and_bad_input_is_named(fit, loss):
    _, axes = plt.subplots(1, 2)
    assert plot_overview(fit, run=["a", "c"], ax=axes).tolist() == axes.tolist()
    with pytest.raises(ValueError, match="ax holds 2 axes, expected one for each run"):
        plot_overview(fit, ax=axes)
    with pytest.raises(ValueError, match="there is no run 'z'"):
        plot_overview(fit, run="z")
    with pytest.raises(ValueError, match="loss has 2 variables"):
        plot_overview(fit, loss=loss)
    with pytest.raises(ValueError, match="xscale is 'square'"):
        plot_overview(fit, xscale="square")
    with pytest.raises(TypeError, match="DataTree"):
        plot_overview(loss)
    assert plot_overview(fit, loss=loss["eval_loss"] * np.nan).size == 3
