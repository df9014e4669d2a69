"""The posterior density of our own models as one compiled function, without PyMC's compiler.

PyMC defines the model (`build_model`), but compiling its graph takes far longer than sampling it.
A model that is ours unchanged, with priors of the families below, has the same density here:
priors, transforms, Jacobians, likelihood and the gradient of it all, in the coordinates that PyMC
uses (simplexes as centred log-ratios, scales and rates as logarithms). `direct_density` returns
None for anything else.
"""

from collections.abc import Mapping

import numpy as np
from scipy.special import gammaln, log_softmax, polygamma

from bayesphase.model.compiled import Frame, Priors, evaluate, pack
from bayesphase.model.emissions import EMISSIONS
from bayesphase.model.linear import Observed
from bayesphase.model.lines import Plain, curvature
from bayesphase.model.passes import Expectation, expect
from bayesphase.model.spec import Spec
from bayesphase.model.transitions import Sticky

# families of the priors: of the two variables of the transition, and of those of the emission
_SIMPLEX = ("Dirichlet", {"a"})
_LINE = (("Normal", {"mu", "sigma"}), ("InverseGamma", {"alpha", "beta"}))
_REVERSION = (*_LINE, ("LogNormal", {"mu", "sigma"}))
_CURVE = (*_LINE, ("Normal", {"mu", "sigma"}), ("Normal", {"mu", "sigma"}))
_RATE, _BEND = 2, 3  # places of the emission's variables, where a family has them


class DirectDensity:
    """The density of one model and data set, and the way between its coordinates and parameters.

    `block` is what the `compiled` function works on.
    """

    def __init__(self, spec: Spec, frame: Frame | None = None) -> None:
        self._spec = spec
        self._observed = spec.emission.observe(spec.rows)
        self._priors = _scaled_priors(spec, self._observed)
        self._frame = _pymc_frame(spec) if frame is None else frame
        self.n_dim = len(self._frame.centre)
        family, data = self._observed.family, self._observed.data
        self.plain = isinstance(family, Plain)
        self.block = pack(self._frame, self._priors, family, data)

    def __call__(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """Log density (nats) and its gradient at `u`, an unconstrained point of `n_dim` numbers."""
        return evaluate(self.block, u, plain=self.plain)

    def around(self, parameters: Mapping[str, np.ndarray]) -> "DirectDensity":
        """Return the same density in coordinates in which it is about standard normal at a mode.

        They are PyMC's, shifted and stretched by what the posterior would be if the states were
        known: sums of counts for probabilities, of squares for locations and scales.
        """
        spec, observed, priors = self._spec, self._observed, self._priors
        with np.errstate(divide="ignore"):  # a probability may have underflowed to 0
            potentials = spec.transition.log_potentials(parameters, np)
        lines = spec.emission.lines(parameters, observed)
        expected = expect(observed.data, lines, *potentials)
        location, scale, rate, _ = spec.emission.scaled(parameters, observed.series)
        of_others, of_scale = curvature(
            spec.emission.kind, expected.sums, observed.family.gaps, location, scale, rate
        )
        df = spec.emission.tails
        tails = 1.0 if df is None else df / (df + 3.0)  # what is known of a scale by Fisher
        of_scale = tails * of_scale + priors.scale_beta / scale
        spread, ones = observed.series.spread, np.ones(len(observed.series.spread))
        # from scaled features to the variables' own units
        units = np.stack([spread, ones, 1.0 / spread], axis=-1)
        sigma = np.stack([priors.location_sigma, priors.rate_sigma, priors.bend_sigma], axis=-1)
        sigma = sigma * np.stack([spread, ones, ones], axis=-1)
        precision = of_others / (units[:, :, None] * units[:, None, :])
        precision += sigma[..., None] ** -2 * np.eye(3)
        factor = np.linalg.cholesky(np.linalg.inv(precision))
        spreads = [factor[..., 0, 0], 1.0 / np.sqrt(of_scale), factor[..., 1, 1], factor[..., 2, 2]]
        frame = Frame(
            self._unconstrained(parameters),
            _simplex_spread(priors.simplex, expected),
            np.stack(spreads[: len(spec.emission.dims)]),
            np.stack([factor[..., 1, 0], factor[..., 2, 0], factor[..., 2, 1]]),
        )
        return DirectDensity(spec, frame)

    def start(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a point for a chain to start from, standard normal."""
        return rng.normal(size=self.n_dim)

    def parameters(self, u: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters, by name, of unconstrained points (..., n_dim)."""
        frame = self._frame
        free = frame.simplex.shape[1]
        n_states, batch = free + 1, u.shape[:-1]
        n_ratios = (n_states + 1) * free
        ratios = u[..., :n_ratios].reshape(*batch, n_states + 1, free)
        ratios = np.einsum("rij,...rj->...ri", frame.simplex, ratios)
        ratios = ratios + frame.centre[:n_ratios].reshape(n_states + 1, free)
        others = u[..., n_ratios:].reshape(*batch, *frame.spread.shape) * frame.spread
        others = others + frame.centre[n_ratios:].reshape(frame.spread.shape)
        own = u[..., n_ratios:].reshape(*batch, *frame.spread.shape)
        for shear, (moved, by) in zip(frame.shear, self._sheared, strict=False):
            others[..., moved, :, :] += shear * own[..., by, :, :]
        last = -ratios.sum(axis=-1, keepdims=True)
        probs = np.exp(log_softmax(np.concatenate([ratios, last], axis=-1), axis=-1))
        emission = self._spec.emission
        return {
            "initial_probs": probs[..., 0, :],
            "transition_probs": probs[..., 1:, :],
            **{
                name: np.exp(others[..., i, :, :]) if positive else others[..., i, :, :]
                for i, (name, positive) in enumerate(emission.positive.items())
            },
        }

    def unconstrained(self, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
        """Undo `parameters` for one point."""
        frame = self._frame
        away = self._unconstrained(parameters) - frame.centre
        n_ratios = frame.simplex.shape[0] * frame.simplex.shape[1]
        ratios = away[:n_ratios].reshape(*frame.simplex.shape[:2], 1)
        ratios = np.linalg.solve(frame.simplex, ratios)
        others = away[n_ratios:].reshape(frame.spread.shape) / frame.spread
        # in this order, for the bend depends on the rate as it is
        for shear, (moved, by) in zip(frame.shear, self._sheared, strict=False):
            others[moved] -= shear * others[by] / frame.spread[moved]
        return np.concatenate([ratios.ravel(), others.ravel()])

    @property
    def _sheared(self) -> list[tuple[int, int]]:
        """Which variable moves with the coordinate of which other, as `Frame.shear` has it."""
        pairs = [(_RATE, 0), (_BEND, 0), (_BEND, _RATE)]
        return [pair for pair in pairs if pair[0] < len(self._frame.spread)]

    def _unconstrained(self, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the point in PyMC's coordinates."""
        logs = np.log(np.vstack([parameters["initial_probs"], parameters["transition_probs"]]))
        ratios = (logs - logs.mean(axis=-1, keepdims=True))[:, :-1]
        others = (
            np.log(parameters[name]) if positive else parameters[name]
            for name, positive in self._spec.emission.positive.items()
        )
        return np.concatenate([np.ravel(array) for array in (ratios, *others)])


def direct_density(spec: Spec) -> DirectDensity | None:
    """Return the compiled density of this model, or None where there is none."""
    emission = spec.emission
    if type(emission) not in EMISSIONS.values() or type(spec.transition) is not Sticky:
        return None
    families = {name: _SIMPLEX for name in spec.transition.dims}
    families |= dict(
        zip(emission.dims, _CURVE if len(emission.dims) > _BEND else _REVERSION, strict=False)
    )
    for name, (distribution, parameters) in families.items():
        prior = spec.priors[name]
        if prior.distribution != distribution or set(prior.parameters) != parameters:
            return None
    return DirectDensity(spec)


def _pymc_frame(spec: Spec) -> Frame:
    """Frame in which the coordinates are PyMC's own."""
    n_states, n_features = spec.n_states, spec.rows.values.shape[1]
    free, shape = n_states - 1, (len(spec.emission.dims), n_states, n_features)
    return Frame(
        np.zeros((n_states + 1) * free + int(np.prod(shape))),
        np.broadcast_to(np.eye(free), (n_states + 1, free, free)).copy(),
        np.ones(shape),
        np.zeros((3, *shape[1:])),
    )


def _simplex_spread(prior: np.ndarray, expected: Expectation) -> np.ndarray:
    """Cholesky factors (1 + state, state - 1, state - 1) of the centred log-ratios' covariances.

    A Dirichlet vector is one of gamma variables divided by their sum, and the logarithm of a
    gamma variable has the trigamma function of its shape as variance.
    """
    n_states = prior.shape[1]
    shapes = prior + np.vstack([expected.first_states, *expected.transitions])
    centring = (np.eye(n_states) - 1.0 / n_states)[:-1]
    covariance = np.einsum("ik,rk,jk->rij", centring, polygamma(1, shapes), centring)
    return np.linalg.cholesky(covariance)


def _scaled_priors(spec: Spec, observed: Observed) -> Priors:
    series = observed.series
    n_states, shape = spec.n_states, (spec.n_states, spec.rows.values.shape[1])

    def parameter(name: str, key: str, full: tuple[int, ...]) -> np.ndarray:
        value = np.asarray(spec.priors[name].parameters[key], np.float64)
        try:
            value = np.broadcast_to(value, full)
        except ValueError:
            raise ValueError(
                f"the prior of {name!r} has {key} of shape {value.shape}, which does not fit the "
                f"variable's {full}"
            ) from None
        if not np.isfinite(value).all() or (key != "mu" and (value <= 0).any()):
            raise ValueError(
                f"the prior of {name!r} has {key} = {value.tolist()}, expected "
                f"{'finite' if key == 'mu' else 'positive'} numbers"
            )
        return value

    initial_a = parameter("initial_probs", "a", (n_states,))
    transition_a = parameter("transition_probs", "a", (n_states, n_states))
    location, scale, *others = spec.emission.dims
    mu, sigma = (parameter(location, key, shape) for key in ("mu", "sigma"))
    alpha, beta = (parameter(scale, key, shape) for key in ("alpha", "beta"))
    # of rate and bend, where there are any
    rest = [np.zeros(shape), np.ones(shape), np.zeros(shape), np.ones(shape)]
    # the likelihood is that of the scaled features
    constant = -np.sum(series.observed @ np.log(series.spread))
    constant -= np.sum(np.log(sigma) + 0.5 * np.log(2.0 * np.pi))
    constant += np.sum(alpha * np.log(beta) - gammaln(alpha))
    for i, name in enumerate(others):
        rest[2 * i : 2 * i + 2] = (parameter(name, key, shape) for key in ("mu", "sigma"))
        constant -= np.sum(np.log(rest[2 * i + 1]) + 0.5 * np.log(2.0 * np.pi))
    if n_states > 1:  # one state leaves no simplex to have a density
        for a in (initial_a, *transition_a):
            constant += gammaln(a.sum()) - gammaln(a).sum() + np.log(n_states)
    return Priors(
        np.vstack([initial_a, transition_a]),
        (mu - series.location) / series.spread,
        sigma / series.spread,
        alpha.copy(),
        beta / series.spread,
        *(array.copy() for array in rest),
        series.location,
        series.spread,
        np.array([constant]),
    )
