"""The variables of a chain in unconstrained coordinates: their prior, and its gradient."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayesphase.model.compiled_chain import Chain, Plan
from bayesphase.model.conjugate import FAMILIES, Dirichlet
from bayesphase.model.markov_chain import MarkovChain
from bayesphase.model.passes import Expectation
from bayesphase.model.priors import Prior, parameter

Parameters = Mapping[str, np.ndarray]


class ChainPrior:
    """Coordinates are those of the chain's free variables, one after the other.

    Parameters
    ----------
    chain
        Of structures as `transitions` describes them.
    priors : mapping of str to Prior
        Of the families of the default ones.
    n_states : int
    """

    def __init__(self, chain: MarkovChain, priors: Mapping[str, Prior], n_states: int) -> None:
        self._chain = chain
        self.kind = "in_time" if len(chain.plan().gaps) else "steps"  # of compiled code
        # any parameters do to learn the shapes of the free variables
        any_, _ = chain.maximise(np.zeros((1, n_states, n_states)), np.zeros(n_states))
        self.families = {}
        for name, value in chain.free(any_).items():
            arguments = {
                key: parameter(priors, name, key, value.shape) for key in priors[name].parameters
            }
            self.families[name] = FAMILIES[priors[name].distribution](**arguments)
        sizes = [int(np.prod(family.shape)) for family in self.families.values()]
        ends = np.cumsum([0, *sizes])
        self.n_dim = int(ends[-1])
        self._parts = [slice(*ends[i : i + 2]) for i in range(len(sizes))]
        self.constant = sum(family.constant for family in self.families.values())

    def described(self, plan: Plan) -> Chain:
        """Say what the compiled code is told of the chain and its priors."""
        families = self.families.values()
        simplexes = [f.a.ravel() for f in families if isinstance(f, Dirichlet)]
        pairs = [f.pair.ravel() for f in families if not isinstance(f, Dirichlet)]
        none = np.zeros(0)  # what is not there
        return Chain(
            **plan._asdict(),
            simplex=np.concatenate([none, *simplexes]),
            pairs=np.concatenate([none, *pairs]),
        )

    def free(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Free variables, by name, at coordinates (..., n_dim)."""
        named = zip(self.families.items(), self._parts, strict=True)
        return {name: family.value(x[..., part]) for (name, family), part in named}

    def parameters(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters, by name, at coordinates (..., n_dim)."""
        return self._chain.named(self.free(x))

    def coordinates(self, parameters: Parameters) -> np.ndarray:
        """Undo `parameters` for one point."""
        free = self._chain.free(parameters)
        parts = [family.coordinates(free[name]) for name, family in self.families.items()]
        return np.concatenate([np.zeros(0), *parts])

    def value_and_slope(
        self, free: Parameters, parameters: Parameters, expected: Expectation
    ) -> tuple[float, np.ndarray]:
        """Log density (nats) of the prior, and the gradient of the log posterior."""
        counts = self._counts(parameters, expected)
        families = self.families.items()
        value = sum(family.log_density(free[name]) for name, family in families)
        slopes = [family.slope(free[name], counts[name]) for name, family in families]
        return value, np.concatenate([np.zeros(0), *slopes])

    def factors(self, parameters: Parameters, expected: Expectation) -> list[np.ndarray]:
        """Cholesky factors (block, dim, dim) of the posterior's covariance about a mode."""
        counts = self._counts(parameters, expected)
        return [family.factor(counts[name]) for name, family in self.families.items()]

    def _counts(self, parameters: Parameters, expected: Expectation) -> dict[str, np.ndarray]:
        return self._chain.counts(parameters, expected.transitions, expected.first_states)


def chain_prior(chain: MarkovChain, priors: Mapping[str, Prior], n_states: int) -> Any:
    """Return the prior of a chain: of independent variables, or the one that it brings along."""
    return chain.own_prior(n_states) or ChainPrior(chain, priors, n_states)
