"""The names of a metrics Dataset whose meaning is fixed: variables, coordinates and dims."""

from typing import NamedTuple


class Variable(NamedTuple):
    """What a variable of the contract is: its dims, its long name and its units."""

    dims: tuple[str, ...]
    long_name: str
    units: str


_RUN = ("run", "step")
_MATRIX = ("run", "step", "parameter")

VARIABLES = {
    "l1_norm": Variable(_MATRIX, "entrywise L1 norm", "1"),
    "l2_norm": Variable(_MATRIX, "Frobenius norm", "1"),
    "l1_l2_ratio": Variable(_MATRIX, "L1 norm over Frobenius norm", "1"),
    "trace": Variable(_MATRIX, "trace along the leading diagonal", "1"),
    "spectral_norm": Variable(_MATRIX, "spectral norm", "1"),
    "trace_spectral_ratio": Variable(_MATRIX, "trace over spectral norm", "1"),
    "singular_value_mean": Variable(_MATRIX, "mean of the singular values", "1"),
    "singular_value_var": Variable(_MATRIX, "variance of the singular values", "1"),
    "weight_mean": Variable(_RUN, "mean of all weights", "1"),
    "weight_median": Variable(_RUN, "median of all weights", "1"),
    "weight_var": Variable(_RUN, "variance of all weights", "1"),
    "bias_mean": Variable(_RUN, "mean of all biases", "1"),
    "bias_median": Variable(_RUN, "median of all biases", "1"),
    "bias_var": Variable(_RUN, "variance of all biases", "1"),
    "train_loss": Variable(_RUN, "training loss", "1"),
    "eval_loss": Variable(_RUN, "validation loss", "1"),
    "train_accuracy": Variable(_RUN, "training accuracy", "1"),
    "eval_accuracy": Variable(_RUN, "validation accuracy", "1"),
    "example_loss": Variable(("run", "step", "example"), "loss of one example", "1"),
    "nonfinite_count": Variable(_RUN, "weights and biases that are not finite", "1"),
}

COORDS = {
    "run": Variable(("run",), "training run", ""),
    "step": Variable(("step",), "training step", "optimiser steps"),
    "epoch": Variable(("step",), "epoch", "epochs"),
    "parameter": Variable(("parameter",), "weight matrix", ""),
    "layer": Variable(("parameter",), "layer that owns the matrix", ""),
    "kind": Variable(("parameter",), "what the matrix does in its layer", ""),
    "shape": Variable(("parameter",), "shape of the matrix", ""),
    "example": Variable(("example",), "example of a fixed set", ""),
}

DIMS = ("run", "step", "parameter", "example")
PARAMETER_COORDS = ("layer", "kind", "shape")
