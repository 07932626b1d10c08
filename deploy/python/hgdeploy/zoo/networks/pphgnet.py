# SPDX-License-Identifier: Apache-2.0
# mypy: allow-subclassing-any
"""PP-HGNet tiny, small and base, for inference.

Layer names follow PaddleClas's parameter tables, so an official `.pdparams` loads as it is.
Importing this module imports Paddle; the registry does so only when a model is built.
"""

from __future__ import annotations

from dataclasses import dataclass

import paddle
from paddle import nn
from paddle.nn import functional

from hgdeploy.zoo.networks.layers import ConvNormAct


@dataclass(frozen=True)
class _Stage:
    """Channels of the input, the 3x3 convolutions and the output; blocks; whether to halve."""

    in_channels: int
    mid_channels: int
    out_channels: int
    blocks: int
    downsample: bool


class _ESE(nn.Layer):
    """Effective squeeze-and-excitation: weights the channels by a sigmoid of their averages."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2D(channels, channels, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        weights = functional.sigmoid(self.conv(functional.adaptive_avg_pool2d(x, 1)))
        return x * weights


class _HGBlock(nn.Layer):
    """A chain of 3x3 convolutions whose input and every output are concatenated and merged."""

    def __init__(self, stage: _Stage, in_channels: int, depth: int, *, identity: bool) -> None:
        super().__init__()
        mid = stage.mid_channels
        self.layers = nn.LayerList(
            ConvNormAct(in_channels if index == 0 else mid, mid, 3) for index in range(depth)
        )
        self.aggregation_conv = ConvNormAct(in_channels + depth * mid, stage.out_channels, 1)
        self.att = _ESE(stage.out_channels)
        self.identity = identity

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(features[-1]))
        merged = self.att(self.aggregation_conv(paddle.concat(features, axis=1)))
        return merged + x if self.identity else merged


class _HGStage(nn.Layer):
    """An optional depthwise halving, then blocks, of which all but the first add their input."""

    def __init__(self, stage: _Stage, depth: int) -> None:
        super().__init__()
        channels = stage.in_channels
        self.downsample = (
            ConvNormAct(channels, channels, 3, stride=2, groups=channels, act=False)
            if stage.downsample
            else None
        )
        first = _HGBlock(stage, channels, depth, identity=False)
        rest = [
            _HGBlock(stage, stage.out_channels, depth, identity=True)
            for _ in range(stage.blocks - 1)
        ]
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if self.downsample is not None:
            x = self.downsample(x)
        return self.blocks(x)


class PPHGNet(nn.Layer):
    """A PP-HGNet classifier: float32 images (N, 3, H, W) to logits (N, num_classes).

    Args:
        stem: output channels of the three stem convolutions.
        stages: the four stages.
        depth: number of 3x3 convolutions in each block.
        num_classes: classes of the linear layer.
        dropout: the dropout before the classifier in training, in `downscale_in_infer` mode:
            inference multiplies by `1 - dropout`, and is wrong without that.
    """

    def __init__(
        self,
        stem: tuple[int, int, int],
        stages: tuple[_Stage, ...],
        depth: int,
        num_classes: int,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNormAct(3, stem[0], 3, stride=2),
            ConvNormAct(stem[0], stem[1], 3),
            ConvNormAct(stem[1], stem[2], 3),
        )
        self.pool = nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
        self.stages = nn.LayerList(_HGStage(stage, depth) for stage in stages)
        self.last_conv = nn.Conv2D(stages[-1].out_channels, 2048, 1, bias_attr=False)
        self.dropout = nn.Dropout(dropout, mode="downscale_in_infer")
        self.fc = nn.Linear(2048, num_classes)

    # Paddle's to_static drops the first argument only if it is called `self`.
    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return logits (N, num_classes) for float32 images (N, 3, H, W)."""
        x = self.pool(self.stem(x))
        for stage in self.stages:
            x = stage(x)
        x = functional.adaptive_avg_pool2d(x, 1)
        x = self.dropout(functional.relu(self.last_conv(x)))
        return self.fc(paddle.flatten(x, start_axis=1))


def pphgnet_tiny(num_classes: int) -> PPHGNet:
    """PPHGNet_tiny: 14.75 M parameters, 4.54 GMAC at 224 x 224."""
    stages = (
        _Stage(96, 96, 224, 1, downsample=False),
        _Stage(224, 128, 448, 1, downsample=True),
        _Stage(448, 160, 512, 2, downsample=True),
        _Stage(512, 192, 768, 1, downsample=True),
    )
    return PPHGNet((48, 48, 96), stages, 5, num_classes)


def pphgnet_small(num_classes: int) -> PPHGNet:
    """PPHGNet_small: 24.38 M parameters, 8.53 GMAC at 224 x 224."""
    stages = (
        _Stage(128, 128, 256, 1, downsample=False),
        _Stage(256, 160, 512, 1, downsample=True),
        _Stage(512, 192, 768, 2, downsample=True),
        _Stage(768, 224, 1024, 1, downsample=True),
    )
    return PPHGNet((64, 64, 128), stages, 6, num_classes)


def pphgnet_base(num_classes: int) -> PPHGNet:
    """PPHGNet_base: 71.62 M parameters, 25.14 GMAC at 224 x 224."""
    stages = (
        _Stage(160, 192, 320, 1, downsample=False),
        _Stage(320, 224, 640, 2, downsample=True),
        _Stage(640, 256, 960, 3, downsample=True),
        _Stage(960, 288, 1280, 2, downsample=True),
    )
    return PPHGNet((96, 96, 160), stages, 7, num_classes, dropout=0.2)
