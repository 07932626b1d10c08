# SPDX-License-Identifier: Apache-2.0
# mypy: allow-subclassing-any
"""ResNet and ResNet_vd with 34 and 50 layers, for inference.

Layer names follow PaddleClas's parameter tables, so an official `.pdparams` loads as it is.
Importing this module imports Paddle; the registry does so only when a model is built.
"""

from __future__ import annotations

import paddle
from paddle import nn

from hgdeploy.zoo.networks.layers import ConvNormAct

_DEPTHS = (3, 4, 6, 3)
_WIDTHS = (64, 128, 256, 512)


class _Block(nn.Layer):
    """Convolutions and a shortcut around them, added before the last ReLU.

    If the shortcut halves the size, `pool` averages first, so that no pixel is skipped; without
    `pool`, the shortcut's convolution has the stride.
    """

    def __init__(
        self, convs: list[ConvNormAct], short: ConvNormAct | None, pool: nn.Layer | None
    ) -> None:
        super().__init__()
        for index, conv in enumerate(convs):
            self.add_sublayer(f"conv{index}", conv)
        self.convs = convs
        self.pool = pool
        self.short = short
        self.relu = nn.ReLU()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = x
        for conv in self.convs:
            y = conv(y)
        if self.pool is not None:
            x = self.pool(x)
        if self.short is not None:
            x = self.short(x)
        return self.relu(y + x)


def _basic(in_channels: int, width: int, stride: int) -> list[ConvNormAct]:
    return [
        ConvNormAct(in_channels, width, 3, stride=stride),
        ConvNormAct(width, width, 3, act=False),
    ]


def _bottleneck(in_channels: int, width: int, stride: int) -> list[ConvNormAct]:
    """Return 1x1, 3x3 and 1x1; the 3x3 has the stride, since the first 1x1 would skip pixels."""
    return [
        ConvNormAct(in_channels, width, 1),
        ConvNormAct(width, width, 3, stride=stride),
        ConvNormAct(width, 4 * width, 1, act=False),
    ]


class ResNet(nn.Layer):
    """A ResNet classifier: float32 images (N, 3, H, W) to logits (N, num_classes).

    The first block of every stage has a convolution in its shortcut, even in the first stage of
    the 34-layer networks, where the channels would not require one.

    Args:
        bottleneck: blocks of 1x1, 3x3, 1x1 convolutions instead of two 3x3.
        vd: the "vd" variant: three 3x3 convolutions instead of the 7x7, and average pooling in
            shortcuts that halve the size.
        num_classes: classes of the linear layer.
    """

    def __init__(self, num_classes: int, *, bottleneck: bool, vd: bool) -> None:
        super().__init__()
        if vd:
            stem = [ConvNormAct(3, 32, 3, stride=2), ConvNormAct(32, 32, 3), ConvNormAct(32, 64, 3)]
        else:
            stem = [ConvNormAct(3, 64, 7, stride=2)]
        self.stem = nn.Sequential(*stem)
        self.max_pool = nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
        convs, growth = (_bottleneck, 4) if bottleneck else (_basic, 1)
        blocks = []
        channels = _WIDTHS[0]
        for stage, (depth, width) in enumerate(zip(_DEPTHS, _WIDTHS, strict=True)):
            for index in range(depth):
                stride = 2 if stage and index == 0 else 1
                pooled = vd and stride == 2
                out = width * growth
                short = None
                if index == 0:
                    step = 1 if pooled else stride
                    short = ConvNormAct(channels, out, 1, stride=step, act=False)
                pool = nn.AvgPool2D(2, stride=2, ceil_mode=True) if pooled else None
                blocks.append(_Block(convs(channels, width, stride), short, pool))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.fc = nn.Linear(channels, num_classes)

    # Paddle's to_static drops the first argument only if it is called `self`.
    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return logits (N, num_classes) for float32 images (N, 3, H, W)."""
        x = self.blocks(self.max_pool(self.stem(x)))
        return self.fc(paddle.flatten(self.avg_pool(x), start_axis=1))


def resnet34(num_classes: int) -> ResNet:
    """ResNet34: 21.81 M parameters, 3.68 GMAC at 224 x 224."""
    return ResNet(num_classes, bottleneck=False, vd=False)


def resnet34_vd(num_classes: int) -> ResNet:
    """ResNet34_vd: 21.84 M parameters, 3.93 GMAC at 224 x 224."""
    return ResNet(num_classes, bottleneck=False, vd=True)


def resnet50(num_classes: int) -> ResNet:
    """ResNet50: 25.61 M parameters, 4.11 GMAC at 224 x 224."""
    return ResNet(num_classes, bottleneck=True, vd=False)


def resnet50_vd(num_classes: int) -> ResNet:
    """ResNet50_vd: 25.63 M parameters, 4.35 GMAC at 224 x 224."""
    return ResNet(num_classes, bottleneck=True, vd=True)
