# SPDX-License-Identifier: Apache-2.0
"""OpenVINO."""

from hgdeploy.engines.openvino.engine import artifact_names, capability, intermediates, load

__all__ = ["artifact_names", "capability", "intermediates", "load"]
