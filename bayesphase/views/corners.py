"""The path of a run as a curve in space: how far it gets, and by what angle it turns."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

# Legs are so long that the angle that noise alone makes is so many times below `min_angle`
_SURE = 5.0
# of a path's extent: where noise asks for longer legs, nothing can be said
_LONGEST = 0.1
# of a leg: root mean square distance of the checkpoints on it from a straight line
_STRAIGHT = 0.2


@dataclass(frozen=True)
class Path:
    """The checkpoints of a run in space, and how long its legs are."""

    points: np.ndarray  # (checkpoint, component)
    steps: np.ndarray  # (checkpoint)
    distance: np.ndarray  # (checkpoint, checkpoint)
    extent: float
    noise: float
    leg: float

    @classmethod
    def of(cls, points: np.ndarray, steps: np.ndarray, *, scale: float, min_angle: float) -> "Path":
        """Measure a path; `scale` and `min_angle` as in `bayesphase.turning_points`."""
        distance = cdist(points, points)
        extent = float(distance.max(initial=0.0))
        noise = _noise(points, steps)
        m = points.shape[1]
        across = noise * np.sqrt(max(m - 1, 1) / m)  # what is along a leg does not turn it
        leg = max(scale * extent, _SURE * 6**0.5 * across / np.deg2rad(min_angle))
        can_tell = 0.0 < leg <= max(_LONGEST, scale) * extent
        return cls(points, steps, distance, extent, noise, leg if can_tell else np.nan)

    def some(self, kept: np.ndarray, leg: float) -> "Path":
        """Leave checkpoints out, and have legs of another length."""
        return Path(
            self.points[kept],
            self.steps[kept],
            self.distance[np.ix_(kept, kept)],
            self.extent,
            self.noise,
            leg,
        )


@dataclass(frozen=True)
class Legs:
    """Of every checkpoint, where its legs end: between `last` and `last` + 1, say."""

    angle: np.ndarray  # degrees; NaN where a leg never gets so far
    last: np.ndarray  # checkpoint before the one behind, that is too far away
    first: np.ndarray  # checkpoint ahead that is too far away
    back: np.ndarray  # directions of the legs, (checkpoint, component)
    on: np.ndarray

    @classmethod
    def of(cls, path: Path, length: float) -> "Legs":
        """Measure the legs of this length."""
        n = len(path.points)
        far = path.distance >= length
        ahead, behind = np.triu(far, 1), np.tril(far, -1)
        first = ahead.argmax(axis=1)
        last = n - 1 - behind[:, ::-1].argmax(axis=1)
        on = _leave(path.points, first, -1, length)
        back = -_leave(path.points, last, 1, length)
        angle = np.degrees(np.arccos(np.clip((on * back).sum(axis=1) / length**2, -1.0, 1.0)))
        has_both = ahead.any(axis=1) & behind.any(axis=1)
        return cls(np.where(has_both, angle, np.nan), last, first, back / length, on / length)

    def are_straight(self, path: Path, at: int, length: float) -> bool:
        """Whether the checkpoints on both legs of one are near straight lines."""
        inside = (
            (path.points[self.last[at] + 1 : at], self.back[at]),
            (path.points[at + 1 : self.first[at]], self.on[at]),
        )
        for points, way in inside:
            away = points - path.points[at]
            off = away - (away @ way)[:, None] * way
            if len(off) and np.sqrt((off**2).sum(axis=1).mean()) > _STRAIGHT * length:
                return False
        return True


def _leave(points: np.ndarray, outside: np.ndarray, towards: int, length: float) -> np.ndarray:
    """Vectors from every point to where the path is first `length` away from it.

    `outside` is the first point that is as far, and that at `outside` + `towards` is nearer.
    """
    inside = np.clip(outside + towards, 0, len(points) - 1)
    start = points[inside] - points
    piece = points[outside] - points[inside]
    # |start + t piece| = length, for t in 0 to 1
    a, b = (piece**2).sum(axis=1), (start * piece).sum(axis=1)
    c = (start**2).sum(axis=1) - length**2
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (np.sqrt(np.maximum(b**2 - a * c, 0.0)) - b) / a
    return start + np.clip(np.nan_to_num(t, posinf=0.0), 0.0, 1.0)[:, None] * piece


def _noise(points: np.ndarray, steps: np.ndarray) -> float:
    """Distance by which noise puts a checkpoint off the path, root mean square.

    By the median of how far each is off the line between its neighbours, component by component.
    """
    if len(points) < 3:
        return 0.0
    before, gap = steps[1:-1] - steps[:-2], steps[2:] - steps[:-2]
    share = (before / gap)[:, None]
    off = points[1:-1] - (1 - share) * points[:-2] - share * points[2:]
    off /= np.sqrt(1 + share**2 + (1 - share) ** 2)
    return float(np.linalg.norm(1.4826 * np.median(np.abs(off), axis=0)))
