# SPDX-License-Identifier: Apache-2.0
"""The GPU that a TensorRT engine is built for, where there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hgdeploy.bundle.names import TensorRtRuntime
from hgdeploy.errors import EngineError
from hgdeploy.gpu.driver import nvidia_gpus
from hgdeploy.system.libraries import import_library

_NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine.

    Attributes:
        index: its number.
        name: its name as the driver tells it.
        compute_capability: such as `8.6`.
    """

    index: int
    name: str
    compute_capability: str


def gpu_at_hand(index: int, runtime: TensorRtRuntime) -> Gpu:
    """Return a GPU of this machine.

    The driver is asked first: without one, TensorRT's own objects end the process.

    Raises:
        EngineError: there is none of that number; or CUDA's Python package is missing or fails.
    """
    count, reason = nvidia_gpus()
    if index >= count:
        raise EngineError(
            f"{runtime.name} needs the NVIDIA GPU {index}, and "
            + (reason or f"this machine has only {count}, counted from 0")
        )
    cuda = _driver(runtime)
    device = _answer(cuda.cuDeviceGet(index), "GPU")
    name = _answer(cuda.cuDeviceGetName(_NAME_BYTES, device), "GPU's name")
    attributes = cuda.CUdevice_attribute
    major, minor = (
        _answer(cuda.cuDeviceGetAttribute(attribute, device), "compute capability")
        for attribute in (
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    return Gpu(index, name.split(b"\0")[0].decode(errors="replace"), f"{major}.{minor}")


@contextlib.contextmanager
def working_on(gpu: Gpu, runtime: TensorRtRuntime) -> Iterator[None]:
    """Make `gpu` the one that this thread works on.

    Raises:
        EngineError: the driver refuses it.
    """
    cuda = _driver(runtime)
    device = _answer(cuda.cuDeviceGet(gpu.index), "GPU")
    context = _answer(cuda.cuDevicePrimaryCtxRetain(device), "context")
    try:
        _answer(cuda.cuCtxPushCurrent(context), "context")
        try:
            yield
        finally:
            cuda.cuCtxPopCurrent()
    finally:
        cuda.cuDevicePrimaryCtxRelease(device)


def _driver(runtime: TensorRtRuntime) -> Any:
    cuda = import_library("cuda.bindings.driver", runtime.extra)
    _answer(cuda.cuInit(0), "start")
    return cuda


def _answer(result: tuple[Any, ...], what: str) -> Any:
    """Return what a call of the driver gave, after its status."""
    status, *values = result
    if int(status) != 0:
        raise EngineError(f"the NVIDIA driver gives no {what}: {status.name} ({int(status)})")
    return values[0] if values else None
