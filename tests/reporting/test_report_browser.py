"""The page in a real browser: what is pointed at, chosen, sorted; widths, themes and keys."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from reporting_page import RUNS, STEPS

webdriver = pytest.importorskip("selenium.webdriver")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="Chromium and its chromedriver are not installed"
)


class Browser:
    """A headless browser with the page in it, loaded once."""

    def __init__(self, page: Path) -> None:
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.size(1200, 900)
        self.prefer("light")
        self.driver.get(page.as_uri())
        self.until(lambda: self.js("return document.documentElement.dataset.ready === 'yes'"))
        self.settle()

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, holds: Callable[[], Any], *, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "the page did not get there"
            time.sleep(0.05)

    def settle(self) -> None:
        """Wait for two frames, in the first of which what was pointed at is marked."""
        self.driver.execute_async_script(
            "const done = arguments[0];"
            "requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 30)));"
        )

    def size(self, width: int, height: int) -> None:
        settings = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", settings)

    def prefer(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def find(self, id_: str) -> Any:
        return self.driver.find_element("id", id_)

    def columns(self, name: str) -> dict[str, list]:
        """Return the columns of a source of a figure."""
        script = (
            "const data = Bokeh.documents.at(-1).get_model_by_name(arguments[0]).data;"
            "return Object.fromEntries("
            "  Object.entries(data).map(([k, v]) => [k, Array.from(v, (x) => "
            "    (Array.isArray(x) ? x : Number.isNaN(x) ? null : x))]));"
        )
        return self.js(script, name)

    def point_at(self, figure: str, x: float, y: float) -> None:
        """Move the mouse to a place in a figure, in the numbers of its axes."""
        place = self.js(
            "const model = Bokeh.documents.at(-1).get_model_by_name(arguments[0]);"
            "const view = Bokeh.index.get_by_id(model.id);"
            "view.el.scrollIntoView({ block: 'center' });"
            "const box = view.el.getBoundingClientRect();"
            "return [box.left + view.frame.x_scale.compute(arguments[1]),"
            "        box.top + view.frame.y_scale.compute(arguments[2])];",
            figure,
            x,
            y,
        )
        for kind, dx in (("mouseMoved", -3), ("mouseMoved", 0)):
            where = {"type": kind, "x": place[0] + dx, "y": place[1]}
            self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", where)
        self.settle()

    def press(self, element: Any, key: str) -> None:
        from selenium.webdriver.common.keys import Keys

        element.send_keys(getattr(Keys, key))
        self.settle()

    def choose(self, id_: str, number: int) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.find(id_)).select_by_index(number)
        self.settle()


@pytest.fixture(scope="module")
def browser(written: Path) -> Iterator[Browser]:
    browser = Browser(written)
    yield browser
    browser.driver.quit()


@pytest.fixture(autouse=True)
def _from_the_start(browser: Browser) -> None:
    browser.size(1200, 900)
    browser.choose("choose-fit", 1)
    browser.choose("choose-run", 0)


def marked(browser: Browser) -> dict[str, Any]:
    """Say what is marked in each of the linked figures."""
    return {
        "loss": browser.columns("loss:mark"),
        "accuracy": browser.columns("accuracy:mark"),
        "probability": browser.columns("probability:cursor")["x"],
        "overview": browser.columns("overview:cursor")["x"],
        "pca": browser.columns("pca:mark"),
        "slider": int(browser.find("choose-checkpoint").get_attribute("value")),
    }


def check_marked(browser: Browser, i: int) -> None:
    """Compare with the numbers that are in the page for this checkpoint of the first run."""
    run = browser.js("return JSON.parse(document.getElementById('data').textContent).runs[0]")
    step, found = int(STEPS[i]), marked(browser)
    losses = [curve["values"][i] for curve in run["curves"]["loss"]]
    assert found["loss"] == {"x": [step, step], "y": losses}
    assert found["accuracy"] == {"x": [step], "y": [run["curves"]["accuracy"][0]["values"][i]]}
    assert found["probability"] == found["overview"] == [step]
    assert found["pca"] == {"x": [run["scores"][0][i]], "y": [run["scores"][1][i]]}
    assert found["slider"] == i
    assert browser.find("readout").text.startswith(f"step {step} · epoch {step // 2} · phase ")


def test_pointing_at_a_checkpoint_marks_it_everywhere(browser: Browser) -> None:
    browser.point_at("loss", 152.0, 0.1)
    check_marked(browser, 15)
    browser.point_at("probability", 338.0, 0.5)
    check_marked(browser, 34)
    run = browser.js("return JSON.parse(document.getElementById('data').textContent).runs[0]")
    browser.point_at("pca", run["scores"][0][5], run["scores"][1][5])
    check_marked(browser, 5)
    browser.point_at("accuracy", -30.0, 0.5)  # left of the first
    browser.point_at("accuracy", 1.0, 0.5)
    check_marked(browser, 0)


def test_keys_move_through_the_checkpoints(browser: Browser) -> None:
    slider = browser.find("choose-checkpoint")
    browser.press(slider, "HOME")
    check_marked(browser, 0)
    browser.press(slider, "ARROW_RIGHT")
    browser.press(slider, "ARROW_RIGHT")
    check_marked(browser, 2)
    browser.press(slider, "END")
    check_marked(browser, 39)
    assert slider.get_attribute("aria-valuetext").startswith("step 390, epoch 195, phase 2 (p = 1)")


def test_all_controls_are_reached_with_the_tab_key(browser: Browser) -> None:
    browser.js("document.querySelector('.skip').focus()")
    reached = []
    while "SVG" not in reached and len(reached) < 80:
        active = browser.driver.switch_to.active_element
        names = (active.get_attribute("id"), active.get_attribute("aria-labelledby"), active.text)
        reached.append(next(filter(None, names)))
        browser.press(active, "TAB")
    wanted = ["Skip to the report", "choose-fit", "choose-run", "choose-checkpoint", "theme"]
    assert [name for name in reached if name in wanted] == wanted
    assert "table-of-runs-caption" in reached


def test_choosing_a_run_draws_it(browser: Browser) -> None:
    browser.choose("choose-run", 2)
    path = browser.js(
        "return JSON.parse(document.getElementById('data').textContent).fits[1].runs[2].path"
    )
    for k in range(3):
        pieces = browser.columns(f"loss:pieces:0:{k}")
        points = browser.columns(f"pca:phase:{k}")
        assert len(points["x"]) == path.count(k)
        assert len(pieces["xs"]) == {0: 2, 1: 1, 2: 0}[k]
    assert browser.columns("loss:switches")["x"] == [150, 300]
    assert browser.columns("overview:chosen")["top"] == [1.53]
    steps = browser.js(
        "const r = Bokeh.documents.at(-1).get_model_by_name('steps');return [r.start, r.end]"
    )
    assert steps == [20, 390]
    assert "c begins in phase 0 and changes to phase 1 at step 150" in (
        browser.find("figure-loss").get_attribute("aria-label")
    )
    chosen = browser.driver.find_elements("css selector", "tr.chosen")
    assert {row.get_attribute("data-run") for row in chosen} == {"c"}

    browser.js("document.querySelector('#table-of-runs tbody tr').click()")
    browser.settle()
    assert browser.js("return document.getElementById('choose-run').value") == "0"
    assert browser.columns("loss:switches")["x"] == [100, 210]


def test_choosing_a_fit_shows_its_tables_and_phases(browser: Browser) -> None:
    browser.choose("choose-fit", 0)
    shown = browser.js(
        "return [...document.querySelectorAll('.of-fit')].filter((e) => !e.hidden)"
        ".map((e) => e.dataset.fit)"
    )
    assert set(shown) == {"0"}
    assert browser.find("switches-0").is_displayed()
    assert not browser.find("switches-1").is_displayed()
    assert browser.columns("pca:phase:2") == {"x": [], "y": [], "alpha": []}
    legend = "return Bokeh.documents.at(-1).get_model_by_name('pca:legend:2').visible"
    assert browser.js(legend) is False
    browser.choose("choose-fit", 1)
    assert browser.js(legend) is True


def test_choosing_a_switch_shows_what_drives_it(browser: Browser) -> None:
    edges = browser.js(
        "return JSON.parse(document.getElementById('data').textContent).fits[1].drivers"
    )
    options = browser.driver.find_elements("css selector", "#choose-edge option")
    assert [option.text for option in options] == [
        "phase 0 to phase 1, 2 of 3 runs",
        "phase 1 to phase 0, 1 of 3 runs",
        "phase 1 to phase 2, 1 of 3 runs",
    ]
    names = (
        "return Object.fromEntries(Bokeh.documents.at(-1)"
        ".get_model_by_name('drivers:features').major_label_overrides)"
    )
    for number, edge in enumerate(edges):
        browser.choose("choose-edge", number)
        rows = list(range(3))
        assert browser.js(names) == {str(d): edge["features"][d] for d in rows}
        assert browser.columns("drivers:intervals") == {
            "x0": edge["lower"],
            "x1": edge["upper"],
            "y": rows,
        }
        for name, sign in (("rises", 1), ("falls", -1), ("unsure", 0)):
            mine = [d for d in rows if edge["change"][d] == sign]
            expected = {"x": [edge["evidence"][d] for d in mine], "y": mine}
            assert browser.columns(f"drivers:{name}") == expected
        said = browser.find("figure-drivers").get_attribute("aria-label")
        assert f"Strongest: {edge['features'][0]} " in said
    browser.choose("choose-fit", 0)
    options = browser.driver.find_elements("css selector", "#choose-edge option")
    assert len(options) == 2  # of the fit with two phases


def test_turning_points_are_ringed(browser: Browser) -> None:
    run = browser.js("return JSON.parse(document.getElementById('data').textContent).runs[0]")
    [turn] = run["turns"]
    x, y = turn["at"]
    assert browser.columns("pca:turns") == {"x": [x], "y": [y]}
    around = {"xs": [turn["around"][0]], "ys": [turn["around"][1]]}
    assert browser.columns("pca:around") == around
    browser.point_at("pca", x, y)  # is linked as all checkpoints are
    check_marked(browser, 19)
    browser.choose("choose-run", 1)
    assert browser.columns("pca:turns") == {"x": [], "y": []}


def test_tables_are_sorted_by_numbers_and_by_names(browser: Browser) -> None:
    table = browser.find("changes-1")
    headings = table.find_elements("css selector", "thead th")
    column = [h.text.split("\n")[0].strip() for h in headings].index("change")

    def cells(i: int) -> list[str]:
        script = "return [...arguments[0].tBodies[0].rows].map((r) => r.cells[arguments[1]]"
        return browser.js(f"{script}.dataset.value ?? r.cells[arguments[1]].textContent)", table, i)

    before = sorted(map(float, cells(column)))
    button = headings[column].find_element("tag name", "button")
    browser.press(button, "ENTER")
    assert list(map(float, cells(column))) == before
    assert headings[column].get_attribute("aria-sort") == "ascending"
    browser.press(button, "SPACE")
    assert list(map(float, cells(column))) == before[::-1]
    assert headings[column].get_attribute("aria-sort") == "descending"
    browser.press(headings[2].find_element("tag name", "button"), "ENTER")
    assert cells(2) == sorted(cells(2))
    assert headings[column].get_attribute("aria-sort") is None

    table = browser.find("entries-1")
    heading = table.find_elements("css selector", "thead button")[3]  # first entry: some missing
    for _ in range(2):
        browser.js("arguments[0].click()", heading)
        entries = cells(3)
        assert entries[-3:] == ["", "", ""]
        assert "" not in entries[:-3]


def test_themes(browser: Browser) -> None:
    paper = "return getComputedStyle(document.body).backgroundColor"
    ink = "return Bokeh.documents.at(-1).get_model_by_name('loss:glyph:0').line_color.value"
    axis = (
        "const view = Bokeh.index.get_by_id(Bokeh.documents.at(-1).get_model_by_name('loss').id);"
        "return getComputedStyle(view.el).getPropertyValue('--bk-axis-label-text-color').trim()"
    )
    light = (browser.js(paper), browser.js(ink), browser.js(axis))
    browser.prefer("dark")
    browser.settle()
    dark = (browser.js(paper), browser.js(ink), browser.js(axis))
    assert (light, dark) == (
        ("rgb(255, 255, 255)", "#262626", "#262626"),
        ("rgb(22, 25, 29)", "#e6e6e6", "#e6e6e6"),
    )
    button = browser.find("theme")
    assert button.get_attribute("aria-pressed") == "true"
    browser.press(button, "ENTER")
    assert browser.js(paper) == light[0]
    browser.prefer("light")
    browser.press(button, "SPACE")  # a choice stays when the system changes
    assert browser.js(paper) == dark[0]
    browser.press(button, "SPACE")
    assert (browser.js(paper), browser.js(ink)) == light[:2]


@pytest.mark.parametrize("width", [400, 1600])
def test_it_fits_the_width(browser: Browser, width: int) -> None:
    browser.size(width, 900)
    browser.settle()
    browser.until(
        lambda: browser.js("return document.getElementById('figure-loss').clientWidth") <= width
    )
    assert browser.js("return document.documentElement.scrollWidth") <= width
    for figure in ("loss", "pca", "overview", "speeds", "drivers", "forecasts", "fan-0"):
        left, right = browser.js(
            "const view = Bokeh.index.get_by_id("
            "  Bokeh.documents.at(-1).get_model_by_name(arguments[0]).id);"
            "const box = view.el.getBoundingClientRect(); return [box.left, box.right];",
            figure,
        )
        assert left >= 0
        assert right <= width
        share = 0.4 if figure == "fan-0" and width > 1000 else 0.7  # two are side by side
        assert right - left > share * min(width, 1216)


def test_figures_are_given_as_svg(browser: Browser) -> None:
    browser.js(
        "window.saved = null; const make = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => { blob.text().then((t) => { window.saved = t; });"
        "  return make(blob); };"
        "HTMLAnchorElement.prototype.click = function () { window.savedAs = this.download; };"
    )
    for figure in ("loss", "probability", "overview", "drivers", "forecasts", "fan-1"):
        browser.js("window.saved = null")
        button = f".download[data-figure={figure}]"
        browser.js("document.querySelector(arguments[0]).click()", button)
        browser.until(lambda: browser.js("return window.saved"))
        saved = browser.js(
            "const root = new DOMParser().parseFromString(window.saved, 'image/svg+xml')"
            "  .documentElement;"
            "return { name: root.nodeName, text: root.textContent, images: "
            "  root.querySelectorAll('image').length, paths: root.querySelectorAll('path').length }"
        )
        assert saved["name"] == "svg"
        words = {"drivers": ["evidence", "higher after"], "fan-1": ["optimiser steps"]}
        for word in words.get(figure, ["phase 1", "optimiser steps"]):
            assert word in saved["text"]
        assert saved["paths"] > 10
        assert browser.js("return window.savedAs") == f"{figure}.svg"


def test_names_are_drawn_as_they_are_and_nothing_went_wrong(browser: Browser) -> None:
    options = browser.driver.find_elements("css selector", "#choose-run option")
    assert [option.get_attribute("textContent") for option in options] == RUNS
    for number in range(len(RUNS)):
        browser.choose("choose-run", number)
    assert browser.js("return document.images.length") == 0
    entries = browser.driver.get_log("browser")
    assert [e for e in entries if e["level"] != "INFO"] == []
    events = [json.loads(e["message"])["message"] for e in browser.driver.get_log("performance")]
    sent = [e["params"]["request"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert {request["url"].split(":")[0] for request in sent} <= {"file", "blob", "data"}
