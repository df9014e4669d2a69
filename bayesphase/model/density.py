"""The posterior density of our own models, without PyMC's compiler.

PyMC defines the model (`build_model`), but compiling its graph takes far longer than sampling it.
A model that is ours unchanged, with priors of the same families as the default ones, has the same
density here: priors, transforms, Jacobians, likelihood and the gradient of it all, in the
coordinates that PyMC uses (simplexes as centred log-ratios, shares as logarithms of odds, scales
and rates as logarithms). `direct_density` returns None for anything else.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
from scipy.linalg import block_diag

from bayesphase._checks import threads
from bayesphase.model.chain_prior import chain_prior
from bayesphase.model.compiled import compiled, evaluate, pack
from bayesphase.model.compiled_lines import Frame, Priors
from bayesphase.model.emissions import EMISSIONS
from bayesphase.model.full_density import FullDensity
from bayesphase.model.full_gaussian import FullGaussian
from bayesphase.model.line_prior import LinePrior
from bayesphase.model.linear import Linear
from bayesphase.model.lines import Family, Plain
from bayesphase.model.local_density import LocalDensity
from bayesphase.model.offset_density import OffsetDensity
from bayesphase.model.passes import expect
from bayesphase.model.spec import Spec, default_priors

_RATE, _BEND = 2, 3  # places among the coordinates of an emission that has them
# which of these moves with the coordinate of which other
_SHEARED = ((_RATE, 0), (_BEND, 0), (_BEND, _RATE))


class Stretch(NamedTuple):
    """Coordinates u in which PyMC's are `centre` (dim) and L u, with L in blocks.

    `chain` holds lower triangles (block, dim, dim) for each free variable of the chain, `spread`
    (kind, state, feature) the diagonal for locations, log scales and, where there are any, rates
    (or their logarithms) and bends. Rates also move with the coordinate of their location, and
    bends with those of location and rate, by `shear` (3, state, feature).
    """

    centre: np.ndarray
    chain: list[np.ndarray]
    spread: np.ndarray
    shear: np.ndarray


class DirectDensity(LocalDensity):
    """The density of one model and data set, and the way between its coordinates and parameters.

    `block` is what its `compiled` function works on.
    """

    def __init__(self, spec: Spec, stretch: Stretch | None = None) -> None:
        self._spec = spec
        self._chain = chain_prior(spec.transition, spec.priors, spec.n_states)
        self._lines = LinePrior(
            cast("Linear", spec.emission), spec.priors, spec.rows, spec.n_states
        )
        self._stretch = self._pymc_stretch() if stretch is None else stretch
        self._factor = block_diag(*(block for blocks in self._stretch.chain for block in blocks))
        self.n_dim = len(self._stretch.centre)
        self.block = self._packed()

    @property
    def compiled(self) -> Any:
        """The version of the compiled code for this kind of model, compiled or loaded now."""
        return compiled(plain=isinstance(self._family, Plain), kind=self._chain.kind)

    def __call__(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """Log density (nats) and its gradient at `u`, an unconstrained point of `n_dim` numbers."""
        return evaluate(self.block, u, self.compiled)

    def threads(self, cores: int | None) -> int:
        """All `cores`: the sampler calls compiled code, without Python in between."""
        return threads(cores)

    def _packed(self) -> np.ndarray:
        centre, chain, spread, shear = self._stretch
        lines, data = self._lines, self._lines.observed.data
        priors = Priors(
            lines.location_mu,
            lines.location_sigma,
            lines.scale_alpha,
            lines.scale_beta,
            lines.rate_mu,
            lines.rate_sigma,
            lines.bend_mu,
            lines.bend_sigma,
            lines.observed.series.location,
            lines.observed.series.spread,
            np.array([lines.constant + self._chain.constant]),
        )
        sizes = np.concatenate([np.full(*blocks.shape[:2]) for blocks in chain])
        triangles = np.concatenate([blocks.ravel() for blocks in chain])
        frame = Frame(centre, sizes, triangles, spread, shear)
        return pack(
            frame, priors, self._chain.described(self._spec.transition.plan()), self._family, data
        )

    @property
    def _family(self) -> Plain | Family:
        return self._lines.observed.family

    def around(self, parameters: Mapping[str, np.ndarray]) -> "DirectDensity":
        """Return the same density in coordinates in which it is about standard normal at a mode.

        They are PyMC's, shifted and stretched by what the posterior would be if the states were
        known: sums of counts for probabilities and rates of switching, of squares for locations and
        scales.
        """
        spec, observed = self._spec, self._lines.observed
        with np.errstate(divide="ignore"):  # a probability may have underflowed to 0
            potentials = spec.transition.log_potentials(parameters, np)
        expected = expect(observed.data, spec.emission.lines(parameters, observed), *potentials)
        stretch = Stretch(
            self._centre(parameters),
            self._chain.factors(parameters, expected),
            *self._lines.spreads(parameters, expected),
        )
        return type(self)(spec, stretch)

    def _diagonals(self) -> Iterable[np.ndarray]:
        return np.diag(self._factor), self._stretch.spread

    def parameters(self, u: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters, by name, of unconstrained points (..., n_dim)."""
        x, y = self._pymc(u)
        return {**self._chain.parameters(x), **self._lines.parameters(y)}

    def unconstrained(self, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
        """Undo `parameters` for one point."""
        stretch, n_chain = self._stretch, self._chain.n_dim
        away = self._centre(parameters) - stretch.centre
        others = away[n_chain:].reshape(stretch.spread.shape) / stretch.spread
        for shear, (moved, by) in self._shears:  # in this order: a bend moves with the rate's own
            others[moved] -= shear * others[by] / stretch.spread[moved]
        return np.concatenate([np.linalg.solve(self._factor, away[:n_chain]), others.ravel()])

    def _pymc(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """PyMC's coordinates (..., dim) and (..., kind, state, feature) of chain and emission."""
        stretch, n_chain = self._stretch, self._chain.n_dim
        x = u[..., :n_chain] @ self._factor.T + stretch.centre[:n_chain]
        own = u[..., n_chain:].reshape(*u.shape[:-1], *stretch.spread.shape)
        y = own * stretch.spread + stretch.centre[n_chain:].reshape(stretch.spread.shape)
        for shear, (moved, by) in self._shears:
            y[..., moved, :, :] += shear * own[..., by, :, :]
        return x, y

    @property
    def _shears(self) -> list[tuple[np.ndarray, tuple[int, int]]]:
        """Parts of the shear that this emission has, and what they move by what."""
        pairs = zip(self._stretch.shear, _SHEARED, strict=True)
        return [(shear, pair) for shear, pair in pairs if pair[0] < len(self._stretch.spread)]

    def _centre(self, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the point in PyMC's coordinates."""
        parts = self._chain.coordinates(parameters), self._lines.coordinates(parameters)
        return np.concatenate([part.ravel() for part in parts])

    def _pymc_stretch(self) -> Stretch:
        """Leave PyMC's coordinates as they are."""
        shape = self._lines.shape
        blocks = (family.shape for family in self._chain.families.values())
        return Stretch(
            np.zeros(self._chain.n_dim + int(np.prod(shape))),
            [np.tile(np.eye(n), (count, 1, 1)) for count, n in blocks],
            np.ones(shape),
            np.zeros((3, *shape[1:])),
        )


Density = DirectDensity | FullDensity | OffsetDensity


def direct_density(spec: Spec) -> Density | None:
    """Return the density of this model, or None where only PyMC knows it."""
    if type(spec.emission) not in EMISSIONS.values():
        return None
    defaults = default_priors(spec.transition, spec.emission, spec.rows, spec.n_states)
    for name, default in defaults.items():
        prior = spec.priors[name]
        if prior.distribution != default.distribution:
            return None
        if set(prior.parameters) != set(default.parameters):
            return None
    if isinstance(spec.emission, FullGaussian):
        return FullDensity(spec)
    if spec.emission.offsets:
        return OffsetDensity(spec)
    return DirectDensity(spec)
