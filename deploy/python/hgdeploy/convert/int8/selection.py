# SPDX-License-Identifier: Apache-2.0
"""Which images a model is calibrated on, and on which others it is measured."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.convert.int8.options import MIN_IMAGES, QuantizeOptions
from hgdeploy.engines.base import TensorSpec
from hgdeploy.engines.fit import check_image
from hgdeploy.errors import ImageError, InputError
from hgdeploy.images.decode import read_image
from hgdeploy.images.find import ImageFile
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.preprocess import Preprocessor

# Two pictures are alike where the means of their blocks, of a grid of so many each way, differ
# nowhere by more than this share of the first one's standard deviation. On the 5 photographs of
# deploy/images, copies with JPEG qualities from 10, of 0.3 to 2 times the size, or with noise of up
# to 30 grey levels differ by up to 0.26; two of 255 photographs by 1.13 and more, and one that has
# moved by 20 pixels by 0.5.
_GRID = 8
_ALIKE = 0.3


@dataclass(frozen=True)
class SplitImages:
    """Images that can be read, split in two.

    Attributes:
        calibration: the images that ranges are taken from.
        held_out: the images that agreement is measured on.
        skipped: `NAME: reason` of each image that could not be used.
        digest: a hash over the bytes of the calibration images.
    """

    calibration: tuple[ImageFile, ...]
    held_out: tuple[ImageFile, ...]
    skipped: tuple[str, ...]
    digest: str


def split_images(
    images: Sequence[ImageFile],
    preprocess: Preprocessor,
    options: QuantizeOptions,
    on_progress: OnLine,
    taken: TensorSpec | None = None,
) -> SplitImages:
    """Draw images, skip those that cannot be used, and split the others in two.

    Args:
        images: the images to draw from.
        preprocess: the model's own preprocessing.
        options: how many to draw, and how many of them to hold out.
        on_progress: called with one line at a time.
        taken: the model's input, which may refuse an image's size; None for any size.

    Raises:
        InputError: there are too few, or all are alike.
    """
    good: list[int] = []
    skipped: list[str] = []
    pictures = Pictures()
    for index in np.random.default_rng(options.seed).permutation(len(images)).tolist():
        if len(good) == options.images:
            break
        try:
            tensor = preprocess(read_image(images[index].path))
            if taken is not None:
                check_image(taken, tensor)
            planes = tensor if preprocess.channels_first else tensor.transpose(2, 0, 1)
            if not np.ptp(planes, axis=(-2, -1)).any():
                raise ImageError("has one colour only, which says nothing about ranges")
            pictures.add(planes)
            good.append(index)
        except ImageError as error:
            skipped.append(f"{images[index].name}: {error}")
            on_progress(f"skipped {skipped[-1]}")
    if len(good) < MIN_IMAGES:
        first = f"; the first that cannot is {skipped[0]}" if skipped else ""
        raise InputError(
            f"{len(good)} of {len(images)} images can be used to quantize, expected at least "
            f"{MIN_IMAGES}{first}"
        )
    _check_different(pictures, len(good), on_progress)
    count = min(max(1, round(len(good) * options.held_out)), len(good) - 1)
    held_out = tuple(images[index] for index in sorted(good[:count]))
    calibration = tuple(images[index] for index in sorted(good[count:]))
    digest = hashlib.sha256()
    for image in calibration:
        digest.update(hashlib.sha256(image.path.read_bytes()).digest())
    rest = f", {len(skipped)} skipped" if skipped else ""
    on_progress(f"{len(calibration)} images to calibrate, {len(held_out)} held out{rest}")
    return SplitImages(calibration, held_out, tuple(skipped), digest.hexdigest())


def _check_different(pictures: Pictures, count: int, on_progress: OnLine) -> None:
    """Refuse images that are all one picture; tell where they are few."""
    if pictures.count == 1:
        raise InputError(
            f"all {count} images are the same, or copies that differ by little, and one says too "
            "little about ranges; give images like those to be classified"
        )
    if pictures.count < MIN_IMAGES:
        on_progress(
            f"warning: the {count} images are {pictures.count} pictures and copies of them, which "
            "tells little about others; give more images like those to be classified"
        )


class Pictures:
    """Counts how many of the pictures that it is given are unlike all before."""

    def __init__(self) -> None:
        self._seen: list[tuple[NDArray[Any], float]] = []

    @property
    def count(self) -> int:
        """How many, so far."""
        return len(self._seen)

    def add(self, planes: NDArray[Any]) -> None:
        """Look at one picture, as the model takes it: (channels, height, width)."""
        if len(self._seen) >= MIN_IMAGES:  # more are never asked for
            return
        means = _block_means(planes)
        near = (np.abs(means - other).max() <= _ALIKE * spread for other, spread in self._seen)
        if not any(near):
            self._seen.append((means, float(planes.std(dtype=np.float64))))


def _block_means(planes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the means over a grid of blocks: (channels, up to 8, up to 8)."""
    values = planes.astype(np.float64)
    for axis in (1, 2):
        size = values.shape[axis]
        edges = np.linspace(0, size, min(size, _GRID) + 1).astype(int)
        lengths = np.diff(edges).reshape((-1, 1) if axis == 1 else (1, -1))
        values = np.add.reduceat(values, edges[:-1], axis=axis) / lengths
    return values
