"""What is in the file: the tables as they are, nothing hostile, nothing from elsewhere."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from reporting_page import (
    HOSTILE,
    RUNS,
    STEPS,
    Page,
    counts_table,
    hand_made,
    hand_made_metrics,
)
from synthetic import fit_from_paths
from typer.testing import CliRunner

import bayesphase as bp
from bayesphase.cli import app
from bayesphase.plots import _style

pytest.importorskip("bokeh")
pytest.importorskip("jinja2")


@pytest.fixture(scope="module")
def text(written: Path) -> str:
    return written.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def data(page: Page) -> dict:
    return data_of(page)


def data_of(page: Page) -> dict:
    [element] = page.all("script", id="data")
    return json.loads(element.text)


def values(row: list) -> list:
    """Return numbers where cells have them, else their text."""
    return [
        float(c.attrs["data-value"]) if "data-value" in c.attrs else c.text.strip() for c in row
    ]


def test_it_has_its_sections_in_order(page: Page) -> None:
    sections = page.all("section")
    assert [s.attrs["id"] for s in sections] == [
        "fitted",
        "believed",
        "counts",
        "runs",
        "boundaries",
        "changes",
        "forecasts",
    ]
    titles = {e.attrs.get("id") for e in page.all("h2")}
    assert all(s.attrs["aria-labelledby"] in titles for s in sections)
    links = [e.attrs["href"] for e in page.all("a")]
    assert links == ["#content", *(f"#{s.attrs['id']}" for s in sections)]


def test_ids_are_unique_and_all_that_is_referred_to_is_there(page: Page) -> None:
    ids = [e.attrs["id"] for e in page.elements if "id" in e.attrs]
    assert len(ids) == len(set(ids))
    for element in page.elements:
        for name in ("aria-labelledby", "for"):
            assert set(element.attrs.get(name, "").split()) <= set(ids)


def test_everything_can_be_reached_and_is_named(page: Page) -> None:
    assert page.all("html")[0].attrs["lang"] == "en"
    named = page.all("select") + page.all("input")
    labels = " ".join(e.text for e in page.all("label"))
    assert len(named) == len(page.all("label")) == 4
    assert all(word in labels for word in ("Fit", "Run", "Checkpoint", "Switch"))
    for button in page.all("button"):
        assert button.text.strip()
    for plot in page.all("div", role="img"):
        assert plot.attrs["aria-label"]
    assert [e.attrs["data-figure"] for e in page.all("button", class_="download")] == [
        e.attrs["id"].removeprefix("figure-") for e in page.all("div", role="img")
    ]
    for table in page.all("table"):
        assert [e for e in page.all("caption") if table.attrs["id"] in e.inside]
    for region in page.all("div", class_="scrolls"):
        assert (region.attrs["tabindex"], region.attrs["role"]) == ("0", "region")


def test_nothing_is_loaded_from_anywhere(text: str, page: Page) -> None:
    [policy] = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    allowed = dict(part.split(maxsplit=1) for part in policy.attrs["content"].split("; "))
    assert allowed.pop("default-src") == "'none'"
    assert allowed == {
        "script-src": "'unsafe-inline'",
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "font-src": "data:",
    }
    assert not page.all("link") + page.all("img") + page.all("iframe") + page.all("object")
    for element in page.elements:
        for name in ("src", "srcset", "data", "action", "poster", "background"):
            assert name not in element.attrs, element
        assert element.attrs.get("href", "#").startswith("#")
        assert not [name for name in element.attrs if name.startswith("on")], element
    [style] = page.all("style")
    assert not re.search(r"url\(|@import", style.text)


def test_names_are_text_and_nothing_else(text: str, page: Page) -> None:
    assert HOSTILE not in text
    assert "<img" not in text.split("<script")[0]
    assert page.all("title")[0].text == f"Title {HOSTILE}"
    assert [e.text for e in page.all("option") if "choose-run" in e.inside] == RUNS
    assert [row[0].text for row in page.rows("table-of-runs")] == RUNS
    assert {e.attrs["data-run"] for e in page.all("tr") if "data-run" in e.attrs} == set(RUNS)
    assert HOSTILE in [e.text for e in page.all("dd")]  # an attribute of the metrics


def test_embedded_data_are_the_tables(data: dict, fits: dict, metrics: xr.Dataset) -> None:
    assert [fit["name"] for fit in data["fits"]] == list(fits)
    assert [run["name"] for run in data["runs"]] == RUNS
    for embedded, fit in zip(data["fits"], fits.values(), strict=True):
        probability, path = bp.phase_probabilities(fit), bp.most_likely_path(fit)
        assert embedded["colors"] == list(_style.phase_colors(embedded["states"]).values())
        for r, (run, of_run) in enumerate(zip(data["runs"], embedded["runs"], strict=True)):
            at = {"run": r, "step": np.isin(STEPS, run["steps"])}
            np.testing.assert_allclose(of_run["probability"], probability[at].T, atol=5e-5)
            assert of_run["path"] == path[at].values.tolist()
    steps = [run["steps"] for run in data["runs"]]
    assert steps == [STEPS.tolist(), STEPS.tolist(), STEPS[2:].tolist()]
    assert data["runs"][0]["epochs"] == (STEPS / 2).tolist()
    scores = bp.pca(fits["3"]["observed_data"]["features"])["scores"]
    np.testing.assert_allclose(data["runs"][2]["scores"], scores[2, 2:].T, rtol=1e-4)
    assert [(p["id"], p["curves"]) for p in data["panels"]] == [
        ("loss", ["train loss", "eval loss"]),
        ("accuracy", ["eval accuracy"]),
    ]
    for run, name in zip(data["runs"], RUNS, strict=True):
        for curve, variable in zip(run["curves"]["loss"], ("train_loss", "eval_loss"), strict=True):
            expected = metrics[variable].sel(run=name).dropna("step")
            assert curve["steps"] == expected["step"].values.tolist()
            np.testing.assert_allclose(curve["values"], expected, rtol=1e-4)


def test_switches_are_drawn_and_listed_as_the_table_has_them(
    page: Page, data: dict, fits: dict
) -> None:
    for i, fit in enumerate(fits.values()):
        table = bp.switches(fit, ci_prob=0.8)
        expected = []
        for r, run in enumerate(RUNS):
            one = table.isel(run=r).dropna("switch")
            p = float(table["probability"][r])
            names = ("state_from", "state_to", "step", "lower")
            lines = [[float(one[name][s]) for name in names] for s in range(one.sizes["switch"])]
            expected += [[run, *line, p] for line in lines] or [[run, "no switch", "", "", "", p]]
            drawn = [s[:4] for s in data["fits"][i]["runs"][r]["switches"]]
            assert drawn == lines
        assert [values(row) for row in page.rows(f"switches-{i}")] == expected
    [first, second, *_] = page.rows("switches-1")
    assert [c.text.strip() for c in first][1:5] == ["phase 0", "phase 1", "100", "100 to 100"]
    assert [c.text.strip() for c in second][1:5] == ["phase 1", "phase 2", "210", "200 to 220"]


def test_entries_counts_edges_and_speeds_are_the_tables(page: Page, fits: dict) -> None:
    entry, spent = bp.boundaries(fits["3"], ci_prob=0.8), bp.dwell_times(fits["3"], ci_prob=0.8)
    rows = [values(row) for row in page.rows("entries-1")]
    assert len(rows) == 9
    for row, (r, k) in zip(rows, np.ndindex(3, 3), strict=True):
        columns = (entry["visited"], entry["first_step"], entry["lower"])
        columns += (spent["total"], spent["lower"], spent["visits"])
        numbers = [float(column[r, k]) for column in columns]
        assert row == [RUNS[r], k, *("" if np.isnan(n) else n for n in numbers)]

    assert [values(row)[:5] for row in page.rows("state-counts")] == [
        [1, "", "", "", ""],
        [2, 0.25, 0.01, -10, 0.6],
        [3, 0.75, 0.02, -8.9, 0.4],
    ]
    assert {row[0].text for row in page.rows("comparison")} == {"2", "3"}

    edges = bp.training_map(fits["3"], ci_prob=0.8)
    pairs = [(0, 1), (1, 0), (1, 2)]
    assert [values(row) for row in page.rows("edges-1")] == [
        [a, b, *(float(edges[n][a, b]) for n in ("n_runs", "n_runs_lower", "step"))]
        for a, b in pairs
    ]
    speeds = bp.phase_speeds(fits["3"], ci_prob=0.8)
    found = [values(row) for row in page.rows("changes-1")]
    assert [tuple(row[:2]) for row in found] == [pair for pair in pairs for _ in range(3)]
    for a, b, feature, before, after, change, lower in found:
        at = {"state": int(a), "feature": feature}
        assert before == float(speeds["speed"].sel(at))
        assert after == float(speeds["speed"].sel(at | {"state": int(b)}))
        changes = speeds.sel(at | {"state_next": int(b)})
        assert change == float(changes["speed_change"])
        assert lower == float(changes["speed_change_lower"])
    sizes = [abs(row[5]) for row in found[:3]]
    assert sizes == sorted(sizes, reverse=True)


def test_what_drives_switches_is_the_training_map(page: Page, data: dict, fits: dict) -> None:
    edges = bp.training_map(fits["3"], ci_prob=0.8)
    rows = [values(row) for row in page.rows("drivers-1")]
    drawn = data["fits"][1]["drivers"]
    assert [(edge["from"], edge["to"]) for edge in drawn] == [(0, 1), (1, 0), (1, 2)]
    assert len(rows) == 9
    signs = set()
    for e, edge in enumerate(drawn):
        cell = edges.isel(state=edge["from"], state_next=edge["to"])
        order = np.argsort(-cell["log_odds"].values)
        assert edge["features"] == cell["feature"].values[order].tolist()
        assert edge["runs"] == pytest.approx(float(cell["n_runs"]))
        ends = {"evidence": "log_odds", "lower": "log_odds_lower", "upper": "log_odds_upper"}
        for name, variable in ends.items():
            np.testing.assert_allclose(edge[name], cell[variable][order], rtol=1e-4)
        low, high = (cell[f"change_{end}"].values[order] for end in ("lower", "upper"))
        assert edge["change"] == [
            1 if a > 0 else -1 if b < 0 else 0 for a, b in zip(low, high, strict=True)
        ]
        signs |= set(edge["change"])
        names = ("log_odds", "log_odds_lower", "change", "change_lower")
        names += ("gradient", "gradient_lower")
        for row, d in zip(rows[3 * e :], order, strict=False):
            assert row[:3] == [edge["from"], edge["to"], str(cell["feature"].values[d])]
            assert row[3:] == [float(cell[name][d]) for name in names]
    assert {1, -1} <= signs


def test_turning_points_are_the_library_s(page: Page, data: dict, fits: dict) -> None:
    components = bp.pca(fits["3"]["observed_data"]["features"], n_components=3)
    turns = bp.turning_points(components, random_seed=1)
    (step,) = turns["step"].sel(run=HOSTILE).values
    at = components["scores"].sel(run=HOSTILE, component=[1, 2])
    around = at.sel(step=slice(*(float(turns[n][0, 0]) for n in ("lower", "upper"))))
    [turn] = data["runs"][0]["turns"]
    assert turn["step"] == step == 190
    np.testing.assert_allclose(turn["at"], at.sel(step=step), rtol=1e-4)
    np.testing.assert_allclose(turn["around"], around.T, rtol=1e-4)
    assert [run["turns"] for run in data["runs"][1:]] == [[], []]
    [row] = page.rows("turns")
    assert values(row)[:3] == [HOSTILE, 190, float(turns["lower"][0, 0])]
    assert values(row)[3] == round(float(turns["angle"][0, 0]))
    assert any("in the 3 directions in which features vary" in e.text for e in page.all("p"))


def test_a_fit_that_does_not_say_its_model_has_no_drivers(tmp_path: Path) -> None:
    fit = hand_made(2)
    fit.attrs = {}
    page = Page(bp.report(fit, tmp_path / "r.html").read_text())
    assert data_of(page)["fits"][0]["drivers"] is None
    ids = [e.attrs.get("id") for e in page.elements]
    assert not {"choose-edge", "figure-drivers", "drivers-0"} & set(ids)
    assert "edges-0" in ids


def test_it_says_what_the_library_says(page: Page, fits: dict) -> None:
    said = " ".join(" ".join(e.text for e in page.all("p")).split())
    for fit in fits.values():
        assert bp.diagnose(fit).attrs["verdict"] in said
    assert "3 states are the most probable." in said
    assert "a mean and a standard deviation of each feature (gaussian)" in " ".join(
        e.text for e in page.all("dd")
    )


def test_a_single_fit_without_losses(tmp_path: Path) -> None:
    fit = hand_made(3)
    path = bp.report(fit, tmp_path / "one.html")
    assert path == tmp_path / "one.html"
    assert list(tmp_path.iterdir()) == [path]
    page = Page(path.read_text())
    data = data_of(page)
    assert "choose-fit" not in [e.attrs.get("id") for e in page.elements]
    assert [p["curves"] for p in data["panels"]] == [["metric0", "metric1", "metric2"]]
    assert any("There are no losses" in e.text for e in page.all("p"))
    with pytest.warns(UserWarning, match="All 3 states of the model are visited"):
        visited = bp.visited_counts(fit)["probability"]
    assert [row[1] for row in map(values, page.rows("visited-0"))] == visited.values.tolist()


def test_one_run_one_phase_one_feature(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(1, 9, 1))
    path = np.zeros((2, 30, 1, 9), int)
    path[:, :, 0, 3:5] = -1
    fit = fit_from_paths(path, runs=["only"], n_states=1, features=features)
    page = Page(bp.report(fit, tmp_path / "r.htm").read_text())
    data = data_of(page)
    assert data["runs"][0]["steps"] == [0, 10, 20, 50, 60, 70, 80]
    assert data["fits"][0]["runs"][0]["described"] == "only stays in phase 0 and never changes."
    assert "scores" not in data["runs"][0]
    assert any("Not available: n_components must be from 1 to" in e.text for e in page.all("p"))


def test_a_run_without_checkpoints_and_losses_of_other_runs_and_steps(tmp_path: Path) -> None:
    fit = hand_made(3)
    for name in ("paths", "observed_data"):
        tree = fit[name].to_dataset()
        empty = {v: -1 if tree[v].dtype.kind == "i" else np.nan for v in tree.data_vars}
        fit[name] = xr.DataTree(
            tree.assign({v: tree[v].where(tree["run"] != "c", fill) for v, fill in empty.items()})
        )
    fit["paths"] = xr.DataTree(fit["paths"].to_dataset().astype(np.int8))
    metrics = hand_made_metrics().isel(run=[0, 2], step=slice(None, None, 3))
    data = data_of(Page(bp.report(fit, tmp_path / "r.html", metrics=metrics).read_text()))
    assert data["runs"][2]["steps"] == []
    assert data["fits"][0]["runs"][2]["described"] == "c has no checkpoints."
    assert data["runs"][1]["curves"] == {"loss": [], "accuracy": []}
    assert data["runs"][0]["curves"]["loss"][0]["steps"] == STEPS[::3].tolist()


def test_many_checkpoints_are_thinned_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bayesphase.reporting import drawn

    monkeypatch.setattr(drawn, "MOST_OF_RUN", 10)
    path = bp.report(hand_made(3), tmp_path / "r.html", metrics=hand_made_metrics())
    page = Page(path.read_text())
    data = data_of(page)
    kept = data["runs"][0]["steps"]
    # every 4th, the last, and both sides of each switch of the most likely path
    assert kept == sorted({*range(0, 400, 40), 390, 90, 100, 200, 210})
    for run in data["runs"]:
        for variable, curve in zip(("train_loss", "eval_loss"), run["curves"]["loss"], strict=True):
            losses = hand_made_metrics()[variable].sel(run=run["name"]).dropna("step")
            every = math.ceil(losses.size / 10)
            steps = losses["step"].values
            # every nth, the last, and all at checkpoints that are drawn: they can be marked
            shown = {*steps[::every], steps[-1], *set(steps) & set(run["steps"])}
            assert curve["steps"] == sorted(shown)
            np.testing.assert_allclose(curve["values"], losses.sel(step=curve["steps"]), rtol=1e-4)
    assert any("no more than about 10 are drawn" in e.text for e in page.all("p"))
    for run, of_run in zip(data["runs"], data["fits"][0]["runs"], strict=True):
        assert len(run["steps"]) == len(of_run["path"]) == len(of_run["probability"][0])
    # tables are of all checkpoints
    assert values(page.rows("switches-0")[1])[1:5] == [1, 2, 210, 200]
    assert values(page.rows("table-of-runs")[0])[1] == 40


def test_runs_may_be_numbers_and_steps_fractions(tmp_path: Path, metrics: xr.Dataset) -> None:
    fit = hand_made(3)
    for name in ("paths", "observed_data", "log_likelihood"):
        tree = fit[name].to_dataset()
        coords = {"run": [2, 0, 1], "step": STEPS / 20}
        fit[name] = xr.DataTree(tree.assign_coords({k: v for k, v in coords.items() if k in tree}))
    metrics = metrics.assign_coords(run=[2, 0, 1], step=STEPS / 20)
    page = Page(bp.report(fit, tmp_path / "r.html", metrics=metrics).read_text())
    data = data_of(page)
    assert [run["name"] for run in data["runs"]] == ["2", "0", "1"]
    assert {e.attrs["data-run"] for e in page.all("tr") if "data-run" in e.attrs} == {*"012"}
    assert data["runs"][0]["steps"] == (STEPS / 20).tolist()
    assert data["runs"][2]["curves"]["loss"][0]["steps"] == [
        step for i, step in enumerate(STEPS / 20) if not 5 <= i < 9
    ]
    scores = bp.pca(fit["observed_data"]["features"])["scores"].sel(run=2)
    np.testing.assert_allclose(data["runs"][0]["scores"], scores[:, :2].T, rtol=1e-4)
    [first, _, third] = data["fits"][0]["runs"]
    assert first["switches"] == [[0, 1, 5.0, 5.0, 5.0], [1, 2, 10.5, 10.0, 11.0]]
    assert first["blocks"] == [[0, 0.0, 5.0], [1, 5.0, 10.5], [2, 10.5, 19.5]]
    assert third["blocks"][0] == [0, 1.0, 7.5]


@pytest.mark.parametrize("names", [["eval_accuracy"], ["weight_var"]])
def test_metrics_without_losses_are_said_to_have_none(
    tmp_path: Path, metrics: xr.Dataset, names: list[str]
) -> None:
    page = Page(bp.report(hand_made(2), tmp_path / "r.html", metrics=metrics[names]).read_text())
    assert any("There are no losses" in e.text for e in page.all("p"))
    assert data_of(page)["panels"][0]["curves"] == ["metric0", "metric1", "metric2"]


def test_metrics_with_losses_are_not(page: Page) -> None:
    assert not any("There are no losses" in e.text for e in page.all("p"))


def test_a_browser_does_not_restore_what_was_chosen(page: Page) -> None:
    [form] = page.all("form")
    assert form.attrs["autocomplete"] == "off"


EVIDENCE = {2: -1000.0, 3: -10.0, 4: -900.0}
VARIANTS = ["a 3", "b 2", "b 3", "a 2"]


def counts_of(evidence: dict[int, float]) -> xr.Dataset:
    log = np.array(list(evidence.values()))
    return xr.Dataset(
        {
            "log_evidence": ("n_states", log),
            "probability": ("n_states", np.exp(log - log.max()) / np.exp(log - log.max()).sum()),
        },
        coords={"n_states": list(evidence)},
    )


def of_variants() -> xr.Dataset:
    tables = [counts_of({2: -5.0, 3: -7.0}), counts_of({2: -6.0, 3: -4.0})]
    return xr.concat(tables, xr.Variable("variant", ["a", "b"]))


@pytest.mark.parametrize(
    ("names", "believable", "counts", "shown", "which"),
    [
        # 2 and 4 both have a probability of 0.0
        (["4", "2", "3"], ["4", "2", "3"], counts_of(EVIDENCE), "3", "the most probable of those"),
        (["4", "2", "3"], ["4", "2"], counts_of(EVIDENCE), "4", "the most probable of those"),
        (["4", "2", "3"], ["2"], counts_of(EVIDENCE), "2", "the only one"),
        (["2", "4"], ["2", "4"], None, "4", "the last of those"),
        (["2", "4"], ["2"], None, "2", "the only one"),
        (VARIANTS, VARIANTS, of_variants(), "b 3", "the most probable of those"),
    ],
)
def test_the_fit_shown_first_is_what_it_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    believable: list[str],
    counts: xr.Dataset | None,
    shown: str,
    which: str,
) -> None:
    from bayesphase.reporting import gather, words

    def made(fits: dict, random_seed: int | None) -> xr.Dataset:
        if counts is None:
            raise ValueError("no evidence is known")
        return counts

    def diagnosed(fit: xr.DataTree) -> xr.Dataset:
        return xr.Dataset(attrs={"believable": any(fit is fits[name] for name in believable)})

    fits = {name: hand_made(int(name[-1])) for name in names}
    monkeypatch.setattr(gather, "state_counts", made)
    monkeypatch.setattr(gather, "diagnose", diagnosed)
    analysis = gather.gather(fits, None, ci_prob=0.9, random_seed=1)
    first = analysis.fits[analysis.shown]
    assert first.name == shown
    said = words.lead(analysis)
    assert said.endswith(f"the fit with {first.title}, {which} that can be believed.")


@pytest.mark.parametrize("with_variants", [False, True])
def test_what_is_not_known_is_no_probability_of_zero(with_variants: bool) -> None:
    from types import SimpleNamespace

    from bayesphase.reporting.figures.counts import counts

    table = counts_table()
    table["probability_wider"][1] = np.nan
    table["mcse"][2] = np.nan
    if with_variants:
        table = xr.concat([table, table], xr.Variable("variant", ["a", "b"]))
    made = counts(SimpleNamespace(counts=SimpleNamespace(table=table)))
    found = {"VBar": [], "Text": [], "Segment": []}
    for renderer in made.renderers:
        columns = renderer.data_source.data
        kind = type(renderer.glyph).__name__
        heights = {"VBar": "top", "Text": "text", "Segment": "y1"}[kind]
        places = columns["x0" if kind == "Segment" else "x"]
        found[kind] += zip(np.round(places, 2).tolist(), columns[heights], strict=True)
    rows = [0, 3] if with_variants else [0]
    assert sorted(found["Text"]) == sorted(
        (round(row + x, 2), "?") for row in rows for x in (-0.27, 0, 1)
    )
    bars = [(0.73, 0.25), (1.73, 0.75), (2, 0.4), (0.27, 0.0), (1.27, 0.05), (2.27, 0.95)]
    assert sorted(found["VBar"]) == sorted((round(row + x, 2), p) for row in rows for x, p in bars)
    errors = [(0.73, 0.26), (2, 0.41)]  # none where the error is not known
    assert sorted(found["Segment"]) == sorted(
        (round(row + x, 2), pytest.approx(p)) for row in rows for x, p in errors
    )


def test_how_many_are_drawn() -> None:
    from bayesphase.reporting.drawn import checkpoints_drawn

    assert [checkpoints_drawn(n) for n in (1, 20, 40, 1000)] == [1000, 1000, 500, 200]


def test_it_is_small(written: Path) -> None:
    assert written.stat().st_size < 2e6


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"fits": {}}, TypeError, "got dict without any"),
        ({"fits": {"3": 1}}, TypeError, r"fits\['3'\] is a int, expected the DataTree"),
        ({"fits": xr.DataTree()}, ValueError, "no variable 'state' in a group 'paths'"),
        ({"path": "r.pdf"}, ValueError, "has the suffix '.pdf'; end the name in '.html'"),
        ({"path": "nowhere/r.html"}, FileNotFoundError, "make the folder 'nowhere'"),
        ({"metrics": 3}, TypeError, "metrics is a int, expected an xarray.Dataset"),
        ({"ci_prob": 1.5}, ValueError, "ci_prob must be a number between 0 and 1"),
    ],
)
def test_wrong_arguments(change: dict, error: type, message: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = {"fits": hand_made(2), "path": "r.html"} | change
    with pytest.raises(error, match=message):
        bp.report(arguments.pop("fits"), arguments.pop("path"), **arguments)
    assert not list(tmp_path.iterdir())


def test_data_that_do_not_go_together(tmp_path: Path, fits: dict) -> None:
    other = hand_made(2)
    other["observed_data"] = xr.DataTree(other["observed_data"].to_dataset() + 1)
    with pytest.raises(ValueError, match="the fit 'b' is of other features than 'a'"):
        bp.report({"a": fits["3"], "b": other}, tmp_path / "r.html")
    strangers = hand_made_metrics().assign_coords(run=["x", "y", "z"])
    with pytest.raises(ValueError, match=r"of the runs \['x', 'y', 'z'\], and none of them was"):
        bp.report(fits["3"], tmp_path / "r.html", metrics=strangers)
    assert not list(tmp_path.iterdir())


def test_what_was_there_stays_if_writing_fails(tmp_path: Path, monkeypatch) -> None:
    from bayesphase.reporting import page as module

    path = tmp_path / "r.html"
    path.write_text("old")
    monkeypatch.setattr(module, "_render", lambda *args, **kwargs: "\ud800")  # can't be encoded
    with pytest.raises(UnicodeEncodeError):
        bp.report(hand_made(2), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_without_bokeh_it_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "bokeh", None)
    with pytest.raises(ModuleNotFoundError, match=r"install bayesphase\[report\]"):
        bp.report(hand_made(2), tmp_path / "r.html")


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bayesphase.reporting import gather

    monkeypatch.setattr(gather, "state_counts", lambda fits, random_seed: counts_table())
    first, second = (bp.save_fit(hand_made(3), tmp_path / f"{name}.nc") for name in "ab")
    metrics = bp.save_metrics(hand_made_metrics(), tmp_path / "m.nc")
    output = tmp_path / "r.html"
    command = ["report", first, second, "--metrics", metrics, "-o", output, "--title", "T & U"]
    result = CliRunner().invoke(app, [str(a) for a in command], env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(output)
    page = Page(output.read_text())
    assert page.all("h1")[0].text == "T & U"
    assert [fit["name"] for fit in data_of(page)["fits"]] == ["a 3", "b 3"]

    for arguments, message in (
        ([first, first, "-o", output], "two of the files have the same name"),
        ([metrics, "-o", output], "is not a fit"),
        ([first, "-o", tmp_path / "r.txt"], "end the name in '.html'"),
    ):
        result = CliRunner().invoke(app, ["report", *map(str, arguments)], env={"COLUMNS": "300"})
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())
