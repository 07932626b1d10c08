# SPDX-License-Identifier: Apache-2.0
"""TensorRT and TensorRT-RTX engine files on an NVIDIA GPU.

An engine file is built for one library version and one kind of GPU. `hgdeploy build` writes both
into its sidecar, and a file that does not fit is refused before the library loads it. A file
without a sidecar, such as trtexec makes, is accepted if the library accepts it, and assumed to have
the precision in its name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hgdeploy.bundle.names import RUNTIMES, TensorRtRuntime, engine_name, runtime_named
from hgdeploy.engines.base import (
    CheckedEngine,
    Engine,
    RuntimeInfo,
    Tensors,
    device_index,
)
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.slots import Slots
from hgdeploy.engines.tensorrt.engine_file import (
    check_batch,
    check_key,
    read_key,
    runtime_from_name,
    tuned_elsewhere,
    warnings_of,
)
from hgdeploy.engines.tensorrt.lane import MARKS, Lane
from hgdeploy.engines.tensorrt.options import TensorRtOptions
from hgdeploy.engines.tensorrt.queued import QueuedRuns
from hgdeploy.engines.tensorrt.runtime_cache import RuntimeCache, cache_path
from hgdeploy.engines.tensorrt.session import Graphs, Session
from hgdeploy.engines.tensorrt.tensors import plan_run
from hgdeploy.errors import BundleError, EngineError, drop_locals
from hgdeploy.gpu.device import open_device
from hgdeploy.system.libraries import import_library

# One copies and prepares while the other computes; each has its own buffers on the GPU.
_LEAST_LANES = 2
# At the end of a process, runs that go on are waited for: for two lanes at most twice as long.
_LONGEST_RUN_S = 5.0


class TensorRtEngine(CheckedEngine):
    """An engine file with a lane for each concurrent caller.

    Args:
        session: the loaded file; closed with the engine.
        lanes: open lanes; closed with the engine.
        graphs: whether the lanes launch CUDA graphs.
        runtime: what runs.
    """

    def __init__(
        self, session: Session, lanes: list[Lane], graphs: Graphs, runtime: RuntimeInfo
    ) -> None:
        specs = [tuple(t.spec for t in tensors) for tensors in (session.inputs, session.outputs)]
        super().__init__(specs[0], specs[1], runtime, len(lanes))
        self._session = session
        self._lanes = lanes
        self._graphs = graphs
        # The lane that was used last is used next: one caller stays on one, as in trtexec, whose
        # graph and caches are then those of its own last run.
        self._idle: queue.LifoQueue[Lane] = queue.LifoQueue()
        for lane in lanes:
            self._idle.put(lane)
        self._timings: Mapping[str, float] = {}
        # Where nobody closes the engine: when it is dropped, or when the process ends.
        given = (session, lanes, self._slots, os.getpid())
        self._unclosed = weakref.finalize(self, _close_when_idle, *given)

    def last_timings(self) -> Mapping[str, float]:
        """Return the stages, in milliseconds, of the run that ended last in any thread.

        Returns:
            `h2d`, `compute` and `d2h`, by events on the GPU: together trtexec's Latency. `enqueue`,
            the host's time to launch the network. `host`, from checked feeds to the caller's own
            results. Empty before the first run.
        """
        return self._timings

    @property
    def captures_graphs(self) -> bool:
        """Whether runs are launched as CUDA graphs, and can also be launched without."""
        return self._graphs.wanted

    def run_queued(self, feeds: Tensors, more: Callable[[], bool], *, graph: bool) -> QueuedRuns:
        """Run again and again, with the next run queued while one computes, as trtexec does.

        Nothing is copied meanwhile: the feeds stay on the GPU, and so do the outputs.

        Args:
            feeds: as for `infer`.
            more: asked before each run; what it answers the first time does not matter.
            graph: launch the CUDA graph, where `captures_graphs`.

        Raises:
            TensorError, EngineError: as `infer`.
        """
        self.infer(feeds)  # which checks them
        plan = plan_run(self._session.inputs, {name: feed.shape for name, feed in feeds.items()})
        with self._slots, self._session.device.activate():
            lane = self._idle.get_nowait()
            try:
                runs = lane.run_queued(feeds, plan, more, graph=graph)
            finally:
                self._idle.put(lane)
        self._update_runtime()
        return runs

    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        plan = plan_run(self._session.inputs, {name: feed.shape for name, feed in feeds.items()})
        lane = self._idle.get_nowait()  # there is one for each caller that has a slot
        try:
            with self._session.device.activate():
                results, self._timings = lane.run(feeds, plan)
        finally:
            self._idle.put(lane)
        self._update_runtime()
        return results

    def _update_runtime(self) -> None:
        """Keep `runtime` true when a later shape could not be captured."""
        library, note, *more = self.runtime.providers
        if note != self._graphs.note:
            now = (library, self._graphs.note, *more)
            self.runtime = dataclasses.replace(self.runtime, providers=now)

    def _free(self) -> None:
        self._unclosed.detach()
        lanes, self._lanes = self._lanes, []
        self._idle = queue.LifoQueue()
        _close(self._session, lanes)


def artifact_names(precision: str) -> tuple[str, ...]:
    """Return the names of the bundle files this engine can read for `precision`, best first."""
    return tuple(engine_name(precision, runtime) for runtime in RUNTIMES)


def load(source: Path, options: EngineOptions) -> Engine:
    """Load an engine file, and run it once so that the first real run is as fast as the next.

    Args:
        source: the engine file; its sidecar, if it has one, says what it was built for.
        options: `device` is `gpu:N`, and the precision is that of the file.

    Raises:
        EngineError: the GPU, its driver or a library is missing, or an option does not apply to an
            engine file.
        BundleError: the file is missing, was built for something else, or cannot be loaded.
    """
    device_index(options.device)
    _check_file(source)
    index = _gpu(options)
    key = read_key(source)
    kind = runtime_from_name(source) if key is None else runtime_named(key.runtime)
    device = open_device(index)
    trt = import_library(kind.module, kind.extra)
    if key is not None:
        check_key(key, source, trt, device, options)
    cache = cache_path(options.cache_dir, source, device, str(trt.__version__))
    session = Session(trt, device, options.own_of(TensorRtOptions), RuntimeCache(cache))
    return _opened(session, source, kind, options, tuned_elsewhere(key, device))


def intermediates(
    source: Path,
    options: EngineOptions,  # noqa: ARG001  # every engine module has the same functions
    row: NDArray[Any],  # noqa: ARG001
) -> dict[str, NDArray[Any]]:
    """Refuse: the tensors inside an engine file cannot be returned.

    Raises:
        EngineError: always.
    """
    raise EngineError(
        f"{source} is machine code whose layers are fused, so the tensors inside it cannot be "
        "shown; compare its outputs with hgdeploy validate, and look into the ONNX file that it "
        "was built from with the onnxruntime engine"
    )


def _check_file(source: Path) -> None:
    if not source.is_file():
        raise BundleError(f"{source} does not exist; build it with hgdeploy build")
    if source.stat().st_size == 0:
        raise BundleError(f"{source} is empty; build it again with hgdeploy build")


def _gpu(options: EngineOptions) -> int:
    """Return the number of the GPU; refuse options that do not apply to an engine file.

    Raises:
        EngineError: an option does not apply; the message says what to do instead.
    """
    index = device_index(options.device)
    if index is None:
        raise EngineError(
            "TensorRT runs on an NVIDIA GPU, but the cpu was asked for; ask for gpu:0 "
            "(--device gpu:0, or -o Global.use_gpu=True), or use another engine"
        )
    if not options.graph_optimization:
        raise EngineError(
            "TensorRT cannot run without graph optimisation, which is part of building an engine; "
            "drop Global.ir_optim=False, or use another engine"
        )
    if options.profile:
        raise EngineError(
            "TensorRT has no operator profile here; drop Global.enable_profile, and use "
            "hgdeploy benchmark to see where the time goes"
        )
    return index


def _opened(
    session: Session,
    source: Path,
    kind: TensorRtRuntime,
    options: EngineOptions,
    elsewhere: str | None,
) -> TensorRtEngine:
    """Load the file and open its lanes; if anything fails, everything is freed."""
    lanes: list[Lane] = []
    try:
        with session.device.activate():
            session.load(source)
            check_batch(session, source, options)
            graphs = session.graphs()
            for _ in range(max(_LEAST_LANES, options.streams)):
                lanes.append(Lane(session, session.device.stream(MARKS), graphs))
                lanes[-1].open()
            session.cache.save()
        library = "TensorRT" if kind is RUNTIMES[0] else "TensorRT-RTX"
        runtime = RuntimeInfo(
            engine="tensorrt",
            library=kind.name,
            version=str(session.trt.__version__),
            device=options.device,
            providers=(library, graphs.note, *([elsewhere] if elsewhere else [])),
            precision=options.precision,
            threads=None,
        )
        engine = TensorRtEngine(session, lanes, graphs, runtime)
    except BaseException as error:
        drop_locals(error)  # the library's objects must go before the device is left
        with contextlib.suppress(EngineError):  # the first failure is the one to report
            _close(session, lanes)
        raise
    engine.warnings = tuple(warnings_of(session, source, options, elsewhere))
    return engine


def _close(session: Session, lanes: list[Lane]) -> None:
    """Close the lanes, then the session; a failure does not keep the rest from being freed."""
    with contextlib.ExitStack() as closing:
        closing.callback(session.close)
        closing.enter_context(session.device.activate())
        for lane in lanes:
            closing.callback(lane.close)


def _close_when_idle(session: Session, lanes: list[Lane], slots: Slots, opened_by: int) -> None:
    """Free an engine that nobody has closed, unless a run does not end or this is a fork.

    Who calls it from then on waits for a slot that never comes: that is at the end of a process,
    when a thread that came back from the library would have no Python to come back to.
    """
    if os.getpid() != opened_by:
        return
    if slots.take_all(_LONGEST_RUN_S):
        with contextlib.suppress(EngineError):
            _close(session, lanes)
