# SPDX-License-Identifier: Apache-2.0
"""Converters: each makes one artifact from another, with a sidecar that says how."""

from __future__ import annotations

from hgdeploy.convert.artifact import write_artifact
from hgdeploy.convert.float16.from_onnx import bf16_from_onnx, fp16_from_onnx
from hgdeploy.convert.onnx.from_paddle import OnnxOptions, Verify, onnx_from_paddle, onnx_notes

__all__ = ["OnnxOptions", "Verify", "bf16_from_onnx", "fp16_from_onnx", "onnx_from_paddle"]
__all__ += ["onnx_notes", "write_artifact"]
