# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's random operators on one image: RandCropImage and those that follow it in a recipe.

Each computes what the class of its name does in PaddleClas's ppcls/data/preprocess/ops, and draws
in the same order, from a generator that belongs to the image.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hgdeploy.errors import ConfigError
from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import exactly, flag, list_of, number, text, whole
from hgdeploy.training.data.operators.augment import Geometry, RandAugment
from hgdeploy.transforms.operators import IMAGENET_MEAN, ResizeImage
from hgdeploy.transforms.preprocess import Preprocessor

# What `TimmAutoAugment.interpolation` may be; PaddleClas takes bilinear for every other word.
_KERNELS = {
    "bilinear": (Image.Resampling.BILINEAR,),
    "bicubic": (Image.Resampling.BICUBIC,),
    "random": (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC),
}
_pair = list_of(number(above=0), 2, 2, words="[least, most]")


@dataclass(frozen=True)
class RandCropImage:
    """Cut a random part out and resize it.

    Attributes:
        size: (width, height) in pixels of the result.
        scale: least and most of the image's area that the part has.
        ratio: least and most of the part's width divided by its height.
        interpolation: see `ResizeImage`.
        backend: see `ResizeImage`.
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3.0 / 4.0, 4.0 / 3.0)
    interpolation: str | None = None
    backend: str = "cv2"

    def __post_init__(self) -> None:
        check_fields(self, "RandCropImage", scale=_pair, ratio=_pair)
        for name, (least, most) in (("scale", self.scale), ("ratio", self.ratio)):
            if least > most or (name == "scale" and most > 1):
                raise ConfigError(
                    f"RandCropImage.{name} is {[least, most]}, expected [least, most]"
                    + (" with most at most 1" if name == "scale" else "")
                )
        _ = self.resize

    @functools.cached_property
    def resize(self) -> ResizeImage:
        """The resize that follows the cut."""
        try:
            return ResizeImage(
                size=self.size, interpolation=self.interpolation, backend=self.backend
            )
        except ConfigError as error:
            raise ConfigError(str(error).replace("ResizeImage", "RandCropImage")) from None

    @functools.cached_property
    def _resizer(self) -> Preprocessor:
        return Preprocessor((self.resize,))

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return the part of an image of shape (height, width, 3), resized."""
        left, top, width, height = self.part(image.shape[1], image.shape[0], rng)
        return self._resizer(image[top : top + height, left : left + width])

    def part(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draw the part of an image of a size: its left, top, width and height."""
        aspect = math.sqrt(rng.uniform(*self.ratio))
        across, down = 1.0 * aspect, 1.0 / aspect
        bound = min((width / height) / across**2, (height / width) / down**2)
        area = width * height * rng.uniform(min(self.scale[0], bound), min(self.scale[1], bound))
        side = math.sqrt(area)
        # PaddleClas fails on a part of no pixels, which an image of a few pixels may give.
        part_width, part_height = max(1, int(side * across)), max(1, int(side * down))
        left = int(rng.integers(0, width - part_width, endpoint=True))
        top = int(rng.integers(0, height - part_height, endpoint=True))
        return left, top, part_width, part_height


@dataclass(frozen=True)
class RandFlipImage:
    """Flip every other image.

    Attributes:
        flip_code: 1 left to right, 0 upside down, -1 both.
    """

    flip_code: int = 1

    def __post_init__(self) -> None:
        check_fields(self, "RandFlipImage", flip_code=exactly(1, 0, -1))

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return an image of shape (height, width, 3), or it flipped."""
        if rng.integers(0, 1, endpoint=True) != 1:
            return image
        import cv2

        flipped: NDArray[np.uint8] = cv2.flip(image, self.flip_code)
        return flipped


@dataclass(frozen=True)
class TimmAutoAugment:
    """Change geometry and colours at random: see `hgdeploy.training.data.operators.augment`.

    Attributes:
        config_str: the policy, such as `rand-m7-mstd0.5-inc1`.
        interpolation: bilinear, bicubic, or random for one of them each time.
        img_size: has no effect on these policies, as in PaddleClas.
        mean: colour of what moves in from outside, RGB from 0 to 1.
        prob: chance that an image is changed at all.
    """

    config_str: str = "rand-m9-mstd0.5-inc1"
    interpolation: str = "bicubic"
    img_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    prob: float = 1.0

    def __post_init__(self) -> None:
        check_fields(
            self,
            "TimmAutoAugment",
            config_str=text,
            interpolation=exactly(*_KERNELS),
            mean=list_of(number(0), 3, 3, words="a list of 3 numbers from 0"),
            prob=number(0, 1),
        )
        _ = self.policy

    @functools.cached_property
    def policy(self) -> RandAugment:
        """What `config_str` says."""
        return RandAugment.parse(self.config_str, "TimmAutoAugment.config_str")

    @functools.cached_property
    def _geometry(self) -> Geometry:
        fill = tuple(min(255, round(255 * value)) for value in self.mean)
        return Geometry(fill, _KERNELS[self.interpolation])

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return an image of shape (height, width, 3), changed."""
        if self.prob < 1 and rng.random() >= self.prob:
            return image
        return np.asarray(self.policy(Image.fromarray(image), rng, self._geometry))


@dataclass(frozen=True)
class RandomErasing:
    """Put noise or a colour into a random rectangle of a normalised image.

    The paper is https://arxiv.org/abs/1708.04896.

    Attributes:
        EPSILON: chance that an image is changed.
        sl: least of the image's area that the rectangle has.
        sh: most of it.
        r1: least of the rectangle's height divided by its width; the most is 1 / r1.
        mean: for the mode `const`: one value a channel, normalised.
        attempt: how many rectangles are drawn until one fits.
        use_log_aspect: draw the logarithm of height divided by width evenly, and not the quotient.
        mode: `const` for `mean`, `rand` for one random colour, `pixel` for random pixels.
    """

    EPSILON: float = 0.5
    sl: float = 0.02
    sh: float = 0.4
    r1: float = 0.3
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    attempt: int = 100
    use_log_aspect: bool = False
    mode: str = "const"

    def __post_init__(self) -> None:
        check_fields(
            self,
            "RandomErasing",
            EPSILON=number(0, 1),
            sl=number(0, 1),
            sh=number(0, 1),
            r1=number(above=0),
            mean=list_of(number(), 3, 3, words="a list of 3 numbers"),
            attempt=whole(1, 10_000),
            use_log_aspect=flag,
            mode=exactly("const", "rand", "pixel"),
        )
        if self.sl > self.sh:
            raise ConfigError(f"RandomErasing.sl is {self.sl}, more than sh, which is {self.sh}")

    def __call__(self, planes: NDArray[np.float32], rng: np.random.Generator) -> None:
        """Change an image of shape (3, height, width) where it lies."""
        if rng.random() > self.EPSILON:
            return
        image_height, image_width = planes.shape[1:]
        least, most = self.r1, 1 / self.r1
        for _ in range(self.attempt):
            area = rng.uniform(self.sl, self.sh) * (image_height * image_width)
            if self.use_log_aspect:
                ratio = math.exp(rng.uniform(math.log(least), math.log(most)))
            else:
                ratio = rng.uniform(least, most)
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if width < image_width and height < image_height:
                filling = self._filling(height, width, rng)
                top = rng.integers(0, image_height - height, endpoint=True)
                left = rng.integers(0, image_width - width, endpoint=True)
                planes[:, top : top + height, left : left + width] = filling
                return

    def _filling(self, height: int, width: int, rng: np.random.Generator) -> NDArray[Any]:
        if self.mode == "const":
            return np.array(self.mean, np.float32)[:, None, None]
        shape = (3, height, width) if self.mode == "pixel" else (3, 1, 1)
        return rng.standard_normal(shape, np.float32)


RandomOp: TypeAlias = RandCropImage | RandFlipImage | TimmAutoAugment | RandomErasing
