# SPDX-License-Identifier: Apache-2.0
"""Checks that a model fits the images and batches that it will be fed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hgdeploy.engines.base import TensorSpec
from hgdeploy.errors import BundleError
from hgdeploy.transforms.preprocess import Preprocessor


def image_input(inputs: Sequence[TensorSpec], source: Path) -> TensorSpec:
    """Return the one NCHW input of an image classifier.

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


def check_feed(spec: TensorSpec, source: Path, preprocessor: Preprocessor) -> None:
    """Refuse a model that cannot take what the preprocessing makes.

    Args:
        spec: the model's input, NCHW.
        source: its file, for the error.
        preprocessor: makes the tensors that it is fed.

    Raises:
        BundleError: size or type differ; the message has both, and what to correct.
    """
    height, width = spec.shape[2:]
    size = preprocessor.output_size
    if size is not None and (height not in (-1, size[0]) or width not in (-1, size[1])):
        raise BundleError(
            f"{source} takes images of {width}x{height}, but the preprocessing makes "
            f"{size[1]}x{size[0]} (width x height); correct ResizeImage or CropImage"
        )
    if preprocessor.dtype.name != spec.dtype:
        raise BundleError(
            f"{source} takes {spec.dtype}, but the preprocessing makes {preprocessor.dtype.name}; "
            "correct NormalizeImage (output_fp16)"
        )
