# SPDX-License-Identifier: Apache-2.0
"""ncnn."""

from hgdeploy.engines.ncnn.engine import artifact_names, capability, intermediates, load

__all__ = ["artifact_names", "capability", "intermediates", "load"]
