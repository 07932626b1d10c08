# SPDX-License-Identifier: Apache-2.0
"""The GPU of this machine that a TensorRT engine is built for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from hgdeploy.bundle.names import TensorRtRuntime
from hgdeploy.errors import EngineError
from hgdeploy.gpu.device import open_device
from hgdeploy.gpu.driver import reason_gpu_is_missing


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine.

    Attributes:
        index: its number.
        name: its name according to the driver.
        compute_capability: such as `8.6`.
    """

    index: int
    name: str
    compute_capability: str


def local_gpu(index: int, runtime: TensorRtRuntime) -> Gpu:
    """Return the GPU of this machine that has a number.

    The driver is asked first: without one, creating TensorRT's objects ends the process.

    Raises:
        EngineError: there is no such GPU, or the CUDA library is missing or fails.
    """
    missing = reason_gpu_is_missing(index)
    if missing is not None:
        raise EngineError(f"{runtime.name} needs NVIDIA GPU {index}, but {missing}")
    device = open_device(index)
    return Gpu(index, device.name, device.compute_capability)


@contextlib.contextmanager
def working_on(gpu: Gpu) -> Iterator[None]:
    """Make `gpu` the one that this thread uses.

    Raises:
        EngineError: the driver refuses it.
    """
    with open_device(gpu.index).activate():
        yield
