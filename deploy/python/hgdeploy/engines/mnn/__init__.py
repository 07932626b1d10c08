# SPDX-License-Identifier: Apache-2.0
"""MNN."""

from hgdeploy.engines.mnn.engine import artifact_names, capability, intermediates, load, load_here

__all__ = ["artifact_names", "capability", "intermediates", "load", "load_here"]
