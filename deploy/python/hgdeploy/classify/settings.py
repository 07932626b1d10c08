# SPDX-License-Identifier: Apache-2.0
"""The settings of a `Classifier`, and the times of its stages."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from hgdeploy.engines.options import EngineOptions
from hgdeploy.system.checks import check
from hgdeploy.system.kinds import BATCH_SIZE, MANY, optional, whole
from hgdeploy.transforms.operators import Op
from hgdeploy.transforms.postprocess import Postprocess

_SLOWEST = 5
# The stages whose seconds StageTimes has.
STAGES = ("decode", "preprocess", "infer", "postprocess")


@dataclass(frozen=True)
class ClassifierSettings:
    """How to load a bundle and classify with it.

    Attributes:
        engine: the engine's name; None for Paddle, or ONNX Runtime where only that has a file for
            the precision in `options`; `auto` for the choice that `hgdeploy tune` saved, with its
            precision and device, and its threads and streams where `options` leave them open.
        batch_size: images per inference.
        options: the engine's options.
        preprocess: transform ops instead of the bundle's own.
        postprocess: postprocessing instead of the bundle's own.
        topk: how many classes to give, instead of the postprocessing's own number.
        fast_decode: decode JPEG files at a reduced scale; faster, with slightly different pixels.
        image_timeout: seconds that reading one file may take, in a process of its own; None to read
            in this process.
        softmax: make probabilities of the scores of a model that gives logits.
    """

    engine: str | None = None
    batch_size: int = 1
    options: EngineOptions = field(default_factory=EngineOptions)
    preprocess: tuple[Op, ...] | None = None
    postprocess: Postprocess | None = None
    topk: int | None = None
    fast_decode: bool = False
    image_timeout: float | None = None
    softmax: bool = False

    def __post_init__(self) -> None:
        check("the batch size", self.batch_size, BATCH_SIZE)
        check("topk", self.topk, optional(whole(1, MANY)))


@dataclass
class StageTimes:
    """Seconds spent in each stage, summed over all images, and how many images that were.

    Attributes:
        images: how many.
        decode: reading and decoding files.
        preprocess: turning pixels into tensors.
        infer: running the engine, including the wait for a free slot.
        postprocess: turning scores into predictions.
        slowest: the images that took longest to become tensors, as (seconds, name).
    """

    images: int = 0
    decode: float = 0.0
    preprocess: float = 0.0
    infer: float = 0.0
    postprocess: float = 0.0
    slowest: list[tuple[float, str]] = field(default_factory=list)

    def add(self, other: StageTimes) -> None:
        """Add the times of other images."""
        for name in ("images", *STAGES):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.slowest = heapq.nlargest(_SLOWEST, self.slowest + other.slowest)
