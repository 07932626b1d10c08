# SPDX-License-Identifier: Apache-2.0
"""One CUDA stream with its own execution context and buffers."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.engines.base import Tensors
from hgdeploy.engines.tensorrt.session import PROFILE, Graphs, Session, Shape, set_shapes
from hgdeploy.errors import EngineError
from hgdeploy.gpu.device import Buffer, Stream

# The marks of a run: before and after the copy in, after the network, after the copy out.
_START, _UPLOADED, _COMPUTED, _DOWNLOADED = range(4)


class Lane:
    """What one caller needs to run an engine: a context, a stream, buffers for the largest shapes.

    A lane does one `run` at a time. The network is captured as a CUDA graph when a shape comes for
    the second time in a row; another shape drops the graph, which belongs to the context's old
    state.

    Args:
        session: the loaded engine.
        stream: the lane's own stream with four marks; closed with the lane.
        graphs: whether to capture graphs.
    """

    def __init__(self, session: Session, stream: Stream, graphs: Graphs) -> None:
        self._session = session
        self._stream = stream
        self._graphs = graphs
        self._context: Any = None
        self._buffers: dict[str, Buffer] = {}
        self._shapes: dict[str, Shape] = {}
        self._captured = False

    def open(self) -> None:
        """Make the context and the buffers, and run the shape that the engine is tuned for.

        The first run of a context is slow and the second is captured, so both are done here: what
        the engine's `runtime` says about graphs is then true from the start.
        """
        session, stream = self._session, self._stream
        self._context = session.context()
        session.forget_reasons()
        if self._context.active_optimization_profile != PROFILE:
            answer = self._context.set_optimization_profile_async(PROFILE, stream.handle)
            session.check("choose its profile", answer)
            stream.synchronize()
        for tensor in (*session.inputs, *session.outputs):
            buffer = stream.buffer(tensor.size(tensor.most))
            self._buffers[tensor.name] = buffer
            answer = self._context.set_tensor_address(tensor.name, buffer.address)
            session.check(f"place {tensor.name!r}", answer)
        zeros = {
            tensor.name: np.zeros(
                tuple(session.engine.get_tensor_profile_shape(tensor.name, PROFILE)[1]),
                tensor.dtype,
            )
            for tensor in session.inputs
        }
        self.run(zeros)
        self.run(zeros)

    def run(self, feeds: Tensors) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
        """Run on feeds that fit; the device must be active.

        Returns:
            The outputs, and the milliseconds of each stage, see `TensorRtEngine.last_timings`.

        Raises:
            EngineError: the library or the GPU failed; the lane can still be used.
        """
        start = time.perf_counter()
        try:
            self._session.forget_reasons()
            self._prepare({name: feed.shape for name, feed in feeds.items()})
            for name, feed in feeds.items():
                np.copyto(self._host(name, feed.shape, feed.dtype), feed)
            enqueue_ms = self._enqueue()
            self._stream.synchronize()
            results = {
                tensor.name: self._host(tensor.name, self._shapes[tensor.name], tensor.dtype).copy()
                for tensor in self._session.outputs
            }
            timings = {
                "h2d": self._stream.elapsed_ms(_START, _UPLOADED),
                "compute": self._stream.elapsed_ms(_UPLOADED, _COMPUTED),
                "d2h": self._stream.elapsed_ms(_COMPUTED, _DOWNLOADED),
                "enqueue": enqueue_ms,
            }
        except BaseException:
            self._recover()
            raise
        timings["host"] = 1000 * (time.perf_counter() - start)
        return results, timings

    def close(self) -> None:
        """Free the context, then the memory that it used, then the stream."""
        try:
            self._drop_graph()
        finally:
            self._context = None
            self._buffers = {}
            self._stream.close()

    def _prepare(self, shapes: Mapping[str, Shape]) -> None:
        """Set the shapes if they are new; capture the graph if they have run before."""
        if all(self._shapes.get(name) == shape for name, shape in shapes.items()):
            if self._graphs.wanted and not self._captured:
                self._capture()
            return
        self._drop_graph()
        self._shapes = {}
        outputs = self._session.outputs
        known = set_shapes(self._session, self._context, shapes, [t.name for t in outputs])
        for tensor in outputs:
            if tensor.size(known[tensor.name]) > len(self._buffers[tensor.name].host):
                raise EngineError(
                    f"output {tensor.name!r} of shape {list(known[tensor.name])} is larger than "
                    f"that of the largest inputs, {list(tensor.most)}"
                )
        self._shapes = {**shapes, **known}

    def _enqueue(self) -> float:
        """Put one run on the stream; return the milliseconds it took to enqueue the network."""
        stream, session = self._stream, self._session
        stream.mark(_START)
        for tensor in session.inputs:
            size = tensor.size(self._shapes[tensor.name])
            stream.upload(self._buffers[tensor.name], size)
        stream.mark(_UPLOADED)
        before = time.perf_counter()
        if self._captured:
            stream.launch()
        else:
            self._execute()
        after = time.perf_counter()
        stream.mark(_COMPUTED)
        for tensor in session.outputs:
            size = tensor.size(self._shapes[tensor.name])
            stream.download(self._buffers[tensor.name], size)
        stream.mark(_DOWNLOADED)
        return 1000 * (after - before)

    def _execute(self) -> None:
        self._session.check("run the model", self._context.execute_async_v3(self._stream.handle))

    def _capture(self) -> None:
        try:
            self._stream.capture(self._execute)
            self._captured = True
        except EngineError as error:
            self._graphs.give_up(str(error))

    def _drop_graph(self) -> None:
        self._captured = False
        self._stream.drop_graph()

    def _recover(self) -> None:
        """Leave nothing of a failed run on the stream, so that the next one starts afresh."""
        with contextlib.suppress(EngineError):
            self._stream.synchronize()
        with contextlib.suppress(EngineError):
            self._drop_graph()
        self._shapes = {}

    def _host(self, name: str, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the start of a buffer's host side as an array."""
        size = math.prod(shape) * dtype.itemsize
        return self._buffers[name].host[:size].view(dtype).reshape(shape)
