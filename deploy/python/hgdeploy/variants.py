# SPDX-License-Identifier: Apache-2.0
"""From a Paddle bundle to its ONNX variants, each checked against what it was made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hgdeploy.bundle import ONNX_FILE, ModelBundle
from hgdeploy.convert import OnnxOptions, bf16_from_onnx, fp16_from_onnx, onnx_from_paddle
from hgdeploy.convert.onnx import onnx_notes
from hgdeploy.convert.quantize import QuantizeOptions, QuantizeReport, int8_from_onnx
from hgdeploy.errors import ConfigError, ImageError
from hgdeploy.images import ImageFile, read_image
from hgdeploy.preprocess import Preprocessor
from hgdeploy.sidecar import changed_source
from hgdeploy.validate import verify_conversion, verify_precision

Tell = Callable[[str], None]

# Images that show where fp16 would overflow and whether the variant agrees; more add minutes.
_MOST_IMAGES = 32


@dataclass(frozen=True)
class ConvertRequest:
    """What `converted` makes.

    Attributes:
        onnx: options of the fp32 conversion.
        precision: `fp32`, `fp16` or `bf16`.
        images: real images to check a reduced precision on; without any, random inputs are used.
        check: compare the result with what it was made from.
    """

    onnx: OnnxOptions = field(default_factory=OnnxOptions)
    precision: str = "fp32"
    images: Sequence[ImageFile] = ()
    check: bool = True


def converted(bundle: ModelBundle, request: ConvertRequest, warn: Tell) -> Path:
    """Make `inference.onnx`, and from it `inference.fp16.onnx` or `inference.bf16.onnx`.

    Args:
        bundle: the bundle; the artifact is written into it.
        request: what to make.
        warn: takes what the conversion has to say.

    Returns:
        The artifact asked for.

    Raises:
        BundleError: the model cannot be converted.
        ValidationError: the artifact does not compute what it was made from.
        EngineError: a library is missing.
        OutputError: the bundle cannot be written.
    """
    onnx = onnx_from_paddle(
        bundle, request.onnx, verify=verify_conversion if request.check else None
    )
    for note in onnx_notes(onnx):
        warn(note)
    if request.precision == "fp32":
        return onnx
    rows = _rows(bundle, request.images, warn)
    convert = {"fp16": fp16_from_onnx, "bf16": bf16_from_onnx}[request.precision]
    verify = verify_precision(request.precision, rows) if request.check else None
    target = onnx.with_name(f"inference.{request.precision}.onnx")
    return convert(onnx, target, rows or None, verify=verify)


def quantized(
    bundle: ModelBundle,
    images: Sequence[ImageFile],
    options: QuantizeOptions,
    progress: Tell,
    warn: Tell,
) -> QuantizeReport:
    """Make `inference.int8.onnx`; `inference.onnx` is made first where it is missing or stale.

    Args:
        bundle: the bundle; the artifact is written into it.
        images: real images to calibrate and to measure on.
        options: how to quantize.
        progress: takes a line at a time.
        warn: takes what the conversion has to say.

    Raises:
        ConfigError: the bundle does not say how to preprocess.
        BundleError: the model cannot be converted, or no recipe agrees enough.
        InputError: too few images can be read.
        EngineError: a library is missing.
        OutputError: the bundle cannot be written.
    """
    preprocessor = _preprocessor(bundle)
    source = bundle.root / ONNX_FILE
    if not source.is_file() or changed_source(source) is not None:
        progress(f"{source} is missing, or the Paddle model has changed since: converting")
        converted(bundle, ConvertRequest(), warn)
    target = bundle.root / "inference.int8.onnx"
    return int8_from_onnx(source, target, images, preprocessor, options, progress)


def _preprocessor(bundle: ModelBundle) -> Preprocessor:
    if bundle.preprocess is None:
        raise ConfigError(f"{bundle.root} has no inference.yml, so images cannot be preprocessed")
    return Preprocessor(bundle.preprocess)


def _rows(bundle: ModelBundle, images: Sequence[ImageFile], warn: Tell) -> list[NDArray[Any]]:
    """Return preprocessed images of shape (1, 3, H, W), evenly picked; unreadable ones are told."""
    if not images:
        return []
    preprocessor = _preprocessor(bundle)
    rows = []
    step = max(1, len(images) // _MOST_IMAGES)
    for file in images[::step][:_MOST_IMAGES]:
        try:
            rows.append(preprocessor(read_image(file.path))[None])
        except ImageError as error:
            warn(f"{file.name}: {error}")
    return rows
