# SPDX-License-Identifier: Apache-2.0
"""Checks that a model fits the images and batches that it will be fed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hgdeploy.engines.base import TensorSpec
from hgdeploy.errors import BundleError, ImageError
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.prediction import printable
from hgdeploy.transforms.preprocess import Preprocessor

# How many channels an image may have: gray, colour, colour and one more.
_CHANNELS = (1, 3, 4)


def check_path(source: Path) -> None:
    """Refuse a path that is no Unicode text, such as a name unpacked in another encoding.

    Raises:
        BundleError: the engines' libraries cannot open it.
    """
    try:
        str(source).encode("utf-8")
    except UnicodeEncodeError:
        raise BundleError(
            f"the path {printable(str(source))} is not UTF-8, and the engines' libraries open no "
            "other; rename the folder or file, or make a link to it with another name"
        ) from None


def image_input(inputs: Sequence[TensorSpec], source: Path) -> TensorSpec:
    """Return the one input of an image classifier, NCHW or NHWC.

    Args:
        inputs: the model's inputs.
        source: its file, for the error.

    Raises:
        BundleError: the model has other inputs.
    """
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        found = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in inputs)
        raise BundleError(
            f"{source} is not an image classifier: expected one NCHW input, got {found}"
        )
    return inputs[0]


def channels_last(shape: Sequence[int | str]) -> bool:
    """Return whether an image input of four axes is NHWC: only its last can be the channels."""
    return shape[3] in _CHANNELS and shape[1] not in _CHANNELS


def check_batch(spec: TensorSpec, source: Path, batch_size: int) -> None:
    """Refuse a model whose fixed batch is not `batch_size`.

    Raises:
        BundleError: they differ; the message has both, and what to do.
    """
    if spec.shape[0] not in (-1, batch_size):
        raise BundleError(
            f"{source} has a fixed batch of {spec.shape[0]}, but the batch size is {batch_size}; "
            f"use batch size {spec.shape[0]}, or export the model with a dynamic batch"
        )


def batch_that_fits(spec: TensorSpec, source: Path, batch_size: int, on_warning: OnLine) -> int:
    """Return how many images to run at a time: the batch size, or the model's own fixed batch.

    Args:
        spec: the model's input.
        source: its file, for the warning.
        batch_size: what was asked for.
        on_warning: called with a line where the model takes another number.
    """
    fixed = spec.shape[0]
    if fixed in (-1, batch_size):
        return batch_size
    on_warning(
        f"{source} has a fixed batch: {fixed} image{'s' * (fixed > 1)} at a time are run, not "
        f"{batch_size}; export the model with a dynamic batch for another"
    )
    return fixed


def check_image(spec: TensorSpec, tensor: NDArray[Any]) -> None:
    """Refuse an image whose size the preprocessing leaves as it is, and the model cannot take.

    Args:
        spec: the model's input.
        tensor: what the preprocessing made of the image, without a batch axis.

    Raises:
        ImageError: both shapes.
    """
    taken = spec.shape[1:]
    if any(size not in (-1, made) for size, made in zip(taken, tensor.shape, strict=True)):
        raise ImageError(
            f"the preprocessing makes {list(tensor.shape)} of it, but the model takes "
            f"{list(taken)}; add ResizeImage with a size, or CropImage"
        )


def check_feed(spec: TensorSpec, source: Path, preprocessor: Preprocessor) -> None:
    """Refuse a model that cannot take what the preprocessing makes.

    Args:
        spec: the model's input, NCHW or NHWC.
        source: its file, for the error.
        preprocessor: makes the tensors that it is fed.

    Raises:
        BundleError: layout, channels, size or type differ; the message has both, and what to
            correct.
    """
    last = channels_last(spec.shape)
    if last == preprocessor.channels_first:
        takes = "NHWC, channels last" if last else "NCHW, channels first"
        raise BundleError(
            f"{source} takes {list(spec.shape)} ({takes}), but the preprocessing ends with the "
            f"channels {'first; remove' if last else 'last; put'} ToCHWImage"
            f"{'' if last else ' at the end of transform_ops'}"
        )
    channels, *image = (spec.shape[i] for i in ((3, 1, 2) if last else (1, 2, 3)))
    if channels not in (-1, preprocessor.channels):
        raise BundleError(
            f"{source} takes images of {channels} channel{'s' * (channels > 1)}, but the "
            f"preprocessing makes {preprocessor.channels}; {_CHANNELS_HINTS.get(channels, _COLOUR)}"
        )
    size = preprocessor.output_size
    if size is not None and any(
        own not in (-1, made) for own, made in zip(image, size, strict=True)
    ):
        raise BundleError(
            f"{source} takes images of {image[1]}x{image[0]}, but the preprocessing makes "
            f"{size[1]}x{size[0]} (width x height); correct ResizeImage or CropImage, "
            "or use an ONNX file of any size (hgdeploy convert --dynamic-size)"
        )
    if preprocessor.dtype.name != spec.dtype:
        raise BundleError(
            f"{source} takes {spec.dtype}, but the preprocessing makes {preprocessor.dtype.name}; "
            f"{_DTYPE_HINTS.get(spec.dtype, _FLOATS)}"
        )


_COLOUR = "export the model for colour images, which is what images are read as"
_CHANNELS_HINTS = {
    3: "leave NormalizeImage.channel_num at 3",
    4: "set NormalizeImage.channel_num to 4, which appends zeros, if it was trained so",
}
_FLOATS = "export the model with an input of float32"
_DTYPE_HINTS = {
    "float32": "correct NormalizeImage (it makes float32, or float16 with output_fp16)",
    "float16": "set NormalizeImage.output_fp16 to true",
    "uint8": "leave NormalizeImage out, if the model normalises images itself",
}
