# SPDX-License-Identifier: Apache-2.0
"""Make the variants of a bundle: ONNX files, compared with their source, and TensorRT engines."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.names import (
    ONNX_FILE,
    engine_name,
    onnx_name,
    runtime_of,
)
from hgdeploy.convert import OnnxOptions, bf16_from_onnx, fp16_from_onnx, onnx_from_paddle
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.onnx.from_paddle import onnx_notes, recorded_options
from hgdeploy.convert.tensorrt.builder import open_builder
from hgdeploy.convert.tensorrt.from_onnx import engine_from_onnx
from hgdeploy.convert.tensorrt.options import BuildOptions, EngineBuild, Shapes
from hgdeploy.engines.fit import check_feed, check_image
from hgdeploy.errors import BundleError, ImageError
from hgdeploy.images.find import ImageFile
from hgdeploy.images.reader import ImageReader
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.validation.verify import verify_conversion, verify_precision

# Images that show where fp16 would overflow and whether the variant agrees; more add minutes.
_MOST_IMAGES = 32


@dataclass(frozen=True)
class ConvertOptions:
    """What `convert_to_onnx` makes.

    Attributes:
        onnx: options of the fp32 conversion; None for the defaults, and to make a variant of the
            fp32 file that is there or, where that is stale, of one made again as it was.
        precision: `fp32`, `fp16` or `bf16`.
        images: real images to check a reduced precision on; without any, random inputs are used.
        check: compare the result with what it was made from.
    """

    onnx: OnnxOptions | None = None
    precision: str = "fp32"
    images: Sequence[ImageFile] = ()
    check: bool = True


def convert_to_onnx(
    bundle: ModelBundle,
    options: ConvertOptions,
    on_warning: OnLine,
    on_progress: OnLine = nothing,
) -> Path:
    """Write `inference.onnx`, and from it `inference.fp16.onnx` or `inference.bf16.onnx`.

    Args:
        bundle: the bundle; the artifact is written into it.
        options: what to make.
        on_warning: called with each thing the user should know about the result.
        on_progress: called with a line at the start of each long step.

    Returns:
        Path of the artifact that was asked for.

    Raises:
        BundleError: the model cannot be converted.
        ValidationError: the artifact does not compute what it was made from.
        EngineError: a library is missing.
        OutputError: the bundle cannot be written.
    """
    if options.precision == "fp32":
        return _fp32_onnx(bundle, options, on_warning, on_progress)
    onnx = bundle.fresh(ONNX_FILE) if options.onnx is None else None
    if onnx is None:
        how = options.onnx or recorded_options(bundle.root / ONNX_FILE)
        given = dataclasses.replace(options, onnx=how)
        onnx = _fp32_onnx(bundle, given, on_warning, on_progress)
    on_progress(f"making {onnx_name(options.precision)} from {onnx}")
    return _convert_to_16_bits(bundle, onnx, options, on_warning, on_progress)


def _fp32_onnx(
    bundle: ModelBundle, options: ConvertOptions, on_warning: OnLine, on_progress: OnLine
) -> Path:
    """Write `inference.onnx`."""
    verify = functools.partial(
        verify_conversion,
        output_name=bundle.output_name,
        other_sizes=options.onnx is not None and options.onnx.dynamic_size,
    )
    onnx = onnx_from_paddle(
        bundle, options.onnx, verify=verify if options.check else None, on_progress=on_progress
    )
    for note in onnx_notes(onnx):
        on_warning(note)
    return onnx


def _convert_to_16_bits(
    bundle: ModelBundle,
    onnx: Path,
    options: ConvertOptions,
    on_warning: OnLine,
    on_progress: OnLine,
) -> Path:
    """Write the fp16 or bf16 variant of an fp32 ONNX file."""
    images = preprocessed_images(bundle, onnx, options.images, on_warning)
    convert = {"fp16": fp16_from_onnx, "bf16": bf16_from_onnx}[options.precision]
    target = bundle.path(onnx_name(options.precision))
    compare = verify_precision(options.precision, images, bundle.output_name)

    def verify(source: Path, aside: Path) -> dict[str, Any]:
        on_progress(f"comparing {target.name} with {source.name}")
        return compare(source, aside)

    return convert(onnx, target, images or None, verify=verify if options.check else None)


def build_engine(
    bundle: ModelBundle,
    shapes: Shapes,
    options: BuildOptions,
    on_progress: OnLine,
    on_warning: OnLine,
    output: Path | None = None,
) -> EngineBuild:
    """Write a TensorRT engine; the ONNX file of its precision is made first, except for int8.

    Args:
        bundle: the bundle.
        shapes: the shapes to serve.
        options: how to build.
        on_progress: called with one line at a time.
        on_warning: called with each warning, on one line.
        output: the engine file; None for its usual name in the bundle.

    Returns:
        The engine file, and whether it was built just now.

    Raises:
        BundleError: the model cannot be converted or built, or int8 has not been quantized.
        ConfigError: the shapes or compute capabilities are not possible.
        ValidationError: the ONNX file does not compute what it was made from.
        EngineError: a library or GPU is missing, or the build fails.
        OutputError: a file cannot be written.
    """
    if bundle.file is not None and runtime_of(bundle.file.name) is not None:
        raise BundleError(
            f"{bundle.file} is an engine already; build from the ONNX file that it was made from"
        )
    open_builder(options)  # first: the conversions take longer to fail
    onnx = _ensure_onnx(bundle, options.precision, on_progress, on_warning)
    target = output or bundle.path(engine_name(options.precision, options.runtime))
    return engine_from_onnx(onnx, target, shapes, options, on_progress)


def ensure_fp32_onnx(bundle: ModelBundle, on_progress: OnLine, on_warning: OnLine) -> Path:
    """Return a bundle's `inference.onnx`; make it first where it is missing or stale."""
    source = bundle.root / ONNX_FILE
    if bundle.file is not None:  # other models in its folder have nothing to do with it
        return bundle.find([ONNX_FILE])
    if bundle.fresh(ONNX_FILE) is None:
        on_progress(f"{source} is missing, or the Paddle model has changed since: converting")
        convert_to_onnx(bundle, ConvertOptions(recorded_options(source)), on_warning, on_progress)
    return source


def _ensure_onnx(
    bundle: ModelBundle, precision: str, on_progress: OnLine, on_warning: OnLine
) -> Path:
    """Return the bundle's ONNX file of a precision; make it first where it is missing or stale."""
    if onnx_name(precision) == ONNX_FILE:
        return ensure_fp32_onnx(bundle, on_progress, on_warning)
    path = bundle.path(onnx_name(precision))
    if bundle.fresh(onnx_name(precision)) is not None:
        return path
    if precision == "int8" and bundle.file is not None:
        raise BundleError(
            f"{path} is missing, and int8 needs real images; put {bundle.file} into a folder of "
            "its own as inference.onnx, and run hgdeploy quantize on that"
        )
    if precision == "int8":
        raise BundleError(
            f"{path} is missing or older than the model, and int8 needs real images; make it with "
            f"hgdeploy quantize {bundle.root} --calibration FOLDER"
        )
    onnx = ensure_fp32_onnx(bundle, on_progress, on_warning)
    on_progress(f"{path} is missing or older than the model: converting")
    on_warning(f"{path} is made without real images; hgdeploy convert takes some with --images")
    options = ConvertOptions(precision=precision)
    return _convert_to_16_bits(bundle, onnx, options, on_warning, on_progress)


def preprocessed_images(
    bundle: ModelBundle,
    onnx: Path,
    images: Sequence[ImageFile],
    on_warning: OnLine,
    most: int = _MOST_IMAGES,
) -> list[NDArray[Any]]:
    """Return evenly picked images as a model takes one; those that it cannot take are reported.

    Args:
        bundle: says how to preprocess.
        onnx: the model.
        images: to pick from; may be empty.
        on_warning: called with each image that is left out, and why.
        most: how many to pick at most.

    Returns:
        Each of shape (1, 3, H, W), or (1, H, W, 3).

    Raises:
        BundleError: the model does not take what the preprocessing makes.
        ConfigError: the bundle does not say how to preprocess.
    """
    if not images:
        return []
    reader = ImageReader(bundle.own_preprocess())
    taken = OnnxGraph.read(onnx).image_input()
    check_feed(taken, onnx, reader.preprocessor)
    tensors: list[NDArray[Any]] = []
    step = max(1, len(images) // most)
    for file in images[::step][:most]:
        try:
            tensor = reader.read_file(file.path).tensor
            check_image(taken, tensor)
            if tensors and tensor.shape != tensors[0].shape[1:]:
                raise ImageError("is of another size than the first, and left out")
            tensors.append(tensor[None])
        except ImageError as error:
            on_warning(f"{file.name}: {error}")
    return tensors
