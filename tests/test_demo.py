"""The demo: it writes what it says, says what the library says, and so does its command."""

import io
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from rich.console import Console
from typer.testing import CliRunner

import bayesphase as bp
from bayesphase import demo as module
from bayesphase.cli import app
from bayesphase.demo import SHIPPED, demo

mpl.use("Agg")

STEPS = 10 * np.arange(1, 31)
FIGURES = ("phases", "probabilities", "boundaries", "pca", "map")


@pytest.fixture
def metrics() -> xr.Dataset:
    """Two runs that surely change at their 13th and 19th checkpoint; only "a" ever generalises."""
    rng = np.random.default_rng(0)
    late = np.arange(30) >= np.array([[12], [18]])
    grid = ("run", "step")
    changes = np.where(late, 1.0, 0.1)[..., None] + rng.normal(0, 0.02, (2, 30, 2))
    norms = 1 + changes.cumsum(axis=1)
    return xr.Dataset(
        {
            "l1_norm": ((*grid, "parameter"), norms),
            "l2_norm": ((*grid, "parameter"), norms * [1, 2]),
            "weight_var": (grid, norms.sum(axis=-1) + rng.normal(0, 0.02, (2, 30)).cumsum(axis=1)),
            "train_loss": (grid, np.exp(-late.astype(float))),
            "train_accuracy": (grid, np.where(late, 1.0, 0.1)),
            "eval_accuracy": (grid, np.where(np.arange(30) >= [[20], [99]], 0.95, 0.9)),
        },
        coords={"run": ["a", "b"], "step": STEPS, "parameter": ["in", "out"]},
    )


def run(metrics: xr.Dataset, folder: Path) -> tuple[list[Path], str]:
    """Run the demo on a file of these metrics; return what was written and what was said."""
    data = bp.save_metrics(metrics, folder / "runs.nc")
    said = io.StringIO()
    console = Console(file=said, width=200)
    written = demo(console, data=data, output=folder / "out" / "demo", n_states=(2,))
    return written, said.getvalue()


def test_it_writes_what_it_says(metrics: xr.Dataset, tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    written, said = run(metrics, tmp_path)
    folder = tmp_path / "out" / "demo"
    assert {path.name for path in written} == {
        "fit_2_phases.nc",
        *(f"{figure}_2_phases.png" for figure in FIGURES),
        "report.html",
    }
    assert set(folder.iterdir()) == set(written)
    assert all(f"  {path.name}\n" in said for path in written[:-1])
    assert said.endswith(f"in one page, to be opened in a browser: {folder / 'report.html'}\n")
    assert plt.get_fignums() == []

    assert "runs.nc: 2 runs of 30 to 30 checkpoints, 3 features: l1_norm, l2_norm, weight_var" in (
        said
    )
    fit = bp.open_fit(folder / "fit_2_phases.nc")
    assert fit.attrs["n_states"] == 2
    assert bp.diagnose(fit).attrs["verdict"] in " ".join(said.split())
    table = [line.replace("│", " ").split() for line in said.splitlines() if line.startswith("│")]
    # the changes up to the first checkpoint are not seen: some paths start in the later phase
    assert all(float(row.pop(1)) > 0.95 for row in table)
    # the switch with its interval, then the steps at which accuracies pass 0.9
    assert table == [
        ["a", "0", "to", "1", "130", "130", "to", "130", "130", "210"],
        ["b", "0", "to", "1", "190", "190", "to", "190", "190", "never"],
    ]


def test_losses_of_examples_make_one_more_figure(
    metrics: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bokeh", None)  # without it all but the report is there
    losses = np.random.default_rng(1).random((2, 30, 6))
    metrics["example_loss"] = (("run", "step", "example"), losses)
    metrics = metrics.drop_vars(["train_accuracy", "eval_accuracy"])
    written, said = run(metrics, tmp_path)
    assert "pca_of_losses_2_phases.png" in {path.name for path in written}
    assert "accuracy >" not in said
    assert said.rstrip().endswith("install bayesphase[report].")
    assert not list(tmp_path.rglob("*.html"))


def test_without_losses_features_are_drawn(
    metrics: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bokeh", None)
    written, _ = run(metrics.drop_vars("train_loss"), tmp_path)
    assert {path.name for path in written} == {
        "fit_2_phases.nc",
        *(f"{figure}_2_phases.png" for figure in FIGURES),
    }


def test_without_metrics_it_says_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no metrics at '.*none.nc'; the runs of the proj"):
        demo(Console(file=io.StringIO()), data=tmp_path / "none.nc", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def invoke(*arguments: object):
    command = ["demo", *(str(argument) for argument in arguments)]
    return CliRunner().invoke(app, command, env={"COLUMNS": "300"})


def test_command(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(module, "demo", lambda console, **settings: calls.append(settings))
    assert invoke().exit_code == 0
    assert invoke("--data", "my.zarr", "-o", "figures", "--seed", 7).exit_code == 0
    assert calls == [
        {"data": SHIPPED, "output": Path("demo"), "random_seed": 1},
        {"data": Path("my.zarr"), "output": Path("figures"), "random_seed": 7},
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "none.nc"], "no metrics at 'none.nc'"),
        (["--data", __file__], "has the suffix '.py'"),
        (["--seed", "-1"], "--seed'"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = invoke(*arguments, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
