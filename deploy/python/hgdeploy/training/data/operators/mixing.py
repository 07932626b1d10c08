# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's operators on a batch: MixupOperator, CutmixOperator, and OpSampler of them.

What they make of labels is parts of classes: one-hot labels, mixed as the images are. A cross
entropy with label smoothing smooths these, which is the same as to mix smoothed labels.

Source: PaddleClas's ppcls/data/preprocess/batch_ops/batch_operators.py, whose order of draws this
keeps; the papers are https://arxiv.org/abs/1710.09412 and https://arxiv.org/abs/1905.04899.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import ConfigError
from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import number

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class MixupOperator:
    """Lay another image of the batch over each image.

    Attributes:
        alpha: the share of the first image is drawn from Beta(alpha, alpha), once a batch.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "MixupOperator", alpha=number(above=0))

    def __call__(self, images: Floats, labels: Floats, rng: np.random.Generator) -> Floats:
        """Mix images of shape (n, 3, height, width) where they lie; return their labels."""
        others = rng.permutation(len(images))
        share = rng.beta(self.alpha, self.alpha)
        theirs = images[others]
        theirs *= np.float32(1 - share)
        images *= np.float32(share)
        images += theirs
        return _mixed(labels, others, share)


@dataclass(frozen=True)
class CutmixOperator:
    """Put a rectangle of another image of the batch into each image.

    Attributes:
        alpha: the share of the first image is drawn from Beta(alpha, alpha), once a batch; what the
            image's border cuts off from the rectangle is added to it.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        check_fields(self, "CutmixOperator", alpha=number(above=0))

    def __call__(self, images: Floats, labels: Floats, rng: np.random.Generator) -> Floats:
        """Mix images of shape (n, 3, height, width) where they lie; return their labels."""
        others = rng.permutation(len(images))
        side = np.sqrt(1.0 - rng.beta(self.alpha, self.alpha))
        sizes = images.shape[2:]
        middles = [int(rng.integers(size)) for size in sizes]
        (top, bottom), (left, right) = (
            (max(0, middle - int(size * side) // 2), min(size, middle + int(size * side) // 2))
            for size, middle in zip(sizes, middles, strict=True)
        )
        images[:, :, top:bottom, left:right] = images[others, :, top:bottom, left:right]
        covered = float(bottom - top) * (right - left)
        return _mixed(labels, others, 1 - covered / (sizes[0] * sizes[1]))


def _mixed(labels: Floats, others: NDArray[np.int64], share: float) -> Floats:
    mixed: Floats = labels * np.float32(share) + labels[others] * np.float32(1 - share)
    return mixed


Mixer: TypeAlias = MixupOperator | CutmixOperator


@dataclass(frozen=True)
class OpSampler:
    """Choose one of several operators for each batch, or none where their chances leave room.

    Attributes:
        choices: each operator with its chance.
    """

    choices: tuple[tuple[Mixer, float], ...]

    def __post_init__(self) -> None:
        total = sum(chance for _, chance in self.choices)
        if total > 1:
            raise ConfigError(f"OpSampler: the chances (prob) have the sum {total:g}, more than 1")

    def __call__(self, images: Floats, labels: Floats, rng: np.random.Generator) -> Floats:
        """Mix images of shape (n, 3, height, width) where they lie; return their labels."""
        drawn, reached = rng.random(), 0.0
        for mixer, chance in self.choices:
            reached += chance
            if drawn < reached:
                return mixer(images, labels, rng)
        return labels


BatchOp: TypeAlias = MixupOperator | CutmixOperator | OpSampler
