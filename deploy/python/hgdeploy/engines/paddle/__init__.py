# SPDX-License-Identifier: Apache-2.0
"""Paddle Inference."""

from hgdeploy.engines.paddle.engine import (
    artifact_names,
    capability,
    intermediates,
    load,
    load_here,
)

__all__ = ["artifact_names", "capability", "intermediates", "load", "load_here"]
