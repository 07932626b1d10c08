# SPDX-License-Identifier: Apache-2.0
# mypy: allow-subclassing-any
"""PP-LCNet x0_25 to x2_5, for inference.

Depthwise separable convolutions with hard-swish: 3x3 in the first half and 5x5 in the second, with
squeeze-and-excitation in the last two. Layer names follow PaddleClas's parameter tables, so an
official `.pdparams` loads as it is. Importing this module imports Paddle; the registry does so only
when a model is built.
"""

from __future__ import annotations

from typing import NamedTuple

import paddle
from paddle import nn
from paddle.nn import functional

from hgdeploy.zoo.networks.layers import ConvNormAct, scaled_channels

_STEM_CHANNELS = 16
_HEAD_CHANNELS = 1280
_DROPOUT = 0.2


class _Unit(NamedTuple):
    """One block: kernel, stride, output channels at width 1, squeeze-and-excitation."""

    kernel: int
    stride: int
    out_channels: int
    squeeze: bool = False


_STAGES = {
    "blocks2": (_Unit(3, 1, 32),),
    "blocks3": (_Unit(3, 2, 64), _Unit(3, 1, 64)),
    "blocks4": (_Unit(3, 2, 128), _Unit(3, 1, 128)),
    "blocks5": (_Unit(3, 2, 256), *[_Unit(5, 1, 256)] * 5),
    "blocks6": (_Unit(5, 2, 512, squeeze=True), _Unit(5, 1, 512, squeeze=True)),
}


class _Conv(ConvNormAct):
    """The block of the other networks, with hard-swish."""

    activation = nn.Hardswish


class _SqueezeExcite(nn.Layer):
    """Weights the channels by a small network of their own averages."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2D(channels, channels // 4, 1)
        self.conv2 = nn.Conv2D(channels // 4, channels, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        squeezed = functional.relu(self.conv1(functional.adaptive_avg_pool2d(x, 1)))
        return x * functional.hardsigmoid(self.conv2(squeezed))


def _block(in_channels: int, out_channels: int, unit: _Unit) -> nn.Sequential:
    """Return a depthwise convolution, squeeze-and-excitation if asked, and a 1x1 convolution."""
    depthwise = _Conv(in_channels, in_channels, unit.kernel, stride=unit.stride, groups=in_channels)
    squeeze = [("se", _SqueezeExcite(in_channels))] if unit.squeeze else []
    pointwise = _Conv(in_channels, out_channels, 1)
    return nn.Sequential(("dw_conv", depthwise), *squeeze, ("pw_conv", pointwise))


class PPLCNet(nn.Layer):
    """A PP-LCNet classifier: float32 images (N, 3, H, W) to logits (N, num_classes).

    Args:
        width: factor on the channels.
        num_classes: classes of the linear layer.
    """

    def __init__(self, width: float, num_classes: int) -> None:
        super().__init__()
        channels = scaled_channels(_STEM_CHANNELS, width)
        self.conv1 = _Conv(3, channels, 3, stride=2)
        self.stages = []
        for name, units in _STAGES.items():
            blocks = []
            for unit in units:
                out = scaled_channels(unit.out_channels, width)
                blocks.append(_block(channels, out, unit))
                channels = out
            self.stages.append(self.add_sublayer(name, nn.Sequential(*blocks)))
        self.last_conv = nn.Conv2D(channels, _HEAD_CHANNELS, 1, bias_attr=False)
        # In this mode, inference multiplies by `1 - _DROPOUT`, and is wrong without that.
        self.dropout = nn.Dropout(_DROPOUT, mode="downscale_in_infer")
        self.fc = nn.Linear(_HEAD_CHANNELS, num_classes)

    # Paddle's to_static drops the first argument only if it is called `self`.
    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return logits (N, num_classes) for float32 images (N, 3, H, W)."""
        x = self.conv1(x)
        for stage in self.stages:
            x = stage(x)
        x = functional.hardswish(self.last_conv(functional.adaptive_avg_pool2d(x, 1)))
        return self.fc(paddle.flatten(self.dropout(x), start_axis=1))


def pplcnet_x0_25(num_classes: int) -> PPLCNet:
    """PPLCNet_x0_25."""
    return PPLCNet(0.25, num_classes)


def pplcnet_x0_35(num_classes: int) -> PPLCNet:
    """PPLCNet_x0_35."""
    return PPLCNet(0.35, num_classes)


def pplcnet_x0_5(num_classes: int) -> PPLCNet:
    """PPLCNet_x0_5."""
    return PPLCNet(0.5, num_classes)


def pplcnet_x0_75(num_classes: int) -> PPLCNet:
    """PPLCNet_x0_75."""
    return PPLCNet(0.75, num_classes)


def pplcnet_x1_0(num_classes: int) -> PPLCNet:
    """PPLCNet_x1_0."""
    return PPLCNet(1.0, num_classes)


def pplcnet_x1_5(num_classes: int) -> PPLCNet:
    """PPLCNet_x1_5."""
    return PPLCNet(1.5, num_classes)


def pplcnet_x2_0(num_classes: int) -> PPLCNet:
    """PPLCNet_x2_0."""
    return PPLCNet(2.0, num_classes)


def pplcnet_x2_5(num_classes: int) -> PPLCNet:
    """PPLCNet_x2_5."""
    return PPLCNet(2.5, num_classes)
