# SPDX-License-Identifier: Apache-2.0
"""How long each layer of an engine runs, by TensorRT's own profiler."""

from __future__ import annotations

import statistics
from typing import Any

from hgdeploy.engines.tensorrt.lane import MARKS, Lane
from hgdeploy.engines.tensorrt.session import Graphs, Session

RUNS = 100


def layer_times(session: Session, runs: int = RUNS) -> dict[str, float]:
    """Run a loaded engine on zeros of the shapes it is tuned for, and time its layers.

    The profiler's own events are between the layers, so their sum is more than a run without it
    takes.

    Args:
        session: the loaded engine.
        runs: how often to run it.

    Returns:
        The median milliseconds of each layer by its name, in the order of a run.

    Raises:
        EngineError: the library or the GPU failed.
    """
    times: dict[str, list[float]] = {}

    class Profiler(session.trt.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            session.trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.setdefault(layer_name, []).append(float(ms))

    profiler: Any = Profiler()  # named, so that it lives as long as the context that calls it
    with session.device.activate():
        lane = Lane(session, session.device.stream(MARKS), Graphs(False, "no CUDA graph"))
        try:
            lane.open()
            for _ in range(runs):
                lane.run_profiled(profiler)
        finally:
            lane.close()
    return {name: statistics.median(values) for name, values in times.items()}
