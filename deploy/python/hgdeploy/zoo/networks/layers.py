# SPDX-License-Identifier: Apache-2.0
# mypy: allow-subclassing-any
"""What the zoo's convolutional networks share: their building block, and how channels scale."""

from __future__ import annotations

from typing import ClassVar

import paddle
from paddle import nn
from paddle.nn import functional


class BatchNorm(nn.BatchNorm2D):
    """Paddle's batch normalisation, without the warning that it gives in each step of a training.

    A filter would not do: those of one thread are lost when another thread restores its own.
    """

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return the normalised images, as Paddle's own class computes them."""
        return functional.batch_norm(
            x,
            self._mean,
            self._variance,
            weight=self.weight,
            bias=self.bias,
            training=self.training,
            momentum=self._momentum,
            epsilon=self._epsilon,
        )


class ConvNormAct(nn.Sequential):
    """Convolution without bias that keeps the size; batch normalisation; an activation if asked.

    An even kernel, which has no middle, gets its odd pixel of padding at the bottom and right.

    Attributes:
        names: the names of the convolution and the normalisation in the parameters' names.
        activation: the layer at the end.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: size of the kernel.
        stride: step of the convolution; the size is divided by it.
        groups: groups of the convolution.
        act: whether to end in the activation.
    """

    names: ClassVar[tuple[str, str]] = ("conv", "bn")
    activation: ClassVar[type[nn.Layer]] = nn.ReLU

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=[(kernel - 1) // 2, kernel // 2] * 2,
            groups=groups,
            bias_attr=False,
        )
        layers = [(self.names[0], conv), (self.names[1], BatchNorm(out_channels))]
        super().__init__(*layers, *([("act", self.activation())] if act else []))


def scaled_channels(channels: int, width: float) -> int:
    """Return `channels * width` to the nearest multiple of 8, but at most 10 % below it."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded
