# SPDX-License-Identifier: Apache-2.0
"""RandAugment as PaddleClas's `TimmAutoAugment` has it: a few of 15 operations, each at a level.

Source: PaddleClas's ppcls/data/preprocess/ops/timm_autoaugment.py, after timm; the paper is
https://arxiv.org/abs/1909.13719. Pillow computes, there as here. Levels run from 0 to 10, and
numbers are drawn in the same order as there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from hgdeploy.errors import ConfigError
from hgdeploy.system.checks import check
from hgdeploy.system.kinds import number, parse_literal, whole

_MOST: Final = 10.0
_CHANCE = 0.5  # that an operation which was chosen is done
_BOUND = 128  # below it SolarizeAdd adds


@dataclass(frozen=True)
class Geometry:
    """How operations that move pixels fill and interpolate.

    Attributes:
        fill: the colour of what moves in from outside, RGB.
        kernels: one, or several to choose from each time.
    """

    fill: tuple[int, ...]
    kernels: tuple[Image.Resampling, ...]

    def affine(
        self, image: Image.Image, matrix: tuple[float, ...], rng: np.random.Generator
    ) -> Image.Image:
        """Return the image whose pixel (x, y) is that at `matrix` times (x, y, 1)."""
        kernel = self.kernel(rng)
        return image.transform(
            image.size, Image.Transform.AFFINE, matrix, resample=kernel, fillcolor=self.fill
        )

    def kernel(self, rng: np.random.Generator) -> Image.Resampling:
        """Return how to interpolate this time."""
        if len(self.kernels) == 1:
            return self.kernels[0]
        return self.kernels[rng.integers(len(self.kernels))]


Operation = Callable[[Image.Image, float, np.random.Generator, Geometry], Image.Image]


def _signed(value: float, rng: np.random.Generator) -> float:
    return -value if rng.random() > 0.5 else value


def _rotate(
    image: Image.Image, level: float, rng: np.random.Generator, how: Geometry
) -> Image.Image:
    degrees = _signed((level / _MOST) * 30.0, rng)
    return image.rotate(degrees, resample=how.kernel(rng), fillcolor=how.fill)


def _shear(axis: int) -> Operation:
    def operation(
        image: Image.Image, level: float, rng: np.random.Generator, how: Geometry
    ) -> Image.Image:
        factor = _signed((level / _MOST) * 0.3, rng)
        along_x, along_y = (factor, 0) if axis == 0 else (0, factor)
        return how.affine(image, (1, along_x, 0, along_y, 1, 0), rng)

    return operation


def _translate(axis: int) -> Operation:
    def operation(
        image: Image.Image, level: float, rng: np.random.Generator, how: Geometry
    ) -> Image.Image:
        pixels = _signed((level / _MOST) * 0.45, rng) * image.size[axis]
        along_x, along_y = (pixels, 0) if axis == 0 else (0, pixels)
        return how.affine(image, (1, 0, along_x, 0, 1, along_y), rng)

    return operation


def _enhance(enhancer: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    """From 0.1 at level 0 to 1.9 at level 10; 1 changes nothing."""

    def operation(
        image: Image.Image, level: float, _: np.random.Generator, __: Geometry
    ) -> Image.Image:
        return enhancer(image).enhance((level / _MOST) * 1.8 + 0.1)

    return operation


def _enhance_increasing(enhancer: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    """From 1, which changes nothing, down to 0.1 or up to 1.9."""

    def operation(
        image: Image.Image, level: float, rng: np.random.Generator, _: Geometry
    ) -> Image.Image:
        return enhancer(image).enhance(1.0 + _signed((level / _MOST) * 0.9, rng))

    return operation


def _posterize(image: Image.Image, level: float, *_: object) -> Image.Image:
    return _keep_bits(image, int((level / _MOST) * 4))


def _posterize_increasing(image: Image.Image, level: float, *_: object) -> Image.Image:
    return _keep_bits(image, 4 - int((level / _MOST) * 4))


def _keep_bits(image: Image.Image, bits: int) -> Image.Image:
    """Return what Pillow's `posterize` made of 0 to 8 bits before it refused to keep none."""
    dropped = 2 ** (8 - bits) - 1
    return image.point([value & ~dropped for value in range(256)] * len(image.getbands()))


def _solarize(image: Image.Image, level: float, *_: object) -> Image.Image:
    return ImageOps.solarize(image, int((level / _MOST) * 256))


def _solarize_increasing(image: Image.Image, level: float, *_: object) -> Image.Image:
    return ImageOps.solarize(image, 256 - int((level / _MOST) * 256))


def _solarize_add(image: Image.Image, level: float, *_: object) -> Image.Image:
    add = int((level / _MOST) * 110)
    table = [min(255, value + add) if value < _BOUND else value for value in range(256)]
    return image.point(table * len(image.getbands()))


# In the order in which a chosen number means one of them.
_OPERATIONS: dict[str, Operation] = {
    "AutoContrast": lambda image, *_: ImageOps.autocontrast(image),
    "Equalize": lambda image, *_: ImageOps.equalize(image),
    "Invert": lambda image, *_: ImageOps.invert(image),
    "Rotate": _rotate,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "Color": _enhance(ImageEnhance.Color),
    "Contrast": _enhance(ImageEnhance.Contrast),
    "Brightness": _enhance(ImageEnhance.Brightness),
    "Sharpness": _enhance(ImageEnhance.Sharpness),
    "ShearX": _shear(0),
    "ShearY": _shear(1),
    "TranslateXRel": _translate(0),
    "TranslateYRel": _translate(1),
}
# Those of which a higher level changes more than a lower one (`inc1`).
_INCREASING: dict[str, Operation] = {
    **_OPERATIONS,
    "Posterize": _posterize_increasing,
    "Solarize": _solarize_increasing,
    "Color": _enhance_increasing(ImageEnhance.Color),
    "Contrast": _enhance_increasing(ImageEnhance.Contrast),
    "Brightness": _enhance_increasing(ImageEnhance.Brightness),
    "Sharpness": _enhance_increasing(ImageEnhance.Sharpness),
}
# How often each is chosen with `w0`; those that are not named never are.
_WEIGHTS = {
    "Rotate": 0.3,
    "ShearX": 0.2,
    "ShearY": 0.2,
    "TranslateXRel": 0.1,
    "TranslateYRel": 0.1,
    "Color": 0.025,
    "Sharpness": 0.025,
    "AutoContrast": 0.025,
    "Solarize": 0.005,
    "SolarizeAdd": 0.005,
    "Contrast": 0.005,
    "Brightness": 0.005,
    "Equalize": 0.005,
}
_EXPECTED = "such as rand-m7-mstd0.5-inc1: rand, then any of m, n, w, mstd and inc with a number"


@dataclass(frozen=True)
class RandAugment:
    """A policy such as `rand-m7-mstd0.5-inc1`.

    Attributes:
        magnitude: the level, 0 to 10; more is cut to 10 after the noise is added.
        layers: how many operations are chosen, each of which is done with a chance of one half.
        weighted: choose by `_WEIGHTS` and none twice, instead of evenly and independently.
        deviation: of the normal noise that is added to the level.
        increasing: use the operations of which a higher level always changes more.
    """

    magnitude: int = 10
    layers: int = 2
    weighted: bool = False
    deviation: float = 0.0
    increasing: bool = False

    @classmethod
    def parse(cls, spec: str, where: str) -> RandAugment:
        """Read PaddleClas's `config_str`.

        Raises:
            ConfigError: it is not such a text, or has a part that PaddleClas would pass over.
        """
        head, *parts = spec.split("-")
        if head != "rand":
            raise ConfigError(f"{where} is {spec!r}, expected a policy {_EXPECTED}")
        values: dict[str, object] = {}
        for part in parts:
            found = re.fullmatch(r"(m|n|w|mstd|inc)(\d[\d.]*)", part)
            if found is None or found[1] in values:
                raise ConfigError(
                    f"{where} is {spec!r} with {part!r}, expected a policy {_EXPECTED}"
                )
            values[found[1]] = parse_literal(found[2].lstrip("0") or "0")
        return cls._checked(values, f"{where} {spec!r}:")

    @classmethod
    def _checked(cls, values: dict[str, object], where: str) -> RandAugment:
        most = len(_WEIGHTS) if "w" in values else 100
        if "w" in values:
            check(f"{where} w", values["w"], whole(0, 0), hint="there is one set of weights")
        if "inc" in values:
            hint = "to turn it off, leave inc out: PaddleClas takes any number for on"
            check(f"{where} inc", values["inc"], whole(1), hint=hint)
        return cls(
            check(f"{where} m", values.get("m", cls.magnitude), whole(0, 100)),
            check(f"{where} n", values.get("n", cls.layers), whole(0, most)),
            "w" in values,
            check(f"{where} mstd", values.get("mstd", cls.deviation), number(0, 100)),
            "inc" in values,
        )

    def __call__(self, image: Image.Image, rng: np.random.Generator, how: Geometry) -> Image.Image:
        """Return the image changed."""
        operations = _INCREASING if self.increasing else _OPERATIONS
        names = list(operations)
        weights = [_WEIGHTS.get(name, 0.0) for name in names] if self.weighted else None
        chances = None if weights is None else np.array(weights) / sum(weights)
        chosen = rng.choice(len(names), self.layers, replace=not self.weighted, p=chances)
        for index in chosen:
            if rng.random() > _CHANCE:
                continue
            level: float = self.magnitude
            if self.deviation > 0:
                level = rng.normal(self.magnitude, self.deviation)
            image = operations[names[index]](image, min(_MOST, max(0.0, level)), rng, how)
        return image
