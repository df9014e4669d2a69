"""The metrics of one weight matrix: a table from names to definitions.

Whoever wants another metric writes a function of a `Measured` matrix and gives it beside the names.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bayesphase.contract import COORDS, VARIABLES
from bayesphase.recording.measured import Measured, Metric, norm
from bayesphase.recording.power_law import power_law_alpha

if TYPE_CHECKING:
    from torch import Tensor

_HU = "Hu et al. 2023, arXiv:2308.09543"
_MARTIN = "Martin & Mahoney 2021, JMLR 22(165)"
_NAN = float("nan")


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else _NAN


def _log10(x: float) -> float:
    return math.log10(x) if x > 0.0 else _NAN


def stable_rank(m: Measured) -> float:
    r"""Stable rank :math:`\|W\|_F^2 / s_1^2`, from 1 to the rank; no units.

    Rudelson & Vershynin 2007, doi:10.1145/1255443.1255449.
    """
    return _ratio(m.l2_norm, m.spectral_norm) ** 2


def effective_rank(m: Measured) -> float:
    r"""Effective rank :math:`\exp(-\sum_i p_i \log p_i), p_i = s_i / \sum_j s_j`; no units.

    The exponential of the entropy of the singular values, from 1 to the rank: Roy & Vetterli 2007,
    "The effective rank", EUSIPCO, pages 606 to 610.
    """
    s = m.singular_values[m.singular_values > 0.0]
    if not s.size:
        return _NAN
    p = s / s.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def mp_soft_rank(m: Measured) -> float:
    r"""Marchenko-Pastur soft rank :math:`\lambda_+ / \lambda_{max}` of W^T W; no units.

    :math:`\lambda_+ = \sigma^2 (\sqrt{rows} + \sqrt{columns})^2` is the edge of the spectrum of a
    matrix of independent entries, :math:`\sigma^2 = \|W\|_F^2 / (rows \cdot columns)` the mean
    square of all entries: outliers of the spectrum are not taken out of it, so that it never jumps.
    About 1 for such a matrix, near 0 where few directions dominate. Martin & Mahoney 2021,
    JMLR 22(165); Marchenko & Pastur 1967, doi:10.1070/SM1967v001n04ABEH001994.
    """
    rows, columns = m.weight.shape
    return stable_rank(m) * (1 / math.sqrt(rows) + 1 / math.sqrt(columns)) ** 2


def alpha(m: Measured) -> float:
    r"""Exponent of a power law in the tail of the eigenvalues of W^T W; no units.

    By maximum likelihood (Hill's estimator), from the :math:`x_{min}` of the least
    Kolmogorov-Smirnov distance: Clauset, Shalizi & Newman 2009, doi:10.1137/070710111; for weights
    Martin & Mahoney 2021, JMLR 22(165). See `power_law_alpha`.
    """
    return power_law_alpha(m.singular_values**2)


def _distance(weight: Tensor, other: Tensor | None) -> float:
    import torch

    if other is None:
        return _NAN
    wide = torch.float32 if weight.device.type == "mps" else torch.float64
    return norm(weight.to(wide) - other.to(device=weight.device, dtype=wide), 2)


def distance_from_initial(m: Measured) -> float:
    r"""Distance from initialisation :math:`\|W_t - W_0\|_F`, in units of the weights.

    Nagarajan & Kolter 2019, arXiv:1901.01672. NaN where the initial weights are not known.
    """
    return _distance(m.weight, m.initial)


def distance_from_previous(m: Measured) -> float:
    r"""Distance from the previous checkpoint :math:`\|W_t - W_{t-1}\|_F`, in units of the weights.

    Not divided by the number of steps between the two. NaN at the first checkpoint.
    """
    return _distance(m.weight, m.previous)


def gradient_norm(m: Measured) -> float:
    r"""Norm of the gradient :math:`\|\partial L / \partial W\|_F`, loss per unit of the weights.

    NaN where there is no gradient, as in a checkpoint.
    """
    return _NAN if m.gradient is None else norm(m.gradient, 2)


def _of_paper(
    name: str, function: Callable[[Measured], float], formula: str, needs: str = "none"
) -> Metric:
    long_name, units = VARIABLES[name].long_name, VARIABLES[name].units
    return Metric(
        name,
        function,
        long_name=long_name,
        units=units,
        formula=formula,
        source=_HU,
        needs=needs,
    )


_DEFAULT = (
    _of_paper("l1_norm", lambda m: m.l1_norm, "sum |w_ij|"),
    _of_paper("l2_norm", lambda m: m.l2_norm, "(sum w_ij^2)^(1/2)"),
    _of_paper("l1_l2_ratio", lambda m: _ratio(m.l1_norm, m.l2_norm), "l1_norm / l2_norm"),
    _of_paper("trace", lambda m: m.trace, "sum_i w_ii"),
    _of_paper("spectral_norm", lambda m: m.spectral_norm, "s_1", "largest"),
    _of_paper(
        "trace_spectral_ratio",
        lambda m: _ratio(m.trace, m.spectral_norm),
        "trace / spectral_norm",
        "largest",
    ),
    _of_paper("singular_value_mean", lambda m: m.singular_values.mean(), "mean of s_i", "all"),
    _of_paper(
        "singular_value_var",
        lambda m: m.singular_values.var(),
        "mean of (s_i - singular_value_mean)^2",
        "all",
    ),
)
_MORE = (
    Metric(
        "stable_rank",
        stable_rank,
        formula="||W||_F^2 / s_1^2",
        source="Rudelson & Vershynin 2007, doi:10.1145/1255443.1255449",
        needs="largest",
    ),
    Metric(
        "effective_rank",
        effective_rank,
        formula="exp(-sum p_i log p_i), p_i = s_i / sum_j s_j",
        source="Roy & Vetterli 2007, The effective rank, EUSIPCO",
        needs="all",
    ),
    Metric(
        "power_law_alpha",
        alpha,
        long_name="exponent of the tail of the eigenvalues",
        formula="1 + n / sum log(x_i / x_min), x_i = s_i^2 >= x_min of the least KS distance",
        source=f"Clauset et al. 2009, doi:10.1137/070710111; {_MARTIN}",
    ),
    Metric(
        "alpha_weighted",
        lambda m: alpha(m) * 2.0 * _log10(m.spectral_norm),
        long_name="tail exponent times log spectral norm",
        formula="power_law_alpha log10 s_1^2",
        source=_MARTIN,
    ),
    Metric(
        "log_norm",
        lambda m: 2.0 * _log10(m.l2_norm),
        long_name="log10 of the squared Frobenius norm",
        formula="log10 ||W||_F^2",
        source=_MARTIN,
        needs="none",
    ),
    Metric(
        "log_spectral_norm",
        lambda m: 2.0 * _log10(m.spectral_norm),
        long_name="log10 of the squared spectral norm",
        formula="log10 s_1^2",
        source=_MARTIN,
        needs="largest",
    ),
    Metric(
        "mp_soft_rank",
        mp_soft_rank,
        long_name="Marchenko-Pastur soft rank",
        formula="(||W||_F^2 / (rows columns)) (rows^(1/2) + columns^(1/2))^2 / s_1^2",
        source=_MARTIN,
        needs="largest",
    ),
    Metric(
        "distance_from_initial",
        distance_from_initial,
        long_name="distance from initialisation",
        formula="||W_t - W_0||_F",
        source="Nagarajan & Kolter 2019, arXiv:1901.01672",
        needs="none",
        references=("initial",),
    ),
    Metric(
        "distance_from_previous",
        distance_from_previous,
        long_name="distance from the previous checkpoint",
        formula="||W_t - W_(t-1)||_F",
        needs="none",
        references=("previous",),
    ),
    Metric(
        "gradient_norm",
        gradient_norm,
        long_name="Frobenius norm of the gradient of the loss",
        units="loss / weight",
        formula="||dL/dW||_F",
        needs="none",
        references=("gradient",),
    ),
)
METRICS = {metric.name: metric for metric in (*_DEFAULT, *_MORE)}

MATRIX_METRICS = tuple(metric.name for metric in _DEFAULT)
"""The metrics of one matrix that are measured unless others are named: those of the paper."""


def choose_metrics(
    metrics: Sequence[str | Metric | Callable[[Measured], float]] | None = None,
) -> tuple[Metric, ...]:
    """Look metrics of one matrix up by their names, and take functions as metrics.

    Parameters
    ----------
    metrics : sequence of str, Metric or callable, optional
        Names of `METRICS`; a `Metric` of your own; or a function of a `Measured` matrix, which is
        then called by its name, and sees all references. By default the eight of arXiv:2308.09543.

    Returns
    -------
    tuple of Metric
        In the order given.

    Raises
    ------
    TypeError
        If `metrics` is no list, or something in it is neither a name, a metric nor a function.
    ValueError
        If a name is unknown, occurs twice, is that of something else in a metrics Dataset, or a
        function has none.
    """
    if metrics is None:
        return tuple(METRICS[name] for name in MATRIX_METRICS)
    if isinstance(metrics, str) or not isinstance(metrics, Iterable):
        raise TypeError(f"metrics is {metrics!r}, expected a list of names or functions")
    chosen = tuple(_metric(metric) for metric in metrics)
    if not chosen:
        raise ValueError(f"metrics is empty; there are: {', '.join(METRICS)}")
    names = [metric.name for metric in chosen]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"the metric {twice[0]!r} is named twice: name each once")
    for metric in chosen:
        if metric.name in COORDS or metric.name in VARIABLES.keys() - set(MATRIX_METRICS):
            raise ValueError(
                f"something else in a metrics Dataset is called {metric.name!r}: give the metric "
                "another name with Metric(name, function)"
            )
    return chosen


def _metric(metric: object) -> Metric:
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        if metric in METRICS:
            return METRICS[metric]
        near = difflib.get_close_matches(metric, METRICS, n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ValueError(f"there is no metric {metric!r}; {hint}There are: {', '.join(METRICS)}")
    if callable(metric):
        name = getattr(metric, "__name__", type(metric).__name__)
        return Metric(name, metric, references=("initial", "previous", "gradient"))
    raise TypeError(f"metrics holds {metric!r}, expected a name, a function or a Metric")
