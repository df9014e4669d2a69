"""Metrics of one weight matrix, and of all weights or biases pooled.

The definitions are those of Hu, Chen, Saphra & Cho, "Latent State Models of Training Dynamics",
TMLR 2023 (arXiv:2308.09543), appendix on metrics. Everything is computed in float64, on the device
the tensor is on (the CPU where the device has no float64): widening costs nothing measurable, and
half-precision sums would drown the changes between two checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

DEFINITIONS = "bayesphase-metrics/1"
"""Version of the definitions below; it changes whenever a number computed here would change."""

SINGULAR_VALUE_FLOOR = 1e-5
"""Singular values below this count as 0, as in arXiv:2308.09543."""

MATRIX_METRICS = (
    "l1_norm",
    "l2_norm",
    "l1_l2_ratio",
    "trace",
    "spectral_norm",
    "trace_spectral_ratio",
    "singular_value_mean",
    "singular_value_var",
)


def matrix_metrics(weight: Tensor) -> dict[str, float]:
    r"""Compute the eight metrics of one weight matrix, from one singular value decomposition.

    With entries :math:`w_{ij}`, singular values :math:`s_1 \ge \dots \ge s_n`, n the smaller side:

    - ``l1_norm`` :math:`\sum |w_{ij}|`, entrywise; ``l2_norm`` :math:`(\sum w_{ij}^2)^{1/2}`
      (Frobenius); ``l1_l2_ratio`` their ratio;
    - ``trace`` :math:`\sum_i w_{ii}` along the leading diagonal, also of an oblong matrix;
      ``spectral_norm`` :math:`s_1`; ``trace_spectral_ratio`` their ratio;
    - ``singular_value_mean`` and ``singular_value_var`` over the n singular values, those below
      1e-5 counted as 0. The variance divides by n, as the paper prints it.

    Parameters
    ----------
    weight : torch.Tensor
        One matrix, shape (rows, columns), of any floating dtype.

    Returns
    -------
    dict of str to float
        The metrics by name, all in units of the weights or dimensionless. A non-finite entry makes
        every one NaN. A ratio 0/0, of a matrix of zeros, is NaN.

    Raises
    ------
    ValueError
        If `weight` is not a matrix, or has no entries.
    """
    import torch

    if weight.ndim != 2 or not weight.numel():
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, expected a matrix (rows, columns) with "
            "entries: reshape it, or leave it out of the selection"
        )
    w = widen(weight)
    if not bool(torch.isfinite(w).all()):
        return dict.fromkeys(MATRIX_METRICS, float("nan"))
    s = torch.linalg.svdvals(w)
    l1, l2, trace, spectral = w.abs().sum(), torch.linalg.vector_norm(w), w.diagonal().sum(), s[0]
    s = s.where(s >= SINGULAR_VALUE_FLOOR, 0.0)
    values = torch.stack(
        [l1, l2, l1 / l2, trace, spectral, trace / spectral, s.mean(), s.var(correction=0)]
    )
    return dict(zip(MATRIX_METRICS, values.tolist(), strict=True))


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
    parts = [widen(tensor).flatten() for tensor in tensors]
    if not sum(part.numel() for part in parts):
        return dict.fromkeys(names, float("nan"))
    x = torch.cat(parts)
    if not bool(torch.isfinite(x).all()):
        return dict.fromkeys(names, float("nan"))
    # torch's median is the lower of the two middle values; from the other side it is the upper.
    median = (x.median() - (-x).median()) / 2
    values = torch.stack([x.mean(), median, x.var(correction=0)])
    return dict(zip(names, values.tolist(), strict=True))


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
