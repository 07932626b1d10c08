# SPDX-License-Identifier: Apache-2.0
"""Preprocessing operators: PaddleClas's `transform_ops`, checked at the door and run bit-exactly.

A config list becomes a tuple of frozen operators (`parse_ops`), and a `Preprocessor` runs them on
one decoded image. For the same list the result equals PaddleClas's in every bit, on both resize
backends; what PaddleClas would accept and then compute wrongly is refused here with its reason.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import ImageError, TensorError
from hgdeploy.transforms.operators import (
    MAX_RESIZED_PIXELS,
    CropImage,
    DecodeImage,
    NormalizeImage,
    Op,
    ResizeImage,
    ToCHWImage,
    float_type,
    table,
)
from hgdeploy.transforms.sequence import check_sequence


class Preprocessor:
    """Runs a sequence of operators on one image; safe to call from many threads at once."""

    def __init__(self, ops: Sequence[Op]) -> None:
        """Take the operators.

        Args:
            ops: in the order in which they run.

        Raises:
            ConfigError: an order of operators that cannot work.
        """
        check_sequence(ops, "ops")
        self._ops = tuple(ops)
        self._normalize = next((op for op in self._ops if isinstance(op, NormalizeImage)), None)
        at = self._ops.index(self._normalize) if self._normalize else len(self._ops)
        self._before, self._after = self._ops[:at], self._ops[at + 1 :]
        self._table = table(self._normalize) if self._normalize else None
        # Whether normalising may write the result itself: planes, with nothing to do after it.
        chw = self._normalize is not None and self._normalize.order == "chw"
        self._planes_last = chw or self._after == (ToCHWImage(),)

    @property
    def ops(self) -> tuple[Op, ...]:
        """The operators, in order."""
        return self._ops

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the result: float32, float16 (`output_fp16`), or uint8 unnormalised."""
        if self._normalize is None:
            return np.dtype(np.uint8)
        return np.dtype(float_type(self._normalize))

    @property
    def output_size(self) -> tuple[int, int] | None:
        """(height, width) of every result, or None where it depends on the image."""
        size: tuple[int, int] | None = None
        for op in self._ops:
            if isinstance(op, ResizeImage | CropImage):
                size = op.size if op.size is not None else _resized(size, op)
        return None if size is None else (size[1], size[0])

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        """Shape of every result, without a batch axis, or None where it depends on the image."""
        size = self.output_size
        if size is None:
            return None
        return (self.channels, *size) if self.channels_first else (*size, self.channels)

    @property
    def channels(self) -> int:
        """How many channels every result has."""
        return self._normalize.channel_num if self._normalize is not None else 3

    @property
    def channels_first(self) -> bool:
        """Whether every result is CHW, and not HWC."""
        return any(isinstance(op, ToCHWImage) for op in self._ops)

    def __call__(self, rgb: NDArray[np.uint8], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Preprocess one image.

        Args:
            rgb: uint8 of shape (height, width, 3), values 0..255, in RGB order; not changed.
            out: where to put the result, such as one row of a batch: a contiguous array of `dtype`
                and of the result's shape. None for a new array.

        Returns:
            A contiguous array of `dtype`, without a batch axis: CHW after `ToCHWImage`, else HWC.
            It is `out` where that is given, and shares no memory with `rgb`.

        Raises:
            ImageError: not such an array, smaller than the crop, or too long to be resized.
            TensorError: `out` is not such an array.
        """
        _check_image(rgb)
        image: NDArray[Any] = np.ascontiguousarray(rgb)
        for op in self._before:
            image = _apply(op, image)
        if self._normalize is not None and self._table is not None:
            hwc = image.transpose(1, 2, 0) if self._normalize.order == "chw" else image
            shape = (self._normalize.channel_num, *hwc.shape[:2])
            planes = _room(out if self._planes_last else None, shape, self.dtype)
            _look_up(hwc, self._table, planes)
            if self._planes_last:
                return planes
            image = planes.transpose(1, 2, 0)
            for op in self._after:
                image = _apply(op, image)
        result = _room(out, image.shape, self.dtype)
        np.copyto(result, image)
        return result


def _room(out: NDArray[Any] | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `out` if the result fits into it, or a new array."""
    if out is None:
        return np.empty(shape, dtype)
    fits = out.shape == shape and out.dtype == dtype
    if not (fits and out.flags.c_contiguous and out.flags.writeable):
        raise TensorError(
            f"out is {out.dtype} of shape {out.shape}, but the preprocessing makes {dtype} of "
            f"shape {shape}; give a contiguous, writable array like that"
        )
    return out


def _check_image(rgb: object) -> None:
    if not isinstance(rgb, np.ndarray):
        raise ImageError(f"expected a uint8 array of height x width x 3, got {type(rgb).__name__}")
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ImageError(
            f"expected a uint8 array of height x width x 3, got {rgb.dtype} of shape {rgb.shape}"
        )


def _apply(op: Op, image: NDArray[Any]) -> NDArray[Any]:
    if isinstance(op, DecodeImage):
        return image if op.to_rgb else image[:, :, ::-1]
    if isinstance(op, ResizeImage):
        return _resize(op, image)
    if isinstance(op, CropImage):
        return _crop(op, image)
    chw: NDArray[Any] = image.transpose(2, 0, 1)
    return chw


def _resized(size: tuple[int, int] | None, op: ResizeImage) -> tuple[int, int] | None:
    """(width, height) that `resize_short` makes of a size, or None of an unknown one."""
    if size is None or op.resize_short is None:
        return op.size
    width, height = size
    ratio = float(op.resize_short) / min(width, height)
    return round(width * ratio), round(height * ratio)


def _resize(op: ResizeImage, image: NDArray[Any]) -> NDArray[Any]:
    height, width = image.shape[:2]
    target = op.size or _resized((width, height), op)
    if target is None or math.prod(target) > MAX_RESIZED_PIXELS:
        raise ImageError(
            f"{width}x{height} (width x height) is too long for resize_short {op.resize_short}: "
            f"the result would have more than {MAX_RESIZED_PIXELS} pixels"
        )
    if op.backend == "pil":
        from PIL import Image

        return np.asarray(Image.fromarray(image).resize(target, Image.Resampling(op.code)))

    import cv2

    try:
        with _without_ipp(cv2):
            resized: NDArray[Any] = cv2.resize(
                np.ascontiguousarray(image), target, interpolation=op.code
            )
    except cv2.error as error:
        raise ImageError(
            f"cannot be resized from {width}x{height} to {target[0]}x{target[1]}: {error.err}"
        ) from None
    return resized


@contextlib.contextmanager
def _without_ipp(cv2: ModuleType) -> Iterator[None]:
    """Keep this thread from Intel's IPP, with which OpenCV's wheels resize since 4.12.

    IPP's results (bicubic, and of floats) differ by up to one level from OpenCV's own, which are
    those of the OpenCV 4.6 that PaddleClas asks for, and from one kind of x86 CPU to another.
    """
    used = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    try:
        yield
    finally:
        cv2.ipp.setUseIPP(used)


def _crop(op: CropImage, image: NDArray[Any]) -> NDArray[Any]:
    width, height = op.size
    image_height, image_width = image.shape[:2]
    if image_width < width or image_height < height:
        raise ImageError(
            f"crop {width}x{height} is larger than the image {image_width}x{image_height} "
            "(width x height); resize to at least the crop before it (ResizeImage)"
        )
    left, top = (image_width - width) // 2, (image_height - height) // 2
    return image[top : top + height, left : left + width]


def _look_up(hwc: NDArray[Any], table: NDArray[Any], planes: NDArray[Any]) -> None:
    """Fill `planes` (channels, height, width) from `hwc`; channels after the third are zeros.

    OpenCV looks up without holding Python's lock.
    """
    import cv2

    if hwc.strides[1:] != (3, 1):  # such as BGR made by reading RGB backwards
        hwc = np.ascontiguousarray(hwc)
    if table.dtype == np.float16:  # OpenCV looks up the whole numbers of the same bits
        table, planes = table.view(np.uint16), planes.view(np.uint16)
    planes[3:] = 0
    for channel in range(3):
        plane = planes[channel]
        made = cv2.LUT(cv2.extractChannel(hwc, channel), table[channel, None], dst=plane)
        if not np.shares_memory(made, plane):  # OpenCV makes a new array where one does not fit
            np.copyto(plane, made)
