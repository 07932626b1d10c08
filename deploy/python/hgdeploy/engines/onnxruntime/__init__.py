# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on CPU and CUDA."""

from hgdeploy.engines.onnxruntime.engine import artifact_names, capability, intermediates, load

__all__ = ["artifact_names", "capability", "intermediates", "load"]
