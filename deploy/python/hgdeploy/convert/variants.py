# SPDX-License-Identifier: Apache-2.0
"""From a Paddle bundle to its variants: ONNX, each checked against its source, and TensorRT."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.names import ONNX_FILE, RUNTIMES, TensorRtRuntime, engine_name, onnx_name
from hgdeploy.bundle.sidecar import sidecar_path
from hgdeploy.convert import OnnxOptions, bf16_from_onnx, fp16_from_onnx, onnx_from_paddle
from hgdeploy.convert.int8.from_onnx import int8_from_onnx
from hgdeploy.convert.int8.options import QuantizeOptions, QuantizeReport
from hgdeploy.convert.onnx.from_paddle import onnx_notes
from hgdeploy.convert.tensorrt.from_onnx import engine_from_onnx, open_builder
from hgdeploy.convert.tensorrt.options import BuildOptions, EngineBuild, Shapes
from hgdeploy.engines import engine_module
from hgdeploy.engines.base import device_index
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import BundleError, ImageError
from hgdeploy.images.find import ImageFile
from hgdeploy.images.reader import ImageReader
from hgdeploy.transforms.preprocess import Preprocessor
from hgdeploy.validation.verify import verify_conversion, verify_precision

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
    return onnx if request.precision == "fp32" else _reduced(bundle, onnx, request, warn)


def _reduced(bundle: ModelBundle, onnx: Path, request: ConvertRequest, warn: Tell) -> Path:
    """Make the fp16 or bf16 variant of an fp32 ONNX file."""
    rows = _rows(bundle, request.images, warn)
    convert = {"fp16": fp16_from_onnx, "bf16": bf16_from_onnx}[request.precision]
    verify = verify_precision(request.precision, rows) if request.check else None
    target = onnx.with_name(onnx_name(request.precision))
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
    preprocessor = Preprocessor(bundle.own_preprocess())
    source = _fp32_onnx(bundle, progress, warn)
    target = bundle.root / onnx_name("int8")
    return int8_from_onnx(source, target, images, preprocessor, options, progress)


def built(
    bundle: ModelBundle,
    shapes: Shapes,
    options: BuildOptions,
    progress: Tell,
    warn: Tell,
    output: Path | None = None,
) -> EngineBuild:
    """Make a TensorRT engine; the ONNX file of its precision is made first, but for int8.

    Args:
        bundle: the bundle.
        shapes: the shapes to serve.
        options: how to build.
        progress: takes a line at a time.
        warn: takes what there is to beware of.
        output: the engine file; None for its own name in the bundle.

    Returns:
        The engine.

    Raises:
        BundleError: the model cannot be converted or built, or int8 has not been quantized.
        ConfigError: the shapes or compute capabilities are not possible.
        ValidationError: the ONNX file does not compute what it was made from.
        EngineError: a library or GPU is missing, or the build fails.
        OutputError: a file cannot be written.
    """
    open_builder(options)  # first: the conversions take longer to fail
    onnx = _onnx_of(bundle, options.precision, progress, warn)
    target = output or bundle.root / engine_name(options.precision, options.runtime)
    return engine_from_onnx(onnx, target, shapes, options, progress)


def ensure_artifact(
    bundle: ModelBundle, engine: str, options: EngineOptions, progress: Tell, warn: Tell
) -> None:
    """Make what an engine is to load, where that is built from ONNX for this GPU.

    An engine file that serves these options is left alone, and so is one that lies without its
    sidecar, which somebody else has made, or without the ONNX file, on the machine it is used on.

    Args:
        bundle: the bundle.
        engine: the engine's name.
        options: what will be asked of the engine.
        progress: takes a line at a time.
        warn: takes what there is to beware of.

    Raises:
        HGDeployError: as `built`.
    """
    names = engine_module(engine).artifact_names(options.precision)
    kinds = [r for r in RUNTIMES if engine_name(options.precision, r) in names]
    gpu = device_index(options.device)
    if not kinds or gpu is None:
        return
    there = [r for r in kinds if (bundle.root / engine_name(options.precision, r)).is_file()]
    runtime = there[0] if there else _installed(kinds)
    sidecar = sidecar_path(bundle.root / engine_name(options.precision, runtime))
    onnx = bundle.root / onnx_name(options.precision)
    if there and not (sidecar.is_file() and onnx.is_file()):
        return
    how = BuildOptions(
        runtime, options.precision, gpu=gpu, cache_dir=options.cache_dir, accept_wider=True
    )
    most = options.max_batch
    built(bundle, Shapes(batch=(1, most, most)), how, progress, warn)


def _installed(runtimes: Sequence[TensorRtRuntime]) -> TensorRtRuntime:
    """Return the first that is installed, else the first, whose absence is then the error."""
    found = (r for r in runtimes if importlib.util.find_spec(r.module) is not None)
    return next(found, runtimes[0])


def _fp32_onnx(bundle: ModelBundle, progress: Tell, warn: Tell) -> Path:
    source = bundle.root / ONNX_FILE
    if bundle.fresh(ONNX_FILE) is None:
        progress(f"{source} is missing, or the Paddle model has changed since: converting")
        converted(bundle, ConvertRequest(), warn)
    return source


def _onnx_of(bundle: ModelBundle, precision: str, progress: Tell, warn: Tell) -> Path:
    """Return the bundle's ONNX file of a precision, made now where it is missing or stale."""
    if precision == "fp32":
        return _fp32_onnx(bundle, progress, warn)
    path = bundle.root / onnx_name(precision)
    if bundle.fresh(path.name) is not None:
        return path
    if precision == "int8":
        raise BundleError(
            f"{path} is missing or older than the model, and int8 needs real images; make it with "
            f"hgdeploy quantize {bundle.root} --calibration FOLDER"
        )
    onnx = _fp32_onnx(bundle, progress, warn)
    progress(f"{path} is missing or older than the model: converting")
    warn(f"{path} is made without real images; hgdeploy convert takes some with --images")
    return _reduced(bundle, onnx, ConvertRequest(precision=precision), warn)


def _rows(bundle: ModelBundle, images: Sequence[ImageFile], warn: Tell) -> list[NDArray[Any]]:
    """Return preprocessed images of shape (1, 3, H, W), evenly picked; unreadable ones are told."""
    if not images:
        return []
    reader = ImageReader(bundle.own_preprocess())
    rows = []
    step = max(1, len(images) // _MOST_IMAGES)
    for file in images[::step][:_MOST_IMAGES]:
        try:
            rows.append(reader.read_file(file.path).tensor[None])
        except ImageError as error:
            warn(f"{file.name}: {error}")
    return rows
