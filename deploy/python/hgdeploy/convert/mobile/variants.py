# SPDX-License-Identifier: Apache-2.0
"""Make the variants of a bundle that MNN and ncnn read."""

from __future__ import annotations

from pathlib import Path

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.convert.mobile.from_onnx import mnn_from_onnx, ncnn_from_onnx
from hgdeploy.convert.variants import ensure_fp32_onnx
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.validation.verify import verify_engine


def convert_for_engine(
    bundle: ModelBundle,
    engine: str,
    on_warning: OnLine,
    on_progress: OnLine = nothing,
    *,
    check: bool = True,
) -> Path:
    """Write the file of an engine's own format; `inference.onnx` is made first where it is missing.

    Args:
        bundle: the bundle; the artifact is written into it.
        engine: `mnn` or `ncnn`.
        on_warning: called with each thing the user should know about the result.
        on_progress: called with a line at the start of each long step.
        check: compare the result with the ONNX file.

    Returns:
        Path of the artifact.

    Raises:
        HGDeployError: as `convert_to_onnx`.
    """
    source = ensure_fp32_onnx(bundle, on_progress, on_warning)
    on_progress(f"converting {source} for {engine}")
    convert = {"mnn": mnn_from_onnx, "ncnn": ncnn_from_onnx}[engine]
    return convert(source, verify=verify_engine(engine, bundle.output_name) if check else None)
