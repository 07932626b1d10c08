# SPDX-License-Identifier: Apache-2.0
"""From a path to pixels and tensors."""

from hgdeploy.images.decode import decode_image, read_image
from hgdeploy.images.find import IMAGE_SUFFIXES, ImageFile, find_images

__all__ = ["IMAGE_SUFFIXES", "ImageFile", "decode_image", "find_images", "read_image"]
