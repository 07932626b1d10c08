# SPDX-License-Identifier: Apache-2.0
"""One CUDA stream with its own execution context and buffers."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.engines.base import Tensors
from hgdeploy.engines.tensorrt.queued import QueuedRuns
from hgdeploy.engines.tensorrt.session import Graphs, Session, set_shapes, use_profile
from hgdeploy.engines.tensorrt.tensors import Plan, Shape, Shapes, Tensor
from hgdeploy.errors import EngineError, drop_locals
from hgdeploy.gpu.device import Buffer, Stream

# The marks of a run: before and after the copy in, after the network, after the copy out.
_START, _UPLOADED, _COMPUTED, _DOWNLOADED = range(4)
MARKS = 4


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
        self._plan: Plan | None = None  # that the context is set to
        self._shapes: Shapes = {}
        self._captured = False

    def open(self) -> None:
        """Make the context and the buffers, and run the shapes that the engine is tuned for.

        The first run of a profile is slow and the second is captured, so both are done here: what
        the engine's `runtime` says about graphs is then true from the start.
        """
        session, stream = self._session, self._stream
        self._context = session.context()
        for tensor in (*session.inputs, *session.outputs):
            self._buffers[tensor.name] = stream.buffer(tensor.size(tensor.most))
        for profile in reversed(range(len(session.inputs[0].ranges))):
            best = {tensor.name: tensor.ranges[profile].best for tensor in session.inputs}
            zeros = {t.name: np.zeros(best[t.name], t.dtype) for t in session.inputs}
            for _ in range(2):
                self.run(zeros, Plan(profile, best))

    def run(self, feeds: Tensors, plan: Plan) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
        """Run on feeds that fit; the device must be active.

        Args:
            feeds: the inputs by name.
            plan: how to serve them; rows that the engine wants in addition are zeros.

        Returns:
            The outputs, and the milliseconds of each stage, see `TensorRtEngine.last_timings`.

        Raises:
            EngineError: the library or the GPU failed; the lane can still be used.
        """
        start = time.perf_counter()
        try:
            self._session.forget_reasons()
            self._prepare(plan)
            for name, feed in feeds.items():
                self._fill(name, feed, plan)
            enqueue_ms = self._enqueue()
            self._stream.synchronize()
            results = {
                tensor.name: self._result(tensor, plan.padding) for tensor in self._session.outputs
            }
            timings = {
                "h2d": self._stream.elapsed_ms(_START, _UPLOADED),
                "compute": self._stream.elapsed_ms(_UPLOADED, _COMPUTED),
                "d2h": self._stream.elapsed_ms(_COMPUTED, _DOWNLOADED),
                "enqueue": enqueue_ms,
            }
        except BaseException as error:
            self._recover()
            drop_locals(error)
            raise
        timings["host"] = 1000 * (time.perf_counter() - start)
        return results, timings

    def run_queued(
        self, feeds: Tensors, plan: Plan, more: Callable[[], bool], *, graph: bool
    ) -> QueuedRuns:
        """Run one run after the other without a pause, see `TensorRtEngine.run_queued`.

        Raises:
            EngineError: as `run`.
        """
        for _ in range(2):  # the feeds stay on the GPU, and the graph is captured
            self.run(feeds, plan)
        stream, captured = self._stream, self._captured and self._graphs.wanted
        launch = stream.launch if graph and captured else self._execute
        runs = QueuedRuns()

        def put(number: int) -> None:
            stream.mark(2 * (number % 2))
            before = time.perf_counter()
            launch()
            runs.enqueue_ms.append(1000 * (time.perf_counter() - before))
            stream.mark(2 * (number % 2) + 1)

        def take(number: int) -> None:
            start, end = 2 * (number % 2), 2 * (number % 2) + 1
            stream.wait(end)
            runs.compute_ms.append(stream.elapsed_ms(start, end))

        try:
            more()  # there is always a first one
            runs.start = time.perf_counter()
            put(0)
            while more():
                put(len(runs.enqueue_ms))
                take(len(runs.compute_ms))
            take(len(runs.compute_ms))
            runs.end = time.perf_counter()
        except BaseException as error:
            self._recover()
            drop_locals(error)
            raise
        return runs

    def run_profiled(self, profiler: Any) -> None:
        """Run the shapes that the context is set to once more, and tell a profiler of each layer.

        Args:
            profiler: an `IProfiler` of the library, the same each time; it must outlive the lane.

        Raises:
            EngineError: the library or the GPU failed.
        """
        session, context = self._session, self._context
        session.forget_reasons()
        if context.profiler is None:
            context.profiler = profiler
            context.enqueue_emits_profile = False  # TensorRT-RTX may run a graph, which emits none
        self._enqueue()
        self._stream.synchronize()
        session.ask("time its layers", context.report_to_profiler)

    def close(self) -> None:
        """Free the context, then the memory that it used, then the stream."""
        try:
            self._drop_graph()
        finally:
            self._context = None
            self._buffers = {}
            self._stream.close()

    def _prepare(self, plan: Plan) -> None:
        """Set the shapes if they are new; capture the graph if they have run before."""
        if plan == self._plan:
            if self._graphs.wanted and not self._captured:
                self._capture()
            return
        self._drop_graph()
        self._plan = None
        session, outputs = self._session, self._session.outputs
        use_profile(session, self._context, plan.profile, self._stream)
        for name, buffer in self._buffers.items():
            self._place(name, buffer)
        known = set_shapes(session, self._context, plan.shapes, [t.name for t in outputs])
        for tensor in outputs:
            rows = known[tensor.name][:1]
            if plan.padding and rows not in [shape[:1] for shape in plan.shapes.values()]:
                raise EngineError(
                    f"output {tensor.name!r} of shape {list(known[tensor.name])} has no row for "
                    "each image, so a smaller batch cannot be padded; feed what the engine serves"
                )
            if tensor.size(known[tensor.name]) > len(self._buffers[tensor.name].host):
                raise EngineError(
                    f"output {tensor.name!r} of shape {list(known[tensor.name])} is larger than "
                    f"that of the largest inputs, {list(tensor.most)}"
                )
        self._plan, self._shapes = plan, {**plan.shapes, **known}

    def _place(self, name: str, buffer: Buffer) -> None:
        place = f"place {name!r}"
        self._session.ask(place, lambda: self._context.set_tensor_address(name, buffer.address))

    def _fill(self, name: str, feed: NDArray[Any], plan: Plan) -> None:
        """Put a feed into its buffer on the host, and zeros after it where the plan has padding."""
        host = self._host(name, plan.shapes[name], feed.dtype)
        if plan.padding:
            host[len(feed) :] = 0
            host = host[: len(feed)]
        np.copyto(host, feed)

    def _result(self, tensor: Tensor, padding: int) -> NDArray[Any]:
        """Return an output of the caller's own, without what the padding gave."""
        shape = self._shapes[tensor.name]
        host = self._host(tensor.name, shape, tensor.dtype)
        rows = host[: shape[0] - padding] if padding else host
        return np.array(rows)

    def _enqueue(self) -> float:
        """Put one run on the stream; return the milliseconds it took to enqueue the network."""
        stream, session = self._stream, self._session
        stream.mark(_START)
        for tensor in session.inputs:
            size = tensor.size(self._shapes[tensor.name])
            stream.upload(self._buffers[tensor.name], size)
        stream.mark(_UPLOADED)
        before = time.perf_counter()
        if self._captured and self._graphs.wanted:
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
        handle = self._stream.handle
        self._session.ask("run the model", lambda: self._context.execute_async_v3(handle))

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
        self._plan = None

    def _host(self, name: str, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the start of a buffer's host side as an array."""
        size = math.prod(shape) * dtype.itemsize
        return self._buffers[name].host[:size].view(dtype).reshape(shape)
