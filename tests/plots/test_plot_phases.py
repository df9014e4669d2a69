import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.colors import same_color, to_rgba
from synthetic import fit_from_paths, synthetic_fit

from bayesphase.analysis.phases import phase_probabilities, switches
from bayesphase.plots import _style, plot_phases

COLORS = _style.phase_colors(range(3))


def dashed(ax):
    """x of the lines across the axes at the boundaries."""
    return [
        line.get_xdata()[0] for line in ax.lines if line.get_transform() == ax.get_xaxis_transform()
    ]


def intervals(ax):
    return [tuple(line.get_xdata()) for line in ax.lines if line.get_marker() == "|"]


def curves(ax):
    return [line for line in ax.lines if line.get_transform() == ax.transData]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_boundaries_are_where_the_table_has_them(fit, loss):
    ax = plot_phases(fit, loss=loss, run="a", ci_prob=0.8)
    table = switches(fit, ci_prob=0.8).sel(run="a")
    assert dashed(ax) == table["step"].values.tolist() == [40, 80]
    expected = list(zip(table["lower"].values, table["upper"].values, strict=True))
    assert intervals(ax) == expected == [(40, 40), (70, 90)]
    assert {"40", "80", "a"} <= set(texts(ax))


def test_a_return_to_a_phase_has_a_boundary_too():
    fit = fit_from_paths(np.repeat([[[0, 1, 0]]], [10, 10, 20], axis=2), steps=np.arange(40))
    assert dashed(plot_phases(fit, run="seed0")) == [10, 20]


def test_a_phase_that_is_probably_not_visited_has_no_boundary(fit, loss):
    ax = plot_phases(fit, loss=loss, run="b")
    assert dashed(ax) == []


def test_curves_have_the_colour_of_the_phase_and_no_gaps(fit, loss):
    ax = plot_phases(fit, loss=loss["train_loss"], run="a")
    pieces = curves(ax)
    assert [tuple(p.get_xdata()[[0, -1]]) for p in pieces] == [(0, 40), (40, 80), (80, 110)]
    assert [p.get_color() for p in pieces] == list(COLORS.values())
    drawn = np.unique(np.concatenate([p.get_ydata() for p in pieces]))
    assert np.array_equal(drawn, np.unique(loss["train_loss"].sel(run="a")))


def test_each_variable_has_its_own_line_style(fit, loss):
    ax = plot_phases(fit, loss=loss, run="b")
    assert len(curves(ax)) == 2
    assert len({line.get_linestyle() for line in curves(ax)}) == 2
    labels = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert labels == ["train loss", "eval loss", "phase 0", "phase 1", "phase 2"]


def test_a_loss_outside_the_checkpoints_belongs_to_no_phase(fit, loss):
    late = loss["train_loss"].assign_coords(step=loss["step"] + 55)
    pieces = curves(plot_phases(fit, loss=late, run="a"))
    assert [p.get_color() for p in pieces] == [COLORS[1], COLORS[2], _style.FAINT]
    assert pieces[0].get_xdata()[0] == 55
    assert pieces[-1].get_xdata()[0] == 115


def test_bands_are_the_probabilities(fit, loss):
    ax = plot_phases(fit, loss=loss, run="a")
    bands = [c for c in ax.collections if c.get_transform() == ax.get_xaxis_transform()]
    at = phase_probabilities(fit).sel(run="a", step=80)
    assert at.values.tolist() == [0, 0.25, 0.75]
    for band, low, top in zip(bands, [0, 0, 0.25], [0, 0.25, 1], strict=True):
        vertices = band.get_paths()[0].vertices
        # "post": the value of a checkpoint begins at it and is held
        here = vertices[(vertices[:, 0] == 90)][:, 1]
        assert {low, top} <= set(here.tolist())
    assert [
        same_color(b.get_facecolor()[0], to_rgba(c, 0.2))
        for b, c in zip(bands, COLORS.values(), strict=True)
    ]


def test_strip_shows_the_most_likely_path(fit, loss):
    ax = plot_phases(fit, loss=loss, run="c")
    strips = [c for c in ax.collections if not c.get_clip_on()]
    assert [s.get_facecolor()[0].tolist() for s in strips] == [
        list(to_rgba(COLORS[k])) for k in (0, 2)
    ]
    ends = [(p.vertices[:, 0].min(), p.vertices[:, 0].max()) for s in strips for p in s.get_paths()]
    assert ends == [(0, 50), (50, 100)]
    assert {"0", "2"} <= set(texts(ax))


def test_scales(fit, loss):
    assert plot_phases(fit, loss=loss["train_loss"], run="a").get_yscale() == "log"
    assert plot_phases(fit, loss=loss["eval_loss"], run="a").get_yscale() == "linear"
    assert plot_phases(fit, loss=loss["train_loss"] - 0.5, run="a").get_yscale() == "linear"
    ax = plot_phases(fit, loss=loss, run="a", xscale="log")
    assert ax.get_xscale() == "symlog"
    assert ax.get_xlim() == (0, 110)


def test_labels(fit, loss):
    ax = plot_phases(fit, loss=loss, run="a")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("optimiser steps", "loss (nats)")
    assert plot_phases(fit, loss=loss["eval_loss"], run="a").get_ylabel() == "eval loss (nats)"
    mixed = loss.rename(eval_loss="eval_accuracy")
    assert plot_phases(fit, loss=mixed, run="a").get_ylabel() == "value (nats)"


def test_features_are_drawn_without_a_loss(fit):
    ax = plot_phases(fit, run="a")
    assert ax.get_ylabel() == "feature"
    drawn = np.concatenate([line.get_ydata()[:-1] for line in curves(ax)])
    expected = fit["observed_data"]["features"].sel(run="a").values[:-1, 0]
    assert np.array_equal(drawn, expected)


def test_one_panel_for_each_run(fit, loss):
    panels = plot_phases(fit, loss=loss)
    assert isinstance(panels, np.ndarray)
    assert [texts(panel)[-1] for panel in panels] == ["a", "b", "c"]
    assert len({panel.get_xlim() + panel.get_ylim() for panel in panels}) == 1
    assert [bool(panel.get_xlabel()) for panel in panels] == [False, True, True]
    assert len(panels[0].figure.axes) == 3
    chosen = plot_phases(fit, loss=loss, run=["c", "a"])
    assert [texts(panel)[-1] for panel in chosen] == ["c", "a"]


def test_given_axes_are_drawn_on_and_returned(fit, loss):
    figure, axes = plt.subplots(1, 2)
    returned = plot_phases(fit, loss=loss, run=["a", "b"], ax=axes)
    assert list(returned) == list(axes)
    assert plt.get_fignums() == [figure.number]
    single = plt.figure().add_subplot()
    assert plot_phases(fit, loss=loss, run="a", ax=single) is single
    assert single.get_legend() is not None
    with pytest.raises(ValueError, match=r"ax holds 2 axes, expected one for each run of \['a'\]"):
        plot_phases(fit, loss=loss, run="a", ax=axes)


def test_no_more_than_twelve_runs_are_drawn():
    fit = synthetic_fit(n_chains=1, n_draws=2, n_runs=13, n_steps=8)
    with pytest.warns(UserWarning, match=r"13 runs are too many.*drawing the first 12"):
        assert len(plot_phases(fit)) == 12


def test_step_labels_do_not_overlap():
    draws = [np.repeat(range(5), [t, 1, 1, 1, 37 - t]) for t in range(18, 22)]
    fit = fit_from_paths(np.array(draws)[:, None], steps=10_000 * np.arange(40))
    ax = plot_phases(fit, run="seed0", ax=plt.figure(figsize=(3.5, 2.5)).add_subplot())
    ax.figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in ax.texts if "," in t.get_text()]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert max(box.x1 for box in boxes) <= ax.get_window_extent().x1 + 1


def test_too_many_switches_are_counted_and_leave_room_for_the_curves():
    paths = np.repeat([[np.arange(40) % 2, np.arange(40) >= 20]], 5, axis=2).astype(int)
    fit = fit_from_paths(paths, steps=10 * np.arange(200))
    many, one = plot_phases(fit)
    assert len(dashed(many)) == 39
    assert not intervals(many)
    assert any(text.startswith("39 switches") for text in texts(many))
    assert intervals(one) == [(1000, 1000)]
    many.figure.draw_without_rendering()
    inside = many.figure.bbox
    assert all(inside.contains(*t.get_window_extent().p1) for t in many.texts if t.get_text())
    assert many.get_window_extent().height > 0.5 * inside.height / 2


def test_a_run_without_checkpoints_is_an_empty_panel():
    paths = np.zeros((2, 2, 5), int)
    paths[:, 1] = -1
    fit = fit_from_paths(paths, n_states=2)
    panel = plot_phases(fit)[1]
    assert not curves(panel)
    panel.figure.draw_without_rendering()


def test_errors(fit, loss):
    def refused(error, match, **options):
        with pytest.raises(error, match=match):
            plot_phases(fit, **{"loss": loss, **options})

    refused(ValueError, r"there is no run 'z'; the runs are \['a', 'b', 'c'\]", run="z")
    refused(ValueError, "run is empty", run=[])
    refused(ValueError, r"there is no run 'a'; the runs are \['b'\]", loss=loss.sel(run=["b"]))
    refused(
        ValueError, r"loss 'train_loss' must have dims \('run', 'step'\)", loss=loss.mean("run")
    )
    wide = loss.assign(l1_norm=loss["train_loss"].expand_dims(parameter=["w"], axis=2))
    refused(
        ValueError,
        r"loss 'l1_norm' has dims run, step, parameter, expected run, step: choose some, as in "
        r'loss=metrics\[\["train_loss", "eval_loss"\]\]',
        loss=wide,
    )
    refused(
        ValueError, "empty, got step: 12, c: 1$", loss=wide.mean("run").expand_dims(c=1, axis=1)
    )
    refused(ValueError, "loss has 0 variables", loss=xr.Dataset())
    refused(TypeError, "loss is a list", loss=[1, 2])
    refused(ValueError, "xscale is 'sqrt', expected 'linear' or 'log'", xscale="sqrt")
    refused(ValueError, "ci_prob", ci_prob=90)
    with pytest.raises(TypeError, match=r"DataTree that bayesphase.fit returns, got Dataset"):
        plot_phases(loss)
    assert plt.get_fignums() == []
