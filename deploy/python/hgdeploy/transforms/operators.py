# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's operators as frozen records that check their own values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hgdeploy.errors import ConfigError, nearest
from hgdeploy.system.checks import Given, check, check_fields
from hgdeploy.system.kinds import exactly, flag, list_of, number, optional, whole

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

_FLOAT32_MAX = float(np.finfo(np.float32).max)


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
        check_fields(self, "DecodeImage", to_rgb=flag, channel_first=flag)
        if self.channel_first:
            raise ConfigError(
                "DecodeImage.channel_first is true, expected false, because resize and crop need "
                "HWC; put ToCHWImage at the end instead"
            )


@dataclass(frozen=True)
class ResizeImage:
    """Resize to a fixed size, or so that the short side has a given length.

    Attributes:
        size: (width, height) in pixels, without regard to the aspect ratio.
        resize_short: length of the short side, which need not be whole; exactly one of the two is
            set.
        interpolation: a name of the backend (cv2: nearest, bilinear, bicubic, area, lanczos;
            pil: nearest, lanczos, bilinear, bicubic, box, hamming); None is bilinear.
        backend: "cv2" or "pil".
    """

    size: tuple[int, int] | None = None
    resize_short: float | None = None
    interpolation: str | None = None
    backend: str = "cv2"

    def __post_init__(self) -> None:
        if (self.size is None) == (self.resize_short is None):
            raise ConfigError(
                "ResizeImage needs one of `size` and `resize_short`, such as resize_short: 256"
            )
        check_fields(
            self,
            "ResizeImage",
            size=optional(_size),
            resize_short=optional(_length),
            backend=exactly(*INTERPOLATIONS),
        )
        if math.prod(self.size or (self.resize_short or 0,) * 2) > MAX_RESIZED_PIXELS:
            raise ConfigError(f"ResizeImage gives more than {MAX_RESIZED_PIXELS} pixels")
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
        check_fields(self, "CropImage", size=_size)


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
        three = list_of(_float32, 3, 3, words="a list of 3 numbers")
        check_fields(
            self,
            "NormalizeImage",
            scale=_float32,
            mean=three,
            std=three,
            order=exactly("", "hwc", "chw"),
            channel_num=exactly(3, 4),
            output_fp16=flag,
        )
        for name, numbers in (("scale", (self.scale,)), ("std", self.std)):
            if any(np.float32(number) == 0 for number in numbers):
                raise ConfigError(f"NormalizeImage.{name} is 0 in float32, expected another number")
        self._check_range()

    def _check_range(self) -> None:
        dtype = np.float16 if self.output_fp16 else np.float32
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(table(self)).all()
        if not finite:
            raise ConfigError(
                f"NormalizeImage's scale, mean and std give values outside of {np.dtype(dtype)}"
            )


@dataclass(frozen=True)
class ToCHWImage:
    """Move the channels to the front: HWC becomes CHW."""


Op: TypeAlias = DecodeImage | ResizeImage | CropImage | NormalizeImage | ToCHWImage


def _size(given: Given) -> tuple[int, ...]:
    """Is the kind of (width, height)."""
    try:
        return list_of(whole(1), 2, 2)(given)
    except ConfigError:  # named as a whole, since one number stands for both
        raise given.refused("a whole number from 1, or [width, height]") from None


def _length(given: Given) -> float:
    """Is the kind of lengths; a whole number stays one."""
    return number(1)(given) if isinstance(given.value, float) else whole(1)(given)


def _float32(given: Given) -> float:
    """Is the kind of numbers that are finite in float32; a whole number is written back as one."""
    value = number(finite=False)(given)
    if abs(value) > _FLOAT32_MAX:
        raise given.refused("a number that is finite in float32")
    return given.value if isinstance(given.value, int) else value


def _check_interpolation(name: object, backend: str) -> None:
    names = INTERPOLATIONS[backend]
    where = "ResizeImage.interpolation"
    if name is None or (isinstance(name, str) and name in names):
        return
    if name == "random":
        raise ConfigError(
            f"{where} is 'random', a training augmentation, which a deployed model cannot use; "
            "name the one that the model is tested with, such as bilinear"
        )
    if isinstance(name, str):
        raise ConfigError(f"{where} is {name!r}, which {backend} lacks; {nearest(name, names)}")
    check(where, name, whole(0, len(names) - 1), hint="or name it, such as bilinear")


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
