# SPDX-License-Identifier: Apache-2.0
"""TensorRT and TensorRT for RTX."""

from hgdeploy.engines.tensorrt.capability import capability
from hgdeploy.engines.tensorrt.engine import artifact_names, intermediates, load

__all__ = ["artifact_names", "capability", "intermediates", "load"]
