# SPDX-License-Identifier: Apache-2.0
"""The public door to preprocessing; the code is in `hgdeploy.transforms`."""

from hgdeploy.transforms.operators_config import imagenet_ops, ops_to_config, parse_ops
from hgdeploy.transforms.preprocess import Preprocessor

__all__ = ["Preprocessor", "imagenet_ops", "ops_to_config", "parse_ops"]
