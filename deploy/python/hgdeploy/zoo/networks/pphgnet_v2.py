# SPDX-License-Identifier: Apache-2.0
# mypy: allow-subclassing-any
"""PP-HGNetV2 B0 to B6, for inference.

What is new over PP-HGNet: a stem with 2x2 convolutions, depthwise 5x5 convolutions in the later two
stages, two convolutions that merge a block's features, and in B0 to B3 a learned scale and offset
after each activation. Layer names follow PaddleClas's parameter tables, so an official `.pdparams`
loads as it is. Importing this module imports Paddle; the registry does so only when a model is
built.
"""

from __future__ import annotations

from dataclasses import dataclass

import paddle
from paddle import nn
from paddle.nn import functional

from hgdeploy.zoo.networks.layers import ConvNormAct

_HEAD_CHANNELS = 2048


@dataclass(frozen=True)
class Stage:
    """Channels of the inner convolutions and of the output; blocks."""

    mid_channels: int
    out_channels: int
    blocks: int


@dataclass(frozen=True)
class _Kind:
    """What all convolutions of a block share.

    Attributes:
        depth: convolutions in a chain.
        light: whether each is a 1x1 convolution and a depthwise 5x5 one, instead of a 3x3 one.
        affine: whether a learned scale and offset follow each activation.
    """

    depth: int
    light: bool
    affine: bool


class _Affine(nn.Layer):
    """A learned scale and offset, one for all channels."""

    def __init__(self) -> None:
        super().__init__()
        one, zero = nn.initializer.Constant(1.0), nn.initializer.Constant(0.0)
        self.scale = self.create_parameter([1], default_initializer=one)
        self.bias = self.create_parameter([1], default_initializer=zero)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.scale * x + self.bias


def _conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    affine: bool,
    stride: int = 1,
    groups: int = 1,
) -> ConvNormAct:
    """Return a convolution with its normalisation, its activation and, if asked, its affine."""
    conv = ConvNormAct(in_channels, out_channels, kernel, stride=stride, groups=groups)
    if affine:
        conv.add_sublayer("lab", _Affine())
    return conv


def _light_conv(in_channels: int, out_channels: int, *, affine: bool) -> nn.Sequential:
    """Return a 1x1 convolution that is not activated, and a depthwise 5x5 one that is."""
    pointwise = ConvNormAct(in_channels, out_channels, 1, act=False)
    depthwise = _conv(out_channels, out_channels, 5, affine=affine, groups=out_channels)
    return nn.Sequential(("conv1", pointwise), ("conv2", depthwise))


class _Stem(nn.Layer):
    """Divides the size by 4; in between, 2x2 convolutions beside a 2x2 maximum."""

    def __init__(self, mid: int, out: int, *, affine: bool) -> None:
        super().__init__()
        self.stem1 = _conv(3, mid, 3, affine=affine, stride=2)
        self.stem2a = _conv(mid, mid // 2, 2, affine=affine)
        self.stem2b = _conv(mid // 2, mid, 2, affine=affine)
        self.stem3 = _conv(2 * mid, mid, 3, affine=affine, stride=2)
        self.stem4 = _conv(mid, out, 1, affine=affine)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.stem1(x)
        # Padded at the bottom and right, as the 2x2 convolutions are.
        largest = functional.max_pool2d(x, 2, stride=1, padding=[0, 1, 0, 1])
        x = paddle.concat([largest, self.stem2b(self.stem2a(x))], axis=1)
        return self.stem4(self.stem3(x))


class _Block(nn.Layer):
    """A chain of convolutions whose input and every output are concatenated and merged."""

    def __init__(self, in_channels: int, stage: Stage, kind: _Kind, *, identity: bool) -> None:
        super().__init__()
        mid, out, affine = stage.mid_channels, stage.out_channels, kind.affine
        inputs = [in_channels] + [mid] * (kind.depth - 1)
        self.layers = nn.LayerList(
            _light_conv(channels, mid, affine=affine)
            if kind.light
            else _conv(channels, mid, 3, affine=affine)
            for channels in inputs
        )
        total = in_channels + kind.depth * mid
        self.aggregation_squeeze_conv = _conv(total, out // 2, 1, affine=affine)
        self.aggregation_excitation_conv = _conv(out // 2, out, 1, affine=affine)
        self.identity = identity

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(features[-1]))
        squeezed = self.aggregation_squeeze_conv(paddle.concat(features, axis=1))
        merged = self.aggregation_excitation_conv(squeezed)
        return merged + x if self.identity else merged


class _StageLayers(nn.Layer):
    """An optional depthwise halving, then blocks, of which all but the first add their input."""

    def __init__(self, in_channels: int, stage: Stage, kind: _Kind, *, downsample: bool) -> None:
        super().__init__()
        self.downsample = (
            ConvNormAct(in_channels, in_channels, 3, stride=2, groups=in_channels, act=False)
            if downsample
            else None
        )
        first = _Block(in_channels, stage, kind, identity=False)
        rest = [
            _Block(stage.out_channels, stage, kind, identity=True) for _ in range(stage.blocks - 1)
        ]
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if self.downsample is not None:
            x = self.downsample(x)
        return self.blocks(x)


class PPHGNetV2(nn.Layer):
    """A PP-HGNetV2 classifier: float32 images (N, 3, H, W) to logits (N, num_classes).

    Args:
        stem: channels inside the stem and of its output.
        stages: the four stages: all but the first halve the size, and the last two are light.
        depth: number of convolutions in the chain of each block.
        num_classes: classes of the linear layer.
        affine: whether a learned scale and offset follow each activation.
    """

    def __init__(
        self,
        stem: tuple[int, int],
        stages: tuple[Stage, Stage, Stage, Stage],
        depth: int,
        num_classes: int,
        *,
        affine: bool,
    ) -> None:
        super().__init__()
        self.stem = _Stem(*stem, affine=affine)
        inputs = [stem[1], *(stage.out_channels for stage in stages[:-1])]
        self.stages = nn.LayerList(
            _StageLayers(channels, stage, _Kind(depth, i >= 2, affine), downsample=i > 0)
            for i, (channels, stage) in enumerate(zip(inputs, stages, strict=True))
        )
        self.last_conv = nn.Conv2D(stages[-1].out_channels, _HEAD_CHANNELS, 1, bias_attr=False)
        self.lab = _Affine() if affine else None
        self.fc = nn.Linear(_HEAD_CHANNELS, num_classes)

    # Paddle's to_static drops the first argument only if it is called `self`.
    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return logits (N, num_classes) for float32 images (N, 3, H, W)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        x = functional.relu(self.last_conv(functional.adaptive_avg_pool2d(x, 1)))
        if self.lab is not None:
            x = self.lab(x)
        return self.fc(paddle.flatten(x, start_axis=1))


def pphgnet_v2_b0(num_classes: int) -> PPHGNetV2:
    """PPHGNetV2_B0."""
    stages = (Stage(16, 64, 1), Stage(32, 256, 1), Stage(64, 512, 2), Stage(128, 1024, 1))
    return PPHGNetV2((16, 16), stages, 3, num_classes, affine=True)


def pphgnet_v2_b1(num_classes: int) -> PPHGNetV2:
    """PPHGNetV2_B1."""
    stages = (Stage(32, 64, 1), Stage(48, 256, 1), Stage(96, 512, 2), Stage(192, 1024, 1))
    return PPHGNetV2((24, 32), stages, 3, num_classes, affine=True)


def pphgnet_v2_b2(num_classes: int) -> PPHGNetV2:
    """PPHGNetV2_B2."""
    stages = (Stage(32, 96, 1), Stage(64, 384, 1), Stage(128, 768, 3), Stage(256, 1536, 1))
    return PPHGNetV2((24, 32), stages, 4, num_classes, affine=True)


def pphgnet_v2_b3(num_classes: int) -> PPHGNetV2:
    """PPHGNetV2_B3."""
    stages = (Stage(32, 128, 1), Stage(64, 512, 1), Stage(128, 1024, 3), Stage(256, 2048, 1))
    return PPHGNetV2((24, 32), stages, 5, num_classes, affine=True)


def pphgnet_v2_b4(num_classes: int) -> PPHGNetV2:
    """PPHGNetV2_B4."""
    stages = (Stage(48, 128, 1), Stage(96, 512, 1), Stage(192, 1024, 3), Stage(384, 2048, 1))
    return PPHGNetV2((32, 48), stages, 6, num_classes, affine=False)


def pphgnet_v2_b5(num_classes: int) -> PPHGNetV2:
    """PPHGNetV2_B5."""
    stages = (Stage(64, 128, 1), Stage(128, 512, 2), Stage(256, 1024, 5), Stage(512, 2048, 2))
    return PPHGNetV2((32, 64), stages, 6, num_classes, affine=False)


def pphgnet_v2_b6(num_classes: int) -> PPHGNetV2:
    """PPHGNetV2_B6."""
    stages = (Stage(96, 192, 2), Stage(192, 512, 3), Stage(384, 1024, 6), Stage(768, 2048, 3))
    return PPHGNetV2((48, 96), stages, 6, num_classes, affine=False)
