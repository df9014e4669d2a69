"""Metrics of weight matrices, and of all weights or biases pooled.

The definitions of the default set are those of Hu, Chen, Saphra & Cho, "Latent State Models of
Training Dynamics", TMLR 2023 (arXiv:2308.09543), appendix on metrics. Every sum is taken in float64
(on the CPU where the device has no float64): half-precision sums would drown the changes between
two checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bayesphase.recording.definitions import MATRIX_METRICS, choose_metrics
from bayesphase.recording.measured import Measured, Metric, norm
from bayesphase.recording.spectra import (
    SINGULAR_VALUE_FLOOR,
    largest_singular_value,
    singular_values,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "DEFINITIONS",
    "MATRIX_METRICS",
    "count_nonfinite",
    "matrices_metrics",
    "matrix_metrics",
    "pooled_metrics",
    "widen",
]

DEFINITIONS = "bayesphase-metrics/1"
"""Version of the definitions; it changes when numbers change by more than rounding."""

_POOL = 2**20  # entries that are widened at a time


def matrix_metrics(
    weight: Tensor,
    *,
    metrics: Sequence[str | Metric | Callable[[Measured], float]] | None = None,
    rtol: float = 1e-8,
    exact_up_to: int | None = None,
    initial: Tensor | None = None,
    previous: Tensor | None = None,
    gradient: Tensor | None = None,
) -> dict[str, float]:
    r"""Compute metrics of one weight matrix, all from one decomposition.

    With entries :math:`w_{ij}`, singular values :math:`s_1 \ge \dots \ge s_n`, n the smaller side,
    the default set is

    - ``l1_norm`` :math:`\sum |w_{ij}|`, entrywise; ``l2_norm`` :math:`(\sum w_{ij}^2)^{1/2}`
      (Frobenius); ``l1_l2_ratio`` their ratio;
    - ``trace`` :math:`\sum_i w_{ii}` along the leading diagonal, also of an oblong matrix;
      ``spectral_norm`` :math:`s_1`; ``trace_spectral_ratio`` their ratio;
    - ``singular_value_mean`` and ``singular_value_var`` over the n singular values, those below
      1e-5 counted as 0. The variance divides by n, as the paper prints it.

    `bayesphase.recording.definitions` has the others, each with its formula, units and source.

    Parameters
    ----------
    weight : torch.Tensor
        One matrix, shape (rows, columns), of any floating dtype.
    metrics, rtol, exact_up_to
        As of `matrices_metrics`.
    initial, previous, gradient : torch.Tensor, optional
        The matrix at initialisation and at the checkpoint before, and the gradient of the loss by
        it, shape (rows, columns): what distances and the norm of the gradient are taken of.

    Returns
    -------
    dict of str to float
        The metrics by name, all in units of the weights or dimensionless. A non-finite entry makes
        every one NaN. A ratio 0/0, of a matrix of zeros, is NaN.

    Raises
    ------
    TypeError, ValueError
        As of `matrices_metrics`.
    """
    values = matrices_metrics(
        [weight],
        metrics=metrics,
        rtol=rtol,
        exact_up_to=exact_up_to,
        initial=[initial],
        previous=[previous],
        gradients=[gradient],
    )
    return {name: float(value[0]) for name, value in values.items()}


def matrices_metrics(
    weights: Sequence[Tensor],
    *,
    metrics: Sequence[str | Metric | Callable[[Measured], float]] | None = None,
    rtol: float = 1e-8,
    exact_up_to: int | None = None,
    initial: Sequence[Tensor | None] | None = None,
    previous: Sequence[Tensor | None] | None = None,
    gradients: Sequence[Tensor | None] | None = None,
) -> dict[str, np.ndarray]:
    """Compute metrics of several weight matrices: quicker together than one by one, and the same.

    Parameters
    ----------
    weights : sequence of torch.Tensor
        Matrices of shape (rows, columns), which may differ, of any floating dtype.
    metrics : sequence of str, Metric or callable, optional
        What to compute; see `choose_metrics`. By default the eight of arXiv:2308.09543.
    rtol : float
        Relative accuracy of the sums and variances of singular values; see `singular_values`.
        From 1e-6 on, float32 is used where it suffices. Metrics that need each singular value by
        itself (`power_law_alpha` and your own functions) have them to 1e-6 at least, the largest
        to rounding, and where that needs a full decomposition, get one.
    exact_up_to : int, optional
        Matrices whose smaller side is larger than this are not decomposed. Their largest singular
        value is estimated (`largest_singular_value` says how well), and metrics that need the
        others are NaN.
    initial, previous, gradients : sequence of torch.Tensor or None, optional
        For each matrix that at initialisation and that at the checkpoint before, and the gradient;
        None where unknown.

    Returns
    -------
    dict of str to ndarray
        The metrics by name, shape (parameter,). NaN for a matrix with an entry that is not finite,
        or where the metric has no value.

    Raises
    ------
    TypeError
        If `metrics` holds no metrics, or a function returns no number.
    ValueError
        If a weight is not a matrix or has no entries, a reference has another shape, a metric is
        unknown, or `rtol` is not from 0 to 1.
    """
    chosen = choose_metrics(metrics)
    if not 0.0 <= rtol < 1.0:
        raise ValueError(f"rtol is {rtol!r}, expected a relative accuracy from 0 to 1, as 1e-8")
    unknown: list[Tensor | None] = [None] * len(weights)
    given = [list(r or unknown) for r in (initial, previous, gradients)]
    weights = [_plain(w) for w in weights]
    for i, weight in enumerate(weights):
        _check_matrix(
            weight, {"initial": given[0][i], "previous": given[1][i], "gradient": given[2][i]}
        )
    l1_norms = [norm(weight, 1) for weight in weights]
    finite = [i for i, l1_norm in enumerate(l1_norms) if math.isfinite(l1_norm)]
    spectra = _spectra([weights[i] for i in finite], chosen, rtol, exact_up_to)
    values = {metric.name: np.full(len(weights), np.nan) for metric in chosen}
    for i, (s, largest) in zip(finite, spectra, strict=True):
        references = [None if (r := of[i]) is None else _plain(r) for of in given]
        measured = Measured(weights[i], s, largest, l1_norms[i], *references)
        for metric in chosen:
            if s.size or metric.needs in ("largest", "none"):
                values[metric.name][i] = metric.value(measured)
    return values


def _spectra(
    weights: list[Tensor], chosen: Sequence[Metric], rtol: float, exact_up_to: int | None
) -> list[tuple[np.ndarray, float]]:
    """Give singular values, small ones as 0, and the largest; none where no metric needs them."""
    needs = {metric.needs for metric in chosen}
    spectra = [(np.empty(0), float("nan"))] * len(weights)
    if needs == {"none"}:
        return spectra
    limit = math.inf if exact_up_to is None else exact_up_to
    exact = [i for i, w in enumerate(weights) if min(w.shape) <= limit]
    each = "each" in needs
    solved = singular_values(
        [weights[i] for i in exact], rtol=min(rtol, 1e-6) if each else rtol, each=each
    )
    for i, s in zip(exact, solved, strict=True):
        spectra[i] = (np.where(s >= SINGULAR_VALUE_FLOOR, s, 0.0), float(s[0]))
    for i in set(range(len(weights))) - set(exact):
        spectra[i] = (np.empty(0), largest_singular_value(weights[i])[0])
    return spectra


def _check_matrix(weight: Tensor, references: dict[str, Tensor | None]) -> None:
    if weight.ndim != 2 or not weight.numel():
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, expected a matrix (rows, columns) with "
            "entries: reshape it, or leave it out of the selection"
        )
    for name, reference in references.items():
        if reference is not None and reference.shape != weight.shape:
            raise ValueError(
                f"{name} has shape {tuple(reference.shape)}, expected that of the weight, "
                f"{tuple(weight.shape)}"
            )


def _plain(tensor: Tensor) -> Tensor:
    """Return the tensor without its graph, in a dtype that has arithmetic."""
    import torch

    tensor = tensor.detach()
    if tensor.element_size() == 1 or not tensor.is_floating_point():  # float8, or whole numbers
        return tensor.to(torch.float32 if tensor.is_floating_point() else torch.float64)
    return tensor


def pooled_metrics(tensors: Iterable[Tensor], *, prefix: str) -> dict[str, float]:
    """Compute mean, median and variance of all entries of several tensors together.

    Parameters
    ----------
    tensors : iterable of torch.Tensor
        Tensors of any shape; every entry counts once and equally.
    prefix : str
        What the entries are, ``"weight"`` or ``"bias"``: the beginning of the names returned.

    Returns
    -------
    dict of str to float
        ``{prefix}_mean``, ``{prefix}_median`` (of an even count the mean of the two middle values)
        and ``{prefix}_var`` (divided by the count). All NaN if there is no entry, or one that is
        not finite.
    """
    import torch

    names = [f"{prefix}_{statistic}" for statistic in ("mean", "median", "var")]
    parts = [_plain(tensor).flatten() for tensor in tensors]
    count = sum(part.numel() for part in parts)
    if not count:
        return dict.fromkeys(names, float("nan"))
    x = torch.cat(parts)
    del parts  # all weights are in memory once
    total = sum(float(widen(part).sum()) for part in x.split(_POOL))
    if not math.isfinite(total):
        return dict.fromkeys(names, float("nan"))
    mean = total / count
    variance = sum(float((widen(part) - mean).square().sum()) for part in x.split(_POOL)) / count
    return dict(zip(names, (mean, _median(x), variance), strict=True))  # the median sorts x


def _median(x: Tensor) -> float:
    """Give the median, of an even count the mean of the two middle values."""
    import torch

    if x.device.type in ("cpu", "mps"):
        x = x.cpu() if x.dtype in (torch.float32, torch.float64) else x.cpu().float()
        middle, entries = [(x.numel() - 1) // 2, x.numel() // 2], x.numpy()
        entries.partition(middle)  # in place: no further copy
        return float(entries[middle].astype(np.float64).mean())
    # torch's median is the lower of the two middle values; from the other side it is the upper.
    return float((widen(x.median()) - widen((-x).median())) / 2)


def count_nonfinite(tensors: Iterable[Tensor]) -> int:
    """Count the entries that are NaN or infinite.

    Parameters
    ----------
    tensors : iterable of torch.Tensor
        Tensors of any shape.

    Returns
    -------
    int
        The number of such entries in all tensors together.
    """
    return sum(int((~tensor.detach().isfinite()).sum()) for tensor in tensors)


def widen(tensor: Tensor) -> Tensor:
    """Return the tensor in float64 without its graph, on its device where that has float64."""
    import torch

    tensor = tensor.detach()
    if tensor.device.type == "mps":
        tensor = tensor.cpu()
    return tensor.to(torch.float64)
