"""Singular values from Gram matrices: as accurate as stated, and decomposed where they are not."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bayesphase.recording import spectra  # noqa: E402
from bayesphase.recording.metrics import matrices_metrics, matrix_metrics  # noqa: E402
from bayesphase.recording.spectra import largest_singular_value, singular_values  # noqa: E402

SHAPES = [(96, 96), (60, 200), (200, 60), (1, 7), (7, 1)]


def orthogonal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(rows, columns)))[0]


def with_values(values: np.ndarray, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = min(shape)
    return (orthogonal(rng, shape[0], n) * values) @ orthogonal(rng, shape[1], n).T


KINDS = {
    "random": lambda n: None,
    "offset": lambda n: None,
    "orthogonal": lambda n: np.ones(n),
    "nearly orthogonal": lambda n: 1 + 1e-5 * np.linspace(1, 0, n),
    "power law": lambda n: np.arange(1.0, n + 1) ** -1.0,
    "one strong": lambda n: np.r_[200.0, np.linspace(1.0, 0.05, n - 1)],
    "ill-conditioned": lambda n: np.logspace(3, -9, n),
    "rank deficient": lambda n: np.r_[np.linspace(2, 1, n // 2), np.zeros(n - n // 2)],
    "around the floor": lambda n: np.logspace(0, -5.0001, n),
    "large": lambda n: np.linspace(1e6, 1.0, n),
    "small": lambda n: np.linspace(1e-4, 1e-6, n),
}


def make(kind: str, shape: tuple[int, int]) -> np.ndarray:
    values = KINDS[kind](min(shape))
    if values is not None:
        return with_values(values, shape)
    rng = np.random.default_rng(1)
    return rng.normal(size=shape) * 0.02 + (0.05 if kind == "offset" else 0.0)


def floored(s: np.ndarray) -> np.ndarray:
    return np.where(s < 1e-5, 0.0, s)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rtol", [1e-8, 1e-4])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sum_and_variance_are_as_accurate_as_asked(
    kind: str, shape: tuple[int, int], rtol: float, dtype: type
) -> None:
    weight = make(kind, shape).astype(dtype)
    (found,) = singular_values([torch.as_tensor(weight)], rtol=rtol)
    right = floored(np.linalg.svd(weight.astype(float), compute_uv=False))
    found = floored(found)
    assert found.shape == right.shape
    assert (np.diff(found) <= 0).all()
    assert found.sum() == pytest.approx(right.sum(), rel=rtol + 1e-13)
    # of equal values the variance is rounding of the reference, too
    assert found.var() == pytest.approx(right.var(), rel=rtol, abs=1e-13 * right.max() ** 2)


@pytest.mark.parametrize("kind", ["random", "ill-conditioned", "power law", "around the floor"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_each_value_is_as_accurate_as_asked(kind: str, dtype: type) -> None:
    weight = make(kind, (96, 96)).astype(dtype)
    (found,) = singular_values([torch.as_tensor(weight)], rtol=1e-6, each=True)
    right = np.linalg.svd(weight.astype(float), compute_uv=False)
    above = right > 1e-5 * (1 + 1e-6)
    np.testing.assert_allclose(found[above], right[above], rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "falls_back"),
    [
        ("random", {"rtol": 1e-8}, False),
        ("power law", {"rtol": 1e-8}, False),
        ("rank deficient", {"rtol": 1e-8}, False),  # what is below 1e-5 for certain counts as 0
        ("orthogonal", {"rtol": 1e-8}, True),  # the variance is 0
        ("large", {"rtol": 1e-14}, True),
        ("ill-conditioned", {"rtol": 1e-6, "each": True}, True),
        ("random", {"rtol": 1e-6, "each": True}, False),
    ],
)
def test_decomposed_where_the_gram_matrix_is_not_accurate(
    kind: str, options: dict, falls_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decomposed = []
    original = spectra._decompose
    monkeypatch.setattr(spectra, "_decompose", lambda w: decomposed.append(w) or original(w))
    singular_values([torch.as_tensor(make(kind, (60, 200)))], **options)
    assert bool(decomposed) == falls_back


@pytest.mark.parametrize(("rtol", "single"), [(1e-4, True), (1e-8, False)])
def test_float32_is_used_only_where_it_may_be(
    rtol: float, single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    original = spectra._symmetric
    monkeypatch.setattr(spectra, "_symmetric", lambda g: used.append(g.dtype) or original(g))
    weight = torch.as_tensor(make("random", (60, 200)))
    singular_values([weight.float()], rtol=rtol)
    singular_values([weight], rtol=rtol)
    assert used == [np.float32 if single else np.float64, np.float64]


@pytest.mark.parametrize(
    ("strength", "shape", "worth_it"),
    [(1, (60, 200), True), (1, (60, 60), True), (30, (60, 200), True), (100, (60, 60), False)],
)
def test_float32_is_not_tried_where_it_will_not_do(
    strength: float, shape: tuple[int, int], worth_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    original = spectra._symmetric
    monkeypatch.setattr(spectra, "_symmetric", lambda g: used.append(g.dtype) or original(g))
    weight = np.random.default_rng(3).normal(size=shape)
    left, s, right = np.linalg.svd(weight, full_matrices=False)
    s[0] *= strength
    singular_values([torch.as_tensor((left * s) @ right).float()], rtol=1e-4)
    assert (used[0] == np.float32) == worth_it


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_squares_neither_vanish_nor_overflow(scale: float) -> None:
    weight = make("random", (30, 50)).astype(np.float32) * np.float32(scale)
    (found,) = singular_values([torch.as_tensor(weight)], rtol=1e-4)
    right = np.linalg.svd(weight.astype(float), compute_uv=False)
    if scale > 1:
        np.testing.assert_allclose(found, right, rtol=1e-4)
    else:
        assert found.max() == pytest.approx(right.max(), rel=1e-4)


@pytest.mark.parametrize("rtol", [1e-4, 1e-8])
def test_together_they_are_the_same_bit_for_bit(rtol: float) -> None:
    rng = np.random.default_rng(2)
    shapes = [(8, 20), (20, 8), (30, 30), (8, 20), (1, 4), (8, 20)]
    weights = [torch.as_tensor(rng.normal(size=s).astype(np.float32)) for s in shapes]
    weights[3] = torch.eye(8, 20)  # falls back, beside others that do not
    weights.append(torch.full((8, 20), torch.nan))
    together = matrices_metrics(weights, rtol=rtol)
    for i, weight in enumerate(weights):
        alone = matrix_metrics(weight, rtol=rtol)
        np.testing.assert_equal({name: v[i] for name, v in together.items()}, alone)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        np.testing.assert_equal(matrices_metrics(weights, rtol=rtol), together)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", ["random", "power law", "ill-conditioned"])
def test_torch_gives_the_same_eigenvalues_as_numpy(kind: str) -> None:
    weights = [torch.as_tensor(make(kind, (40, 70)))] * 2
    for (_, a, scale), (_, b, other) in zip(
        spectra._eigenvalues(weights, np.dtype(float), True, 1e-8),
        spectra._eigenvalues(weights, np.dtype(float), False, 1e-8),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-13 * a.max())
        assert scale == other


def test_a_solver_that_does_not_converge_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(gram: np.ndarray) -> np.ndarray:
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr(np.linalg, "eigvalsh", fails)
    weight = make("random", (30, 50))
    (found,) = singular_values([torch.as_tensor(weight)], rtol=1e-8)
    np.testing.assert_allclose(found, np.linalg.svd(weight, compute_uv=False), rtol=1e-12)


@pytest.mark.parametrize("kind", ["random", "one strong", "power law", "orthogonal"])
@pytest.mark.parametrize("shape", [(96, 96), (60, 200), (200, 60), (1, 7)])
def test_the_estimate_is_as_near_as_it_says(kind: str, shape: tuple[int, int]) -> None:
    weight = make(kind, shape)
    estimate, error = largest_singular_value(torch.as_tensor(weight))
    right = np.linalg.norm(weight, 2)
    assert estimate <= right * (1 + 1e-12)
    assert right - estimate <= error + 1e-12 * right
    state = torch.get_rng_state()
    assert largest_singular_value(torch.as_tensor(weight)) == (estimate, error)
    assert bool((torch.get_rng_state() == state).all())


def test_large_matrices_are_estimated_if_asked() -> None:
    weights = [torch.as_tensor(make("one strong", s)) for s in ((60, 200), (200, 96))]
    names = ["l2_norm", "spectral_norm", "stable_rank", "mp_soft_rank", "effective_rank"]
    whole = matrices_metrics(weights, metrics=names)
    found = matrices_metrics(weights, metrics=names, exact_up_to=60)
    np.testing.assert_equal(
        {n: v[0] for n, v in found.items()}, {n: v[0] for n, v in whole.items()}
    )
    for name in names[:-1]:
        assert found[name][1] == pytest.approx(whole[name][1], rel=1e-9)
    assert np.isnan(found["effective_rank"][1])
