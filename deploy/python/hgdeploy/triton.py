# SPDX-License-Identifier: Apache-2.0
"""The public door to Triton's model repositories; the code is in `hgdeploy.serving.triton`."""

from hgdeploy.serving.triton.backends import TritonOptions
from hgdeploy.serving.triton.repository import triton_repository

__all__ = ["TritonOptions", "triton_repository"]
