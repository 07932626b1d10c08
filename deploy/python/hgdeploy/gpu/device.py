# SPDX-License-Identifier: Apache-2.0
"""A GPU as an engine needs it: memory, work done in order, and the times at which it ended.

`open_device` opens one through cuda-bindings (NVIDIA's own), or through pycuda if the environment
has `HGDEPLOY_CUDA=pycuda`. Handles and addresses are plain numbers, because TensorRT takes those.
"""

from __future__ import annotations

import abc
import contextlib
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import EngineError, nearest
from hgdeploy.gpu.driver import reason_gpu_is_missing

LIBRARY_VARIABLE = "HGDEPLOY_CUDA"
# Each library's name, with the module of this package that uses it.
_LIBRARIES = {
    "cuda-bindings": "hgdeploy.gpu.bindings",
    "pycuda": "hgdeploy.gpu.pycuda",
}


@dataclass(frozen=True)
class Buffer:
    """The same number of bytes on the GPU and in page-locked host memory.

    Attributes:
        address: the bytes' address on the GPU.
        host: the bytes on the host, uint8 of shape (size,); freed when the stream is closed.
    """

    address: int
    host: NDArray[np.uint8]


class Stream(abc.ABC):
    """Work that a GPU does in order, with the memory, marks and graph that belong to it.

    Nothing is sure to be done before `synchronize`. Every method needs the device to be active in
    the calling thread, and only one thread may use the stream at a time.

    Attributes:
        handle: the number by which the driver knows the stream.
    """

    handle: int

    def __init__(self) -> None:
        # What to free, last made first; after a failure it frees the rest and then raises.
        self._releases = contextlib.ExitStack()

    @abc.abstractmethod
    def buffer(self, size: int) -> Buffer:
        """Allocate `size` bytes, at least one, on both sides."""

    @abc.abstractmethod
    def upload(self, buffer: Buffer, size: int) -> None:
        """Copy the first `size` bytes of `buffer` to the GPU."""

    @abc.abstractmethod
    def download(self, buffer: Buffer, size: int) -> None:
        """Copy the first `size` bytes of `buffer` from the GPU."""

    @abc.abstractmethod
    def mark(self, place: int) -> None:
        """Record the time at which the work so far has ended, as number `place`, from 0."""

    @abc.abstractmethod
    def elapsed_ms(self, start: int, end: int) -> float:
        """Return the milliseconds between two marks, after `wait` for both or `synchronize`."""

    @abc.abstractmethod
    def wait(self, place: int) -> None:
        """Wait until the work before a mark has ended, while what comes after it goes on.

        Raises:
            EngineError: some of it failed.
        """

    @abc.abstractmethod
    def synchronize(self) -> None:
        """Wait until all work is done.

        Raises:
            EngineError: some of it failed.
        """

    @abc.abstractmethod
    def capture(self, work: Callable[[], None]) -> None:
        """Record what `work` puts on the stream as a graph, without running it.

        Raises:
            EngineError: it cannot be recorded; the stream can still be used.
        """

    @abc.abstractmethod
    def launch(self) -> None:
        """Put the captured graph on the stream."""

    @abc.abstractmethod
    def drop_graph(self) -> None:
        """Forget the captured graph, if there is one; its work must have ended."""

    def close(self) -> None:
        """Free the stream and what belongs to it; a second call does nothing."""
        self._releases.close()


class Device(abc.ABC):
    """A GPU and its primary context, the one that all libraries in a process share.

    The context is retained when the GPU is first made active, and stays until the process ends: a
    library that still has objects in it would lose them.

    Attributes:
        name: the GPU's name.
        compute_capability: such as `8.9`.
        captures: whether its streams can capture graphs.
    """

    name: str
    compute_capability: str
    captures: bool

    @abc.abstractmethod
    def activate(self) -> contextlib.AbstractContextManager[None]:
        """Make the GPU current in this thread for a `with` block; blocks may nest."""

    @abc.abstractmethod
    def stream(self, marks: int) -> Stream:
        """Make a stream that can record `marks` times; the device must be active."""


def chosen_library() -> str:
    """Return the CUDA library that the environment asks for, `cuda-bindings` by default.

    Raises:
        EngineError: it names neither of the two libraries.
    """
    name = os.environ.get(LIBRARY_VARIABLE) or "cuda-bindings"
    if name not in _LIBRARIES:
        raise EngineError(f"{LIBRARY_VARIABLE} is {name!r}, {nearest(name, _LIBRARIES)}")
    return name


def open_device(index: int) -> Device:
    """Open a GPU.

    Args:
        index: N of `gpu:N`.

    Raises:
        EngineError: there is no driver or no such GPU, or the CUDA library is not installed.
    """
    library = chosen_library()
    missing = reason_gpu_is_missing(index)
    if missing is not None:
        raise EngineError(
            f"gpu:{index} was asked for, but {missing}; use another engine on the cpu "
            "(-o Global.use_gpu=False), or a machine with an NVIDIA GPU"
        )
    module: Any = importlib.import_module(_LIBRARIES[library])
    return cast(Device, module.open_device(index))
