# SPDX-License-Identifier: Apache-2.0
# mypy: allow-subclassing-any
"""The unit that the convolutional networks of the zoo are made of."""

from __future__ import annotations

from typing import ClassVar

from paddle import nn


class ConvNormAct(nn.Sequential):
    """Convolution without bias that keeps the size, batch normalisation, and ReLU if `act` is set.

    Attributes:
        names: what the convolution and the normalisation are called in the parameters' names.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: odd size of the kernel.
        stride: step of the convolution, which divides the size.
        groups: groups of the convolution.
        act: end in a ReLU.
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
