"""Runs in progress: the report has the numbers of `forecast_intervals`, and draws them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from reporting_page import HOSTILE, Page, hand_made, hand_made_forecast, hand_made_metrics

import bayesphase as bp
from bayesphase.plots import _style

pytest.importorskip("bokeh")
pytest.importorskip("jinja2")


@pytest.fixture
def table() -> xr.Dataset:
    return hand_made_forecast()


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
        [HOSTILE, "phase 1", "1.00", f"{middle:.0f}", f"{low:.0f} to {high:.0f}"]
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

    summed = bp.forecast_intervals(table, ci_prob=(0.5, 0.9))
    made = forecasts(SimpleNamespace(forecasts=summed))
    now, wide, inner, star, *of_phase = (r.data_source.data for r in made.renderers)
    assert now["x0"] == now["x1"] == [100, 150]
    assert star == {"x": [350], "y": [-0.2], "fill": [1]}  # the other run has converged
    assert wide["x0"] == [215]
    assert wide["x1"] == [made.x_range.end]  # it may never
    assert (inner["x0"], inner["x1"]) == ([275], [425])
    low, lower, middle, upper, high = summed["entry_step"].sel(run=HOSTILE, state=1).values
    edge, line, inner_edge, inner_line, point, probability = of_phase
    assert (edge["x0"], edge["x1"]) == (line["x0"], line["x1"]) == ([low], [high])
    assert (inner_edge["x0"], inner_edge["x1"]) == ([lower], [upper])
    assert inner_line == inner_edge
    assert (point["x"], point["fill"]) == ([middle], [1])
    assert (probability["x"], probability["text"]) == ([100], ["p = 1.00"])
    assert probability["y"] == point["y"]
    assert made.renderers[-2].glyph.fill_color == _style.phase_colors([0, 1, 2])[1]
    assert [item.label.value for item in made.legend[0].items] == ["now", "converged", "phase 1"]
    assert made.x_range.end > high
    # what is too far to be seen does not stretch the axis, and has no mark
    far = forecasts(SimpleNamespace(forecasts=summed.assign(entry_step=summed["entry_step"] * 1e6)))
    assert made.x_range.end < far.x_range.end < 500
    assert far.renderers[-2].data_source.data["x"] == []


@pytest.mark.parametrize(("never", "p", "filled"), [(10, "0.76", 1), (31, "0.24", 0)])
def test_how_probable_an_entry_is(
    tmp_path: Path, table: xr.Dataset, never: int, p: str, filled: int
) -> None:
    from bayesphase.reporting.figures.forecasts import forecasts

    table["entry_step"][:never, 0, 1] = np.nan
    summed = bp.forecast_intervals(table, ci_prob=(0.9,))
    low, middle, high = summed["entry_step"].sel(run=HOSTILE, state=1).values
    made = forecasts(SimpleNamespace(forecasts=summed))
    point, probability = (r.data_source.data for r in made.renderers[-2:])
    assert (point["x"], point["fill"], probability["text"]) == ([middle], [filled], [f"p = {p}"])
    page = Page(bp.report(hand_made(3), tmp_path / "r.html", forecasts=table).read_text())
    assert rows(page, "forecasts-entries") == [
        [HOSTILE, "phase 1", p, f"{middle:.0f}", f"{low:.0f} to {high:.0f}"]
    ]


def test_narrow_intervals_are_those_of_the_page(tmp_path: Path, table: xr.Dataset) -> None:
    page = Page(
        bp.report(hand_made(3), tmp_path / "r.html", forecasts=table, ci_prob=0.2).read_text()
    )
    low, _, high = (
        bp.forecast_intervals(table, ci_prob=0.2)["converged_step"].sel(run=HOSTILE).values
    )
    assert rows(page, "forecasts-now")[0][-1] == f"{low:.0f} to {high:.0f}"
    assert not any("50% intervals" in e.text for e in page.all("figcaption"))


def test_a_fan_goes_on_from_what_was_recorded(tmp_path: Path, table: xr.Dataset) -> None:
    from bayesphase.reporting.figures.fans import fans

    metrics = hand_made_metrics().assign_coords(run=[HOSTILE, "x", "y"])
    summed = bp.forecast_intervals(table, ci_prob=(0.5, 0.9))
    made = fans(SimpleNamespace(forecasts=summed, metrics=metrics))
    assert list(made) == ["fan-0", "fan-1"]
    first, second = (
        [r.data_source.data for r in made[name].renderers] for name in ("fan-0", "fan-1")
    )
    fan = summed["eval_loss"].sel(run=HOSTILE)  # which convergence is told by
    wide, inner, middle, recorded, now = first
    past = metrics["eval_loss"].sel(run=HOSTILE, step=slice(0, 100))
    assert (recorded["x"], recorded["y"]) == (past["step"].values.tolist(), past.values.tolist())
    assert now["x"] == [100]
    for columns, name, q in (
        *((wide, "y1", 0.05), (wide, "y2", 0.95), (inner, "y1", 0.25), (inner, "y2", 0.75)),
        (middle, "y", 0.5),
    ):
        assert columns["x"] == [100, *(100 + table["ahead"].values)]
        assert columns[name] == [float(past[-1]), *fan.sel(quantile=q).values]
    assert second[-2]["x"] == []  # of it nothing was recorded
    assert second[2]["x"][0] == 160
    assert made["fan-0"].y_range.end == made["fan-1"].y_range.end
    # it ends where nothing is to come any more: the run that comes last enters 1 by 340
    soon = summed.assign(converged_step=xr.full_like(summed["converged_step"], 200.0))
    short = fans(SimpleNamespace(forecasts=soon, metrics=metrics))["fan-0"]
    assert short.renderers[2].data_source.data["x"][-1] == 340
    many = summed.isel(run=[0] * 8).assign_coords(run=list("abcdefgh"))
    assert len(fans(SimpleNamespace(forecasts=many, metrics=None))) == 6
    page = Page(bp.report(hand_made(3), tmp_path / "r.html", forecasts=table).read_text())
    assert [e.attrs["id"] for e in page.all("div", role="img")][-3:] == [
        *("figure-forecasts", "figure-fan-0", "figure-fan-1")
    ]
    assert HOSTILE in page.all("figcaption")[-2].text
    assert not fans(SimpleNamespace(forecasts=None, metrics=None))


def test_wrong_forecasts_are_named(tmp_path: Path, table: xr.Dataset) -> None:
    for wrong, error, message in (
        ([1], TypeError, "expected the Dataset that bayesphase.forecast returns, got list"),
        (xr.Dataset(), ValueError, "expected the table that bayesphase.forecast returns"),
        (table, ValueError, r"forecasts are of 3 phases, and the fits have \[2\]"),
    ):
        with pytest.raises(error, match=message):
            bp.report(hand_made(2), tmp_path / "r.html", forecasts=wrong)
    assert not list(tmp_path.iterdir())
