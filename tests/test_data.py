"""The shipped runs: they keep the contract, they really grokked, and data/README.md says so."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bayesphase import open_metrics
from bayesphase.contract import VARIABLES
from bayesphase.dataset import validate_metrics

DATA = Path(__file__).parents[1] / "data"
FILES = {  # and their seeds
    "modular_addition.nc": range(8),
    "modular_addition_more_seeds.nc": range(8, 20),
    "modular_addition_80_20.nc": range(3),
}
# and the number of runs and the validation accuracy that is looked for in data/README.md
OTHERS = {
    "sparse_parity.nc": (20, 0.9),
    "modular_addition_layer_norm.nc": (2, 0.9),
    "digits_cnn_plain.nc": (20, 0.9),
    "digits_cnn.nc": (5, 0.9),
    "digits_mlp.nc": (20, 0.97),
    "masked_lm.nc": (3, 0.2),
    "causal_lm.nc": (2, 0.3),
}


@cache
def opened(name: str) -> xr.Dataset:
    return open_metrics(DATA / name)


def first(ds: xr.Dataset, accuracy: str) -> np.ndarray:
    """Return by run the position of the first checkpoint at which an accuracy passes 0.9."""
    passed = (ds[accuracy] > 0.9).values
    assert passed.any(axis=1).all(), f"a run never passes {accuracy} 0.9"
    return passed.argmax(axis=1)


@pytest.mark.parametrize("name", FILES)
def test_it_keeps_the_contract(name: str) -> None:
    ds = opened(name)
    xr.testing.assert_identical(validate_metrics(ds, min_steps=100), ds)
    assert set(ds.data_vars) | {"example_loss"} == set(VARIABLES)
    assert list(ds["run"].values) == [f"seed {i}" for i in FILES[name]]
    assert not (ds["nonfinite_count"] > 0).any()
    assert json.loads(ds.attrs["settings"])["modulus"] == 113


@pytest.mark.parametrize("name", FILES)
def test_every_run_ends_generalising(name: str) -> None:
    ds = opened(name)
    for run in ds["run"].values:
        assert ds["eval_accuracy"].sel(run=run).dropna("step")[-1] > 0.99, run
    assert (ds["eval_accuracy"].isel(step=0) < 0.05).all()


@pytest.mark.parametrize("name", ["modular_addition.nc", "modular_addition_more_seeds.nc"])
def test_with_30_percent_of_the_pairs_every_run_memorises_long_before_it_groks(name: str) -> None:
    ds = opened(name)
    assert (10 * first(ds, "train_accuracy") < first(ds, "eval_accuracy")).all()


@pytest.mark.parametrize("name", OTHERS)
def test_other_runs_keep_the_contract_and_the_readme_sums_them_up(name: str) -> None:
    ds = opened(name)
    xr.testing.assert_identical(validate_metrics(ds, min_steps=50), ds)
    assert set(ds.data_vars) == set(VARIABLES)
    n_runs, accuracy = OTHERS[name]
    assert list(ds["run"].values) == [f"seed {i}" for i in range(n_runs)]
    assert not (ds["nonfinite_count"] > 0).any()
    assert (DATA / name).stat().st_size < 5e6
    assert summary(name, ds, accuracy) in (DATA / "README.md").read_text()


@pytest.mark.parametrize("name", [*FILES, *OTHERS])
def test_metrics_fit_each_other(name: str) -> None:
    ds = opened(name)
    close = {"rtol": 1e-12, "atol": 0}
    xr.testing.assert_allclose(ds["l1_norm"] / ds["l2_norm"], ds["l1_l2_ratio"], **close)
    xr.testing.assert_allclose(
        ds["trace"] / ds["spectral_norm"], ds["trace_spectral_ratio"], **close
    )
    assert (
        (ds["spectral_norm"] <= ds["l2_norm"] * (1 + 1e-12)).where(ds["l2_norm"].notnull(), 1).all()
    )
    # The squared singular values sum to the squared norm: none that is below the floor matters.
    n = [min(map(int, shape.split("x"))) for shape in ds["shape"].values]
    squares = (ds["singular_value_var"] + ds["singular_value_mean"] ** 2) * xr.DataArray(
        n, dims="parameter"
    )
    xr.testing.assert_allclose(squares, ds["l2_norm"] ** 2, rtol=1e-9)


def test_the_readme_tells_what_is_in_the_files() -> None:
    readme = (DATA / "README.md").read_text()
    for name in FILES:
        for row in table(opened(name)):
            assert row in readme, f"{name}: data/README.md lacks the row {row}"


def table(ds: xr.Dataset) -> list[str]:
    """Make the rows of the table in data/README.md."""
    rows = []
    for i, (t, e) in enumerate(
        zip(first(ds, "train_accuracy"), first(ds, "eval_accuracy"), strict=True)
    ):
        here = ds["eval_loss"][i].notnull()
        step, epoch = ds["step"].values, ds["epoch"].values
        rows.append(
            f"| {ds['run'].values[i]} | {int(here.sum())} | {epoch[here][-1]} "
            f"| {step[t]} ({epoch[t]}) "
            f"| {step[e]} ({epoch[e]}) | {float(ds['eval_accuracy'][i][here][-1]):.4f} |"
        )
    return rows


def summary(name: str, ds: xr.Dataset, accuracy: float) -> str:
    """Make the row of a file in data/README.md."""
    passed = (ds["eval_accuracy"] > accuracy).values
    first_step = ds["step"].values[passed.argmax(axis=1)[passed.any(axis=1)]]
    checkpoints = ds["eval_loss"].notnull().sum("step").values
    last = np.array([float(run.dropna("step")[-1]) for run in ds["eval_accuracy"]])
    spread = "–"
    if len(first_step):
        spread = f"{first_step.min()} / {int(np.median(first_step))} / {first_step.max()}"
    return (
        f"| `{name}` | {ds.sizes['run']} | {checkpoints.min()} to {checkpoints.max()} "
        f"| {ds.sizes['parameter']} | {accuracy} | {len(first_step)} | {spread} "
        f"| {last.min():.3f} to {last.max():.3f} |"
    )
