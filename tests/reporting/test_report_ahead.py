"""Runs that are named are forecast, by a fit that does not know how they go on."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from forecast_data import EVENTS, features_of, fit_of, metrics_of
from reporting_page import Page
from typer.testing import CliRunner

import bayesphase as bp
from bayesphase.cli import app
from bayesphase.reporting.ahead import runs_ahead

RUNS = [f"r{i}" for i in range(len(EVENTS))]
OPTIONS = {"now": 120, "random_seed": 1}
MADE = {"metrics": ["l2_norm", "trace"], "aggregation": "mean"}


@pytest.fixture(scope="module")
def raw() -> xr.DataArray:
    """Five finished runs and one that ends before it converges, in the metrics' own units."""
    finished = features_of(EVENTS)
    new = features_of([350.0], labels=["new"]).isel(step=slice(20))
    return xr.concat([finished, new], "run", join="outer").assign_attrs(MADE)


@pytest.fixture(scope="module")
def metrics(raw: xr.DataArray) -> xr.Dataset:
    known = metrics_of([*EVENTS, 350.0], labels=[*RUNS, "new"]).drop_vars("l2_norm")
    known = known.where((known["run"] != "new") | (known["step"] < 200))
    of_matrices = raw.drop_attrs().expand_dims(parameter=["w"], axis=-1)
    return known.assign({n: of_matrices.sel(feature=n, drop=True) for n in MADE["metrics"]})


@pytest.fixture(scope="module")
def fit(raw: xr.DataArray) -> xr.DataTree:
    return fit_of(raw.sel(run=RUNS).assign_attrs(raw.attrs))


@pytest.fixture
def refits(monkeypatch: pytest.MonkeyPatch, raw: xr.DataArray) -> list:
    """Take down what is fitted, and return the fit to these runs that the simulation makes."""
    asked = []

    def fit_again(features: xr.DataArray, n_states: int, **settings: object) -> xr.DataTree:
        asked.append((features, n_states, settings))
        return fit_of(raw.sel(run=features["run"].values))

    monkeypatch.setattr("bayesphase.model.fit.fit", fit_again)
    return asked


def test_a_run_that_the_fit_does_not_know_is_forecast_by_it(fit, raw, metrics, refits) -> None:
    ahead = runs_ahead(fit, metrics, ["new"], **OPTIONS)
    expected = bp.forecast(fit, raw.sel(run=["new"]), metrics=metrics, **OPTIONS)
    xr.testing.assert_identical(ahead, expected)
    assert not refits


def test_a_run_that_it_knows_is_forecast_by_one_that_does_not(fit, raw, metrics, refits) -> None:
    told: list[str] = []
    ahead = runs_ahead(fit, metrics, ["r3", "new"], tell=told.append, **OPTIONS)
    others = [run for run in RUNS if run != "r3"]
    [(features, n_states, settings)] = refits
    # on a scale that the runs it is fitted to make by themselves
    xr.testing.assert_allclose(features, bp.standardize(raw.sel(run=others)))
    assert features["run"].values.tolist() == others
    assert n_states == 2
    assert settings["priors"] is None
    assert (settings["draws"], settings["chains"], settings["random_seed"]) == (40, 1, 1)
    assert (settings["emission"].name, settings["transition"].name) == ("quadratic_drift", "sticky")
    expected = bp.forecast(
        fit_of(raw.sel(run=others)), raw.sel(run=["r3", "new"]), metrics=metrics, **OPTIONS
    )
    xr.testing.assert_allclose(ahead, expected)
    assert told == ["fitting the model anew to the 4 other runs", "forecasting"]


def test_priors_of_ones_own_and_known_states_are_kept(fit, metrics, refits) -> None:
    own = fit.copy()
    own.attrs = {
        **fit.attrs,
        "priors": {**fit.attrs["priors"], "scale": "Prior('HalfNormal', sigma=3.0)"},
    }
    observed = fit["observed_data"].to_dataset()
    known = xr.full_like(observed["features"].isel(feature=0, drop=True), -1, int)
    known[:, 0] = 0
    own["observed_data"] = xr.DataTree(observed.assign(known_states=known))
    own.attrs |= {"sampler": "pymc", "tune": 17, "target_accept": 0.9}
    runs_ahead(own, metrics, ["r0"], **OPTIONS)
    [(_, _, settings)] = refits
    assert {name: repr(prior) for name, prior in settings["priors"].items()} == {
        "scale": "Prior('HalfNormal', sigma=3.0)"
    }
    assert settings["known_states"].equals(known[1:])
    assert (settings["sampler"], settings["tune"]) == ("pymc", 17)


def test_the_unconverged_are_those_in_which_it_never_holds(fit, metrics) -> None:
    ahead = runs_ahead(fit, metrics, ["unconverged"], random_seed=1)
    assert ahead["run"].values.tolist() == ["new"]
    assert ahead["now"].values.tolist() == [190]
    strict = "eval_loss < 0.02"  # 0.01 is where it ends
    assert runs_ahead(fit, metrics, ["unconverged"], converged=strict)["run"].values == ["new"]
    with pytest.raises(ValueError, match="came to hold in all runs of the metrics"):
        runs_ahead(fit, metrics.sel(run=RUNS), ["unconverged"])
    # a run of that name comes first
    named = metrics.assign_coords(run=[*RUNS, "unconverged"])
    assert runs_ahead(fit, named, ["unconverged"])["run"].values == ["unconverged"]


def test_features_are_made_in_the_way_of_the_fit(metrics) -> None:
    from bayesphase.reporting.ahead import _made_like

    layers = xr.DataArray(
        metrics["l2_norm"].values * [1.0, 2.0],
        dims=("run", "step", "parameter"),
        coords={"parameter": ["a", "b"], "layer": ("parameter", ["0", "1"])},
    )
    wide = (
        metrics.drop_dims("parameter")
        .drop_vars("parameter", errors="ignore")
        .assign(l2_norm=layers)
    )
    chosen = {"metrics": ["l2_norm", "eval_loss"], "how": "max", "by": "layer"}
    made = bp.features(wide, **chosen, log=["l2_norm"], standardize=None)
    again = _made_like(bp.standardize(made.sel(run=RUNS)), wide)
    xr.testing.assert_equal(again, made)
    # what was left out then is left out now
    wide = wide.assign(l1_norm=xr.ones_like(layers))
    with pytest.warns(UserWarning, match="left out"):
        default = bp.features(wide, standardize=None)
    again = _made_like(default, wide)
    xr.testing.assert_equal(again, default)


def test_what_can_not_be_forecast(fit, metrics) -> None:
    with pytest.raises(ValueError, match="there is no run 'r9' to forecast; there are"):
        runs_ahead(fit, metrics, ["r9"])
    with pytest.raises(ValueError, match="2 of the 5 runs that were fitted are left to learn from"):
        runs_ahead(fit, metrics, ["r0", "r1", "r2"])
    observed = fit["observed_data"].to_dataset()
    other = fit.copy()
    other["observed_data"] = xr.DataTree(
        observed.assign(features=observed["features"].drop_attrs())
    )
    with pytest.raises(ValueError, match="do not say how they were made of metrics"):
        runs_ahead(other, metrics, ["new"])
    scale = xr.DataArray(np.ones((5, 2)), dims=("run", "feature"))
    other["observed_data"] = xr.DataTree(
        observed.assign_coords(feature_scale=scale, feature_location=scale)
    )
    with pytest.raises(ValueError, match="standardized within each run, so that there is no scale"):
        runs_ahead(other, metrics, ["r0"])


def test_command(tmp_path: Path, fit, metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bokeh")
    monkeypatch.chdir(tmp_path)
    paths = fit["paths"].to_dataset()
    some = paths["state"].isel(chain=0, draw=0, drop=True)
    whole = fit.copy()
    whole["paths"] = xr.DataTree(paths.assign(most_likely=some))
    bp.save_fit(whole, "fit.nc")
    bp.save_metrics(metrics, "m.nc")

    def invoke(*arguments: str):
        return CliRunner().invoke(app, ["report", "fit.nc", *arguments], env={"COLUMNS": "300"})

    made = invoke("--metrics", "m.nc", "--forecast", "new", "--at", "120")
    assert made.exit_code == 0, made.output
    assert made.stdout.strip() == "report.html"
    assert "forecasting" in made.stderr
    page = Page(Path("report.html").read_text())
    assert [[c.text.strip() for c in row][:2] for row in page.rows("forecasts-now")] == [
        ["new", "120"]
    ]
    for arguments, message in (
        (("--forecast", "new"), "--forecast needs --metrics"),
        (("--at", "120"), "--at is of use with --forecast only"),
        (("--metrics", "m.nc", "--forecast", "r9"), "there is no run 'r9' to forecast"),
        (("--metrics", "m.nc", "--forecast", "r0", "-o", "r.pdf"), "end the name in '.html'"),
        (
            ("--metrics", "m.nc", "--forecast", "new", "--converged", "good"),
            "converged must be a metric, > or <, and a number",
        ),
    ):
        failed = invoke(*arguments)
        assert failed.exit_code == 2
        assert message in " ".join(failed.output.split())
    said = " ".join(
        CliRunner().invoke(app, ["report", "--help"], env={"COLUMNS": "300"}).output.split()
    )
    assert "which takes as long as that fit did: minutes" in said
