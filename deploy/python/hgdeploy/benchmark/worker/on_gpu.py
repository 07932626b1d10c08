# SPDX-License-Identifier: Apache-2.0
"""The scope `gpu`: what trtexec calls GPU Compute Time, with host time and copies apart.

Each run is queued while the one before it computes, so a sample holds neither Python nor the wait
for a launch; the GPU's own events give the times, and are read when their run has ended. That is
what trtexec does with --noDataTransfers (samples/common/sampleInference.cpp in NVIDIA/TensorRT).
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hgdeploy.benchmark.worker.measure import Measurement, measure
from hgdeploy.engines import Engine
from hgdeploy.engines.base import Tensors
from hgdeploy.engines.tensorrt.queued import QueuedRuns
from hgdeploy.errors import EngineError

# Host time and copies are no samples, so a part of the time is enough to know them.
_HOST_SHARE = 0.25
_NO_GRAPH = "compute without graph"


@runtime_checkable
class QueueingEngine(Protocol):
    """An engine that can queue a run while the one before it computes."""

    @property
    def captures_graphs(self) -> bool:
        """Whether runs are launched as CUDA graphs, and can also be launched without."""

    def infer(self, feeds: Tensors) -> object:
        """Run once and wait for it."""

    def last_timings(self) -> Mapping[str, float]:
        """Return the stages of the last `infer`."""

    def run_queued(self, feeds: Tensors, more: Callable[[], bool], *, graph: bool) -> QueuedRuns:
        """Run again and again, as long as there should be more."""


def check_queueing(engine: Engine) -> QueueingEngine:
    """Return the engine, if the scope `gpu` can measure it.

    Raises:
        EngineError: it cannot.
    """
    if isinstance(engine, QueueingEngine):
        return engine
    raise EngineError(
        f"the scope gpu needs the GPU's own times of each run, which {engine.runtime.engine} does "
        "not give; measure it in the scope engine, or measure tensorrt"
    )


@dataclass(frozen=True)
class OnGpu:
    """How a case is measured in the scope `gpu`.

    Attributes:
        engine: the loaded engine.
        feeds: one ready batch.
        streams: how many contexts run at once.
    """

    engine: QueueingEngine
    feeds: Tensors
    streams: int

    def measure(self, seconds: float, iterations: int) -> Measurement:
        """Measure for at least so long and so often; the samples are times of the GPU alone.

        Their stages are `enqueue` of the same runs; `compute without graph`, where the samples are
        of CUDA graphs; and of single runs from Python, which end before the next begins, `h2d`,
        `d2h` and `host`.
        """
        runs, wall = self.queued(seconds, iterations, graph=True)
        stages = {"enqueue": [ms for one in runs for ms in one.enqueue_ms]}
        if self.engine.captures_graphs:
            plain, _ = self.queued(seconds, iterations, graph=False)
            stages[_NO_GRAPH] = [ms for one in plain for ms in one.compute_ms]
        share, step = _HOST_SHARE * seconds, functools.partial(self.engine.infer, self.feeds)
        single = measure(step, share, iterations, self.engine.last_timings).timings_ms
        stages |= {name: single[name] for name in ("h2d", "d2h", "host")}
        return Measurement(
            [round(1e6 * ms) for one in runs for ms in one.compute_ms],
            {name: [round(ms, 5) for ms in times] for name, times in stages.items()},
            wall,
        )

    def queued(
        self, seconds: float, iterations: int, *, graph: bool
    ) -> tuple[list[QueuedRuns], float]:
        """Return the runs of each stream, and the seconds from the first launch to the last end.

        Args:
            seconds: how long each stream runs, at least.
            iterations: how many runs of each stream, at least.
            graph: launch CUDA graphs, where the engine has them.
        """
        together = threading.Barrier(self.streams)

        def run(_: int) -> QueuedRuns | Exception:
            more = _More(seconds, iterations, together)
            try:
                return self.engine.run_queued(self.feeds, more, graph=graph)
            except Exception as error:
                together.abort()  # so that no other stream waits for this one
                return error

        with ThreadPoolExecutor(self.streams) as pool:
            found = list(pool.map(run, range(self.streams)))
        errors = [one for one in found if isinstance(one, Exception)]
        errors.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))
        if errors:
            raise errors[0]
        runs = [one for one in found if isinstance(one, QueuedRuns)]
        return runs, max(one.end for one in runs) - min(one.start for one in runs)


class _More:
    """Whether there should be one more run; all streams start together."""

    def __init__(self, seconds: float, iterations: int, together: threading.Barrier) -> None:
        self._seconds = seconds
        self._iterations = iterations
        self._together = together
        self._asked = 0
        self._end = 0.0

    def __call__(self) -> bool:
        if self._asked == 0:
            self._together.wait()
            self._end = time.perf_counter() + self._seconds
        self._asked += 1
        return time.perf_counter() < self._end or self._asked <= self._iterations
