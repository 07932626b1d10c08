# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's attribute outputs: from a row of sigmoid scores to what a person, car or face has.

Each computes what the class of its name does in PaddleClas's `deploy/python/postprocess.py`,
comparing in float64 as there, so that attributes, `output` and printed line are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import BundleError
from hgdeploy.transforms.prediction import Prediction

_AGES = ("AgeLess18", "Age18-60", "AgeOver60")
_SIDES = ("Front", "Side", "Back")
_BAGS = ("HandBag", "ShoulderBag", "Backpack")
_UPPER = ("UpperStride", "UpperLogo", "UpperPlaid", "UpperSplice")
_LOWER = ("LowerStripe", "LowerPattern", "LongCoat", "Trousers", "Shorts", "Skirt&Dress")
_COLOURS = (
    *("yellow", "orange", "green", "gray", "red"),
    *("blue", "white", "golden", "brown", "black"),
)
_VEHICLES = ("sedan", "suv", "van", "hatchback", "mpv", "pickup", "bus", "truck", "estate")
# By score: what is said above the threshold in English and Chinese, and, for gender and age, below.
_FACE = (
    ("CheekWhiskers", "刚长出的双颊胡须"),
    ("ArchedEyebrows", "柳叶眉"),
    ("Attractive", "吸引人的"),
    ("BagsUnderEyes", "眼袋"),
    ("Bald", "秃头"),
    ("Bangs", "刘海"),
    ("BigLips", "大嘴唇"),
    ("BigNose", "大鼻子"),
    ("BlackHair", "黑发"),
    ("BlondHair", "金发"),
    ("Blurry", "模糊的"),
    ("BrownHair", "棕发"),
    ("BushyEyebrows", "浓眉"),
    ("Chubby", "圆胖的"),
    ("DoubleChin", "双下巴"),
    ("Eyeglasses", "带眼镜"),
    ("Goatee", "山羊胡子"),
    ("GrayHair", "灰发或白发"),
    ("HeavyMakeup", "浓妆"),
    ("HighCheekbones", "高颧骨"),
    ("Male", "男性", "Female", "女性"),
    ("MouthSlightlyOpen", "微微张开嘴巴"),
    ("Mustache", "胡子"),
    ("NarrowEyes", "细长的眼睛"),
    ("NoBeard", "无胡子"),
    ("OvalFace", "椭圆形的脸"),
    ("PaleSkin", "苍白的皮肤"),
    ("PointyNose", "尖鼻子"),
    ("RecedingHairline", "发际线后移"),
    ("RosyCheeks", "红润的双颊"),
    ("Sideburns", "连鬓胡子"),
    ("Smiling", "微笑"),
    ("StraightHair", "直发"),
    ("WavyHair", "卷发"),
    ("WearingEarrings", "戴着耳环"),
    ("WearingHat", "戴着帽子"),
    ("WearingLipstick", "涂了唇膏"),
    ("WearingNecklace", "戴着项链"),
    ("WearingNecktie", "戴着领带"),
    ("Young", "年轻人", "Old", "老年人"),
)


class Attributes:
    """What the attribute outputs share; a model's scores mean what `_attributes` says.

    Attributes:
        classes: how many scores the model has.
    """

    classes: ClassVar[int]
    labels: ClassVar[None] = None
    probabilities: ClassVar[bool] = False

    def __call__(self, path: str, scores: NDArray[Any]) -> Prediction:
        """Turn one row of scores into a prediction.

        Raises:
            BundleError: the model has another number of scores.
        """
        if len(scores) != self.classes:
            raise BundleError(
                f"the model gives {len(scores)} scores for an image, but {type(self).__name__} is "
                f"for {self.classes}; give the PostProcess that belongs to the model"
            )
        values = scores.tolist()
        output = tuple(int(v > limit) for v, limit in zip(values, self._limits(), strict=True))
        return Prediction(path, None, tuple(values), (), None, self._attributes(values), output)

    @property
    def notes(self) -> tuple[str, ...]:
        """What its user should know about its thresholds, one line each."""
        return ()

    def _limits(self) -> Sequence[float]:
        """Return what each score is compared with for PaddleClas's `output`."""
        raise NotImplementedError

    def _attributes(self, scores: Sequence[float]) -> tuple[str, ...] | str:
        """Return PaddleClas's `attributes`."""
        raise NotImplementedError


@dataclass(frozen=True)
class PersonAttribute(Attributes):
    """Clothes, bags and age of a person: PULC's `person_attribute`, 26 scores of PA100k."""

    threshold: float = 0.5
    glasses_threshold: float = 0.3
    hold_threshold: float = 0.6
    classes: ClassVar[int] = 26

    @property
    def notes(self) -> tuple[str, ...]:
        """Say that `threshold` does not reach `output`, where that makes a difference."""
        if self.threshold == 0.5:
            return ()
        return (
            f"PersonAttribute.threshold={self.threshold} decides the attributes; output is "
            "compared with 0.5 all the same, as in PaddleClas",
        )

    def _limits(self) -> Sequence[float]:
        limits = [0.5] * self.classes
        limits[1], limits[18] = self.glasses_threshold, self.hold_threshold
        return limits

    def _attributes(self, scores: Sequence[float]) -> tuple[str, ...]:
        def above(names: Sequence[str], start: int) -> list[str]:
            return [name for i, name in enumerate(names, start) if scores[i] > self.threshold]

        bag = _best(scores[15:18])
        lower = above(_LOWER, 8) or [_LOWER[_best(scores[8:14])]]
        sleeve = "LongSleeve" if scores[3] > scores[2] else "ShortSleeve"
        return (
            "Female" if scores[22] > self.threshold else "Male",
            _AGES[_best(scores[19:22])],
            _SIDES[_best(scores[23:26])],
            f"Glasses: {scores[1] > self.glasses_threshold}",
            f"Hat: {scores[0] > self.threshold}",
            f"HoldObjectsInFront: {scores[18] > self.hold_threshold}",
            _BAGS[bag] if scores[15 + bag] > self.threshold else "No bag",
            " ".join(["Upper:", sleeve, *above(_UPPER, 4)]),
            " ".join(["Lower: ", *lower]),  # two spaces, as PaddleClas has them
            "Boots" if scores[14] > self.threshold else "No boots",
        )


@dataclass(frozen=True)
class FaceAttribute(Attributes):
    """What a face has: `face_attribute`, 40 scores of CelebA.

    Attributes:
        threshold: above it, an attribute is named; gender and age always are.
        convert_cn: name them in Chinese.
    """

    threshold: float = 0.65
    convert_cn: bool = False
    classes: ClassVar[int] = 40

    def _limits(self) -> Sequence[float]:
        return [self.threshold] * self.classes

    def _attributes(self, scores: Sequence[float]) -> tuple[str, ...]:
        language = int(self.convert_cn)
        found: list[str] = []
        for score, names in zip(scores, _FACE, strict=True):
            place = language if score > self.threshold else language + 2
            found += names[place : place + 1]
        return tuple(found)


@dataclass(frozen=True)
class VehicleAttribute(Attributes):
    """Colour and type of a vehicle: PULC's `vehicle_attribute`, 10 and 9 scores of VeRi."""

    color_threshold: float = 0.5
    type_threshold: float = 0.5
    classes: ClassVar[int] = len(_COLOURS) + len(_VEHICLES)

    def _limits(self) -> Sequence[float]:
        colours, kinds = [self.color_threshold], [self.type_threshold]
        return colours * len(_COLOURS) + kinds * len(_VEHICLES)

    def _attributes(self, scores: Sequence[float]) -> str:
        def told(what: str, names: Sequence[str], values: Sequence[float], least: float) -> str:
            best = _best(values)
            if values[best] < least:
                return f"{what} unknown"
            return f"{what}: ({names[best]}, prob: {values[best]})"

        colours, kinds = scores[: len(_COLOURS)], scores[len(_COLOURS) :]
        colour = told("Color", _COLOURS, colours, self.color_threshold)
        return f"{colour}, {told('Type', _VEHICLES, kinds, self.type_threshold)}"


@dataclass(frozen=True)
class TableAttribute(Attributes):
    """How a picture of a table was taken: PULC's `table_attribute`, 6 scores."""

    source_threshold: float = 0.5
    number_threshold: float = 0.5
    color_threshold: float = 0.5
    clarity_threshold: float = 0.5
    obstruction_threshold: float = 0.5
    angle_threshold: float = 0.5
    classes: ClassVar[int] = 6

    @property
    def notes(self) -> tuple[str, ...]:
        """Say which thresholds do not reach the attributes, where that makes a difference."""
        given = {"obstruction": self.obstruction_threshold, "angle": self.angle_threshold}
        return tuple(
            f"TableAttribute.{name}_threshold={value} decides output; the attribute is compared "
            f"with number_threshold ({self.number_threshold}) all the same, as in PaddleClas"
            for name, value in given.items()
            if value != self.number_threshold
        )

    def _limits(self) -> Sequence[float]:
        return (
            self.source_threshold,
            self.number_threshold,
            self.color_threshold,
            self.clarity_threshold,
            self.obstruction_threshold,
            self.angle_threshold,
        )

    def _attributes(self, scores: Sequence[float]) -> tuple[str, ...]:
        return (
            "Scanned" if scores[0] > self.source_threshold else "Photo",
            "Little" if scores[1] > self.number_threshold else "Numerous",
            "Black-and-White" if scores[2] > self.color_threshold else "Multicolor",
            "Clear" if scores[3] > self.clarity_threshold else "Blurry",
            # The next two are PaddleClas's; see notes.
            "Without-Obstacles" if scores[4] > self.number_threshold else "With-Obstacles",
            "Horizontal" if scores[5] > self.number_threshold else "Tilted",
        )


def _best(scores: Sequence[float]) -> int:
    """Return the place of the highest score, the first of equal ones."""
    return int(np.argmax(scores))
