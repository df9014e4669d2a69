import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.colors import same_color
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from bayesphase.analysis.trajectories import training_map
from bayesphase.plots import _style, plot_training_map


def make_map(n_states, edges, *, probability=0.02, n_features=0):
    """A map of these edges (start, end), each taken by 5 to 7 runs; and of no others.

    Features change by as many tenths as their evidence is nats.
    """
    taken = np.zeros((n_states, n_states))
    for start, end in edges:
        taken[start, end] = 1
    stay = np.eye(n_states, dtype=bool)
    p = np.where(stay, 0.98, probability)
    dims = ("state", "state_next")
    drivers = {}
    if n_features:
        evidence = np.broadcast_to(np.arange(n_features) - 1.0, (*taken.shape, n_features))
        drivers = {
            name: ((*dims, "feature"), values)
            for name, values in {
                "log_odds": evidence,
                "gradient": evidence[..., ::-1],
                "change": evidence / 10,
                "change_lower": evidence / 10 - 0.12,
                "change_upper": evidence / 10 + 0.12,
            }.items()
        }
        drivers["feature"] = ("feature", [f"singular_value_{d}" for d in range(n_features)])
    return xr.Dataset(
        {
            "probability": (dims, p),
            "lower": (dims, p - 0.01),
            "upper": (dims, p + 0.02),
            "n_runs": (dims, np.where(stay, np.nan, 6.0 * taken)),
            "n_runs_lower": (dims, np.where(stay, np.nan, 5.0 * taken)),
            "n_runs_upper": (dims, np.where(stay, np.nan, 7.0 * taken)),
            "step": (dims, np.where(taken, 1500.0, np.nan)),
            "step_lower": (dims, np.where(taken, 1200.0, np.nan)),
            "step_upper": (dims, np.where(taken, 12000.0, np.nan)),
            **drivers,
        },
        coords={"state": range(n_states), "state_next": range(n_states)},
        attrs={"ci_prob": 0.9},
    )


def boxes(ax):
    return [p for p in ax.patches if isinstance(p, FancyBboxPatch)]


def arrows(ax):
    return [p for p in ax.patches if isinstance(p, FancyArrowPatch)]


def texts(ax):
    return [text.get_text().replace("\n", " ") for text in ax.texts]


def test_boxes_and_labels_say_what_the_table_says():
    ax = plot_training_map(make_map(2, [(0, 1)]))
    assert texts(ax) == [
        "phase 0 stay 0.98 [0.97, 1.00] ≈ 50 ckpts",
        "phase 1 stay 0.98 [0.97, 1.00] ≈ 50 ckpts",
        "5–7 runs step 1,500 [1,200, 12,000]",
    ]
    colors = _style.phase_colors(range(2)).values()
    assert [same_color(b.get_facecolor(), c) for b, c in zip(boxes(ax), colors, strict=True)]


@pytest.mark.parametrize("make", [training_map, lambda fit: fit])
def test_labels_tell_of_how_many_runs(fit, make):
    ax = plot_training_map(make(fit))
    # b goes from 0 to 1 in one draw of four, besides a
    # a arrives at 40; b, where it goes, at 60; a goes on at 70 to 90; c skips state 1
    assert texts(ax)[3:] == [
        "1–2 of 3 runs step 40 [40, 60]",
        "1 of 3 runs step 80 [70, 90]",
        "1 of 3 runs, step 50",
    ]


def test_boxes_stand_in_a_row_and_arrows_join_them():
    edges = [(0, 1), (0, 2), (2, 0), (2, 1)]
    ax = plot_training_map(make_map(3, edges))
    x = [box.get_x() + box.get_width() / 2 for box in boxes(ax)]
    assert x == sorted(x)
    ends = []
    for arrow in arrows(ax):
        vertices = arrow._path_original.vertices
        near = [int(np.argmin(np.abs(np.array(x) - v[0]))) for v in vertices[[0, -1]]]
        ends.append(tuple(near))
        height = vertices[:, 1].mean()
        assert np.sign(round(height, 6)) == (
            0 if near == [0, 1] else 1 if near[1] > near[0] else -1
        )
    assert sorted(ends) == sorted(edges)


def test_more_runs_make_a_wider_arrow():
    table = make_map(3, [(0, 1), (1, 2)])
    table["n_runs"][1, 2] = 2
    wide, narrow = arrows(plot_training_map(table))
    assert wide.get_linewidth() > narrow.get_linewidth()


def test_rare_edges_are_left_out(fit):
    table = make_map(3, [(0, 1), (1, 2), (2, 0)])
    table["n_runs"][1, 2] = 0.4
    table["probability"][2, 0] = 1e-4
    assert len(arrows(plot_training_map(table))) == 2
    assert len(arrows(plot_training_map(table, min_runs=0.3))) == 3
    assert len(arrows(plot_training_map(table, min_probability=0.01))) == 1
    assert not arrows(plot_training_map(table, min_runs=100))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.5, "0.50"), (0.995, "0.995"), (0.99999, ">0.999"), (1e-5, "<0.001"), (0.0, "0.000")],
)
def test_probabilities_are_told_from_0_and_1(value, shown):
    table = make_map(2, [(0, 1)])
    table["probability"][0, 0] = value
    assert texts(plot_training_map(table))[0].startswith(f"phase 0 stay {shown} [")


def test_labels_name_the_strongest_features_and_their_changes():
    table = make_map(2, [(0, 1)], n_features=5)
    label = texts(plot_training_map(table, n_features=2))[2]
    assert label.split("] ", 1)[1] == (
        "singular value 4 +0.30 [+0.18, +0.42] singular value 3 +0.20 [+0.08, +0.32]"
    )
    # evidence against a switch is none that drives it
    assert "singular value 1" not in texts(plot_training_map(table, n_features=5))[2]
    # of the gradient, the magnitude counts
    by_gradient = texts(plot_training_map(table, n_features=2, driver="gradient"))[2]
    assert "singular value 0 −0.10 [−0.22, +0.02] singular value 1" in by_gradient
    assert "singular" not in texts(plot_training_map(table, n_features=0))[2]


def test_what_labels_are_is_said_on_figures_of_our_own():
    table = make_map(2, [(0, 1)], n_features=3)
    said = plot_training_map(table).get_title(loc="left")
    assert "features that drive the switch and their change; 90% intervals" in said
    assert "features" not in plot_training_map(table, n_features=0).get_title(loc="left")
    _, ax = plt.subplots()
    assert plot_training_map(table, ax=ax).get_title(loc="left") == ""


def test_a_phase_that_is_never_left_has_no_dwell():
    table = make_map(2, [(0, 1)])
    table["probability"][1, 1] = 1
    assert texts(plot_training_map(table))[1].endswith("never left")


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n_states=st.integers(1, 8), width=st.sampled_from([3.5, 7.0]))
def test_no_text_covers_another_or_leaves_the_axes(data, n_states, width):
    pairs = [(i, j) for i in range(n_states) for j in range(n_states) if i != j]
    n_features = data.draw(st.integers(0, 4))
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    # finer dots than usual, for letters of a few dots are wider than they should be
    figure, ax = plt.subplots(figsize=(width, 3), layout="constrained", dpi=300)
    plot_training_map(make_map(n_states, edges, n_features=n_features), ax=ax)
    figure.draw_without_rendering()
    drawn = [text.get_window_extent() for text in ax.texts]
    plt.close(figure)
    assert len(drawn) == n_states + len(edges)
    assert not any(a.overlaps(b) for i, a in enumerate(drawn) for b in drawn[:i])
    frame = ax.get_window_extent()
    assert all(frame.contains(b.x0, b.y0) and frame.contains(b.x1, b.y1) for b in drawn)


@settings(max_examples=20, deadline=None)
@given(data=st.data(), n_states=st.integers(3, 7))
def test_no_arrow_passes_through_a_label(data, n_states):
    pairs = [(i, j) for i in range(n_states) for j in range(n_states) if i != j]
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True, min_size=1))
    ax = plot_training_map(make_map(n_states, edges, n_features=4))
    figure = ax.figure
    figure.draw_without_rendering()
    for arrow in arrows(ax):
        shown = arrow._path_original.transformed(ax.transData)
        for text in ax.texts[n_states:]:
            box = text.get_window_extent()
            box = box.from_extents(box.x0 + 1, box.y0 + 1, box.x1 - 1, box.y1 - 1)
            assert not shown.intersects_bbox(box, filled=False), text.get_text()
    plt.close(figure)


def test_arcs_that_overlap_are_at_heights_of_their_own_below_their_labels():
    """Also where they come back: the one that begins further on its way is further out."""
    for edges in ([(0, 2), (1, 3)], [(3, 1), (2, 0)]):
        ax = plot_training_map(make_map(4, edges))
        heights = [np.abs(arrow._path_original.vertices[:, 1]).max() for arrow in arrows(ax)]
        starts = [round(arrow._path_original.vertices[0, 0]) for arrow in arrows(ax)]
        forward = edges[0][1] > edges[0][0]
        further = int(np.argmax(starts) if forward else np.argmin(starts))
        assert heights[further] > heights[1 - further]
        labels = [text.get_position() for text in ax.texts[4:]]
        assert len({round(y, 6) for _, y in labels}) == 1
        pitch = boxes(ax)[1].get_x() - boxes(ax)[0].get_x()
        centre = boxes(ax)[0].get_x() + boxes(ax)[0].get_width() / 2
        near = sorted(round((x - centre) / pitch, 6) for x, _ in labels)
        assert near == ([0.5, 1.5] if forward else [1.5, 2.5])


def test_text_fits_into_its_box():
    ax = plot_training_map(make_map(4, [(0, 1), (1, 3)]))
    ax.figure.draw_without_rendering()
    for box, text in zip(boxes(ax), ax.texts, strict=False):
        inner, outer = text.get_window_extent(), box.get_window_extent()
        assert outer.contains(inner.x0, inner.y0)
        assert outer.contains(inner.x1, inner.y1)


def test_given_axes_are_drawn_on_and_returned(fit):
    figure, ax = plt.subplots()
    assert plot_training_map(training_map(fit), ax=ax) is ax
    assert plt.get_fignums() == [figure.number]


def test_errors(fit):
    table = training_map(fit)
    with pytest.raises(ValueError, match=r"no variable 'n_runs'.*bayesphase.training_map"):
        plot_training_map(table.drop_vars("n_runs"))
    with pytest.raises(ValueError, match=r"must have dims \('state', 'state_next'\)"):
        plot_training_map(table.isel(state=0))
    with pytest.raises(
        ValueError, match=r"ci_prob is 0.5, but the table was made with ci_prob=0.9"
    ):
        plot_training_map(table, ci_prob=0.5)
    with pytest.raises(ValueError, match=r"driver must be one of .*, got 'size'"):
        plot_training_map(table, driver="size")
    with pytest.raises(ValueError, match="n_features must not be negative, got -1"):
        plot_training_map(table, n_features=-1)
    with pytest.raises(TypeError, match="got a str, expected a fit"):
        plot_training_map("fit")
    assert plt.get_fignums() == []
