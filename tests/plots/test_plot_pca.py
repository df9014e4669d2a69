import numpy as np
import pytest
import xarray as xr
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
    assert ax.get_xlabel() == "PC1 (61.3% of the variance)"
    assert ax.get_ylabel() == "PC2 (25.0% of the variance)"


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


@pytest.fixture
def turns():
    nan = np.nan
    columns = {
        "step": [[50, 90], [nan, nan], [30, nan]],
        "lower": [[40, 80], [nan, nan], [20, nan]],
        "upper": [[60, 90], [nan, nan], [50, nan]],
    }
    return xr.Dataset(
        {name: (("run", "turn"), np.array(values, float)) for name, values in columns.items()},
        coords={"run": ["a", "b", "c"], "turn": [0, 1]},
    )


def rings(ax):
    return [line.get_xydata()[0] for line in ax.lines if line.get_markersize() == 9]


def test_turning_points_are_ringed_beside_the_boundaries(fit, pca_table, turns):
    ax = plot_pca(pca_table, fit, run="a", turning_points=turns)
    at = pca_table["scores"].sel(run="a", step=[50, 90]).values[:, :2]
    assert np.array_equal(rings(ax), at)
    thick = [line.get_xydata() for line in ax.lines if line.get_linewidth() == 4]
    assert np.array_equal(thick[0], pca_table["scores"].sel(run="a", step=[40, 50, 60])[:, :2])
    written = [text.get_text() for text in ax.texts]
    assert written == ["40", "80", "turn 50 [40, 60]", "turn 90 [80, 90]"]
    assert "turning point" in [text.get_text() for text in ax.get_legend().get_texts()]
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_without_a_fit_the_path_alone_is_drawn(pca_table, turns):
    ax = plot_pca(pca_table, turning_points=turns)
    paths = [line.get_xydata() for line in ax.lines if line.get_marker() == "."]
    assert np.array_equal(paths, pca_table["scores"].values[..., :2])
    assert len(rings(ax)) == 3
    assert [text.get_text() for text in ax.texts] == [
        "a 50 [40, 60]",
        "a 90 [80, 90]",
        "c 30 [20, 50]",
    ]
    assert not ax.collections
    assert not plot_pca(pca_table).texts


def test_turning_points_of_other_things_are_named(fit, pca_table, turns):
    with pytest.raises(TypeError, match=r"got a list, expected .* bayesphase.turning_points"):
        plot_pca(pca_table, fit, turning_points=[50])
    with pytest.raises(ValueError, match="no variable 'upper' with dims"):
        plot_pca(pca_table, fit, turning_points=turns.drop_vars("upper"))
    with pytest.raises(ValueError, match=r"there is no run 'b'; the runs are \['a', 'c'\]"):
        plot_pca(pca_table, fit, turning_points=turns.sel(run=["a", "c"]))


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
