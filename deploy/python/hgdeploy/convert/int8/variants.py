# SPDX-License-Identifier: Apache-2.0
"""Make the int8 variant of a bundle."""

from __future__ import annotations

from collections.abc import Sequence

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.names import onnx_name
from hgdeploy.convert.int8.from_onnx import int8_from_onnx
from hgdeploy.convert.int8.options import QuantizeOptions, QuantizeReport
from hgdeploy.convert.variants import ensure_fp32_onnx
from hgdeploy.images.find import ImageFile
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.preprocess import Preprocessor


def quantize(
    bundle: ModelBundle,
    images: Sequence[ImageFile],
    options: QuantizeOptions,
    on_progress: OnLine,
    on_warning: OnLine,
) -> QuantizeReport:
    """Write `inference.int8.onnx`; `inference.onnx` is made first where it is missing or stale.

    Args:
        bundle: the bundle; the artifact is written into it.
        images: real images to calibrate and to measure on.
        options: how to quantize.
        on_progress: called with one line at a time.
        on_warning: called with each thing the user should know about the conversion to ONNX.

    Returns:
        What was written, and how well it agrees with fp32.

    Raises:
        ConfigError: the bundle does not say how to preprocess.
        BundleError: the model cannot be converted, or no recipe agrees well enough.
        InputError: too few images can be read.
        EngineError: a library is missing.
        OutputError: the bundle cannot be written.
    """
    preprocessor = Preprocessor(bundle.own_preprocess())
    source = ensure_fp32_onnx(bundle, on_progress, on_warning)
    target = bundle.root / onnx_name("int8")
    return int8_from_onnx(source, target, images, preprocessor, options, on_progress)
