# SPDX-License-Identifier: Apache-2.0
"""Places the labels of a plot's points so that they cover nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_DISTANCES = (7.0, 12.0, 20.0, 30.0, 42.0, 56.0, 72.0, 90.0, 110.0)
_DIRECTIONS = 24
_GAP = 1.5
# To be out of sight is worse than to cover something, and that is worse than to be far away.
_OUTSIDE, _COVERED = 1e6, 1e3


class Box(NamedTuple):
    """A rectangle, in any unit of length."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Return the area that the two boxes share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return width * height if width > 0 and height > 0 else 0.0

    def grown(self, by: float) -> Box:
        """Return the box with a margin of `by` on every side."""
        return Box(self.left - by, self.bottom - by, self.right + by, self.top + by)

    def sticks_out_of(self, other: Box) -> bool:
        """Return whether some of this box is outside the other."""
        return (
            self.left < other.left
            or self.bottom < other.bottom
            or self.right > other.right
            or self.top > other.top
        )


Point = tuple[float, float]


def place_labels(
    points: Sequence[Point],
    sizes: Sequence[tuple[float, float]],
    bounds: Box,
    obstacles: Sequence[Box] = (),
) -> list[Box]:
    """Give each label the nearest free place around its point.

    Args:
        points: the points to label.
        sizes: width and height of each label.
        bounds: the box that no label should leave.
        obstacles: what no label should cover, including the points' own markers.

    Returns:
        A box for each label, in order. Boxes overlap only where no place was free.
    """
    placed: dict[int, Box] = {}
    # The most crowded point chooses first, because it has the fewest free places.
    order = sorted(range(len(points)), key=lambda i: (_room(points, i), points[i]))
    for i in order:
        taken = (*obstacles, *placed.values())
        placed[i] = min(
            _candidates(points[i], sizes[i]), key=lambda found: _cost(found, bounds, taken)
        )[0]
    return [placed[i] for i in range(len(points))]


def _room(points: Sequence[Point], i: int) -> float:
    """Return the distance to the nearest other point."""
    others = (math.dist(points[i], point) for j, point in enumerate(points) if j != i)
    return min(others, default=math.inf)


def _candidates(point: Point, size: tuple[float, float]) -> Iterator[tuple[Box, float]]:
    """Yield boxes around a point, and the distance of each from it."""
    width, height = size
    for distance in _DISTANCES:
        for step in range(_DIRECTIONS):
            angle = 2 * math.pi * step / _DIRECTIONS
            x = point[0] + distance * math.cos(angle) + width / 2 * _side(math.cos(angle))
            y = point[1] + distance * math.sin(angle) + height / 2 * _side(math.sin(angle))
            box = Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            yield box, distance


def _side(direction: float) -> float:
    """Return -1 to 1: to which side of its point a box moves, by half its size; 0 is centred."""
    return max(-1.0, min(1.0, 2 * direction))


def _cost(found: tuple[Box, float], bounds: Box, taken: Sequence[Box]) -> float:
    box, distance = found
    wide = box.grown(_GAP)
    covered = sum(wide.overlap(other) for other in taken)
    outside = _OUTSIDE if wide.sticks_out_of(bounds) else 0.0
    return outside + (_COVERED + covered if covered else 0.0) + distance
