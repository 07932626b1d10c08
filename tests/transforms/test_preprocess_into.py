# SPDX-License-Identifier: Apache-2.0
"""Preprocessing into a given place, such as a row of a batch: the same bits, and no copy."""

from __future__ import annotations

import numpy as np
import pytest
from image_files import picture

from hgdeploy.errors import TensorError
from hgdeploy.transforms.operators import (
    CropImage,
    DecodeImage,
    NormalizeImage,
    Op,
    ResizeImage,
    ToCHWImage,
)
from hgdeploy.transforms.operators_config import imagenet_ops
from hgdeploy.transforms.preprocess import Preprocessor

SEQUENCES: dict[str, list[Op]] = {
    "the usual one": list(imagenet_ops(40, 32)),
    "pillow": list(imagenet_ops(40, 32, backend="pil")),
    "bgr": [DecodeImage(to_rgb=False), *imagenet_ops(40, 32)],
    "bgr without resize": [DecodeImage(to_rgb=False), NormalizeImage(order=""), ToCHWImage()],
    "chw first": [ResizeImage((9, 7)), ToCHWImage(), NormalizeImage()],
    "hwc": [CropImage((9, 7)), NormalizeImage(order="hwc")],
    "four channels": [CropImage((9, 7)), NormalizeImage(order="", channel_num=4), ToCHWImage()],
    "float16": [CropImage((9, 7)), NormalizeImage(order="", output_fp16=True), ToCHWImage()],
    "float16 hwc": [CropImage((9, 7)), NormalizeImage(order="", output_fp16=True)],
    "crop last": [NormalizeImage(order=""), ResizeImage((30, 20)), CropImage((9, 7)), ToCHWImage()],
    "not normalised": [ResizeImage((9, 7)), ToCHWImage()],
    "one column": [ResizeImage((1, 7)), NormalizeImage(order=""), ToCHWImage()],
    "one pixel": [ResizeImage((1, 1)), NormalizeImage(order=""), ToCHWImage()],
    "nothing": [],
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_row_of_a_batch_gets_the_same_bits(name: str) -> None:
    processor = Preprocessor(SEQUENCES[name])
    images = [picture(60, 50, seed) for seed in range(3)]
    batch = np.full((3, *processor(images[0]).shape), 77, processor.dtype)
    sized = processor.output_size is not None
    assert processor.output_shape == (batch.shape[1:] if sized else None)
    for image, row in zip(images, batch, strict=True):
        before = image.copy()
        assert processor(image, row) is row
        np.testing.assert_array_equal(image, before)
    assert batch.tobytes() == b"".join(processor(image).tobytes() for image in images)


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        (
            np.empty((3, 32, 31), np.float32),
            r"float32 of shape \(3, 32, 31\), but .* \(3, 32, 32\)",
        ),
        (np.empty((1, 3, 32, 32), np.float32), r"of shape \(1, 3, 32, 32\)"),
        (np.empty((3, 32, 32), np.float64), "out is float64"),
        (np.empty((3, 32, 64), np.float32)[:, :, ::2], "give a contiguous, writable array"),
        (np.empty((32, 32, 3), np.float32).transpose(2, 0, 1), "give a contiguous, writable array"),
        (np.frombuffer(bytes(3 * 32 * 32 * 4), np.float32).reshape(3, 32, 32), "writable array"),
    ],
)
def test_a_place_that_does_not_fit_is_refused_and_left_alone(out: np.ndarray, reason: str) -> None:
    before = out.tobytes()
    with pytest.raises(TensorError, match=reason):
        Preprocessor(imagenet_ops(40, 32))(picture(), out)
    assert out.tobytes() == before
