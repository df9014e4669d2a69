"""Singular values of many matrices: each decomposed once, by the cheapest way that is accurate.

The singular values of W are the square roots of the eigenvalues of the Gram matrix W W^T on the
smaller side, which cost a fraction of a decomposition of W. Squaring loses half of the digits of
small ones: an eigenvalue is off by up to delta = c eps lambda_1, so a singular value s by up to
delta / (2 s), and one that is 0 by up to sqrt(delta). From the computed values these bounds, and
what they do to the metrics, are known, and where they are not small enough the next way is taken:

1. the Gram matrix in float32, if the weights hold no more digits and `rtol` allows;
2. the Gram matrix in float64;
3. the singular value decomposition in float64.

Every matrix is computed by itself in one thread, several matrices at a time: results are the same,
bit for bit, whichever matrices are given together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import eigh
from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from torch import Tensor

SINGULAR_VALUE_FLOOR = 1e-5
"""Singular values below this count as 0, as in arXiv:2308.09543."""

# c above, for a smaller side of up to 768; the largest that were seen are 7.5 and 60, over random,
# constant, orthogonal, offset and power-law matrices. It grows with the root of the side.
_GRAM_ERROR = {np.dtype(np.float32): 8.0, np.dtype(np.float64): 64.0}
_CHUNK = 2**22  # entries that are decomposed in one call: 32 MB in float64
_SKETCH = 32  # directions of a randomised estimate
_ITERATIONS = 8


def singular_values(
    matrices: Sequence[Tensor], *, rtol: float, each: bool = False
) -> list[np.ndarray]:
    r"""Compute the singular values of matrices whose entries are finite.

    Parameters
    ----------
    matrices : sequence of torch.Tensor
        Each of shape (rows, columns), of any floating dtype.
    rtol : float
        The relative error of the sum of a matrix's singular values, and that of their variance, is
        at most this, as far as float64 goes. Values that are below 1e-5 for certain count as 0 and
        have no error.
    each : bool
        Every singular value above 1e-5 must be that accurate, also the smallest.

    Returns
    -------
    list of ndarray
        float64, shape (min(rows, columns),), largest first.
    """
    found: list[np.ndarray] = [np.empty(0)] * len(matrices)
    chunks = _chunks(matrices)

    def solve(chunk: list[int]) -> list[np.ndarray]:
        return _solve([matrices[i] for i in chunk], rtol, each)

    with _controller().limit(limits=1, user_api="blas"), ThreadPoolExecutor(_threads()) as pool:
        for chunk, values in zip(chunks, pool.map(solve, chunks), strict=True):
            for i, s in zip(chunk, values, strict=True):
                found[i] = s
    return found


def largest_singular_value(matrix: Tensor) -> tuple[float, float]:
    r"""Estimate the largest singular value without a decomposition, and bound its error.

    Randomised subspace iteration (Halko, Martinsson & Tropp 2011, doi:10.1137/090771806) on 32
    directions, with a fixed seed.

    Parameters
    ----------
    matrix : torch.Tensor
        Shape (rows, columns), entries finite.

    Returns
    -------
    estimate : float
        :math:`\|W v\|` for a unit vector v: above the largest singular value by rounding only.
    error : float
        :math:`\|W^T u - s v\|` with :math:`u = W v / s`: some singular value of W is within this
        of the estimate. That it is the largest is all but certain, not proven.
    """
    import torch

    w = matrix.detach().to(torch.float64 if matrix.device.type != "mps" else torch.float32)
    generator = torch.Generator().manual_seed(0)
    sketch = torch.randn(w.shape[1], min(_SKETCH, *w.shape), generator=generator).to(w)
    for _ in range(_ITERATIONS):
        sketch = torch.linalg.qr(w.mT @ torch.linalg.qr(w @ sketch)[0])[0]
    u, s, v = torch.linalg.svd(w @ sketch, full_matrices=False)
    error = torch.linalg.vector_norm(w.mT @ u[:, 0] - s[0] * (sketch @ v[0]))
    return float(s[0]), float(error)


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _chunks(matrices: Sequence[Tensor]) -> list[list[int]]:
    """Put the indices of matrices alike in shape, dtype and device together, the largest first."""
    alike: dict[Any, list[int]] = {}
    for i, w in enumerate(matrices):
        alike.setdefault((*sorted(w.shape), w.dtype, w.device), []).append(i)
    chunks = []
    for (n, k, *_), indices in sorted(alike.items(), key=lambda item: -item[0][0]):
        size = max(1, _CHUNK // (n * k))
        chunks += [indices[i : i + size] for i in range(0, len(indices), size)]
    return chunks


def _solve(matrices: list[Tensor], rtol: float, each: bool) -> list[np.ndarray]:
    """Compute the singular values of matrices of one shape, dtype and device."""
    import torch

    wide = [w.detach() if w.shape[0] <= w.shape[1] else w.detach().mT for w in matrices]
    ways: Iterable[np.dtype] = (np.dtype(np.float64),)
    on_cpu = wide[0].device.type in ("cpu", "mps")
    # Off the CPU a float32 product may be one of fewer digits (TF32), as training has set it.
    if on_cpu and wide[0].dtype != torch.float64:
        ways = chain((np.dtype(np.float32),), ways) if rtol >= 1e-6 and not each else ways
    found: dict[int, np.ndarray] = {}
    for dtype in ways:
        left = [i for i in range(len(wide)) if i not in found]
        if not left:
            break
        for i, squares, scale in _eigenvalues([wide[i] for i in left], dtype, on_cpu, rtol):
            if _accurate(squares, scale, dtype, rtol, each):
                found[left[i]] = np.sqrt(np.maximum(squares, 0.0)) * scale
    return [found[i] if i in found else _decompose(w) for i, w in enumerate(wide)]


def _eigenvalues(
    wide: list[Tensor], dtype: np.dtype, on_cpu: bool, rtol: float
) -> list[tuple[int, np.ndarray, float]]:
    """Give index, eigenvalues of the Gram matrix (largest first), and scale of the weights.

    Matrices for which float32 will not do are left out.
    """
    import torch

    to = torch.float32 if dtype == np.float32 else torch.float64
    scales = [_scale(w) for w in wide]
    scaled = [w.to(to) if c == 1.0 else w.to(to) / c for w, c in zip(wide, scales, strict=True)]
    try:
        if on_cpu:  # a product with its own transpose costs half in NumPy
            arrays = [w.cpu().numpy() for w in scaled]
            grams = {i: x @ x.T for i, x in enumerate(arrays)}
            if dtype == np.float32:
                grams = {i: g for i, g in grams.items() if _promising(g, arrays[i].shape[1], rtol)}
            squares = {i: _symmetric(g) for i, g in grams.items()}
        else:
            stacked = torch.stack(scaled)
            squares = dict(enumerate(torch.linalg.eigvalsh(stacked @ stacked.mT).cpu().numpy()))
    except (np.linalg.LinAlgError, torch.linalg.LinAlgError):  # has not converged: to the next way
        return []
    return [(i, found[::-1], scales[i]) for i, found in squares.items()]


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    """Give the eigenvalues, in float64, and overwrite it; in float32 NumPy takes much longer."""
    found = eigh(matrix.T, eigvals_only=True, driver="ev", check_finite=False, overwrite_a=True)
    return found.astype(np.float64)


def _promising(gram: np.ndarray, k: int, rtol: float) -> bool:
    """Tell whether eigenvalues in float32 may be accurate enough to be worth computing.

    The errors delta / (2 s) of n singular values add up to at least n delta / (2 sum s^2) of their
    sum (Jensen's inequality); to some five times that if many are near 0, as those of a square
    matrix are. A few steps of the power method have the largest eigenvalue for delta.
    """
    n = len(gram)
    v = gram[np.argmax(gram.diagonal())]
    for _ in range(4):
        largest = float(np.linalg.norm(v))
        if not largest:
            return True
        v = gram @ (v / np.float32(largest))
    many = 5.0 if k < 1.25 * n else 1.0
    return many * n * _delta(float(np.linalg.norm(v)), n, gram.dtype) <= (
        2.0 * rtol * float(np.trace(gram))
    )


def _delta(largest: float, n: int, dtype: np.dtype) -> float:
    """Bound the error of n eigenvalues by the largest."""
    return _GRAM_ERROR[dtype] * max(1.0, np.sqrt(n / 768)) * float(np.finfo(dtype).eps) * largest


def _scale(w: Tensor) -> float:
    """Give a power of two to divide by, so that squares neither overflow nor vanish; mostly 1."""
    import torch

    least, most = torch.aminmax(w)
    largest = max(-float(least), float(most))
    exponent = np.frexp(largest)[1] if largest else 0
    return 1.0 if abs(exponent) < 24 else float(np.ldexp(1.0, int(exponent)))


def _accurate(squares: np.ndarray, scale: float, dtype: np.dtype, rtol: float, each: bool) -> bool:
    """Tell whether singular values from these eigenvalues are as accurate as asked for."""
    delta = _delta(squares[0], squares.size, dtype)
    floor = SINGULAR_VALUE_FLOOR / scale
    s, lower, upper = (
        np.sqrt(np.maximum(squares + change, 0.0)) for change in (0.0, -delta, delta)
    )
    error = np.maximum(upper - s, s - lower)
    error[(lower < floor) & (upper >= floor)] += floor
    gone = upper < floor
    s, error = np.where(gone, 0.0, s), np.where(gone, 0.0, error)
    if each:
        return bool((error <= rtol * s).all())
    of_variance = (2.0 * np.abs(s - s.mean()) + error) @ error
    return bool(error.sum() <= rtol * s.sum() and of_variance <= rtol * s.var() * s.size)


def _decompose(wide: Tensor) -> np.ndarray:
    import torch

    w = wide.cpu() if wide.device.type == "mps" else wide
    # The routine is twice as quick on tall matrices as on wide ones.
    return torch.linalg.svdvals(w.to(torch.float64).mT).cpu().numpy()
