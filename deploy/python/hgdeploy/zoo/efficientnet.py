# SPDX-License-Identifier: Apache-2.0
# mypy: allow-subclassing-any
"""EfficientNet-Lite 0 to 2, for inference.

The Lite variants are EfficientNets without squeeze-and-excitation, with ReLU6 instead of swish,
and with a stem, a head, and first and last stages that do not grow with the model. Layer names are
those of the PyTorch port whose weights the registry packages ship (`_conv_stem`, `_blocks.0._bn1`,
...), so that only the names of the batch-norm statistics differ (see `weights.read_weights`).
Importing this module imports Paddle; the registry does so only when a model is built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import paddle
from paddle import nn
from paddle.nn import functional

_BN_EPSILON = 1e-3
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280


@dataclass(frozen=True)
class _Stage:
    """EfficientNet-B0's own stage, before it is scaled."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    out_channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def _scaled_channels(channels: int, width: float) -> int:
    """`channels * width` to the nearest multiple of 8, but never more than 10 % below it."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _same_padding(size: int, kernel: int, stride: int) -> list[int]:
    """TensorFlow's "SAME" for a square input: [top, bottom, left, right] pixels.

    A strided convolution of an even input gets one pixel more at the bottom and right, which a
    symmetric padding cannot express.
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    before = total // 2
    return [before, total - before, before, total - before]


class _MBConv(nn.Layer):
    """Inverted bottleneck: 1x1 expansion, depthwise convolution, linear 1x1 projection."""

    def __init__(self, stage: _Stage, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        mid = in_channels * stage.expand
        self.expand = stage.expand != 1
        if self.expand:
            self._expand_conv = nn.Conv2D(in_channels, mid, 1, bias_attr=False)
            self._bn0 = nn.BatchNorm2D(mid, epsilon=_BN_EPSILON)
        self._depthwise_conv = nn.Conv2D(
            mid,
            mid,
            stage.kernel,
            stride=stage.stride,
            padding=_same_padding(size, stage.kernel, stage.stride),
            groups=mid,
            bias_attr=False,
        )
        self._bn1 = nn.BatchNorm2D(mid, epsilon=_BN_EPSILON)
        self._project_conv = nn.Conv2D(mid, out_channels, 1, bias_attr=False)
        self._bn2 = nn.BatchNorm2D(out_channels, epsilon=_BN_EPSILON)
        self.identity = stage.stride == 1 and in_channels == out_channels

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = x
        if self.expand:
            y = functional.relu6(self._bn0(self._expand_conv(y)))
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.identity else y


class EfficientNetLite(nn.Layer):
    """An EfficientNet-Lite classifier: float32 images (N, 3, size, size) to logits.

    Padding is computed for `size`, as TensorFlow's is at run time: the same weights on another
    image size would need other padding, so build one for each size.

    Args:
        width: factor on the channels of the stages.
        depth: factor on the repeats of all stages but the first and the last, rounded up.
        size: height and width of the input in pixels.
        num_classes: classes of the linear layer.
    """

    def __init__(self, width: float, depth: float, size: int, num_classes: int) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2D(
            3, _STEM_CHANNELS, 3, stride=2, padding=_same_padding(size, 3, 2), bias_attr=False
        )
        self._bn0 = nn.BatchNorm2D(_STEM_CHANNELS, epsilon=_BN_EPSILON)
        size = math.ceil(size / 2)
        blocks = []
        channels = _STEM_CHANNELS
        for stage in _STAGES:
            out = _scaled_channels(stage.out_channels, width)
            edge = stage in (_STAGES[0], _STAGES[-1])
            repeats = stage.repeats if edge else math.ceil(stage.repeats * depth)
            for index in range(repeats):
                stride = stage.stride if index == 0 else 1
                unit = _Stage(1, stage.kernel, stride, stage.expand, out)
                blocks.append(_MBConv(unit, channels, out, size))
                size = math.ceil(size / stride)
                channels = out
        self._blocks = nn.LayerList(blocks)
        self._conv_head = nn.Conv2D(channels, _HEAD_CHANNELS, 1, bias_attr=False)
        self._bn1 = nn.BatchNorm2D(_HEAD_CHANNELS, epsilon=_BN_EPSILON)
        self._fc = nn.Linear(_HEAD_CHANNELS, num_classes)

    # Paddle's to_static drops the first argument only if it is called `self`.
    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Logits (N, num_classes) of float32 images (N, 3, size, size)."""
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))
        return self._fc(paddle.flatten(functional.adaptive_avg_pool2d(x, 1), start_axis=1))


def efficientnet_lite0(num_classes: int) -> EfficientNetLite:
    """EfficientNet-Lite0, for 224 x 224 images."""
    return EfficientNetLite(1.0, 1.0, 224, num_classes)


def efficientnet_lite1(num_classes: int) -> EfficientNetLite:
    """EfficientNet-Lite1, for 240 x 240 images."""
    return EfficientNetLite(1.0, 1.1, 240, num_classes)


def efficientnet_lite2(num_classes: int) -> EfficientNetLite:
    """EfficientNet-Lite2, for 260 x 260 images."""
    return EfficientNetLite(1.1, 1.2, 260, num_classes)
