# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's operators as frozen records that check their own values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hgdeploy.errors import ConfigError, nearest

IMAGENET_MEAN = (0.485, 0.456, 0.406)


IMAGENET_STD = (0.229, 0.224, 0.225)


# `resize_short` multiplies the long side too, so a 1 x 60000 image would need 12 GB. The limit is
# an aspect ratio of 2048:1 at a short side of 256, about 400 MB.
MAX_RESIZED_PIXELS = 2**27


# Names by backend, each at the index that is its code in that library: PaddleClas takes both.
INTERPOLATIONS: dict[str, tuple[str, ...]] = {
    "cv2": ("nearest", "bilinear", "bicubic", "area", "lanczos"),
    "pil": ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"),
}


_ORDERS = ("", "hwc", "chw")


@dataclass(frozen=True)
class DecodeImage:
    """How the model wants its colours; the decoding itself is done by `hgdeploy.images`.

    Attributes:
        to_rgb: True for a model trained on RGB, False for one trained on BGR.
        channel_first: must be False; `ToCHWImage` does that job.
    """

    to_rgb: bool = True
    channel_first: bool = False

    def __post_init__(self) -> None:
        _check_bool("DecodeImage.to_rgb", self.to_rgb)
        _check_bool("DecodeImage.channel_first", self.channel_first)
        if self.channel_first:
            raise ConfigError(
                "DecodeImage.channel_first: must be false, because resize and crop need HWC; "
                "put ToCHWImage at the end instead"
            )


@dataclass(frozen=True)
class ResizeImage:
    """Resize to a fixed size, or so that the short side has a given length.

    Attributes:
        size: (width, height) in pixels, without regard to the aspect ratio.
        resize_short: length of the short side; exactly one of the two is set.
        interpolation: a name of the backend (cv2: nearest, bilinear, bicubic, area, lanczos;
            pil: nearest, lanczos, bilinear, bicubic, box, hamming); None is bilinear.
        backend: "cv2" or "pil".
    """

    size: tuple[int, int] | None = None
    resize_short: int | None = None
    interpolation: str | None = None
    backend: str = "cv2"

    def __post_init__(self) -> None:
        if (self.size is None) == (self.resize_short is None):
            raise ConfigError(
                "ResizeImage: needs one of `size` and `resize_short`, such as resize_short: 256"
            )
        if self.size is not None:
            _check_size("ResizeImage.size", self.size)
        if self.resize_short is not None and not _is_positive_int(self.resize_short):
            raise ConfigError(
                "ResizeImage.resize_short: expected a positive whole number of pixels, "
                f"got {self.resize_short!r}"
            )
        if math.prod(self.size or (self.resize_short or 0,) * 2) > MAX_RESIZED_PIXELS:
            raise ConfigError(f"ResizeImage: gives more than {MAX_RESIZED_PIXELS} pixels")
        if not isinstance(self.backend, str) or self.backend not in INTERPOLATIONS:
            raise ConfigError(
                f"ResizeImage.backend: expected one of cv2, pil, got {self.backend!r}"
            )
        _check_interpolation(self.interpolation, self.backend)

    @property
    def code(self) -> int:
        """The backend's own number for the interpolation."""
        return INTERPOLATIONS[self.backend].index(self.interpolation or "bilinear")


@dataclass(frozen=True)
class CropImage:
    """Cut the middle out of the image.

    Attributes:
        size: (width, height) in pixels; a larger crop than the image is an ImageError.
    """

    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_size("CropImage.size", self.size)


@dataclass(frozen=True)
class NormalizeImage:
    """(pixel * scale - mean) / std, in float32, per channel.

    Attributes:
        scale: factor on the 0..255 pixels.
        mean: three numbers, in the channel order of the model.
        std: three numbers, none of them 0.
        order: layout that it works on: "chw", or "hwc" with "" as its other name.
        channel_num: 3, or 4 to append a channel of zeros.
        output_fp16: round the result to float16.
    """

    scale: float = 1.0 / 255.0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    order: str = "chw"
    channel_num: int = 3
    output_fp16: bool = False

    def __post_init__(self) -> None:
        for name, value in (("scale", (self.scale,)), ("mean", self.mean), ("std", self.std)):
            _check_numbers(f"NormalizeImage.{name}", value, 1 if name == "scale" else 3)
        for name, numbers in (("scale", (self.scale,)), ("std", self.std)):
            if any(np.float32(number) == 0 for number in numbers):
                raise ConfigError(f"NormalizeImage.{name}: must not be 0 in float32")
        if not isinstance(self.order, str) or self.order not in _ORDERS:
            raise ConfigError(
                f"NormalizeImage.order: expected one of '', 'hwc', 'chw', got {self.order!r}"
            )
        if type(self.channel_num) is not int or self.channel_num not in (3, 4):
            raise ConfigError(
                f"NormalizeImage.channel_num: expected 3 or 4, got {self.channel_num!r}"
            )
        _check_bool("NormalizeImage.output_fp16", self.output_fp16)
        self._check_range()

    def _check_range(self) -> None:
        dtype = np.float16 if self.output_fp16 else np.float32
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(table(self)).all()
        if not finite:
            raise ConfigError(
                f"NormalizeImage: scale, mean and std give values outside of {np.dtype(dtype)}"
            )


@dataclass(frozen=True)
class ToCHWImage:
    """Move the channels to the front: HWC becomes CHW."""


Op: TypeAlias = DecodeImage | ResizeImage | CropImage | NormalizeImage | ToCHWImage


def _is_positive_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _check_bool(where: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: expected true or false, got {value!r}")


def _check_size(where: str, value: object) -> None:
    if (
        not isinstance(value, tuple)
        or len(value) != 2
        or not all(_is_positive_int(side) for side in value)
    ):
        got = list(value) if isinstance(value, tuple) else value
        raise ConfigError(
            f"{where}: expected a positive whole number or [width, height], got {got!r}"
        )


def _check_numbers(where: str, value: object, count: int) -> None:
    got = list(value) if isinstance(value, tuple) else value
    wanted = "a number" if count == 1 else f"a list of {count} numbers"
    if not isinstance(value, tuple) or len(value) != count:
        raise ConfigError(f"{where}: expected {wanted}, got {got!r}")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ConfigError(f"{where}: expected {wanted}, got {number!r}")
        if not abs(number) <= float(np.finfo(np.float32).max):  # also false for nan
            raise ConfigError(f"{where}: must be finite in float32, got {number!r}")


def _check_interpolation(name: object, backend: str) -> None:
    names = INTERPOLATIONS[backend]
    if name is None or (isinstance(name, str) and name in names):
        return
    where = "ResizeImage.interpolation"
    if name == "random":
        raise ConfigError(
            f"{where}: 'random' is a training augmentation, which a deployed model cannot use; "
            "name the one that the model is tested with, such as bilinear"
        )
    if isinstance(name, str):
        raise ConfigError(f"{where}: unknown {name!r} on {backend}; {nearest(name, names)}")
    raise ConfigError(
        f"{where}: expected a name or a code of 0..{len(names) - 1} on {backend}, got {name!r}"
    )


def float_type(op: NormalizeImage) -> DTypeLike:
    return np.float16 if op.output_fp16 else np.float32


def table(op: NormalizeImage) -> NDArray[Any]:
    """What each of the three channels makes of each value 0..255: PaddleClas's three roundings.

    Nothing but uint8 comes here, and to look its results up takes half the time of computing them.
    """
    values = np.arange(256, dtype=np.float32) * np.float32(op.scale)
    mean, std = (np.array(numbers, np.float32)[:, None] for numbers in (op.mean, op.std))
    table: NDArray[Any] = ((values - mean) / std).astype(float_type(op))
    return table
