"""Which tensors of a network are measured, and under which names, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Matrix:
    """One matrix to measure: all of a parameter, or the rows or columns of one head.

    Attributes
    ----------
    name : str
        Its label on the dim `parameter`.
    layer, kind : str
        The module that owns it, and what it does there (``"linear"``, ``"query"``, ...).
    shape : tuple of int
        As measured: rows, columns.
    source : str
        The parameter's name in ``module.named_parameters()``.
    axis, start, stop : int
        The slice of the parameter along one axis; all of it where `stop` is -1.
    """

    name: str
    layer: str
    kind: str
    shape: tuple[int, int]
    source: str
    axis: int = 0
    start: int = 0
    stop: int = -1

    def read(self, parameter: Tensor) -> Tensor:
        """Return the matrix, shape (rows, columns), as a view of its parameter."""
        if self.stop >= 0:
            parameter = parameter.narrow(self.axis, self.start, self.stop - self.start)
        return parameter.detach().reshape(self.shape)


@dataclass(frozen=True)
class Selection:
    """The tensors that count: weight matrices, biases, and what was left out and why.

    `notes` says of matrices that are measured otherwise than the rule would have it, and why.
    """

    matrices: tuple[Matrix, ...]
    biases: tuple[str, ...]
    left_out: Mapping[str, str]
    notes: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the selection as JSON, as it is kept in the attrs of a metrics Dataset."""
        return json.dumps(asdict(self))

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Selection:
        """Return the selection that was written as JSON."""
        matrices = [Matrix(**{**m, "shape": tuple(m["shape"])}) for m in told["matrices"]]
        return cls(tuple(matrices), tuple(told["biases"]), told["left_out"], told["notes"])

    def read(self, module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """Return the selected matrices and biases of a module, as views without a graph.

        Raises
        ------
        ValueError
            If the module lacks a selected parameter, or its shape has changed.
        """
        parameters = dict(module.named_parameters(remove_duplicate=False))
        sources = [matrix.source for matrix in self.matrices] + list(self.biases)
        if missing := sorted(set(sources) - set(parameters)):
            raise ValueError(
                f"the network has no parameter {missing[0]!r}, which the selection names: was the "
                "network wrapped or changed after the selection was made? Select again"
            )
        try:
            matrices = [matrix.read(parameters[matrix.source]) for matrix in self.matrices]
        except RuntimeError as error:
            raise ValueError(
                f"a selected parameter has changed its shape ({error}): select again"
            ) from error
        return matrices, [parameters[name].detach() for name in self.biases]

    def read_gradients(self, module: nn.Module) -> list[Tensor | None]:
        """Return the gradients of the selected matrices that their parameters hold, or None."""
        parameters = dict(module.named_parameters(remove_duplicate=False))
        gradients = [(matrix, parameters[matrix.source].grad) for matrix in self.matrices]
        return [None if grad is None else matrix.read(grad) for matrix, grad in gradients]
