"""Runs in progress: the report has the numbers of `forecast_intervals`, and draws them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from reporting_page import HOSTILE, Page, hand_made

import bayesphase as bp
from bayesphase.plots import _style

pytest.importorskip("bokeh")
pytest.importorskip("jinja2")

N = 41


@pytest.fixture
def table() -> xr.Dataset:
    """Two runs at 100 and 150: the first is to enter 1 and may never converge, the other has."""
    order = np.linspace(0.0, 1.0, N)
    entry = np.stack([np.zeros(N), 150 + 200 * order, np.full(N, np.nan)], axis=1)
    converged = np.stack([200 + 300 * order, np.full(N, 120.0)], axis=1)
    converged[-8:, 0] = np.inf
    return xr.Dataset(
        {
            "phase_probability": (("run", "state"), [[0.9, 0.1, 0.0], [0.25, 0.75, 0.0]]),
            "entry_step": (("sample", "run", "state"), np.stack([entry, 0 * entry], axis=1)),
            "converged_step": (("sample", "run"), converged),
        },
        coords={
            "run": [HOSTILE, "b"],
            "ahead": 10.0 * np.arange(1, 31),
            "state": [0, 1, 2],
            "now": ("run", [100.0, 150.0]),
        },
        attrs={"converged": "eval_loss < 0.1"},
    )


def rows(page: Page, table: str) -> list[list[str]]:
    return [[cell.text.strip() for cell in row] for row in page.rows(table)]


def test_tables_are_those_of_the_intervals(tmp_path: Path, table: xr.Dataset) -> None:
    path = bp.report(hand_made(3), tmp_path / "r.html", forecasts=table, ci_prob=0.5)
    text = path.read_text()
    page = Page(text)
    assert HOSTILE not in text
    assert page.all("section")[-1].attrs["id"] == "forecasts"
    low, middle, high = bp.forecast_intervals(table, ci_prob=(0.5,))["entry_step"][:, 0, 1].values
    assert rows(page, "forecasts-entries") == [
        [HOSTILE, "phase 1", f"{middle:.0f}", f"{low:.0f} to {high:.0f}"]
    ]
    assert rows(page, "forecasts-now") == [
        [HOSTILE, "100", "phase 0", "0.90", "350", "275 to 425"],
        ["b", "150", "phase 1", "0.75", "120", "120 to 120"],
    ]
    said = " ".join(e.text for e in page.all("p"))
    assert "with 3 phases to finished ones" in said
    assert "when eval_loss < 0.1." in said
    wide = Page(bp.report(hand_made(3), path, forecasts=table).read_text())
    assert rows(wide, "forecasts-now")[0][-1] == "215 to ∞"
    assert len(wide.all("div", id="figure-forecasts", role="img")) == 1


def test_without_a_forecast_or_convergence(tmp_path: Path, table: xr.Dataset) -> None:
    page = Page(bp.report(hand_made(3), tmp_path / "r.html").read_text())
    assert "forecasts" not in [e.attrs.get("id") for e in page.all("section")]
    known = table.drop_vars("converged_step").isel(run=[1]).drop_attrs()
    page = Page(bp.report(hand_made(3), tmp_path / "r.html", forecasts=known).read_text())
    assert rows(page, "forecasts-now") == [["b", "150", "phase 1", "0.75"]]
    assert not page.all("table", id="forecasts-entries")  # nothing is to come


def test_what_is_to_come_is_drawn(table: xr.Dataset) -> None:
    from bayesphase.reporting.figures.forecasts import forecasts

    summed = bp.forecast_intervals(table, ci_prob=(0.9,))
    made = forecasts(SimpleNamespace(forecasts=summed))
    drawn = [(type(r.glyph).__name__, r) for r in made.renderers]
    assert [kind for kind, _ in drawn] == ["Segment", "Segment", "Scatter", "Segment", "Scatter"]
    now, time, star, interval, point = (r.data_source.data for _, r in drawn)
    assert now["x0"] == now["x1"] == [100, 150]
    assert star == {"x": [350], "y": [-0.2]}  # the other run has converged
    assert time["x0"] == [215]
    assert time["x1"] == [made.x_range.end]  # it may never
    low, middle, high = summed["entry_step"].sel(run=HOSTILE, state=1).values
    assert point["x"] == [middle]
    assert (interval["x0"], interval["x1"]) == ([low], [high])
    assert drawn[-1][1].glyph.fill_color == _style.phase_colors([0, 1, 2])[1]
    assert [item.label.value for item in made.legend[0].items] == ["now", "converged", "phase 1"]
    assert made.x_range.end > high
    # what is too far to be seen does not stretch the axis, and has no mark
    far = forecasts(SimpleNamespace(forecasts=summed.assign(entry_step=summed["entry_step"] * 1e6)))
    assert made.x_range.end < far.x_range.end < 500
    assert far.renderers[-1].data_source.data["x"] == []


def test_wrong_forecasts_are_named(tmp_path: Path, table: xr.Dataset) -> None:
    for wrong, error, message in (
        ([1], TypeError, "expected the Dataset that bayesphase.forecast returns, got list"),
        (xr.Dataset(), ValueError, "expected the table that bayesphase.forecast returns"),
        (table, ValueError, r"forecasts are of 3 phases, and the fits have \[2\]"),
    ):
        with pytest.raises(error, match=message):
            bp.report(hand_made(2), tmp_path / "r.html", forecasts=wrong)
    assert not list(tmp_path.iterdir())
