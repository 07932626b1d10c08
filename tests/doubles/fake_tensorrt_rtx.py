# SPDX-License-Identifier: Apache-2.0
"""TensorRT-RTX's runtime without a GPU: what it has in addition to `fake_tensorrt`."""

from __future__ import annotations

import enum
from typing import Any

import fake_tensorrt
from fake_tensorrt import *  # noqa: F403  # the same API

__version__ = "1.7.1.116"

CudaGraphStrategy = enum.Enum("CudaGraphStrategy", "DISABLED WHOLE_GRAPH_CAPTURE")
DynamicShapesKernelSpecializationStrategy = enum.Enum(
    "DynamicShapesKernelSpecializationStrategy", "LAZY EAGER NONE"
)


class IRuntimeConfig(fake_tensorrt.IRuntimeConfig):
    """How execution contexts are made."""

    __slots__ = ("cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy")

    def __init__(self) -> None:
        self.cuda_graph_strategy: Any = CudaGraphStrategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy: Any = (
            DynamicShapesKernelSpecializationStrategy.LAZY
        )


class ICudaEngine(fake_tensorrt.ICudaEngine):
    """A loaded engine."""

    __slots__ = ()
    _config = IRuntimeConfig


class Runtime(fake_tensorrt.Runtime):
    """Loads engine files."""

    _version = __version__
    _engine = ICudaEngine
