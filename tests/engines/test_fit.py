# SPDX-License-Identifier: Apache-2.0
"""A model fits what the preprocessing makes, or is refused with the reason that is the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from hgdeploy.engines import TensorSpec
from hgdeploy.engines.fit import check_feed, image_input
from hgdeploy.errors import BundleError
from hgdeploy.transforms.operators import CropImage, NormalizeImage, Op, ResizeImage, ToCHWImage
from hgdeploy.transforms.preprocess import Preprocessor

CROPPED = (ResizeImage(resize_short=72), CropImage(size=(64, 48)))
HWC = (*CROPPED, NormalizeImage(order=""))
CHW = (*HWC, ToCHWImage())
FOUR = (*CROPPED, NormalizeImage(order="", channel_num=4), ToCHWImage())
HALF = (*CROPPED, NormalizeImage(order="", output_fp16=True), ToCHWImage())
BYTES = (*CROPPED, ToCHWImage())
ANY_SIZE = (ResizeImage(resize_short=72), NormalizeImage(order=""), ToCHWImage())


def check(shape: list[int], ops: tuple[Op, ...], dtype: str = "float32") -> None:
    check_feed(TensorSpec("x", dtype, tuple(shape)), Path("m.onnx"), Preprocessor(ops))


@pytest.mark.parametrize(
    ("shape", "ops", "dtype"),
    [
        ([-1, 3, 48, 64], CHW, "float32"),
        ([1, 3, -1, -1], CHW, "float32"),
        ([-1, -1, -1, -1], CHW, "float32"),
        ([-1, 3, 224, 224], ANY_SIZE, "float32"),
        ([-1, 48, 64, 3], HWC, "float32"),
        ([1, -1, -1, 3], HWC, "float32"),
        ([-1, 4, 48, 64], FOUR, "float32"),
        ([-1, 3, 48, 64], HALF, "float16"),
        ([-1, 3, 48, 64], BYTES, "uint8"),
    ],
)
def test_what_fits_is_taken(shape: list[int], ops: tuple[Op, ...], dtype: str) -> None:
    check(shape, ops, dtype)


@pytest.mark.parametrize(
    ("shape", "ops", "dtype", "told"),
    [
        ([-1, 3, 48, 64], HWC, "float32", "(NCHW, channels first), but .* last; put ToCHWImage"),
        ([-1, 1, 48, 64], HWC, "float32", "(NCHW, channels first), but .* last; put ToCHWImage"),
        ([1, 48, 64, 3], CHW, "float32", "(NHWC, channels last), but .* first; remove ToCHWImage"),
        ([-1, -1, -1, 3], ANY_SIZE, "float32", "(NHWC, channels last)"),
        ([-1, 1, 48, 64], CHW, "float32", "images of 1 channel, but .* makes 3; export the model"),
        ([-1, 48, 64, 1], HWC, "float32", "images of 1 channel, but .* makes 3; export the model"),
        (
            [-1, 4, 48, 64],
            CHW,
            "float32",
            "of 4 channels, .* makes 3; set NormalizeImage.channel_",
        ),
        (
            [-1, 3, 48, 64],
            FOUR,
            "float32",
            "of 3 channels, .* makes 4; leave NormalizeImage.chan",
        ),
        ([-1, 12, 48, 64], CHW, "float32", "of 12 channels, .* makes 3; export the model"),
        ([-1, 3, 64, 48], CHW, "float32", "of 48x64, but the preprocessing makes 64x48 (width x"),
        ([-1, 64, 48, 3], HWC, "float32", "of 48x64, but the preprocessing makes 64x48 (width x"),
        ([-1, 3, 48, 64], CHW, "uint8", "takes uint8, .* makes float32; leave NormalizeImage out"),
        ([-1, 3, 48, 64], BYTES, "float32", "takes float32, .* uint8; correct NormalizeImage"),
        ([-1, 3, 48, 64], CHW, "float16", "takes float16, .* float32; set NormalizeImage.output"),
        ([-1, 3, 48, 64], CHW, "float64", "takes float64, .* float32; export the model with"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(
    shape: list[int], ops: tuple[Op, ...], dtype: str, told: str
) -> None:
    with pytest.raises(BundleError, match=told.replace("(", r"\(").replace(")", r"\)")) as caught:
        check(shape, ops, dtype)
    assert str(caught.value).startswith("m.onnx takes ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shapes", [[], [[1, 3, 8]], [[1, 3, 8, 8], [1, 3, 8, 8]]])
def test_a_model_of_other_inputs_is_no_image_classifier(shapes: list[list[int]]) -> None:
    inputs = [TensorSpec("x", "float32", tuple(shape)) for shape in shapes]
    with pytest.raises(BundleError, match="not an image classifier: expected one NCHW input"):
        image_input(inputs, Path("m.onnx"))
