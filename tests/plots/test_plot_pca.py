import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import same_color

from bayesphase.analysis.phases import boundaries
from bayesphase.plots import _style, plot_pca

COLORS = _style.phase_colors(range(3))


def points(ax):
    """x of the checkpoints drawn, by state and whether they are hollow."""
    found = {}
    for collection in ax.collections:
        x = collection.get_offsets()[:, 0]
        if len(x):
            state = next(
                k for k, c in COLORS.items() if same_color(collection.get_edgecolor()[0], c)
            )
            hollow = same_color(collection.get_facecolor()[0], "white")
            found.setdefault((state, hollow), []).extend(np.round(x, 6).tolist())
    return found


def test_checkpoints_have_the_colour_of_their_phase_and_are_hollow_if_unsure(fit, pca_table):
    ax = plot_pca(pca_table, fit, run="a")
    x = np.round(pca_table["scores"].sel(run="a", component=1).values, 6).tolist()
    # In state 2 from 70, 80, 80 or 90 on: the checkpoints at 70 and 80 are unsure.
    assert points(ax) == {
        (0, False): x[:4],
        (1, False): x[4:7],
        (1, True): x[7:8],
        (2, True): x[8:9],
        (2, False): x[9:],
    }


def test_ends_and_boundaries_are_marked(fit, pca_table):
    ax = plot_pca(pca_table, fit, run="a")
    path, start, end, *marks = ax.lines
    xy = pca_table["scores"].sel(run="a").values[:, :2]
    assert np.array_equal(path.get_xydata(), xy)
    assert np.array_equal(start.get_xydata(), xy[:1])
    assert np.array_equal(end.get_xydata(), xy[-1:])
    steps = boundaries(fit)["first_step"].sel(run="a", state=[1, 2]).values
    at = pca_table["scores"].sel(run="a", step=steps).values[:, :2]
    assert np.array_equal(np.concatenate([m.get_xydata() for m in marks]), at)
    assert [m.get_color() for m in marks] == [COLORS[1], COLORS[2]]
    assert [m.get_marker() for m in marks] == [_style.phase_marker(1), _style.phase_marker(2)]
    assert [text.get_text() for text in ax.texts] == ["40", "80"]


def test_step_labels_cover_neither_each_other_nor_leave_the_axes(fit, pca_table):
    ax = plot_pca(pca_table, fit, run="a", ax=plt.figure(figsize=(3, 2)).add_subplot())
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not boxes[0].overlaps(boxes[1])
    frame = ax.get_window_extent()
    assert all(frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1) for box in boxes)


def test_axes_tell_the_explained_variance(fit, pca_table):
    ax = plot_pca(pca_table, fit)
    assert ax.get_xlabel() == "PC1 (61% of the variance)"
    assert ax.get_ylabel() == "PC2 (25% of the variance)"


def test_all_runs_are_drawn_without_step_labels(fit, pca_table):
    ax = plot_pca(pca_table, fit)
    drawn = sum(len(x) for x in points(ax).values())
    assert drawn == 12 + 12 + 11  # the last checkpoint of "c" is missing: it is in no phase
    assert not ax.texts


def test_given_axes_are_drawn_on_and_returned(fit, pca_table):
    figure, ax = plt.subplots()
    assert plot_pca(pca_table, fit, run=["a", "c"], ax=ax) is ax
    assert plt.get_fignums() == [figure.number]


def test_a_run_without_scores_is_left_out(fit, pca_table):
    lost = pca_table.assign(scores=pca_table["scores"].where(pca_table["run"] != "a"))
    ax = plot_pca(lost, fit, run="a")
    assert not ax.lines
    assert not ax.texts


def test_errors(fit, pca_table):
    with pytest.raises(ValueError, match=r"there is no run 'z'; the runs are \['a', 'b', 'c'\]"):
        plot_pca(pca_table, fit, run="z")
    with pytest.raises(ValueError, match=r"there is no run 'a'; the runs are \['b', 'c'\]"):
        plot_pca(pca_table.sel(run=["b", "c"]), fit)
    with pytest.raises(ValueError, match=r"no variable 'scores'.*bayesphase.pca"):
        plot_pca(pca_table.drop_vars("scores"), fit)
    with pytest.raises(ValueError, match="has 1 component, expected 2 or more"):
        plot_pca(pca_table.isel(component=[0]), fit)
    with pytest.raises(TypeError, match="pca_table is a DataArray"):
        plot_pca(pca_table["scores"], fit)
    with pytest.raises(TypeError, match="DataTree"):
        plot_pca(pca_table, pca_table)
    assert plt.get_fignums() == []
