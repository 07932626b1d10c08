# SPDX-License-Identifier: Apache-2.0
# mypy: allow-subclassing-any
"""ResNeXt101_32x48d_wsl, for inference.

Layer names follow PaddleClas's parameter tables, so an official `.pdparams` loads as it is.
Importing this module imports Paddle; the registry does so only when a model is built.
"""

from __future__ import annotations

from typing import ClassVar

import paddle
from paddle import nn
from paddle.nn import functional

from hgdeploy.zoo.networks.layers import ConvNormAct

_DEPTHS = (3, 4, 23, 3)
_GROUPS = 32
_GROUP_WIDTH = 48


class _ConvNormAct(ConvNormAct):
    names: ClassVar[tuple[str, str]] = ("_conv", "_bn")


class _Block(nn.Layer):
    """A bottleneck whose 3x3 convolution is grouped and has the stride."""

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self._conv0 = _ConvNormAct(in_channels, mid_channels, 1)
        self._conv1 = _ConvNormAct(mid_channels, mid_channels, 3, stride=stride, groups=_GROUPS)
        self._conv2 = _ConvNormAct(mid_channels, out_channels, 1, act=False)
        self._short = None
        if in_channels != out_channels:
            short = _ConvNormAct(in_channels, out_channels, 1, stride=stride, act=False)
            self._short = nn.Sequential(("_conv", short))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = self._conv2(self._conv1(self._conv0(x)))
        if self._short is not None:
            x = self._short(x)
        return functional.relu(y + x)


class ResNeXt(nn.Layer):
    """A ResNeXt101 classifier: float32 images (N, 3, H, W) to logits (N, num_classes).

    Args:
        group_width: channels of one group in the first stage; each stage has twice as many as the
            one before it.
        num_classes: classes of the linear layer.
    """

    def __init__(self, group_width: int, num_classes: int) -> None:
        super().__init__()
        self._conv_stem = _ConvNormAct(3, 64, 7, stride=2)
        self.max_pool = nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
        self.blocks = []
        channels = 64
        for stage, depth in enumerate(_DEPTHS):
            mid, out = _GROUPS * group_width << stage, 256 << stage
            for index in range(depth):
                block = _Block(channels, mid, out, 2 if stage and index == 0 else 1)
                self.blocks.append(self.add_sublayer(f"_conv{stage + 1}_{index}", block))
                channels = out
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self._out = nn.Linear(channels, num_classes)

    # Paddle's to_static drops the first argument only if it is called `self`.
    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return logits (N, num_classes) for float32 images (N, 3, H, W)."""
        x = self.max_pool(self._conv_stem(x))
        for block in self.blocks:
            x = block(x)
        return self._out(paddle.flatten(self.avg_pool(x), start_axis=1))


def resnext101_32x48d_wsl(num_classes: int) -> ResNeXt:
    """ResNeXt101_32x48d_wsl: 829.26 M parameters, 153.57 GMAC at 224 x 224."""
    return ResNeXt(_GROUP_WIDTH, num_classes)
