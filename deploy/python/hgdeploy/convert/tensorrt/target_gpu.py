# SPDX-License-Identifier: Apache-2.0
"""The GPU that a TensorRT engine is built for, where there is one."""

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
        EngineError: there is none of that number; or the CUDA library is missing or fails.
    """
    missing = reason_gpu_is_missing(index)
    if missing is not None:
        raise EngineError(f"{runtime.name} needs the NVIDIA GPU {index}, and {missing}")
    with contextlib.closing(open_device(index)) as device:
        return Gpu(index, device.name, device.compute_capability)


@contextlib.contextmanager
def working_on(gpu: Gpu) -> Iterator[None]:
    """Make `gpu` the one that this thread works on.

    Raises:
        EngineError: the driver refuses it.
    """
    with contextlib.closing(open_device(gpu.index)) as device, device.activate():
        yield
