"""Metrics of one matrix against closed forms, and against NumPy and SciPy in float64."""

import math

import numpy as np
import pytest
import scipy.linalg

torch = pytest.importorskip("torch")

from bayesphase.recording.metrics import (  # noqa: E402
    MATRIX_METRICS,
    count_nonfinite,
    matrix_metrics,
    pooled_metrics,
)


def test_identity_has_closed_forms() -> None:
    assert matrix_metrics(torch.eye(9)) == pytest.approx(
        {
            "l1_norm": 9,
            "l2_norm": 3,
            "l1_l2_ratio": 3,
            "trace": 9,
            "spectral_norm": 1,
            "trace_spectral_ratio": 9,
            "singular_value_mean": 1,
            "singular_value_var": 0,
        },
        abs=1e-14,
    )


def test_rank_one_has_closed_forms() -> None:
    u, v = torch.tensor([3.0, 0.0, -4.0]), torch.tensor([1.0, 2.0])
    norm = 5 * math.sqrt(5)  # |u| |v|, the only singular value
    assert matrix_metrics(torch.outer(u, v)) == pytest.approx(
        {
            "l1_norm": 7 * 3,
            "l2_norm": norm,
            "l1_l2_ratio": 21 / norm,
            "trace": 3.0,
            "spectral_norm": norm,
            "trace_spectral_ratio": 3 / norm,
            "singular_value_mean": norm / 2,
            "singular_value_var": norm**2 / 4,  # of (norm, 0), divided by 2: not by 1
        },
        rel=1e-14,
    )


@pytest.mark.parametrize("shape", [(7, 7), (40, 12), (3, 50), (1, 5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_agrees_with_numpy_and_scipy(shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    w = weight.double().numpy()
    s = scipy.linalg.svdvals(w)
    expected = {
        "l1_norm": np.abs(w).sum(),
        "l2_norm": np.linalg.norm(w, "fro"),
        "l1_l2_ratio": np.abs(w).sum() / np.linalg.norm(w, "fro"),
        "trace": np.trace(w),
        "spectral_norm": np.linalg.norm(w, 2),
        "trace_spectral_ratio": np.trace(w) / np.linalg.norm(w, 2),
        "singular_value_mean": s.mean(),
        "singular_value_var": s.var(),
    }
    assert matrix_metrics(weight) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_singular_values_below_the_floor_count_as_zero() -> None:
    metrics = matrix_metrics(torch.diag(torch.tensor([2.0, 1.01e-5, 0.99e-5, 1e-9]).double()))
    kept = np.array([2.0, 1.01e-5, 0, 0])
    assert metrics["singular_value_mean"] == pytest.approx(kept.mean(), rel=1e-15)
    assert metrics["singular_value_var"] == pytest.approx(kept.var(), rel=1e-14)


def test_a_transpose_changes_nothing() -> None:
    weight = torch.randn(6, 15, generator=torch.Generator().manual_seed(2))
    assert matrix_metrics(weight.T) == pytest.approx(matrix_metrics(weight), rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_nonfinite_entry_makes_every_metric_nan(bad: float) -> None:
    weight = torch.ones(3, 4)
    weight[1, 2] = bad
    metrics = matrix_metrics(weight)
    assert tuple(metrics) == MATRIX_METRICS
    assert all(math.isnan(value) for value in metrics.values())
    assert count_nonfinite([weight, torch.tensor([bad, 1.0, bad])]) == 3


def test_zeros_have_no_ratios() -> None:
    metrics = matrix_metrics(torch.zeros(3, 2))
    assert math.isnan(metrics.pop("l1_l2_ratio"))
    assert math.isnan(metrics.pop("trace_spectral_ratio"))
    assert set(metrics.values()) == {0.0}


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 3), ()])
def test_only_matrices_are_measured(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"weight has shape \(.*\), expected a matrix"):
        matrix_metrics(torch.zeros(shape))


def test_the_weights_are_left_alone() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3))
    before = weight.detach().clone()
    matrix_metrics(weight)
    assert torch.equal(weight, before)
    assert weight.grad is None


@pytest.mark.parametrize("sizes", [(4, 5), (3, 3), (1,)])
def test_pooled_agrees_with_numpy(sizes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    tensors = [torch.randn(2, size, generator=generator)[0] for size in sizes]
    x = torch.cat(tensors).double().numpy()
    assert pooled_metrics(tensors, prefix="bias") == pytest.approx(
        {"bias_mean": x.mean(), "bias_median": np.median(x), "bias_var": x.var()}, rel=1e-13
    )


def test_pooled_of_nothing_or_of_nonfinite_is_nan() -> None:
    for tensors in ([], [torch.zeros(0)], [torch.tensor([1.0, math.inf])]):
        values = pooled_metrics(tensors, prefix="weight")
        assert list(values) == ["weight_mean", "weight_median", "weight_var"]
        assert all(math.isnan(value) for value in values.values())
