# SPDX-License-Identifier: Apache-2.0
# mypy: allow-subclassing-any
"""The building block of the zoo's convolutional networks."""

from __future__ import annotations

from typing import ClassVar

from paddle import nn


class ConvNormAct(nn.Sequential):
    """Convolution without bias, padded by half a kernel; batch normalisation; ReLU if `act` is set.

    Attributes:
        names: the names of the convolution and the normalisation in the parameters' names.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: odd size of the kernel.
        stride: step of the convolution; the size is divided by it.
        groups: groups of the convolution.
        act: whether to end in a ReLU.
    """

    names: ClassVar[tuple[str, str]] = ("conv", "bn")

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
            padding=kernel // 2,
            groups=groups,
            bias_attr=False,
        )
        layers = [(self.names[0], conv), (self.names[1], nn.BatchNorm2D(out_channels))]
        super().__init__(*layers, *([("relu", nn.ReLU())] if act else []))
