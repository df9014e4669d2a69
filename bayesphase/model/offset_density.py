"""The posterior density of models whose runs have offsets, as `density` has it for the others.

With the shifted features everything is as there. What is new are the offsets' own prior, what the
rows of a run say about its offset, and coordinates for a chain: levels of states and offsets of
runs are tied together, so that each feature has its coordinates mixed by a matrix.

What all offsets have in common changes nothing but the prior if the lines of all states move along.
For levels that is a straight valley of the density, which the matrix follows. The coefficients of a
parabola move by squares: there the coordinates are those of the parabola about the mean offset of
the runs, a change of variables whose determinant is 1.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
from scipy.linalg import block_diag

from bayesphase.model import offsets
from bayesphase.model.by_run import expect_by_run
from bayesphase.model.chain_prior import chain_prior
from bayesphase.model.innovations import Data
from bayesphase.model.line_prior import LinePrior
from bayesphase.model.linear import Linear
from bayesphase.model.lines import CURVE, curvature, parabola_at
from bayesphase.model.local_density import LocalDensity
from bayesphase.model.passes import Expectation, expect
from bayesphase.model.priors import parameter
from bayesphase.model.spec import Spec

Parameters = Mapping[str, np.ndarray]


class OffsetFrame(NamedTuple):
    """Coordinates w in which levelled ones are `centre` (dim) and L w, in lower triangles L.

    Levelled coordinates are PyMC's, but for parabolas, which are about the mean offset.

    `chain` (dim, dim) is that of the chain's coordinates; `mixing` (feature, place, place) those of
    each feature: the log of the offsets' scale, the offsets by run, the location, rate and bend of
    each state, as far as there are any, and the log scales.
    """

    centre: np.ndarray
    chain: np.ndarray
    mixing: np.ndarray


class OffsetDensity(LocalDensity):
    """The density of one model and data set, and the way between its coordinates and parameters.

    Methods as of `density.DirectDensity`.
    """

    def __init__(self, spec: Spec, frame: OffsetFrame | None = None) -> None:
        self._spec = spec
        self._chain = chain_prior(spec.transition, spec.priors, spec.n_states)
        self._emission = cast(Linear, spec.emission)  # no other family has offsets
        self._lines = LinePrior(self._emission, spec.priors, spec.rows, spec.n_states)
        self._precision = offsets.precision(spec.rows, spec.emission.kind)
        n_runs, n_features = self._precision.shape
        self._width = parameter(spec.priors, "offset_scale", "sigma", (n_features,))
        self._constant = np.sum(0.5 * np.log(2.0 / np.pi) - np.log(self._width))
        self._constant -= 0.5 * n_runs * n_features * np.log(2.0 * np.pi)
        n_lines = int(np.prod(self._lines.shape))
        self._ends = np.cumsum([self._chain.n_dim, n_lines, n_features, n_runs * n_features])
        self.n_dim = int(self._ends[-1])
        self._places = self._in_blocks()
        n_places = self._places.shape[1]
        self._frame = frame or OffsetFrame(
            np.zeros(self.n_dim),
            np.eye(self._chain.n_dim),
            np.tile(np.eye(n_places), (n_features, 1, 1)),
        )

    def __call__(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """Log density (nats) and its gradient at `u`, an unconstrained point of `n_dim` numbers."""
        spec, chain, lines = self._spec, self._chain, self._lines
        observed = lines.observed
        with np.errstate(all="ignore"):  # far out the density is no number, and says so
            x, y, log_scale, unit = self._split(self._levelled(u))
            free = chain.free(x)
            parameters = spec.transition.named(free)
            potentials = spec.transition.log_potentials(parameters, np)
            offset = offsets.of_unit(unit, np.exp(log_scale), self._precision)
            mean = offset.mean(axis=0)
            y = self._about(y, mean)
            point = lines.at(y)
            data = spec.emission.at({"offset": offset}, observed).data
            expected, by_run, _ = expect_by_run(data, point.lines, observed.run_of, *potentials)
            chain_value, to_x = chain.value_and_slope(free, parameters, expected)
            lines_value, to_y = lines.value_and_slope(y, point, expected.sums)
            to_y, to_mean = self._pull_about(y, to_y, mean)
            to_offset = by_run / observed.series.spread + to_mean / len(offset)
            own_value, to_log_scale, to_unit = self._own(log_scale, unit, to_offset)
            value = expected.log_likelihood.sum() + chain_value + lines_value + own_value
            parts = (to_x, to_y, to_log_scale, to_unit)
            return float(value), self._back(np.concatenate([part.ravel() for part in parts]))

    def _about(self, y: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Coordinates (..., kind, state, feature) of lines from those about levels (..., feature).

        Only parabolas have others.
        """
        if self._emission.kind != CURVE:
            return y
        location, scale, rate, bend = np.moveaxis(y, -3, 0)
        location, rate = parabola_at(location, rate, bend, level[..., None, :])
        return np.stack([location, scale, rate, bend], axis=-3)

    def _pull_about(
        self, y: np.ndarray, slope: np.ndarray, level: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradient in what `_about` took, and in the levels (feature), from that in `y`."""
        if self._emission.kind != CURVE:
            return slope, np.zeros(level.shape)
        to_location, to_scale, to_rate, to_bend = slope
        _, _, rate, bend = y
        back = [to_location, to_scale, to_rate + level * to_location]
        back.append(to_bend + level * (2.0 * to_rate + level * to_location))
        return np.stack(back), np.sum(to_location * rate + 2.0 * to_rate * bend, axis=0)

    def _own(
        self, log_scale: np.ndarray, unit: np.ndarray, to_offset: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Log density of the offsets' prior, and the gradient of all in their coordinates.

        `to_offset` (run, feature) is the gradient of all else in the offsets.
        """
        scale = np.exp(log_scale)
        far = self._precision * scale**2
        variance = 1.0 + far
        squares, ratio = unit**2 / variance, (scale / self._width) ** 2
        value = self._constant - 0.5 * np.sum(squares + np.log(variance))
        value += np.sum(log_scale - 0.5 * ratio)
        per_unit = scale / np.sqrt(variance)
        to_unit = to_offset * per_unit - unit / variance
        to_log_scale = to_offset * unit * per_unit / variance + (squares - 1.0) * far / variance
        return float(value), to_log_scale.sum(axis=0) + 1.0 - ratio, to_unit

    def around(self, parameters: Parameters) -> "OffsetDensity":
        """Return the same density in coordinates in which it is about standard normal at a mode.

        As of `DirectDensity.around`: as if the states were known.
        """
        spec, observed = self._spec, self._lines.observed
        with np.errstate(divide="ignore"):  # a probability may have underflowed to 0
            potentials = spec.transition.log_potentials(parameters, np)
        lines = spec.emission.lines(parameters, observed)
        data = spec.emission.at(parameters, observed).data
        expected = expect(data, lines, *potentials)
        chain = self._chain.factors(parameters, expected)
        of_scales = self._lines.spreads(parameters, expected)[0][1]
        n_runs = len(self._precision)
        by_run = [
            expect(_only(data, observed.run_of == r), lines, *potentials) for r in range(n_runs)
        ]
        mixing = self._mixing(
            parameters, np.stack([self._information(parameters, e) for e in by_run])
        )
        mixing = np.stack(
            [block_diag(own, np.diag(of_scales[:, d])) for d, own in enumerate(mixing)]
        )
        frame = OffsetFrame(
            self._centre(parameters),
            block_diag(np.zeros((0, 0)), *(block for blocks in chain for block in blocks)),
            mixing,
        )
        return type(self)(spec, frame)

    def _information(self, parameters: Parameters, expected: Expectation) -> np.ndarray:
        """Say how well one run tells location, rate and bend (state, feature, 3, 3)."""
        observed, emission = self._lines.observed, self._emission
        location, scale, rate, _ = emission.scaled(parameters, observed.series)
        out, _ = curvature(
            emission.kind, expected.sums, observed.family.gaps, location, scale, rate
        )
        spread = np.broadcast_to(observed.series.spread, scale.shape)
        units = np.stack([spread, np.ones(scale.shape), 1.0 / spread], axis=-1)
        return out / (units[..., :, None] * units[..., None, :])

    def _mixing(self, parameters: Parameters, by_run: np.ndarray) -> np.ndarray:
        """Cholesky factors (feature, place, place) of the covariance, but of the log scales.

        `by_run` (run, state, feature, 3, 3) is what runs say of location, rate and bend.
        """
        emission, lines = self._spec.emission, self._lines
        n_runs, n_states, n_features = by_run.shape[:3]
        # a shift is worth as much as these changes of location, rate and bend
        shift = np.zeros((n_states, n_features, 3))
        shift[..., 0] = 1.0
        if emission.kind == CURVE:
            _, _, slope, bend = (parameters[name] for name in emission.dims)
            shift[..., 0], shift[..., 1] = -slope, -2.0 * bend
        tied = np.einsum("rkdij,kdj->rkdi", by_run, shift)
        told = np.einsum("rkdi,kdi->rd", tied, shift)
        scale = parameters["offset_scale"]
        variance = 1.0 + self._precision * scale**2
        per_unit = scale / np.sqrt(variance)
        n_kinds = lines.shape[0] - 1
        size = n_runs + n_kinds * n_states
        precision = np.zeros((n_features, size, size))
        runs = np.arange(n_runs)
        precision[:, runs, runs] = (per_unit**2 * told + 1.0 / variance).T
        sigma = [
            lines.observed.series.spread * lines.location_sigma,
            lines.rate_sigma,
            lines.bend_sigma,
        ]
        states = n_runs + np.arange(n_states)
        for i in range(n_kinds):
            at = states + i * n_states
            cross = np.transpose(per_unit[:, None] * tied[..., i], (2, 0, 1))
            precision[:, :n_runs, at] = cross
            precision[:, at, :n_runs] = np.swapaxes(cross, 1, 2)
            for j in range(n_kinds):
                precision[:, at, states + j * n_states] += by_run[..., i, j].sum(axis=0).T
            precision[:, at, at] += sigma[i].T ** -2
        if emission.kind == CURVE:
            level = parameters["offset"].mean(axis=0)[:, None]
            turn = np.tile(np.eye(size), (n_features, 1, 1))
            location, rate, bent = states, states + n_states, states + 2 * n_states
            turn[:, location, rate] = level
            turn[:, location, bent] = level**2
            turn[:, rate, bent] = 2.0 * level
            each = (per_unit / n_runs).T[:, None, :]
            turn[:, location, :n_runs] = slope.T[:, :, None] * each
            turn[:, rate, :n_runs] = 2.0 * bend.T[:, :, None] * each
            precision = np.swapaxes(turn, 1, 2) @ precision @ turn
        out = np.zeros((n_features, size + 1, size + 1))
        out[:, 1:, 1:] = np.linalg.cholesky(np.linalg.inv(precision))
        # what is known of the logarithm of the scale of offsets that are seen with some error
        share = (told * scale**2 / (told * scale**2 + 1.0)) ** 2
        ratio = (scale / self._width) ** 2
        out[:, 0, 0] = 1.0 / np.sqrt(2.0 * share.sum(axis=0) + 2.0 * ratio + 0.5)
        return out

    def _diagonals(self) -> Iterable[np.ndarray]:
        return np.diag(self._frame.chain), np.einsum("dii->di", self._frame.mixing)

    def parameters(self, u: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters, by name, of unconstrained points (..., n_dim)."""
        x, y, log_scale, unit = self._split(self._levelled(u))
        scale = np.exp(log_scale)
        offset = offsets.of_unit(unit, scale[..., None, :], self._precision)
        return {
            **self._chain.parameters(x),
            **self._lines.parameters(self._about(y, offset.mean(axis=-2))),
            "offset_scale": scale,
            "offset": offset,
        }

    def unconstrained(self, parameters: Parameters) -> np.ndarray:
        """Undo `parameters` for one point."""
        n_chain = self._chain.n_dim
        away = self._centre(parameters) - self._frame.centre
        away[:n_chain] = np.linalg.solve(self._frame.chain, away[:n_chain])
        others = away[n_chain:]
        others[self._places] = np.linalg.solve(self._frame.mixing, others[self._places][..., None])[
            ..., 0
        ]
        return away

    def _levelled(self, u: np.ndarray) -> np.ndarray:
        """Undo the mixing: levelled coordinates (..., dim), see `OffsetFrame`."""
        n_chain, out = self._chain.n_dim, np.empty(np.shape(u))
        out[..., :n_chain] = u[..., :n_chain] @ self._frame.chain.T
        own = u[..., n_chain:][..., self._places, None]
        out[..., n_chain:][..., self._places] = (self._frame.mixing @ own)[..., 0]
        return out + self._frame.centre

    def _back(self, slope: np.ndarray) -> np.ndarray:
        """Gradient in these coordinates from that in levelled ones."""
        n_chain, out = self._chain.n_dim, np.empty(len(slope))
        out[:n_chain] = slope[:n_chain] @ self._frame.chain
        own = slope[n_chain:][self._places][:, None, :]
        out[n_chain:][self._places] = (own @ self._frame.mixing)[:, 0]
        return out

    def _centre(self, parameters: Parameters) -> np.ndarray:
        """Return the point in levelled coordinates."""
        scale, offset = parameters["offset_scale"], parameters["offset"]
        parts = (
            self._chain.coordinates(parameters),
            self._about(self._lines.coordinates(parameters), -offset.mean(axis=0)),
            np.log(scale),
            offsets.to_unit(offset, scale, self._precision),
        )
        return np.concatenate([part.ravel() for part in parts])

    def _split(self, point: np.ndarray) -> tuple[np.ndarray, ...]:
        """Coordinates of chain, emission (kind, state, feature), log scale and unit offsets."""
        x, y, log_scale, unit, _ = np.split(point, self._ends, axis=-1)
        return (
            x,
            y.reshape(*y.shape[:-1], *self._lines.shape),
            log_scale,
            unit.reshape(*unit.shape[:-1], *self._precision.shape),
        )

    def _in_blocks(self) -> np.ndarray:
        """Where the coordinates (feature, place) of `OffsetFrame.mixing` are, after the chain's."""
        every = np.arange(self._chain.n_dim, self.n_dim) - self._chain.n_dim
        every = np.concatenate([np.zeros(self._chain.n_dim, int), every])
        _, lines, log_scale, unit = self._split(every)
        location, scale, *others = lines
        return np.concatenate([log_scale[None], unit, location, *others, scale]).T


def _only(data: Data, here: Any) -> Data:
    """Leave nothing but the columns that are `here`: all others are missing."""
    every = np.tile(here.astype(np.float64), len(data.values) // len(here))
    observed = data.observed if data.observed.size else np.ones(len(every))
    previous = data.previous * every if data.previous.size else data.previous
    return data._replace(values=data.values * every, previous=previous, observed=observed * every)
