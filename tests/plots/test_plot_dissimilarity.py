import numpy as np
import pytest
from matplotlib import pyplot as plt
from synthetic import synthetic_fit

from bayesphase.analysis.dissimilarity import dissimilarity
from bayesphase.plots import plot_dissimilarity


@pytest.fixture
def table(fit):
    return dissimilarity(fit, ci_prob=0.5)


def test_pairs_are_in_the_order_of_likeness(table):
    ax = plot_dissimilarity(table)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [label.get_text() for label in ax.get_xticklabels()]
    assert names == table["run"].values[np.argsort(table["rank"].values)].tolist()
    shown = ax.images[0].get_array()
    assert shown.mask.diagonal().all()
    a, c = names.index("a"), names.index("c")
    assert shown[a, c] == pytest.approx(float(table["distance"].sel(run="a", run_other="c")))


def test_medians_are_above_the_diagonal_and_intervals_below(table):
    texts = {
        (int(t.get_position()[1]), int(t.get_position()[0])): t.get_text()
        for t in plot_dissimilarity(table).texts
    }
    assert len(texts) == 6
    order = np.argsort(table["rank"].values)
    pair = {"run": order[0], "run_other": order[2]}
    low, middle, high = (
        float(table[f"distance{end}"].isel(pair)) for end in ("_lower", "", "_upper")
    )
    assert texts[0, 2] == f"{middle:.2f}"
    assert texts[2, 0] == f"{low:.2f}–{high:.2f}"
    title = plot_dissimilarity(table).get_title(loc="left")
    assert title.startswith(f"dissimilarity {table['expected'].item():.3f} [")
    assert title.endswith("50% intervals")


def test_many_runs_have_colours_alone():
    assert not plot_dissimilarity(synthetic_fit(n_runs=13, n_draws=2)).texts


def test_axes_are_kept_and_a_fit_will_do(fit):
    figure, ax = plt.subplots()
    assert plot_dissimilarity(fit, ax=ax) is ax
    assert plt.get_fignums() == [figure.number]


def test_errors(table):
    with pytest.raises(ValueError, match=r"no variable 'rank'.*bayesphase.dissimilarity"):
        plot_dissimilarity(table.drop_vars("rank"))
    with pytest.raises(TypeError, match="got a int, expected a fit"):
        plot_dissimilarity(3)
    assert plt.get_fignums() == []
