# SPDX-License-Identifier: Apache-2.0
# mypy: allow-subclassing-any
"""EfficientNet-B0 and B1, and EfficientNet-Lite 0 to 2, for inference.

The Lite variants are EfficientNets without squeeze-and-excitation, with ReLU6 instead of swish,
and with a stem, a head, and first and last stages that do not grow with the model. Their layer
names are those of the PyTorch port whose weights the registry packages contain (`_conv_stem`,
`_blocks.0._bn1`, ...), so that only the names of the batch-norm statistics differ (see
`weights.read_weights`). Those of B0 and B1 follow PaddleClas's parameter tables, so an official
`.pdparams` loads as it is. Importing this module imports Paddle; the registry does so only when a
model is built.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import paddle
from paddle import nn
from paddle.nn import functional

from hgdeploy.zoo.networks.layers import BatchNorm, scaled_channels

_BN_EPSILON = 1e-3
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280


@dataclass(frozen=True)
class _Stage:
    """A stage of EfficientNet-B0, before it is scaled."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    out_channels: int


@dataclass(frozen=True)
class _Unit:
    """One block; `size` is its input's height and width, `first` marks the first of a stage."""

    kernel: int
    stride: int
    expand: int
    in_channels: int
    out_channels: int
    size: int
    first: bool

    @property
    def mid_channels(self) -> int:
        return self.in_channels * self.expand

    @property
    def identity(self) -> bool:
        """Whether the block adds its input."""
        return self.stride == 1 and self.in_channels == self.out_channels


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def _same_padding(size: int, kernel: int, stride: int) -> list[int]:
    """Return TensorFlow's "SAME" padding of a square input: [top, bottom, left, right] pixels.

    A strided convolution of an even input gets one more pixel at the bottom and right, which
    symmetric padding cannot express.
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    before = total // 2
    return [before, total - before, before, total - before]


def _units(width: float, depth: float, size: int, *, lite: bool) -> Iterator[_Unit]:
    """Yield the blocks after a stem; a Lite network does not scale its first and last stage."""
    size = math.ceil(size / 2)
    channels = _STEM_CHANNELS
    for stage in _STAGES:
        fixed = lite and stage in (_STAGES[0], _STAGES[-1])
        out = scaled_channels(stage.out_channels, width)
        for index in range(stage.repeats if fixed else math.ceil(stage.repeats * depth)):
            stride = stage.stride if index == 0 else 1
            yield _Unit(stage.kernel, stride, stage.expand, channels, out, size, index == 0)
            size = math.ceil(size / stride)
            channels = out


def _same_conv(
    in_channels: int, out_channels: int, kernel: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Conv2D:
    """Return a convolution without bias, padded for an input of `size`."""
    return nn.Conv2D(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=_same_padding(size, kernel, stride),
        groups=groups,
        bias_attr=False,
    )


class _LiteBlock(nn.Layer):
    """Inverted bottleneck: 1x1 expansion, depthwise convolution, linear 1x1 projection."""

    def __init__(self, unit: _Unit) -> None:
        super().__init__()
        mid = unit.mid_channels
        self.expand = unit.expand != 1
        if self.expand:
            self._expand_conv = _same_conv(unit.in_channels, mid, 1, unit.size)
            self._bn0 = BatchNorm(mid, epsilon=_BN_EPSILON)
        self._depthwise_conv = _same_conv(mid, mid, unit.kernel, unit.size, unit.stride, mid)
        self._bn1 = BatchNorm(mid, epsilon=_BN_EPSILON)
        self._project_conv = _same_conv(mid, unit.out_channels, 1, unit.size)
        self._bn2 = BatchNorm(unit.out_channels, epsilon=_BN_EPSILON)
        self.identity = unit.identity

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = x
        if self.expand:
            y = functional.relu6(self._bn0(self._expand_conv(y)))
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.identity else y


class EfficientNetLite(nn.Layer):
    """An EfficientNet-Lite classifier: float32 images (N, 3, size, size) to logits.

    Padding is computed for `size`, as TensorFlow does at run time: the same weights need another
    padding for another image size, so build one network for each size.

    Args:
        width: factor on the channels of the stages.
        depth: factor on the repeats of all stages but the first and the last, rounded up.
        size: height and width of the input in pixels.
        num_classes: classes of the linear layer.
    """

    def __init__(self, width: float, depth: float, size: int, num_classes: int) -> None:
        super().__init__()
        self._conv_stem = _same_conv(3, _STEM_CHANNELS, 3, size, stride=2)
        self._bn0 = BatchNorm(_STEM_CHANNELS, epsilon=_BN_EPSILON)
        units = list(_units(width, depth, size, lite=True))
        self._blocks = nn.LayerList(_LiteBlock(unit) for unit in units)
        channels = units[-1].out_channels
        self._conv_head = _same_conv(channels, _HEAD_CHANNELS, 1, units[-1].size)
        self._bn1 = BatchNorm(_HEAD_CHANNELS, epsilon=_BN_EPSILON)
        self._fc = nn.Linear(_HEAD_CHANNELS, num_classes)

    # Paddle's to_static drops the first argument only if it is called `self`.
    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return logits (N, num_classes) for float32 images (N, 3, size, size)."""
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))
        return self._fc(paddle.flatten(functional.adaptive_avg_pool2d(x, 1), start_axis=1))


class _ConvNorm(nn.Layer):
    """Convolution and batch normalisation, under PaddleClas's nested names."""

    def __init__(self, conv: nn.Conv2D, channels: int) -> None:
        super().__init__()
        self._conv = nn.Sequential(("_conv", conv))
        self._bn = BatchNorm(channels, epsilon=_BN_EPSILON)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self._bn(self._conv(x))


def _nested(conv: nn.Conv2D, channels: int) -> nn.Sequential:
    """Return convolution and batch normalisation, one level deeper in the names."""
    return nn.Sequential(("_conv", _ConvNorm(conv, channels)))


class _SqueezeExcite(nn.Layer):
    """Weights the channels by a small network of their own averages."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self._conv1 = nn.Sequential(("_conv", nn.Conv2D(channels, squeezed, 1)))
        self._conv2 = nn.Sequential(("_conv", nn.Conv2D(squeezed, channels, 1)))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        squeezed = functional.swish(self._conv1(functional.adaptive_avg_pool2d(x, 1)))
        return x * functional.sigmoid(self._conv2(squeezed))


class _Block(nn.Layer):
    """Inverted bottleneck with squeeze-and-excitation, relative to the block's input channels."""

    def __init__(self, unit: _Unit) -> None:
        super().__init__()
        mid = unit.mid_channels
        self.expand = unit.expand != 1
        if self.expand:
            self._ecn = _nested(_same_conv(unit.in_channels, mid, 1, unit.size), mid)
        depthwise = _same_conv(mid, mid, unit.kernel, unit.size, unit.stride, mid)
        self._dcn = _nested(depthwise, mid)
        self._se = _SqueezeExcite(mid, unit.in_channels // 4)
        self._pcn = _nested(_same_conv(mid, unit.out_channels, 1, unit.size), unit.out_channels)
        self.identity = unit.identity

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = functional.swish(self._ecn(x)) if self.expand else x
        y = functional.swish(self._dcn(y))
        y = self._pcn(self._se(y))
        return x + y if self.identity else y


class _Features(nn.Layer):
    """The stem and the blocks."""

    def __init__(self, units: list[_Unit], size: int) -> None:
        super().__init__()
        stem = _same_conv(3, _STEM_CHANNELS, 3, size, stride=2)
        self._conv_stem = _nested(stem, _STEM_CHANNELS)
        self.blocks = []
        for index, unit in enumerate(units):
            # PaddleClas's names, with their dots, and a different word for a stage's first block.
            name = f"{'_blocks' if unit.first else 'block'}.{index}."
            self.blocks.append(self.add_sublayer(name, _Block(unit)))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = functional.swish(self._conv_stem(x))
        for block in self.blocks:
            x = block(x)
        return x


class EfficientNet(nn.Layer):
    """An EfficientNet-B classifier: float32 images (N, 3, size, size) to logits.

    Padding is computed for `size`, as in `EfficientNetLite`.

    Args:
        depth: factor on the repeats of all stages, rounded up.
        size: height and width of the input in pixels.
        num_classes: classes of the linear layer.
    """

    def __init__(self, depth: float, size: int, num_classes: int) -> None:
        super().__init__()
        # The networks are only wider from B2 on.
        units = list(_units(1.0, depth, size, lite=False))
        self._ef = _Features(units, size)
        head = _same_conv(units[-1].out_channels, _HEAD_CHANNELS, 1, units[-1].size)
        self._conv = _ConvNorm(head, _HEAD_CHANNELS)
        self._fc = nn.Linear(_HEAD_CHANNELS, num_classes)

    # Paddle's to_static drops the first argument only if it is called `self`.
    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return logits (N, num_classes) for float32 images (N, 3, size, size)."""
        x = functional.swish(self._conv(self._ef(x)))
        return self._fc(paddle.flatten(functional.adaptive_avg_pool2d(x, 1), start_axis=1))


def efficientnet_b0(num_classes: int) -> EfficientNet:
    """EfficientNetB0, for 224 x 224 images."""
    return EfficientNet(1.0, 224, num_classes)


def efficientnet_b1(num_classes: int) -> EfficientNet:
    """EfficientNetB1, for 240 x 240 images."""
    return EfficientNet(1.1, 240, num_classes)


def efficientnet_lite0(num_classes: int) -> EfficientNetLite:
    """EfficientNet-Lite0, for 224 x 224 images."""
    return EfficientNetLite(1.0, 1.0, 224, num_classes)


def efficientnet_lite1(num_classes: int) -> EfficientNetLite:
    """EfficientNet-Lite1, for 240 x 240 images."""
    return EfficientNetLite(1.0, 1.1, 240, num_classes)


def efficientnet_lite2(num_classes: int) -> EfficientNetLite:
    """EfficientNet-Lite2, for 260 x 260 images."""
    return EfficientNetLite(1.1, 1.2, 260, num_classes)
