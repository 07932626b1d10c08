# SPDX-License-Identifier: Apache-2.0
"""An engine's inputs and outputs, the shapes that it serves, and the profile that serves them best.

An engine has one or more optimisation profiles: ranges of shapes, each tuned for one of them. An
execution context uses one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hgdeploy.engines.base import TensorSpec
from hgdeploy.errors import TensorError

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Range:
    """The shapes of a tensor in one profile; those of an output are for the same of the inputs.

    Attributes:
        least: the smallest shape.
        best: the one that the profile is tuned for.
        most: the largest shape.
    """

    least: Shape
    best: Shape
    most: Shape

    def has(self, shape: Shape) -> bool:
        """Return whether a shape lies in the range."""
        return len(shape) == len(self.least) and all(
            low <= size <= high
            for low, size, high in zip(self.least, shape, self.most, strict=True)
        )

    def __str__(self) -> str:
        return f"{list(self.least)} to {list(self.most)}"


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine.

    Attributes:
        name: its name.
        dtype: its element type.
        ranges: its shapes in each profile.
    """

    name: str
    dtype: np.dtype[Any]
    ranges: tuple[Range, ...]

    @property
    def least(self) -> Shape:
        """The smallest size of each axis in any profile."""
        return tuple(min(sizes) for sizes in zip(*(r.least for r in self.ranges), strict=True))

    @property
    def most(self) -> Shape:
        """The largest size of each axis in any profile."""
        return tuple(max(sizes) for sizes in zip(*(r.most for r in self.ranges), strict=True))

    @property
    def spec(self) -> TensorSpec:
        """What callers see: an axis that can have only one size is fixed."""
        shape = tuple(
            low if low == high else -1 for low, high in zip(self.least, self.most, strict=True)
        )
        return TensorSpec(self.name, self.dtype.name, shape)

    def size(self, shape: Shape) -> int:
        """Return how many bytes a shape takes."""
        return math.prod(shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Plan:
    """How a run serves its feeds.

    Attributes:
        profile: the number of the optimisation profile.
        shapes: the inputs' shapes; their batch is larger than the feeds' where the engine serves
            none so small.
        padding: by how many rows they are larger.
    """

    profile: int
    shapes: Shapes
    padding: int = 0


def plan_run(inputs: Sequence[Tensor], shapes: Shapes) -> Plan:
    """Return how to serve feeds of these shapes.

    Of the profiles that serve a batch, the one that is tuned for the nearest shape is taken. Where
    none serves it, the next larger batch is that some profile serves.

    Args:
        inputs: the engine's inputs.
        shapes: the shape of each one's feed.

    Raises:
        TensorError: the engine serves no such shapes.
    """
    batches = {shape[0] for shape in shapes.values() if shape}
    least = {r.least[0] for tensor in inputs for r in tensor.ranges if r.least}
    batch = min(batches, default=0)
    larger = sorted(size for size in least if size > batch) if len(batches) == 1 else []
    for padding in (0, *(size - batch for size in larger)):
        wanted = {n: (s[0] + padding, *s[1:]) if padding else s for n, s in shapes.items()}
        profile = _profile_for(inputs, wanted)
        if profile is not None:
            return Plan(profile, wanted, padding)
    for tensor in inputs:
        if not any(r.has(shapes[tensor.name]) for r in tensor.ranges):
            raise TensorError(
                f"input {tensor.name!r} has shape {list(shapes[tensor.name])}, and the TensorRT "
                f"engine serves {', '.join(map(str, tensor.ranges))}; feed what it serves, or "
                "build it again with hgdeploy build"
            )
    raise TensorError(
        f"no profile of the TensorRT engine serves {shapes} together; feed what one of them "
        "serves, or build it again with hgdeploy build"
    )


def _profile_for(inputs: Sequence[Tensor], shapes: Shapes) -> int | None:
    """Return the profile that serves some shapes and is tuned for the nearest; None without one."""
    serving = [
        profile
        for profile in range(len(inputs[0].ranges))
        if all(tensor.ranges[profile].has(shapes[tensor.name]) for tensor in inputs)
    ]

    def distance(profile: int) -> int:
        return sum(
            abs(math.prod(tensor.ranges[profile].best) - math.prod(shapes[tensor.name]))
            for tensor in inputs
        )

    return min(serving, key=distance) if len(serving) > 1 else next(iter(serving), None)
