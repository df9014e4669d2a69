"""A page to look at, written once for all tests."""

from pathlib import Path

import pytest
import xarray as xr
from reporting_page import HOSTILE, counts_table, hand_made, hand_made_forecast, hand_made_metrics


@pytest.fixture(scope="session")
def fits() -> dict[str, xr.DataTree]:
    return {"2": hand_made(2), "3": hand_made(3)}


@pytest.fixture(scope="session")
def metrics() -> xr.Dataset:
    return hand_made_metrics()


@pytest.fixture(scope="session")
def written(fits, metrics, tmp_path_factory) -> Path:
    pytest.importorskip("bokeh")
    from bayesphase.reporting import gather, page

    with pytest.MonkeyPatch.context() as patch:  # the evidence of hand-made fits is not known
        patch.setattr(gather, "state_counts", lambda fits, random_seed: counts_table())
        return page.report(
            fits,
            tmp_path_factory.mktemp("report") / "report.html",
            metrics=metrics,
            forecasts=hand_made_forecast(),
            title=f"Title {HOSTILE}",
            ci_prob=0.8,
            random_seed=1,
        )
