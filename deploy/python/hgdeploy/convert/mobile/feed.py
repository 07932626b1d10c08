# SPDX-License-Identifier: Apache-2.0
"""A bundle's preprocessing as constants of C++, for the sample that goes to phones with a model.

The sample in `sample/` computes what `transforms.preprocess` does, from the decoded pixels to the
tensor, or the bundle is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hgdeploy.errors import BundleError
from hgdeploy.transforms.operators import (
    INTERPOLATIONS,
    CropImage,
    DecodeImage,
    NormalizeImage,
    Op,
    ResizeImage,
    ToCHWImage,
)


@dataclass(frozen=True)
class Feed:
    """How the sample makes a tensor of an image.

    Attributes:
        steps: what is done to the pixels, in order.
        rgb: whether the first plane is red, and not blue.
        normalize: what makes floats of them.
        backend: the library that resizes: `cv2` or `pil`.
    """

    steps: tuple[ResizeImage | CropImage, ...]
    rgb: bool
    normalize: NormalizeImage
    backend: str


def sample_feed(ops: Sequence[Op], place: Path) -> Feed:
    """Return a bundle's preprocessing as the sample can do it.

    Args:
        ops: the bundle's own operators.
        place: the bundle, for the error.

    Raises:
        BundleError: the sample cannot do it exactly; the message says what.
    """
    reason = _not_possible(ops)
    if reason is not None:
        raise BundleError(
            f"{place}: the C++ sample cannot do this bundle's preprocessing exactly: {reason}; "
            "hgdeploy convert --to mnn or ncnn writes the model alone"
        )
    return Feed(
        tuple(op for op in ops if isinstance(op, ResizeImage | CropImage)),
        all(op.to_rgb for op in ops if isinstance(op, DecodeImage)),
        next(op for op in ops if isinstance(op, NormalizeImage)),
        next((op.backend for op in ops if isinstance(op, ResizeImage)), "pil"),
    )


def _not_possible(ops: Sequence[Op]) -> str | None:
    """Return what the sample cannot do; None where it can do all."""
    resizes = [op for op in ops if isinstance(op, ResizeImage)]
    normalize = next((op for op in ops if isinstance(op, NormalizeImage)), None)
    if normalize is None:
        return "it has no NormalizeImage, and the sample makes floats"
    if normalize.channel_num != 3 or normalize.output_fp16:
        return "NormalizeImage makes four channels or fp16, and the sample three of float32"
    if not any(isinstance(op, ToCHWImage) for op in ops):
        return "it has no ToCHWImage, and the sample makes planes"
    after = ops[list(ops).index(normalize) :]
    if any(isinstance(op, ResizeImage | CropImage) for op in after):
        return "it resizes or crops after NormalizeImage, and the sample before"
    if len({op.backend for op in resizes}) > 1:
        return "it resizes by OpenCV and by Pillow, and the sample by one of them"
    if any(op.backend == "pil" and op.interpolation == "nearest" for op in resizes):
        return "Pillow's nearest, for which the sample has no formula"
    return None


def steps_in_words(feed: Feed) -> Iterator[str]:
    """Yield what is done to an image, one step at a time, for a reader."""
    yield "turn it upright, as its EXIF orientation says"
    library = {"cv2": "OpenCV", "pil": "Pillow"}[feed.backend]
    for op in feed.steps:
        if isinstance(op, CropImage):
            yield f"cut the middle {op.size[0]} x {op.size[1]} out (width x height)"
            continue
        how = f"{op.interpolation or 'bilinear'}, as {library} computes it"
        if op.size is not None:
            yield f"resize to {op.size[0]} x {op.size[1]} (width x height), {how}"
        else:
            yield f"resize so that the short side has {op.resize_short} pixels, {how}"
    scale, mean, std = (
        feed.normalize.scale,
        *(", ".join(map(_number, values)) for values in (feed.normalize.mean, feed.normalize.std)),
    )
    order = "R, G, B" if feed.rgb else "B, G, R"
    yield f"(byte * {_number(scale)} - mean) / std, with the means {mean} and the std {std}"
    yield f"planes in the order {order}, each of rows from the top"


def feed_constants(feed: Feed) -> Iterator[str]:
    """Yield the lines of C++ that say the same to `sample/preprocess.h`."""
    yield "inline const std::vector<Step> kSteps = {"
    for op in feed.steps:
        if isinstance(op, CropImage):
            yield f"    {{Do::Crop, 0, {op.size[0]}, {op.size[1]}, 0}},"
            continue
        width, height = op.size or (0, 0)
        what = "ResizeShort" if op.size is None else "Resize"
        name = INTERPOLATIONS[op.backend][op.code]
        yield (
            f"    {{Do::{what}, {op.resize_short or 0}, {width}, {height}, {op.code}}},  // {name}"
        )
    yield "};"
    yield f"constexpr bool kRgb = {str(feed.rgb).lower()};  // else the first plane is blue"
    yield f"constexpr float kScale = {_number(feed.normalize.scale)}f;"
    for name, numbers in (("kMean", feed.normalize.mean), ("kStd", feed.normalize.std)):
        yield f"constexpr float {name}[3] = {{{', '.join(f'{_number(n)}f' for n in numbers)}}};"


def _number(value: float) -> str:
    """Return the shortest text that is this number in float32."""
    return str(np.float32(value))
