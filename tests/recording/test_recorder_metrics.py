"""Recorded metrics by name: what they are measured from, what the file says, how a run goes on."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bayesphase import Metric, Recorder, aggregate, open_metrics  # noqa: E402
from bayesphase.recording.metrics import MATRIX_METRICS  # noqa: E402

NAMES = ["stable_rank", "distance_from_initial", "distance_from_previous", "gradient_norm"]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))


def shift(model: nn.Module, by: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by)


def test_distances_are_from_the_start_and_from_the_record_before(model: nn.Module) -> None:
    recorder = Recorder(model, metrics=NAMES)
    shift(model, 0.5)
    recorder.record(1)
    model(torch.ones(2, 5)).sum().backward()
    shift(model, -0.25)
    recorder.record(2)
    ds = recorder.dataset()
    assert not set(MATRIX_METRICS) & set(ds.data_vars)
    assert "weight_mean" in ds
    roots = np.sqrt([20, 12])  # of the number of entries
    np.testing.assert_allclose(ds["distance_from_initial"][0], [roots / 2, roots / 4], rtol=1e-6)
    np.testing.assert_allclose(
        ds["distance_from_previous"][0], [[np.nan] * 2, roots / 4], rtol=1e-6
    )
    norms = [float(model[i].weight.grad.norm()) for i in (0, 1)]
    np.testing.assert_allclose(ds["gradient_norm"][0], [[np.nan] * 2, norms], rtol=1e-6)
    assert ds["gradient_norm"].dims == ("run", "step", "parameter")
    assert ds["gradient_norm"].attrs["units"] == "loss / weight"
    assert ds["stable_rank"].attrs["formula"] == "||W||_F^2 / s_1^2"
    assert "Rudelson" in ds["stable_rank"].attrs["source"]
    assert aggregate(ds)["stable_rank"].shape == (1, 2)


def test_after_going_back_there_is_no_record_before(model: nn.Module) -> None:
    recorder = Recorder(model, metrics=["distance_from_previous"])
    recorder.record(1)
    recorder.record(2)
    with pytest.warns(UserWarning, match="1 records of steps 2 to 2"):
        recorder.rewind(1)
    shift(model, 0.5)
    recorder.record(2)  # of other weights than those that were recorded at step 1
    assert np.isnan(recorder.dataset()["distance_from_previous"][0, 1]).all()
    with pytest.raises(ValueError, match="distance_from_previous"):
        recorder.amend(distance_from_previous=1.0)


def test_gradients_are_split_by_head_as_weights_are() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    recorder = Recorder(attention, metrics=["gradient_norm"])
    x = torch.randn(1, 3, 8)
    attention(x, x, x)[0].square().sum().backward()
    recorder.record(0)
    found = recorder.dataset()["gradient_norm"][0, 0]
    rows = attention.in_proj_weight.grad[4:8]
    assert float(found.sel(parameter="query.head1")) == pytest.approx(float(rows.norm()), rel=1e-6)


def test_a_continued_run_keeps_its_metrics_and_says_what_it_lacks(
    model: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "run.nc"
    own = Metric("rows", lambda m: m.weight.shape[0], units="rows", needs="none")
    with Recorder(model, path=path, metrics=[*NAMES, own]) as recorder:
        recorder.record(0)
    first = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    first.load_state_dict(model.state_dict())
    shift(model, 1.0)
    with (
        pytest.warns(UserWarning, match="the initial weights of a run that is continued"),
        Recorder(model, path=path, mode="a", metrics=NAMES) as recorder,
    ):
        recorder.record(1)
    with Recorder(model, path=path, mode="a", metrics=NAMES, initial=first) as recorder:
        recorder.record(2)
    ds = open_metrics(path)
    np.testing.assert_allclose(
        ds["distance_from_initial"][0, :, 0], [0, np.nan, np.sqrt(20)], rtol=1e-6
    )
    np.testing.assert_array_equal(ds["rows"][0, :, 0], [4, np.nan, np.nan])
    assert ds["rows"].attrs["units"] == "rows"


def test_nothing_is_kept_that_no_metric_looks_at(model: nn.Module) -> None:
    recorder = Recorder(model)
    recorder.record(0)
    assert recorder._initial is None
    assert recorder._previous is None


def test_values_of_your_own_must_not_be_called_as_metrics_are(model: nn.Module) -> None:
    recorder = Recorder(model, metrics=["stable_rank"])
    with pytest.raises(ValueError, match="stable_rank is what the recorder itself calls"):
        recorder.record(0, stable_rank=1.0)
    with pytest.raises(ValueError, match="there is no metric 'rank'"):
        Recorder(model, metrics=["rank"])
