"""Metrics by name against their definitions in NumPy, closed forms and planted answers."""

import math
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bayesphase import Metric  # noqa: E402
from bayesphase.recording.definitions import MATRIX_METRICS, METRICS  # noqa: E402
from bayesphase.recording.metrics import matrices_metrics, matrix_metrics  # noqa: E402
from bayesphase.recording.power_law import power_law_alpha  # noqa: E402

NAMED = [name for name in METRICS if name not in MATRIX_METRICS]


def of(weight: np.ndarray, name: str, **references: object) -> float:
    return matrix_metrics(torch.as_tensor(weight), metrics=[name], **references)[name]


def test_the_default_set_is_that_of_the_paper() -> None:
    assert tuple(matrix_metrics(torch.eye(2))) == MATRIX_METRICS
    assert len(MATRIX_METRICS) == 8


def test_every_metric_says_what_it_is() -> None:
    for name, metric in METRICS.items():
        assert {"long_name", "units", "formula"} <= set(metric.attrs), name
        assert name == metric.name
    assert METRICS["gradient_norm"].attrs["units"] == "loss / weight"


def test_identity_has_closed_forms() -> None:
    n = 16
    found = matrix_metrics(2 * torch.eye(n), metrics=NAMED)
    assert found == pytest.approx(
        {
            "stable_rank": n,
            "effective_rank": n,
            "power_law_alpha": math.nan,  # equal values have no exponent
            "alpha_weighted": math.nan,
            "log_norm": math.log10(4 * n),
            "log_spectral_norm": math.log10(4),
            "mp_soft_rank": 4.0,  # (4 n / n^2) (2 n^(1/2))^2 / 4
            "distance_from_initial": math.nan,
            "distance_from_previous": math.nan,
            "gradient_norm": math.nan,
        },
        rel=1e-13,
        nan_ok=True,
    )


@pytest.mark.parametrize("shape", [(20, 9), (9, 20), (1, 5)])
def test_rank_one_has_rank_one(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    weight = np.outer(rng.normal(size=shape[0]), rng.normal(size=shape[1]))
    assert of(weight, "stable_rank") == pytest.approx(1)
    assert of(weight, "effective_rank") == pytest.approx(1)


@pytest.mark.parametrize("shape", [(30, 30), (12, 40), (50, 13)])
def test_ranks_and_norms_are_their_definitions(shape: tuple[int, int]) -> None:
    weight = np.random.default_rng(2).normal(size=shape) * 0.1
    s = np.linalg.svd(weight, compute_uv=False)
    p = s / s.sum()
    assert of(weight, "stable_rank") == pytest.approx((weight**2).sum() / s[0] ** 2)
    assert of(weight, "effective_rank") == pytest.approx(np.prod(p**-p))
    assert of(weight, "log_norm") == pytest.approx(2 * np.log10(np.linalg.norm(weight)))
    assert of(weight, "log_spectral_norm") == pytest.approx(2 * np.log10(np.linalg.norm(weight, 2)))
    edge = weight.std() ** 2 * (math.sqrt(shape[0]) + math.sqrt(shape[1])) ** 2
    mean_square = (weight**2).mean() / weight.var()
    assert of(weight, "mp_soft_rank") == pytest.approx(edge * mean_square / s[0] ** 2)


@pytest.mark.parametrize("shape", [(300, 300), (200, 700)])
def test_soft_rank_of_random_matrices_is_one_and_falls_with_a_spike(
    shape: tuple[int, int],
) -> None:
    weight = np.random.default_rng(3).normal(size=shape) * 0.02
    assert of(weight, "mp_soft_rank") == pytest.approx(1, abs=0.07)
    u, v = (np.ones((n, 1)) / math.sqrt(n) for n in shape)
    spiked = weight + 0.02 * 30 * math.sqrt(max(shape)) * u @ v.T
    assert of(spiked, "mp_soft_rank") < 0.1


@pytest.mark.parametrize("exponent", [1.8, 2.5, 3.5])
def test_a_planted_power_law_is_found(exponent: float) -> None:
    n = 400
    quantiles = (np.arange(n) + 0.5) / n
    eigenvalues = (1 - quantiles) ** (-1 / (exponent - 1))  # x_min = 1
    assert power_law_alpha(eigenvalues) == pytest.approx(exponent, rel=0.05)
    q = np.linalg.qr(np.random.default_rng(4).normal(size=(n, n)))[0]
    weight = q * np.sqrt(eigenvalues)
    assert of(weight, "power_law_alpha") == pytest.approx(power_law_alpha(eigenvalues), rel=1e-5)
    top = math.log10(eigenvalues.max())
    assert of(weight, "alpha_weighted") == pytest.approx(
        power_law_alpha(eigenvalues) * top, rel=1e-5
    )


def test_the_tail_starts_where_the_power_law_does() -> None:
    rng = np.random.default_rng(5)
    body, tail = rng.uniform(0.0, 1.0, 400), (1 - rng.uniform(size=300)) ** (-1 / 1.5)
    assert power_law_alpha(np.r_[body, tail]) == pytest.approx(2.5, abs=0.25)


def test_alpha_is_the_estimate_written_out() -> None:
    x = np.sort(np.random.default_rng(6).pareto(1.2, size=60) + 0.3)
    best = (math.inf, math.nan)
    for i in range(60 - 7):
        tail = x[i:]
        exponent = 1 + tail.size / np.log(tail / tail[0]).sum()
        model = 1 - (tail / tail[0]) ** (1 - exponent)
        below, above = np.arange(tail.size) / tail.size, np.arange(1, tail.size + 1) / tail.size
        distance = max(np.abs(model - below).max(), np.abs(model - above).max())
        best = min(best, (distance, exponent))
    assert power_law_alpha(x[::-1]) == pytest.approx(best[1], rel=1e-12)
    assert power_law_alpha(x * 1e-7) == pytest.approx(best[1], rel=1e-9)  # of any scale


@pytest.mark.parametrize("values", [[], [0.0] * 20, [1.0] * 20, list(range(1, 8))])
def test_there_is_no_exponent_of(values: list[float]) -> None:
    assert math.isnan(power_law_alpha(np.array(values, dtype=float)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_distances_and_gradient(dtype: "torch.dtype") -> None:
    generator = torch.Generator().manual_seed(7)
    now, first, before, gradient = (
        torch.randn(6, 4, generator=generator).to(dtype) for _ in range(4)
    )
    names = ["distance_from_initial", "distance_from_previous", "gradient_norm"]
    found = matrix_metrics(now, metrics=names, initial=first, previous=before, gradient=gradient)
    expected = [now.double() - first.double(), now.double() - before.double(), gradient.double()]
    assert list(found.values()) == pytest.approx(
        [np.linalg.norm(x.numpy()) for x in expected], rel=1e-12
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_nan(bad: float) -> None:
    weight = torch.ones(3, 4)
    weight[1, 2] = bad
    good = torch.full((3, 4), 2.0)
    found = matrices_metrics([good, weight], metrics=list(METRICS), initial=[weight, good])
    for name, values in found.items():
        assert math.isnan(values[1]), name
    assert found["l1_norm"][0] == 24
    assert math.isnan(found["distance_from_initial"][0])
    assert math.isnan(
        matrix_metrics(good, metrics=["gradient_norm"], gradient=weight)["gradient_norm"]
    )


def test_zeros_have_no_ratios_and_no_logarithms() -> None:
    found = matrix_metrics(torch.zeros(9, 12), metrics=list(METRICS))
    zero = {"l1_norm", "l2_norm", "trace", "spectral_norm"}
    zero |= {"singular_value_mean", "singular_value_var"}
    assert {name for name, value in found.items() if value == 0} == zero
    assert all(math.isnan(value) for name, value in found.items() if name not in zero)


def test_your_own_functions() -> None:
    def largest_entry(m: object) -> float:
        return m.weight.abs().max()  # type: ignore[attr-defined]

    moved = Metric("moved", lambda m: abs(m.trace - m.initial.trace()), references=["initial"])
    rank = Metric("rank", lambda m: (m.singular_values > 0).sum(), units="directions")
    weight = torch.diag(torch.tensor([1.0, -5.0, 1e-9]))
    found = matrix_metrics(
        weight, metrics=[largest_entry, moved, rank, "trace"], initial=torch.eye(3)
    )
    assert found == pytest.approx({"largest_entry": 5, "moved": 7, "rank": 2, "trace": -4})
    assert rank.attrs == {"long_name": "rank", "units": "directions"}


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        (["stable_rnk"], ValueError, "no metric 'stable_rnk'; did you mean 'stable_rank'"),
        (["trace", "trace"], ValueError, "'trace' is named twice"),
        ("trace", TypeError, "metrics is 'trace', expected a list"),
        ([], ValueError, "metrics is empty; there are: l1_norm"),
        ([3], TypeError, "metrics holds 3, expected a name, a function or a Metric"),
        ([lambda m: 1.0], ValueError, "the name of a metric is '<lambda>'"),
        ([Metric("weight_mean", lambda m: 1.0)], ValueError, "is called 'weight_mean'"),
        ([Metric("epoch", lambda m: 1.0)], ValueError, "is called 'epoch'"),
        ([Metric("text", lambda m: "much")], TypeError, "'text' returned 'much', expected one"),
        ([Metric("many", lambda m: np.ones(2))], TypeError, "'many' returned"),
    ],
)
def test_wrong_metrics(metrics: list, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        matrix_metrics(torch.eye(3), metrics=metrics)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"needs": "some"}, ValueError, "'x' needs 'some', expected one of"),
        ({"references": "initial"}, ValueError, "the references of 'x' are 'initial'"),
        ({"references": ["last"]}, ValueError, "the references of 'x' are ['last']"),
        ({"function": 3}, TypeError, "the function of 'x' is 3"),
    ],
)
def test_wrong_definitions(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        Metric(**({"name": "x", "function": lambda m: 1.0} | options))


def test_references_must_fit() -> None:
    with pytest.raises(
        ValueError, match=r"initial has shape \(2, 3\), expected that of the weight"
    ):
        matrix_metrics(torch.eye(3), metrics=["trace"], initial=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"rtol is 1\.5, expected"):
        matrix_metrics(torch.eye(3), rtol=1.5)
    for shape in ((0, 3), (3,), (2, 2, 2)):
        with pytest.raises(ValueError, match="expected a matrix"):
            matrix_metrics(torch.ones(shape), metrics=["trace"])
