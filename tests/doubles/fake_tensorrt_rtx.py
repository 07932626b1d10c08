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


class IRuntimeCache:
    """Compiled kernels, which are the names of what was compiled."""

    __slots__ = ("_kernels",)

    def __init__(self) -> None:
        raise TypeError("No constructor defined!")

    def deserialize(self, blob: bytes) -> bool:
        """Read what `serialize` gave, if it is of this version."""
        version, _, kernels = bytes(blob).decode().partition("\n")
        if version != __version__:
            return False
        self._kernels = set(kernels.splitlines())
        return True

    def serialize(self) -> memoryview:
        """Return all kernels."""
        return memoryview("\n".join([__version__, *sorted(self._kernels)]).encode())


_COMPILED: list[str] = []
"""What was compiled in this process."""


class IRuntimeConfig(fake_tensorrt.IRuntimeConfig):
    """How execution contexts are made."""

    __slots__ = (
        "_cache",
        "cuda_graph_strategy",
        "dynamic_shapes_kernel_specialization_strategy",
    )

    def __init__(self) -> None:
        self.cuda_graph_strategy: Any = CudaGraphStrategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy: Any = (
            DynamicShapesKernelSpecializationStrategy.LAZY
        )
        self._cache = self.create_runtime_cache()

    def create_runtime_cache(self) -> IRuntimeCache:
        """Make an empty cache."""
        cache = IRuntimeCache.__new__(IRuntimeCache)
        cache._kernels = set()
        return cache

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        """Have contexts take their kernels from a cache."""
        self._cache = cache
        return True


class ICudaEngine(fake_tensorrt.ICudaEngine):
    """A loaded engine."""

    __slots__ = ()
    _config = IRuntimeConfig

    def create_execution_context(
        self,
        strategy: Any = fake_tensorrt.ExecutionContextAllocationStrategy.STATIC,
        runtime_config: IRuntimeConfig | None = None,
    ) -> fake_tensorrt.IExecutionContext | None:
        """Make an execution context, for which the cache's missing kernels are compiled."""
        kernel = ",".join(self._shapes)
        if runtime_config is not None and kernel not in runtime_config._cache._kernels:
            _COMPILED.append(kernel)
            runtime_config._cache._kernels.add(kernel)
        return super().create_execution_context(strategy, runtime_config)


class Runtime(fake_tensorrt.Runtime):
    """Loads engine files."""

    _version = __version__
    _engine = ICudaEngine
