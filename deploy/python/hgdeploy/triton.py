# SPDX-License-Identifier: Apache-2.0
"""The public door to Triton's model repositories; the code is in `hgdeploy.serving.triton`."""

from hgdeploy.serving.triton.backends import TritonOptions
from hgdeploy.serving.triton.image_model import ImageModel
from hgdeploy.serving.triton.repository import triton_repository

__all__ = ["ImageModel", "TritonOptions", "triton_repository"]
