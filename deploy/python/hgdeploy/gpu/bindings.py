# SPDX-License-Identifier: Apache-2.0
"""A GPU through cuda-bindings, NVIDIA's own Python package for the CUDA driver."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hgdeploy.errors import EngineError, one_line
from hgdeploy.gpu.device import Buffer, Device, Stream
from hgdeploy.system.libraries import import_library

_NAME_LENGTH = 256


class _Driver:
    """The driver's functions; a call that does not succeed raises an EngineError."""

    def __init__(self) -> None:
        try:
            self.api: Any = importlib.import_module("cuda.bindings.driver")
        except ModuleNotFoundError:  # before version 12.8 the same functions were in cuda.cuda
            self.api = import_library("cuda.cuda", "tensorrt")

    def __call__(self, doing: str, function: str, *arguments: Any) -> Any:
        """Call a driver function and return its one result, if it has one.

        Args:
            doing: the purpose of the call, to follow "CUDA cannot" in an error.
            function: its name.
            arguments: its arguments.

        Raises:
            EngineError: it returns an error, whose name is in the message.
        """
        try:
            status, *values = getattr(self.api, function)(*arguments)
        except RuntimeError as error:  # an old driver lacks some of the functions
            raise EngineError(f"CUDA cannot {doing}: {one_line(error)}") from error
        if status != self.api.CUresult.CUDA_SUCCESS:
            name, text = (
                answer[1].decode() if answer[1] else str(int(status))
                for answer in (self.api.cuGetErrorName(status), self.api.cuGetErrorString(status))
            )
            raise EngineError(f"CUDA cannot {doing}: {function} returns {name} ({text})")
        return values[0] if values else None


class BindingsStream(Stream):
    """A stream, and at most one graph captured from it."""

    def __init__(self, driver: _Driver, marks: int) -> None:
        super().__init__()
        self._driver = driver
        self._graph: Any = None
        flags = driver.api.CUstream_flags.CU_STREAM_NON_BLOCKING
        self._stream = driver("make a stream", "cuStreamCreate", flags)
        self.handle = int(self._stream)
        self._release("free a stream", "cuStreamDestroy", self._stream)
        self._events: list[Any] = []
        try:
            for _ in range(marks):
                event = driver("make an event", "cuEventCreate", 0)
                self._release("free an event", "cuEventDestroy", event)
                self._events.append(event)
        except EngineError:
            self._releases.close()
            raise
        self._releases.callback(self.drop_graph)

    def _release(self, doing: str, function: str, handle: Any) -> None:
        self._releases.callback(self._driver, doing, function, handle)

    def buffer(self, size: int) -> Buffer:
        """Allocate `size` bytes on both sides."""
        address = self._driver(f"allocate {size} bytes on the GPU", "cuMemAlloc", size)
        self._release("free GPU memory", "cuMemFree", address)
        doing = f"allocate {size} bytes of page-locked memory"
        host = self._driver(doing, "cuMemHostAlloc", size, 0)
        self._release("free page-locked memory", "cuMemFreeHost", host)
        data = (ctypes.c_uint8 * size).from_address(int(host))
        return Buffer(int(address), np.ctypeslib.as_array(data))

    def upload(self, buffer: Buffer, size: int) -> None:
        """Copy the first bytes of `buffer` to the GPU."""
        data = buffer.host.ctypes.data
        self._driver(
            "copy to the GPU", "cuMemcpyHtoDAsync", buffer.address, data, size, self._stream
        )

    def download(self, buffer: Buffer, size: int) -> None:
        """Copy the first bytes of `buffer` from the GPU."""
        data = buffer.host.ctypes.data
        self._driver(
            "copy from the GPU", "cuMemcpyDtoHAsync", data, buffer.address, size, self._stream
        )

    def mark(self, place: int) -> None:
        """Record the time at which the work so far has ended."""
        self._driver("record an event", "cuEventRecord", self._events[place], self._stream)

    def elapsed_ms(self, start: int, end: int) -> float:
        """Return the milliseconds between two marks."""
        events = self._events[start], self._events[end]
        return float(self._driver("time an event", "cuEventElapsedTime", *events))

    def wait(self, place: int) -> None:
        """Wait until the work before a mark has ended."""
        self._driver("run on the GPU", "cuEventSynchronize", self._events[place])

    def synchronize(self) -> None:
        """Wait until all work is done."""
        self._driver("run on the GPU", "cuStreamSynchronize", self._stream)

    def capture(self, work: Callable[[], None]) -> None:
        """Record what `work` puts on the stream as a graph, without running it."""
        self.drop_graph()
        # Other threads may allocate memory meanwhile; that is no part of this graph.
        mode = self._driver.api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        doing = "capture a graph"
        self._driver(doing, "cuStreamBeginCapture", self._stream, mode)
        try:
            work()
        except BaseException:
            # A stream that is still capturing could not be used any more.
            with contextlib.suppress(EngineError):
                graph = self._driver(doing, "cuStreamEndCapture", self._stream)
                self._driver("free a graph", "cuGraphDestroy", graph)
            raise
        graph = self._driver(doing, "cuStreamEndCapture", self._stream)
        try:
            self._graph = self._driver("instantiate a graph", "cuGraphInstantiate", graph, 0)
        finally:
            self._driver("free a graph", "cuGraphDestroy", graph)

    def launch(self) -> None:
        """Put the captured graph on the stream."""
        if self._graph is None:
            raise EngineError("there is no captured graph to launch")
        self._driver("launch a graph", "cuGraphLaunch", self._graph, self._stream)

    def drop_graph(self) -> None:
        """Forget the captured graph, if there is one."""
        if self._graph is not None:
            graph, self._graph = self._graph, None
            self._driver("free a graph", "cuGraphExecDestroy", graph)


class BindingsDevice(Device):
    """A GPU."""

    captures = True

    def __init__(self, driver: _Driver, index: int) -> None:
        self._driver = driver
        self._index = index
        doing = f"open gpu:{index}"
        driver(doing, "cuInit", 0)
        device = driver(doing, "cuDeviceGet", index)
        name = driver(doing, "cuDeviceGetName", _NAME_LENGTH, device)
        self.name = name.split(b"\0")[0].decode(errors="replace").strip()
        attributes = driver.api.CUdevice_attribute
        self.compute_capability = ".".join(
            str(driver(doing, "cuDeviceGetAttribute", attribute, device))
            for attribute in (
                attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )

    @contextlib.contextmanager
    def activate(self) -> Iterator[None]:
        """Make the GPU current in this thread for a `with` block."""
        context = _primary_context(self._index)
        self._driver("use the GPU in this thread", "cuCtxPushCurrent", context)
        try:
            yield
        finally:
            self._driver("leave the GPU in this thread", "cuCtxPopCurrent")

    def stream(self, marks: int) -> Stream:
        """Make a stream that can record `marks` times."""
        return BindingsStream(self._driver, marks)


@functools.cache
def _primary_context(index: int) -> Any:
    """Return a device's primary context, which is retained once and until the process ends.

    TensorRT's own CUDA runtime uses the same one, and loses all it has in it with the last release.
    """
    driver, doing = _Driver(), f"open gpu:{index}"
    return driver(doing, "cuDevicePrimaryCtxRetain", driver(doing, "cuDeviceGet", index))


def open_device(index: int) -> Device:
    """Open the GPU `index`, which must exist.

    Raises:
        EngineError: cuda-bindings is not installed, or the driver refuses.
    """
    return BindingsDevice(_Driver(), index)
