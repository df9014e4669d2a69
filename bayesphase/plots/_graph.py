"""Where the boxes, arcs and labels of a graph of phases go, so that no text covers another.

All lengths are in em, the size of the text: one number then fits a layout into any axes. Boxes
stand in a row in the order of their phases. A switch to the next phase is a straight arrow; other
switches forward are arcs above the row, switches back arcs below it. Arcs that span as many boxes
have their labels at one height, a pitch apart; the more they span the higher they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bayesphase.plots import _style

_PAD = 0.6  # between the text of a box and its edge
_SPACE = 0.8  # between a label and what is next to it
_ARROW = 3.2  # shortest straight arrow
_CORNER = 1.2  # radius of an arc's, no more than what is between a label and the arc above
_LEVEL = 0.7  # between arcs that overlap
_PORTS = 1.6  # what arcs that meet a box have for it, between labels, at least


@dataclass(frozen=True)
class Edge:
    """A switch from one box to another, by their places in the row, and what to write at it."""

    start: int
    end: int
    head: tuple[str, ...]  # goes on one line where there is room
    below: tuple[str, ...]
    weight: float  # of the line, 0 to 1

    @property
    def is_straight(self) -> bool:
        """Whether it leads to the next box."""
        return self.end == self.start + 1

    @property
    def side(self) -> int:
        """Whether it is above the row (1) or below (-1)."""
        return 1 if self.end > self.start else -1

    @property
    def span(self) -> int:
        """How many boxes further it leads."""
        return abs(self.end - self.start)

    def text(self, *, narrow: bool) -> str:
        """Return the label, with its head in lines of its own or in one."""
        head = self.head if narrow else (", ".join(self.head),)
        return "\n".join((*head, *self.below))


@dataclass(frozen=True)
class Label:
    """A text and its middle."""

    text: str
    x: float
    y: float


@dataclass(frozen=True)
class Curve:
    """The vertices of an arrow, from tail to head: two of a line, or ten of an arc.

    An arc is three lines, with cubic Beziers for corners.
    """

    vertices: np.ndarray
    weight: float


class Layout:
    """A graph laid out in em; in a compact one straight arrows are short, with labels above them.

    Attributes
    ----------
    boxes : list of Label
        The boxes, each `box_width` by `box_height` around its text.
    curves, labels : list of Curve, list of Label
        What belongs to the edges.
    left, right, bottom, top : float
        The bounds of it all.
    """

    def __init__(self, texts: Sequence[str], edges: Sequence[Edge], *, compact: bool) -> None:
        sizes = np.array([measure(text) for text in texts])
        self.box_width, self.box_height = sizes.max(axis=0) + 2 * _PAD
        straight = [edge for edge in edges if edge.is_straight]
        arcs = [edge for edge in edges if not edge.is_straight]
        widest = max((measure(e.text(narrow=True))[0] for e in straight), default=0.0) + 2 * _SPACE
        widest_arc = max((measure(e.text(narrow=compact))[0] for e in arcs), default=0.0) + _SPACE
        labels = max(widest, widest_arc)
        if compact:
            self.pitch = max(self.box_width + _ARROW, labels + _PORTS * bool(arcs))
        else:
            self.pitch = self.box_width + max(labels, _ARROW)
        # Arcs leave a box between the labels that stand above its corners in a compact layout.
        self._port_reach = (self.box_width - max(0.0, labels - self.pitch + self.box_width)) / 2
        self.boxes = [Label(text, i * self.pitch, 0.0) for i, text in enumerate(texts)]
        self.curves: list[Curve] = []
        self.labels: list[Label] = []
        half_width, half_height = self.box_width / 2, self.box_height / 2
        self.left, self.right = -half_width, self.boxes[-1].x + half_width
        self.top = self._add_straight(straight, compact=compact)
        self.top = self._add_arcs([e for e in arcs if e.side > 0], self.top, compact=compact)
        self.bottom = -self._add_arcs([e for e in arcs if e.side < 0], half_height, compact=compact)

    def _add_straight(self, edges: Sequence[Edge], *, compact: bool) -> float:
        """Add arrows and labels between neighbours; return the height up to which they need."""
        top = self.box_height / 2
        for edge in edges:
            tail = self.boxes[edge.start].x + self.box_width / 2
            head = self.boxes[edge.end].x - self.box_width / 2
            self.curves.append(Curve(np.array([[tail, 0], [head, 0]]), edge.weight))
            text = edge.text(narrow=True)
            height = measure(text)[1]
            floor = self.box_height / 2 if compact else 0.0
            middle = floor + _SPACE / 2 + height / 2
            self.labels.append(Label(text, (tail + head) / 2, middle))
            top = max(top, middle + height / 2)
        return top

    def _add_arcs(self, edges: Sequence[Edge], floor: float, *, compact: bool) -> float:
        """Add arcs on one side of the row and return how far from its middle they reach."""
        foot = self.box_height / 2
        for span in sorted({edge.span for edge in edges}):
            of_span = [edge for edge in edges if edge.span == span]
            height = max(measure(edge.text(narrow=compact))[1] for edge in of_span)
            aside, levels = self._apart(of_span, edges)
            lowest = floor + 1.5 * _SPACE
            floor = lowest + _LEVEL * max(levels) + _SPACE / 2 + height
            for edge, level in zip(of_span, levels, strict=True):
                apex = lowest + _LEVEL * level
                tail = self._port(edge, edge.start, edges)
                head = self._port(edge, edge.end, edges)
                vertices = _arch(tail, head, foot, apex) * (1, edge.side)
                self.curves.append(Curve(vertices, edge.weight))
                middle = ((edge.start + edge.end) / 2 - edge.side * aside) * self.pitch
                text = edge.text(narrow=compact)
                self.labels.append(Label(text, middle, edge.side * (floor - height / 2)))
        return floor

    @staticmethod
    def _apart(of_span: Sequence[Edge], edges: Sequence[Edge]) -> tuple[float, list[int]]:
        """Say how arcs of one span keep clear of each other, and their labels of longer arcs.

        Returns by how many pitches labels are nearer to the tail than to the head, and the level of
        each arc: where they overlap, one that begins further on is higher, and so right below its
        label, which is next to its tail.
        """
        span = of_span[0].span
        ports = {box for e in edges if e.span > span for box in (e.start, e.end)}
        tails = sorted(e.start * e.side for e in of_span)
        overlap = any(b - a < span for a, b in pairwise(tails))
        in_the_way = any((e.start + e.end) / 2 in ports for e in of_span)
        aside = (span - 1) / 2 if overlap or in_the_way else 0.0
        return aside, [tails.index(e.start * e.side) * overlap for e in of_span]

    def _port(self, edge: Edge, box: int, edges: Sequence[Edge]) -> float:
        """Return where an arc meets a box: on the half that looks to its other end.

        Longer arcs are nearer to the middle, so that arcs from one box do not cross.
        """
        direction = np.sign(edge.start + edge.end - 2 * box)
        same_half = sorted(
            (e for e in edges if box in (e.start, e.end)),
            key=lambda e: -e.span,
        )
        same_half = [e for e in same_half if np.sign(e.start + e.end - 2 * box) == direction]
        share = (same_half.index(edge) + 0.5) / len(same_half)
        return float(self.boxes[box].x + direction * share * self._port_reach)


def _arch(tail: float, head: float, foot: float, apex: float) -> np.ndarray:
    """Return the vertices of an arc with steep sides: labels fit inside."""
    radius = min(_CORNER, (apex - foot) / 2, abs(head - tail) / 2)
    inward = np.sign(head - tail) * radius
    half = 0.55  # of the way to the corner, as near to a circle as can be
    left = [(tail, foot), (tail, apex - radius), (tail, apex - (1 - half) * radius)]
    left += [(tail + (1 - half) * inward, apex), (tail + inward, apex)]
    right = [(tail + head - x, y) for x, y in reversed(left)]
    return np.array(left + right)


def measure(text: str) -> tuple[float, float]:
    """Return the width and the height of a text in em."""
    width, height = _style.text_points(text, 10.0)
    return width / 10, height / 10
