# SPDX-License-Identifier: Apache-2.0
# mypy: allow-subclassing-any
"""Res2Net200_vd_26w_4s, for inference.

Layer names follow PaddleClas's parameter tables, so an official `.pdparams` loads as it is.
Importing this module imports Paddle; the registry does so only when a model is built.
"""

from __future__ import annotations

from typing import ClassVar

import paddle
from paddle import nn
from paddle.nn import functional

from hgdeploy.zoo.networks.layers import ConvNormAct

_DEPTHS = (3, 12, 48, 3)
_SCALES = 4
_WIDTH = 26


class _ConvNormAct(ConvNormAct):
    names: ClassVar[tuple[str, str]] = ("_conv", "_batch_norm")


class _Block(nn.Layer):
    """A bottleneck whose 3x3 convolution is a hierarchy over four groups of channels.

    Every group but the last is convolved. At stride 1, the result of the group before is first
    added to it, and the last group passes through; a block that halves the size convolves its
    groups separately and averages the last.

    Args:
        name: PaddleClas's name of the block, which its 3x3 convolutions carry.
        in_channels: channels of the input.
        width: channels of one group.
        out_channels: channels of the output.
        stride: 2 halves the size.
        short: whether the shortcut has a convolution, after an average if the size is halved.
    """

    def __init__(
        self,
        name: str,
        in_channels: int,
        width: int,
        out_channels: int,
        *,
        stride: int,
        short: bool,
    ) -> None:
        super().__init__()
        self.conv0 = _ConvNormAct(in_channels, _SCALES * width, 1)
        self.convs = [
            self.add_sublayer(
                f"{name}_branch2b_{index + 1}", _ConvNormAct(width, width, 3, stride=stride)
            )
            for index in range(_SCALES - 1)
        ]
        self.conv2 = _ConvNormAct(_SCALES * width, out_channels, 1, act=False)
        self.short = _ConvNormAct(in_channels, out_channels, 1, act=False) if short else None
        self.halve = stride == 2
        # The averages do not count the border.
        self.pool = nn.AvgPool2D(3, stride=2, padding=1)
        self.short_pool = nn.AvgPool2D(2, stride=2, ceil_mode=True)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        groups = paddle.split(self.conv0(x), _SCALES, axis=1)
        outputs: list[paddle.Tensor] = []
        for index, conv in enumerate(self.convs):
            joined = index > 0 and not self.halve
            outputs.append(conv(groups[index] + outputs[-1] if joined else groups[index]))
        outputs.append(self.pool(groups[-1]) if self.halve else groups[-1])
        y = self.conv2(paddle.concat(outputs, axis=1))
        if self.halve:
            x = self.short_pool(x)
        if self.short is not None:
            x = self.short(x)
        return functional.relu(x + y)


def _block_name(stage: int, index: int) -> str:
    """Return `res2a`, `res2b`, ...; in the long third stage `res4a`, `res4b1`, `res4b2`, ..."""
    if stage == 2 and index:
        return f"res{stage + 2}b{index}"
    return f"res{stage + 2}{chr(ord('a') + index)}"


class Res2Net(nn.Layer):
    """A Res2Net_vd classifier: float32 images (N, 3, H, W) to logits (N, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1_1 = _ConvNormAct(3, 32, 3, stride=2)
        self.conv1_2 = _ConvNormAct(32, 32, 3)
        self.conv1_3 = _ConvNormAct(32, 64, 3)
        self.max_pool = nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
        self.blocks = []
        channels = 64
        for stage, depth in enumerate(_DEPTHS):
            out = 256 << stage
            for index in range(depth):
                block = _Block(
                    _block_name(stage, index),
                    channels,
                    _WIDTH << stage,
                    out,
                    stride=2 if stage and index == 0 else 1,
                    short=index == 0,
                )
                self.blocks.append(self.add_sublayer(f"bb_{stage}_{index}", block))
                channels = out
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.out = nn.Linear(channels, num_classes)

    # Paddle's to_static drops the first argument only if it is called `self`.
    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return logits (N, num_classes) for float32 images (N, 3, H, W)."""
        x = self.max_pool(self.conv1_3(self.conv1_2(self.conv1_1(x))))
        for block in self.blocks:
            x = block(x)
        return self.out(paddle.flatten(self.avg_pool(x), start_axis=1))


def res2net200_vd_26w_4s(num_classes: int) -> Res2Net:
    """Res2Net200_vd_26w_4s: 76.44 M parameters, 15.77 GMAC at 224 x 224."""
    return Res2Net(num_classes)
