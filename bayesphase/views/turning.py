"""Where the path of a run turns: corners of its trajectory in the space of components.

A turning point is a checkpoint at which two straight legs of the path meet at an angle. Legs are
measured by how far the path gets, not by how long it takes: time may be slowed down or sped up,
axes rotated and everything rescaled, and the turning points are the same checkpoints.
"""

from dataclasses import dataclass
from numbers import Real

import numpy as np
import xarray as xr

from bayesphase._checks import check_count, check_seed
from bayesphase.views.components import require_scores
from bayesphase.views.corners import Legs, Path

# times the median angle of the path, which is large where the path wanders everywhere; 0 is what
# counts where there is none
_TYPICAL = 3.0
# a resample keeps so many of the checkpoints, and its legs are up to a factor longer or shorter
_KEPT = 2.0 / 3.0
_VARIED = 2.0**0.5


def turning_points(
    pca_table: xr.Dataset,
    *,
    scale: float = 0.03,
    min_angle: float = 45.0,
    min_stability: float = 0.5,
    ci_prob: float = 0.9,
    n_resamples: int = 100,
    random_seed: int | None = None,
) -> xr.Dataset:
    """Find the steps at which the path of a run through its principal components turns.

    The legs of a checkpoint are the path back to where it was last a distance `h` away, and on to
    where it is so again. Its angle is that between the directions of the legs: 0 where the path
    goes straight on, 180 where it goes back. A turning point is a checkpoint

    - whose angle is at least `min_angle`, and three times the median angle of the path, by legs of
      length `h` and of half that: in a bend the angle falls with the length of the legs, at a
      corner it does not, so that circles have no turning points;
    - whose legs are straight, and whose angle is the largest on its legs.

    `h` is `scale` times the extent of the path, the largest distance between two of its
    checkpoints, or so long that noise makes angles five standard errors below `min_angle`. Where
    that is more than 0.1 of the extent (and than `scale`), as for checkpoints that scatter about
    one place, no turning point can be told: the longer legs are, the wider are the bends that look
    like corners, those with a radius below `h`.

    Parameters
    ----------
    pca_table : Dataset
        What `bayesphase.pca` returns. All its components count.
    scale : float, default 0.03
        Length of the legs, as a share of the extent of the path.
    min_angle : float, default 45
        Degrees.
    min_stability : float, default 0.5
        Turning points of less stability are left out.
    ci_prob : float, default 0.9
        Probability of the intervals.
    n_resamples : int, default 100
    random_seed : int, optional
        The same seed gives the same resamples.

    Returns
    -------
    Dataset
        Dims (run, turn), in the order of steps, as many as the run with the most has; NaN past a
        run's last.

        - ``step`` of the turning point, and the interval ``lower`` to ``upper`` that holds it in
          the resamples, in optimiser steps. It reaches to the checkpoints before and after at
          least, for what was between was not seen;
        - ``angle``, ``angle_lower``, ``angle_upper``, degrees;
        - ``stability``: the share of resamples that have a turning point on its legs. In each, a
          third of the checkpoints is left out at random, and legs are up to 1.4 times longer or
          shorter;
        - ``extent``, ``leg`` (`h`) and ``noise`` of each run (run), in the units of the scores;
          ``leg`` is NaN where no turning point can be told.

    Raises
    ------
    TypeError
        If the table is no Dataset, or `n_resamples` or `random_seed` no integer.
    ValueError
        If the table lacks ``scores``, these are infinite, or an argument is out of its range.

    Notes
    -----
    Noise is how far checkpoints are off the line between their neighbours; its median over
    checkpoints is not moved by a few fast steps or corners. The errors of the three points that
    make an angle add up to sqrt(6) noises, across a leg. What is found again when a part of the
    data is left out is called stable, as by Meinshausen & Bühlmann 2010
    (doi:10.1111/j.1467-9868.2010.00740.x). The interval says how well the checkpoints fix the turn,
    not what another set of examples or another seed would do.

    Components of a mere random walk of many examples are cosines (Hess 2000,
    doi:10.1103/PhysRevE.62.8438; Antognini & Sohl-Dickstein 2018, arXiv:1806.08805). Where they
    reverse, two components may have turning points: 7 of 8 simulated walks of 500 checkpoints and
    512 examples did, and none by five components. Take as many, and see `cosine_content` of
    `bayesphase.subspace_overlap`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> import bayesphase as bp
    >>> along = np.r_[np.arange(30), np.full(30, 30)], np.r_[np.zeros(30), np.arange(30)]
    >>> scores = xr.DataArray(
    ...     np.stack(along, axis=-1)[None],
    ...     dims=("run", "step", "component"),
    ...     coords={"run": ["seed 0"], "step": 10 * np.arange(60), "component": [1, 2]},
    ... )
    >>> turns = bp.turning_points(scores.to_dataset(name="scores"))
    >>> turns["step"].values, turns["angle"].values.round()
    (array([[300.]]), array([[90.]]))
    """
    scores = require_scores(pca_table).transpose("run", "step", "component")
    search = _Search(
        scale=_between(scale, 0, 0.5, "scale"),
        min_angle=_between(min_angle, 0, 180, "min_angle"),
        min_stability=_between(min_stability, 0, 1, "min_stability"),
        ci_prob=_between(ci_prob, 0, 1, "ci_prob"),
        n_resamples=check_count("n_resamples", n_resamples, least=1),
    )
    rng = np.random.default_rng(check_seed(random_seed))
    found, paths = [], []
    for run in scores:
        known = run.notnull().all("component").values
        path = Path.of(
            run.values[known],
            run["step"].values[known],
            scale=search.scale,
            min_angle=search.min_angle,
        )
        paths.append((path.extent, path.leg, path.noise))
        found.append(search.turns(path, rng))
    return _table(scores, found, np.array(paths), search)


@dataclass(frozen=True)
class _Search:
    """What counts as a turning point, and how they are looked for."""

    scale: float
    min_angle: float
    min_stability: float
    ci_prob: float
    n_resamples: int

    def turns(self, path: Path, rng: np.random.Generator) -> np.ndarray:
        """Return the turning points of a path, (turn, column of `_COLUMNS`)."""
        if np.isnan(path.leg):
            return np.empty((0, len(_COLUMNS)))
        turns = self.corners(path)
        seen: list[list[tuple[float, float]]] = [[] for _ in turns]
        n = len(path.points)
        for _ in range(self.n_resamples if turns else 0):
            kept = rng.random(n) < _KEPT
            kept[[0, -1]] = True
            some = path.some(np.flatnonzero(kept), path.leg * _VARIED ** rng.uniform(-1, 1))
            others = [(some.steps[at], angle) for at, angle, _, _ in self.corners(some)]
            for (_, angle, start, end), matches in zip(turns, seen, strict=True):
                here = [o for o in others if start <= o[0] <= end]
                if here:
                    matches.append(min(here, key=lambda other: abs(other[1] - angle)))
        rows = []
        tails = [(1 - self.ci_prob) / 2, (1 + self.ci_prob) / 2]
        for (at, angle, _, _), matches in zip(turns, seen, strict=True):
            stability = len(matches) / self.n_resamples
            if stability < self.min_stability:
                continue
            values = np.array([(path.steps[at], angle), *matches]).T
            lower, upper = np.quantile(values, tails, axis=1, method="inverted_cdf")
            step, before, after = path.steps[[at, at - 1, at + 1]]
            ends = min(before, lower[0]), max(after, upper[0])
            angles = min(angle, lower[1]), max(angle, upper[1])
            rows.append((step, *ends, angle, *angles, stability))
        return np.array(rows, float).reshape(-1, len(_COLUMNS))

    def corners(self, path: Path) -> list[tuple[int, float, int, int]]:
        """Return checkpoint, angle, first and last step on the legs of every corner, in order."""
        legs, halves = Legs.of(path, path.leg), Legs.of(path, path.leg / 2)
        least = max(self.min_angle, _TYPICAL * float(np.median(np.nan_to_num(legs.angle))))
        sharp = np.flatnonzero(np.minimum(legs.angle, halves.angle) >= least)  # False for NaN
        taken = np.zeros(len(path.points), bool)
        found = []
        for at in sharp[np.argsort(-(legs.angle + halves.angle)[sharp], kind="stable")].tolist():
            start, end = int(legs.last[at]) + 1, int(legs.first[at]) - 1  # on the legs
            if taken[start : end + 1].any() or not legs.are_straight(path, at, path.leg):
                continue
            taken[at] = True
            found.append((at, float(legs.angle[at]), path.steps[start], path.steps[end]))
        return sorted(found)


_COLUMNS = {
    "step": ("step of the turning point", "optimiser steps"),
    "lower": ("lower end of the interval of the step", "optimiser steps"),
    "upper": ("upper end of the interval of the step", "optimiser steps"),
    "angle": ("angle by which the path turns", "degrees"),
    "angle_lower": ("lower end of the interval of the angle", "degrees"),
    "angle_upper": ("upper end of the interval of the angle", "degrees"),
    "stability": ("share of resamples in which the turning point is found", "1"),
}


def _table(
    scores: xr.DataArray, found: list[np.ndarray], paths: np.ndarray, search: _Search
) -> xr.Dataset:
    n_turns = max((len(turns) for turns in found), default=0)
    values = np.full((len(found), n_turns, len(_COLUMNS)), np.nan)
    for r, turns in enumerate(found):
        values[r, : len(turns)] = turns
    units = str(scores.attrs.get("units", "1"))
    about_runs = {
        "extent": "largest distance between two checkpoints",
        "leg": "length of the legs between which angles are measured",
        "noise": "distance by which noise puts a checkpoint off the path",
    }
    columns = {
        name: (("run", "turn"), values[..., i], {"long_name": long_name, "units": unit})
        for i, (name, (long_name, unit)) in enumerate(_COLUMNS.items())
    }
    by_run = {
        name: ("run", paths[:, i], {"long_name": long_name, "units": units})
        for i, (name, long_name) in enumerate(about_runs.items())
    }
    return xr.Dataset(
        columns | by_run,
        coords={"run": scores["run"].variable, "turn": np.arange(n_turns)},
        attrs={
            "ci_prob": search.ci_prob,
            "scale": search.scale,
            "min_angle": search.min_angle,
            "min_stability": search.min_stability,
            "n_components": scores.sizes["component"],
        },
    )


def _between(value: float, low: float, high: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not low < value < high:
        raise ValueError(f"{name} must be a number between {low:g} and {high:g}, got {value!r}")
    return float(value)
