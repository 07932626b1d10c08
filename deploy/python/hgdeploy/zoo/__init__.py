# SPDX-License-Identifier: Apache-2.0
"""The models that HGDeploy can build. Neither importing nor listing the zoo imports Paddle."""

from __future__ import annotations

from hgdeploy.zoo.models import ModelInfo
from hgdeploy.zoo.registry import build, imagenet_labels, info, names

__all__ = ["ModelInfo", "build", "imagenet_labels", "info", "names"]
