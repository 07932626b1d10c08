# SPDX-License-Identifier: Apache-2.0
"""From an image's file or bytes to a model's tensor, in this process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import ImageError
from hgdeploy.images.decode import MAX_PIXELS, decode_image, read_image
from hgdeploy.images.find import ImageFile
from hgdeploy.transforms.operators import Op, ResizeImage
from hgdeploy.transforms.preprocess import Preprocessor

# Reduced decoding keeps at least this many times the size that the image is resized to.
_FAST_MARGIN = 2


def use_one_opencv_thread() -> None:
    """Keep OpenCV from using threads of its own, for when many threads read images already.

    It affects the whole process, and changes no pixel.
    """
    import cv2

    cv2.setNumThreads(1)


class ReadImage(NamedTuple):
    """An image's tensor, and how long it took.

    Attributes:
        tensor: the result of the preprocessing, without a batch axis.
        decode: seconds spent on reading and decoding the file.
        preprocess: seconds spent on making the tensor.
    """

    tensor: NDArray[Any]
    decode: float
    preprocess: float


class ImageReader:
    """Reads images for one model; safe to call from many threads at once.

    Args:
        ops: the preprocessing.
        fast_decode: decode JPEG files at a reduced scale; changes pixels a little.

    Attributes:
        max_pixels: a picture of more pixels is refused before it is decoded.
    """

    def __init__(self, ops: Sequence[Op], fast_decode: bool = False) -> None:
        self.preprocessor = Preprocessor(ops)
        self.shrink_to = _fast_size(ops) if fast_decode else None
        self.max_pixels = MAX_PIXELS

    def read_file(self, path: Path, out: NDArray[Any] | None = None) -> ReadImage:
        """Read a file.

        Args:
            path: the file.
            out: where to make the tensor; see `Preprocessor`.

        Raises:
            ImageError: it cannot be read, decoded or preprocessed; the message is the reason.
        """

        def pixels() -> NDArray[np.uint8]:
            return read_image(path, max_pixels=self.max_pixels, shrink_to=self.shrink_to)

        return self._read(pixels, out)

    def read_bytes(self, data: bytes, out: NDArray[Any] | None = None) -> ReadImage:
        """Read an image from the contents of its file, as `read_file` does."""

        def pixels() -> NDArray[np.uint8]:
            return decode_image(data, max_pixels=self.max_pixels, shrink_to=self.shrink_to)

        return self._read(pixels, out)

    def read_array(self, rgb: NDArray[np.uint8], out: NDArray[Any] | None = None) -> ReadImage:
        """Take an image's pixels, uint8 RGB of shape (height, width, 3), as `read_file` does."""
        return self._read(lambda: rgb, out)

    def _read(self, pixels: Callable[[], NDArray[np.uint8]], out: NDArray[Any] | None) -> ReadImage:
        start = time.perf_counter()
        rgb = pixels()
        decoded = time.perf_counter()
        tensor = self.preprocessor(rgb, out)
        return ReadImage(tensor, decoded - start, time.perf_counter() - decoded)


def read_batches(
    reader: ImageReader, files: Sequence[ImageFile], size: int, failed: list[tuple[str, str]]
) -> Iterator[tuple[list[str], NDArray[Any]]]:
    """Read files one after the other and yield their tensors in batches of one shape.

    Args:
        reader: reads them.
        files: the files.
        size: the most images in a batch.
        failed: (name, reason) of each image that cannot be read is added to it.

    Yields:
        The names of a batch's images, and their tensors as one array (n, ...).
    """
    names: list[str] = []
    tensors: list[NDArray[Any]] = []
    for file in files:
        try:
            tensor = reader.read_file(file.path).tensor
        except ImageError as error:
            failed.append((file.name, str(error)))
            continue
        if tensors and (len(tensors) == size or tensor.shape != tensors[0].shape):
            yield names, np.stack(tensors)
            names, tensors = [], []
        names.append(file.name)
        tensors.append(tensor)
    if tensors:
        yield names, np.stack(tensors)


def _fast_size(ops: Sequence[Op]) -> int | None:
    """Return the least short side, in pixels, to decode a JPEG at; None for its full size."""
    first = next((op for op in ops if isinstance(op, ResizeImage)), None)
    if first is None:
        return None
    return _FAST_MARGIN * math.ceil(first.resize_short or max(first.size or (0,)))
