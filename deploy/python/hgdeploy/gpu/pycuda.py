# SPDX-License-Identifier: Apache-2.0
"""A GPU through pycuda, for those who have it; it cannot capture graphs."""

from __future__ import annotations

import contextlib
import functools
import importlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from hgdeploy.errors import EngineError, one_line
from hgdeploy.gpu.device import LIBRARY_VARIABLE, Buffer, Device, Stream


class _PyCuda:
    """pycuda.driver; its exceptions become EngineErrors that name what was being done."""

    def __init__(self) -> None:
        try:
            self.api: Any = importlib.import_module("pycuda.driver")
        except (ImportError, OSError) as error:
            raise EngineError(
                f"pycuda cannot be imported ({one_line(error)}); build it with the CUDA toolkit "
                f"(pip install pycuda), or unset {LIBRARY_VARIABLE} to use cuda-bindings"
            ) from None

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Turn an error of pycuda inside the block into one line that says what CUDA cannot do."""
        try:
            yield
        except self.api.Error as error:
            raise EngineError(f"CUDA cannot {what}: {one_line(error)}") from error


class PyCudaStream(Stream):
    """A stream; pycuda's objects free themselves when nothing refers to them."""

    def __init__(self, pycuda: _PyCuda, marks: int) -> None:
        super().__init__()
        self._pycuda = pycuda
        with pycuda.doing("make a stream"):
            # 1 is CU_STREAM_NON_BLOCKING, for which pycuda has no name.
            self._stream = pycuda.api.Stream(1)
            self._events = [pycuda.api.Event() for _ in range(marks)]
        self.handle = int(self._stream.handle)
        self._releases.callback(self._drop_objects)

    def _drop_objects(self) -> None:
        self._events = []
        self._stream = None

    def buffer(self, size: int) -> Buffer:
        """Allocate `size` bytes on both sides."""
        with self._pycuda.doing(f"allocate {size} bytes on the GPU"):
            memory = self._pycuda.api.mem_alloc(size)
        self._releases.callback(memory.free)
        with self._pycuda.doing(f"allocate {size} bytes of page-locked memory"):
            host = self._pycuda.api.pagelocked_empty(size, "uint8")
        self._releases.callback(host.base.free)
        return Buffer(int(memory), host)

    def upload(self, buffer: Buffer, size: int) -> None:
        """Copy the first bytes of `buffer` to the GPU."""
        with self._pycuda.doing("copy to the GPU"):
            self._pycuda.api.memcpy_htod_async(buffer.address, buffer.host[:size], self._stream)

    def download(self, buffer: Buffer, size: int) -> None:
        """Copy the first bytes of `buffer` from the GPU."""
        with self._pycuda.doing("copy from the GPU"):
            self._pycuda.api.memcpy_dtoh_async(buffer.host[:size], buffer.address, self._stream)

    def mark(self, place: int) -> None:
        """Record the time at which the work so far has ended."""
        with self._pycuda.doing("record an event"):
            self._events[place].record(self._stream)

    def elapsed_ms(self, start: int, end: int) -> float:
        """Return the milliseconds between two marks."""
        with self._pycuda.doing("time an event"):
            return float(self._events[end].time_since(self._events[start]))

    def wait(self, place: int) -> None:
        """Wait until the work before a mark has ended."""
        with self._pycuda.doing("run on the GPU"):
            self._events[place].synchronize()

    def synchronize(self) -> None:
        """Wait until all work is done."""
        with self._pycuda.doing("run on the GPU"):
            self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> None:  # noqa: ARG002
        """Refuse: pycuda has no functions for graphs."""
        raise EngineError("pycuda cannot capture a CUDA graph")

    def launch(self) -> None:
        """Refuse likewise."""
        raise EngineError("pycuda cannot launch a CUDA graph")

    def drop_graph(self) -> None:
        """Do nothing: there is none."""


class PyCudaDevice(Device):
    """A GPU."""

    captures = False

    def __init__(self, pycuda: _PyCuda, index: int) -> None:
        self._pycuda = pycuda
        self._index = index
        with pycuda.doing(f"open gpu:{index}"):
            pycuda.api.init()
            device = pycuda.api.Device(index)
            self.name = str(device.name())
            self.compute_capability = ".".join(map(str, device.compute_capability()))

    @contextlib.contextmanager
    def activate(self) -> Iterator[None]:
        """Make the GPU current in this thread for a `with` block."""
        with self._pycuda.doing("use the GPU in this thread"):
            context = _primary_context(self._index)
            context.push()
        try:
            yield
        finally:
            with self._pycuda.doing("leave the GPU in this thread"):
                context.pop()

    def stream(self, marks: int) -> Stream:
        """Make a stream that can record `marks` times."""
        return PyCudaStream(self._pycuda, marks)


@functools.cache
def _primary_context(index: int) -> Any:
    """Return a device's primary context, which is retained once and until the process ends.

    pycuda releases a context only in the thread that made it, and even then leaves it on CUDA's own
    stack; so it is released at the end of the process. Finalizers run in the reverse order of their
    making: this one after those of the engines.
    """
    context = _PyCuda().api.Device(index).retain_primary_context()
    weakref.finalize(_PyCuda, context.detach)
    return context


def open_device(index: int) -> Device:
    """Open the GPU `index`, which must exist.

    Raises:
        EngineError: pycuda is not installed, or the driver refuses.
    """
    return PyCudaDevice(_PyCuda(), index)
