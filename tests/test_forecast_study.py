"""Forecasts of the shipped runs: do they cover, and beat what is easy?

Eight runs, each by a fit to the others; and twelve more, which had no part in how forecasts are
made, by a fit to those eight.

The tables are printed: ``pytest -m slow -s tests/test_forecast_study.py``.
"""

from pathlib import Path

import numpy as np
import pytest

import bayesphase as bp

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
BASELINES = ["empirical", "mean", "constant_hazard", "extrapolated"]


@pytest.fixture(scope="module")
def metrics():
    return bp.open_metrics(DATA / "modular_addition.nc")[["eval_accuracy", "eval_loss"]]


@pytest.fixture(scope="module")
def scores(metrics):
    features = bp.features(bp.open_metrics(DATA / "modular_addition.nc"))
    return bp.forecast_scores(features, metrics, 3, draws=250, random_seed=1)


@pytest.fixture(scope="module")
def scores_of_new_runs(metrics):
    known = bp.features(bp.open_metrics(DATA / "modular_addition.nc"))
    new = bp.open_metrics(DATA / "modular_addition_more_seeds.nc")
    fit = bp.fit(known, 3, random_seed=1, progressbar=False)
    return bp.forecast_scores(
        bp.features(new),
        bp.combine_runs([metrics, new[["eval_accuracy", "eval_loss"]]]),
        3,
        fits=dict.fromkeys(new["run"].values.tolist(), fit),
        draws=250,
        random_seed=1,
    )


def inside(rank, ci_prob):
    return float((abs(rank - 0.5) <= ci_prob / 2).where(rank.notnull()).mean())


@pytest.mark.parametrize("of", ["scores", "scores_of_new_runs"])
def test_intervals_of_convergence_cover_and_scores_are_the_best(of, request):
    one = request.getfixturevalue(of).sel(event="converged")
    table = one["crps"].mean("run").transpose("forecaster", "seen")
    print(f"\n{of}\n{table.round(0).to_pandas().to_string()}")  # noqa: T201
    rank = one["rank"].sel(forecaster="forecast")
    half, most = inside(rank, 0.5), inside(rank, 0.9)
    print(f"50% intervals hold {half:.2f}, 90% intervals {most:.2f} of {rank.size}")  # noqa: T201
    saved = one["saved"].mean("run").transpose("forecaster", "tolerance")
    print(saved.round(2).to_pandas().to_string())  # noqa: T201
    # forecasts of one run are late or early together: eight are worth little more than eight
    error = np.sqrt(0.25 / rank.sizes["run"])
    assert 0.5 - 2 * error < half < 0.5 + 2 * error
    assert most >= 0.85
    best = table.sel(forecaster=BASELINES).min("forecaster")
    late = table["seen"] >= 0.3
    assert (table.sel(forecaster="forecast") < best).where(late, True).all()


def test_entries_into_the_last_phase_are_no_worse_than_geometric_dwell_times(scores):
    one = scores.sel(event="phase 2")
    table = one["crps"].mean("run").dropna("seen", how="all")
    print(table.round(0).to_pandas().to_string())  # noqa: T201
    later = table.sel(seen=table["seen"] >= 0.3)
    assert (later.sel(forecaster="forecast") < later.sel(forecaster="geometric")).all()


def test_metrics_half_way_ahead_are_covered(scores):
    for name in scores["metric"].values:
        rank = scores["metric_rank"].sel(metric=name, metric_forecaster="forecast")
        half, most = inside(rank, 0.5), inside(rank, 0.9)
        print(f"{name}: 50% intervals hold {half:.2f}, 90% intervals {most:.2f}")  # noqa: T201
        assert 0.35 < half < 0.75
        assert most > 0.8
