import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from bayesphase import plots
from bayesphase.plots import _style, _tables


def luminance(color):
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


@pytest.mark.parametrize("n_states", range(2, 11))
def test_phases_get_lighter_in_order_and_stay_apart_in_grey(n_states):
    colors = list(_style.phase_colors(range(n_states)).values())
    lightness = 116 * np.cbrt([luminance(c) for c in colors]) - 16
    assert (np.diff(lightness) > 5).all()
    assert lightness[-1] < 85


def test_phases_have_markers_of_their_own():
    assert len({_style.phase_marker(k) for k in range(10)}) == 10


def test_a_state_keeps_its_colour_when_earlier_ones_are_left_out():
    assert _style.phase_colors([2, 3])[3] == _style.phase_colors(range(4))[3]


@pytest.mark.parametrize(
    "color", [c for k in (3, 6, 10) for c in _style.phase_colors(range(k)).values()]
)
def test_ink_can_be_read(color):
    lights = sorted([luminance(color), luminance(_style.ink_on(color))])
    assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5


def test_style_holds_inside_its_context_only():
    before = mpl.rcParams["font.size"]
    with _style.style():
        assert mpl.rcParams["pdf.fonttype"] == 42
        assert mpl.rcParams["font.size"] == 8
    assert mpl.rcParams["font.size"] == before


def test_it_is_a_matplotlib_style():
    with plt.style.context("bayesphase.style"):
        assert mpl.rcParams["pdf.fonttype"] == 42
        assert mpl.rcParams["figure.figsize"] == [7.0, 3.0]
    with plt.style.context(["bayesphase.style", "bayesphase.column"]):
        assert mpl.rcParams["figure.figsize"][0] == 3.5
        assert mpl.rcParams["font.size"] == 8


@pytest.mark.parametrize(
    ("styles", "inches"),
    [
        ([], 7.0),
        (["bayesphase.style", "bayesphase.column"], 3.5),
        ([{"figure.figsize": (5.0, 1.0)}], 5.0),
    ],
)
def test_new_figures_are_as_wide_as_is_set(styles, inches, fit, loss, pca_table):
    with plt.style.context(styles):
        drawn = [
            plots.plot_boundaries(fit),
            plots.plot_phases(fit, loss=loss)[0],
            plots.plot_phase_probabilities(fit),
            plots.plot_pca(pca_table, fit),
            plots.plot_dwell_times(fit),
            plots.plot_state_means(fit),
            plots.plot_modes(fit)[0],
            plots.plot_overview(fit)[0],
        ]
    assert {ax.figure.get_figwidth() for ax in drawn} == {inches}


def test_fonts_are_embedded_in_pdf(fit):
    with plt.style.context("bayesphase.style"):
        figure = plots.plot_boundaries(fit).figure
        written = io.BytesIO()
        figure.savefig(written, format="pdf")
    assert b"/FontFile2" in written.getvalue()  # TrueType; type 3 fonts are drawings
    assert b"/Subtype /Type3" not in written.getvalue()


def test_svg_needs_no_font(fit):
    with plt.style.context("bayesphase.style"):
        figure = plots.plot_boundaries(fit).figure
        written = io.StringIO()
        figure.savefig(written, format="svg")
    assert "<text" not in written.getvalue()  # letters are shapes


def test_text_is_measured_as_it_is_drawn():
    figure = plt.figure(dpi=144)
    drawn = figure.text(0.1, 0.5, "0.02 [0.01, 0.04]", size=9)
    box = drawn.get_window_extent()
    assert _style.text_points("0.02 [0.01, 0.04]", 9)[0] == pytest.approx(box.width / 2, rel=0.05)


def test_blocks_are_stretches_of_equal_states():
    assert _tables.blocks(np.array([0, 0, 2, 1, 1])) == [(0, 0, 1), (2, 2, 2), (1, 3, 4)]
    assert _tables.blocks(np.array([], dtype=int)) == []


def test_a_state_is_held_until_the_next_checkpoint(fit):
    path = fit["paths"]["most_likely"].sel(run="c")
    held = _tables.held_states(path, np.array([-5, 0, 49, 50, 65, 100, 101]))
    assert held.tolist() == [-1, 0, 0, 2, 2, 2, -1]


def test_a_run_without_checkpoints_has_no_state(fit):
    path = fit["paths"]["most_likely"].sel(run="c")
    assert _tables.held_states(path * 0 - 1, np.array([0, 5])).tolist() == [-1, -1]


def test_what_is_set_while_a_figure_is_made_stays_set():
    """As by the first figure of a notebook, whose backend then turns interactive."""
    before = mpl.rcParams["interactive"], mpl.rcParams["font.size"]
    with _style.style():
        mpl.rcParams["interactive"] = not before[0]
        assert mpl.rcParams["font.size"] != before[1]
    assert mpl.rcParams["interactive"] is not before[0]
    assert mpl.rcParams["font.size"] == before[1]
    mpl.rcParams["interactive"] = before[0]
