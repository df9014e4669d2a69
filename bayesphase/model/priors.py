"""A prior as data: the name of a PyMC distribution and its parameters."""

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np


class Prior:
    """A prior that can be named, recorded and built inside a PyMC model.

    Parameters
    ----------
    distribution : str
        Name of a distribution in `pymc`, for example ``"Normal"``.
    **parameters
        Its parameters, numbers or arrays that broadcast against the variable's dims.

    Examples
    --------
    >>> import bayesphase as bp
    >>> bp.Prior("HalfNormal", sigma=0.5)
    Prior('HalfNormal', sigma=0.5)
    """

    def __init__(self, distribution: str, **parameters: Any) -> None:
        self.distribution = distribution
        self.parameters = parameters

    def __repr__(self) -> str:
        """Return the call that makes this prior, arrays as nested lists."""
        arguments = "".join(
            f", {name}={np.asarray(value).tolist()!r}" for name, value in self.parameters.items()
        )
        return f"Prior({self.distribution!r}{arguments})"

    @classmethod
    def parse(cls, text: str) -> "Prior":
        """Make the prior whose ``repr`` this is; nothing in the text is executed.

        Raises
        ------
        ValueError
            If it is something else.
        """
        try:
            call = ast.parse(text, mode="eval").body
            if not isinstance(call, ast.Call) or ast.unparse(call.func) != "Prior":
                raise ValueError("no call of Prior")
            (distribution,) = (ast.literal_eval(argument) for argument in call.args)
            parameters = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        except (SyntaxError, ValueError) as error:
            raise ValueError(
                f"{text!r} is not a prior as it is recorded, such as "
                f"Prior('HalfNormal', sigma=0.5): {error}"
            ) from error
        return cls(distribution, **parameters)

    def wider(self) -> "Prior | None":
        """Return a prior that says half as much, or None if the distribution is another.

        It has the square root of the density, up to a factor: of numbers, of logarithms of those
        that are positive, of probabilities. Variances are doubled, and what counts as observations
        is halved. Normal, half-normal, log-normal, gamma, inverse-gamma, beta and Dirichlet
        distributions have one of the same family.
        """
        change = _WIDER.get((self.distribution, frozenset(self.parameters) - {"mu"}))
        if change is None:
            return None
        kept = {name: value for name, value in self.parameters.items() if name == "mu"}
        changed = {
            name: change(np.asarray(value, np.float64))
            for name, value in self.parameters.items()
            if name != "mu"
        }
        return Prior(self.distribution, **kept, **changed)

    def build(self, name: str, dims: tuple[str, ...]) -> Any:
        """Add a variable of this distribution to the PyMC model in context.

        Raises
        ------
        ValueError
            If PyMC has no such distribution.
        """
        import pymc as pm

        distribution = getattr(pm, self.distribution, None)
        if not (isinstance(distribution, type) and hasattr(distribution, "dist")):
            raise ValueError(
                f"the prior of {name!r} names {self.distribution!r}, which is no PyMC distribution"
            )
        return distribution(name, **self.parameters, dims=dims)


def _doubled_variance(sigma: np.ndarray) -> np.ndarray:
    return sigma * np.sqrt(2.0)


def _halved(value: np.ndarray) -> np.ndarray:
    return 0.5 * value


def _halved_counts(concentration: np.ndarray) -> np.ndarray:
    return 0.5 * (concentration + 1.0)


# by distribution and the parameters that change
_WIDER = {
    ("Normal", frozenset({"sigma"})): _doubled_variance,
    ("HalfNormal", frozenset({"sigma"})): _doubled_variance,
    ("LogNormal", frozenset({"sigma"})): _doubled_variance,
    ("Gamma", frozenset({"alpha", "beta"})): _halved,
    ("InverseGamma", frozenset({"alpha", "beta"})): _halved,
    ("Beta", frozenset({"alpha", "beta"})): _halved_counts,
    ("Dirichlet", frozenset({"a"})): _halved_counts,
}


def parameter(
    priors: Mapping[str, Prior], name: str, key: str, shape: tuple[int, ...]
) -> np.ndarray:
    """Return a parameter of the prior of a variable, in the variable's shape.

    Raises
    ------
    ValueError
        If it does not fit the shape, is not finite, or not positive and no mean.
    """
    value = np.asarray(priors[name].parameters[key], np.float64)
    try:
        full = np.broadcast_to(value, shape)
    except ValueError:
        raise ValueError(
            f"the prior of {name!r} has {key} of shape {value.shape}, which does not fit the "
            f"variable's {shape}"
        ) from None
    if not np.isfinite(value).all() or (key != "mu" and (value <= 0).any()):
        raise ValueError(
            f"the prior of {name!r} has {key} = {value.tolist()}, expected "
            f"{'finite' if key == 'mu' else 'positive'} numbers"
        )
    return full


def certain(name: str, dims: tuple[str, ...], value: np.ndarray) -> Any:
    """Add a variable that is known for certain to the PyMC model in context."""
    import pymc as pm
    import pytensor.tensor as pt

    return pm.Deterministic(name, pt.as_tensor(value), dims=dims)


def choose(defaults: Mapping[str, Prior], given: Mapping[str, Prior] | None) -> dict[str, Prior]:
    """Replace `defaults` by the priors that the user gave.

    Raises
    ------
    ValueError
        If a given name is no variable of the model.
    TypeError
        If a given prior is no `Prior`.
    """
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(
            f"priors must map names of variables to priors, for example "
            f"{{'scale': Prior('HalfNormal', sigma=0.5)}}, got {given!r}"
        )
    given = dict(given or {})
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise ValueError(f"priors names {unknown}, but the model's variables are {list(defaults)}")
    for name, prior in given.items():
        if not isinstance(prior, Prior):
            raise TypeError(
                f"the prior of {name!r} must be a bayesphase.Prior, for example "
                f"Prior('Normal', mu=0, sigma=1), got {prior!r}"
            )
    return {**defaults, **given}
