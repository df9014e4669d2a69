"""What a metric is: a function of a matrix that was measured, and what is said about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_NEEDS = ("all", "each", "largest", "none")
_PART = 2**15  # entries
_REFERENCES = ("initial", "previous", "gradient")


@dataclass
class Measured:
    """One weight matrix W, and what metrics are made of.

    Attributes
    ----------
    weight : torch.Tensor
        The matrix, shape (rows, columns), as it was given; all entries are finite.
    singular_values : ndarray
        float64, shape (min(rows, columns),), largest first; those below 1e-5 are 0.
    spectral_norm : float
        The largest singular value, also where it is below 1e-5.
    l1_norm : float
        Sum of the absolute values of the entries.
    initial, previous, gradient : torch.Tensor or None
        The matrix at initialisation and at the checkpoint before, and the gradient of the loss by
        it, all of the shape of `weight`; None where unknown.
    """

    weight: Tensor
    singular_values: np.ndarray
    spectral_norm: float
    l1_norm: float
    initial: Tensor | None = None
    previous: Tensor | None = None
    gradient: Tensor | None = None

    @cached_property
    def l2_norm(self) -> float:
        """Frobenius norm."""
        return norm(self.weight, 2)

    @cached_property
    def trace(self) -> float:
        """Sum along the leading diagonal."""
        return float(self.weight.diagonal().double().sum())


@dataclass(frozen=True)
class Metric:
    """A metric of one weight matrix, for `metrics=`: how it is computed, and what it means.

    Parameters
    ----------
    name : str
        The variable in the Dataset.
    function : callable
        From a `Measured` matrix to a number, NaN where it has no value. The matrix has the
        attributes `weight`, `singular_values`, `spectral_norm`, `l1_norm`, `l2_norm`, `trace`, and,
        where they are known, `initial`, `previous` and `gradient`.
    long_name, units, formula, source : str
        What the attributes of the variable say; by default the name, "1", and nothing.
    needs : {"all", "each", "largest", "none"}
        Which singular values: all of them (a smooth function, to which small ones add little), each
        of them by itself, also the smallest, the largest alone (`spectral_norm`), or none.

    references : collection of {"initial", "previous", "gradient"}
        What else the function looks at. What no metric does, a `Recorder` does not keep.

    Raises
    ------
    TypeError
        If `function` can't be called.
    ValueError
        If `name` is not one of letters, digits and "_", or `needs` or `references`
        are others.

    Examples
    --------
    >>> from bayesphase import Metric
    >>> rank = Metric("rank", lambda m: (m.singular_values > 0).sum(), long_name="rank")
    >>> rank.attrs
    {'long_name': 'rank', 'units': '1'}
    """

    name: str
    function: Callable[[Measured], float]
    _: KW_ONLY
    long_name: str = ""
    units: str = "1"
    formula: str = ""
    source: str = ""
    needs: str = "each"
    references: Collection[str] = ()

    def __post_init__(self) -> None:  # noqa: D105
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise ValueError(
                f"the name of a metric is {self.name!r}, expected letters, digits and '_': give it "
                "another with Metric(name, function)"
            )
        if not callable(self.function):
            raise TypeError(f"the function of {self.name!r} is {self.function!r}, can't be called")
        if self.needs not in _NEEDS:
            raise ValueError(f"{self.name!r} needs {self.needs!r}, expected one of {_NEEDS}")
        if isinstance(self.references, str) or not set(self.references) <= set(_REFERENCES):
            raise ValueError(
                f"the references of {self.name!r} are {self.references!r}, expected some of "
                f"{_REFERENCES}, in a list"
            )

    @property
    def attrs(self) -> dict[str, str]:
        """The attributes of the variable: long_name, units, and formula and source if given."""
        about = {name: getattr(self, name) for name in ("long_name", "units", "formula", "source")}
        about["long_name"] = self.long_name or self.name.replace("_", " ")
        return {name: text for name, text in about.items() if text}

    def value(self, measured: Measured) -> float:
        """Compute it; what is not finite is NaN.

        Raises
        ------
        TypeError
            If the function does not return a number.
        """
        value = self.function(measured)
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"the metric {self.name!r} returned {value!r}, expected one number"
            ) from error
        return number if math.isfinite(number) else float("nan")


def norm(tensor: Tensor, order: int) -> float:
    """Entrywise L1 or L2 norm, summed in float64 without a widened copy of the whole tensor."""
    import torch

    if tensor.device.type not in ("cpu", "mps"):
        return float(torch.linalg.vector_norm(tensor, order, dtype=torch.float64))
    # Parts that stay in the cache are several times as quick, and summed by one thread.
    parts = (part.to(torch.float64) for part in tensor.cpu().flatten().split(_PART))
    if order == 1:
        return sum(float(part.abs().sum()) for part in parts)
    return math.sqrt(sum(float(torch.dot(part, part)) for part in parts))
