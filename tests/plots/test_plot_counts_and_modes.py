"""Figures of how many states there are, and of modes, show the values of their tables."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib import pyplot as plt

from bayesphase.plots import (
    plot_mode_weights,
    plot_modes,
    plot_state_counts,
    plot_subspace_overlap,
)


@pytest.fixture
def counts():
    return xr.Dataset(
        {
            "probability": ("n_states", [np.nan, 0.25, 0.75]),
            "mcse": ("n_states", [np.nan, 0.1, 0.1]),
            "probability_wider": ("n_states", [np.nan, 0.6, np.nan]),
            "mcse_wider": ("n_states", [np.nan, 0.0, np.nan]),
            "visited_probability": ("n_states", [0.1, 0.2, 0.7]),
        },
        coords={"n_states": [1, 2, 3]},
    )


@pytest.fixture
def comparison():
    return pd.DataFrame({"weight": [0.9, 0.1]}, index=["3", "2"])


def bars(ax):
    """Heights by number of states, in the order of their sources."""
    found = {}
    for bar in sorted(ax.patches, key=lambda bar: bar.get_x()):
        found.setdefault(round(bar.get_x() + bar.get_width() / 2), []).append(bar.get_height())
    return found


def test_a_table_that_is_not_to_be_believed_says_so_on_its_figure(counts):
    assert plot_state_counts(counts).get_xlabel() == "number of states"
    doubted = plot_state_counts(counts.assign_attrs(believable=False))
    assert doubted.get_xlabel().startswith("number of states\nnot to be believed yet")


def test_bars_are_the_three_sources(counts, comparison):
    ax = plot_state_counts(counts, comparison=comparison)
    assert bars(ax) == {1: [0.1], 2: [0.25, 0.6, 0.2, 0.1], 3: [0.75, 0.7, 0.9]}
    assert [text.get_text() for text in ax.texts] == ["?"]  # 3 under wider priors is not known
    names = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert names == [
        "evidence",
        "evidence, wider priors",
        "visited in the largest fit",
        "stacking weight",
    ]
    whiskers = [tuple(s[:, 1]) for c in ax.collections for s in c.get_segments()]
    assert whiskers == [pytest.approx((0.05, 0.45)), pytest.approx((0.55, 0.95))]
    spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_variants_have_panels(counts):
    table = xr.concat([counts, 1 - counts], dim="variant").assign_coords(variant=["", "wide"])
    panels = plot_state_counts(table, comparison=pd.DataFrame({"weight": [1.0]}, index=["wide 2"]))
    assert [panel.get_title(loc="left") for panel in panels] == ["default", "wide"]
    assert bars(panels[1])[2] == [0.75, 0.4, 0.8, 1.0]
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="ax holds 1 axes, expected one for each variant"):
        plot_state_counts(table, ax=ax)


def test_counts_of_others_are_named(counts, comparison):
    with pytest.raises(
        TypeError, match=r"got a dict, expected the Dataset that bayesphase.state_c"
    ):
        plot_state_counts({})
    with pytest.raises(ValueError, match="no variable 'visited_probability'"):
        plot_state_counts(counts.drop_vars("visited_probability"))
    with pytest.raises(ValueError, match="comparison has a fit '7', expected those of the table"):
        plot_state_counts(counts, comparison=comparison.rename({"3": "7"}))
    with pytest.raises(ValueError, match="comparison has no column 'weight', it is Dataset"):
        plot_state_counts(counts, comparison=counts)
    assert plt.get_fignums() == []


def with_searches(fit, below, modes):
    fit["restarts"] = xr.Dataset(
        {"log_density": ("restart", 100.0 - np.array(below)), "mode": ("restart", modes)}
    )
    return fit


def test_searches_are_as_deep_as_their_modes(fit):
    searches, _ = plot_modes(with_searches(fit, [0, 0, 3000, 5], [0, 0, 2, 1]))
    found = {}
    for line in searches.lines:
        mode = round(line.get_xdata()[0])
        found[mode] = (sorted(line.get_ydata()), line.get_markerfacecolor() != "white")
    assert found == {0: ([0, 0], True), 1: ([5], False), 2: ([3000], False)}
    assert searches.get_ylim()[0] > 3000
    assert searches.yaxis_inverted()
    assert min(searches.get_yticks()) == 0


def test_a_single_mode_and_one_that_is_close(fit):
    searches, _ = plot_modes(with_searches(fit, [0.0, 0.1], [0, 1]))
    assert searches.get_yscale() == "linear"
    assert searches.get_ylim()[0] >= 1


def test_ambiguity_is_a_share_of_draws(fit):
    stats = fit["sample_stats"].to_dataset()
    stats["label_ambiguity"] = (("chain", "draw"), [[0.1, 0.9, 0.2, 0.2]])
    fit["sample_stats"] = stats
    _, ambiguity = plot_modes(fit)
    (line,) = ambiguity.lines
    above = dict(zip(*line.get_data(), strict=True))
    assert above[0.9] == 0.25  # one draw in four
    assert above[0.1] == 1.0
    assert ambiguity.get_xlabel() == "label ambiguity"


def test_weights_of_modes(fit):
    table = xr.Dataset(
        {
            "probability": ("mode", [0.7, 0.3, np.nan]),
            "mcse": ("mode", [0.05, 0.05, np.nan]),
            "stacking_weight": ("mode", [0.6, 0.4, np.nan]),
        },
        coords={"mode": ["0", "1", "far"]},
    )
    ax = plot_mode_weights(table)
    assert [bar.get_height() for bar in ax.patches] == [0.7, 0.3, 0.6, 0.4]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "1", "far"]
    assert [text.get_text() for text in ax.texts] == ["?", "?"]
    with pytest.raises(ValueError, match=r"pass what bayesphase.mode_weights returns"):
        plot_mode_weights(table.drop_vars("mcse"))
    with pytest.raises(TypeError, match=r"expected the DataTree that bayesphase.fit returns"):
        plot_modes(table)
    with pytest.raises(ValueError, match="no variable 'log_density' in a group 'restarts'"):
        plot_modes(fit.drop_nodes("restarts"))
    with pytest.raises(ValueError, match="ax holds 1 axes, expected two"):
        plot_modes(fit, ax=ax)


def test_overlaps_are_written_in_their_cells():
    table = xr.Dataset(
        {
            "rmsip": (("run", "run_other"), [[1.0, 0.25], [0.25, np.nan]]),
            "rmsip_joint": ("run", [0.5, 0.75]),
            "rmsip_random": ((), 0.1),
        },
        coords={"run": ["a", "b"], "run_other": ["a", "b"]},
        attrs={"n_components": 3},
    )
    ax = plot_subspace_overlap(table)
    written = {(*map(int, text.get_position()),): text.get_text() for text in ax.texts}
    assert written == {
        (0, 0): "1.00",
        (1, 0): "0.25",
        (2, 0): "0.50",
        (0, 1): "0.25",
        (2, 1): "0.75",
    }
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b", "all runs"]
    assert ax.get_title(loc="left") == "3 components; random subspaces: 0.10"
    with pytest.raises(ValueError, match="no variable 'rmsip'"):
        plot_subspace_overlap(xr.Dataset())
