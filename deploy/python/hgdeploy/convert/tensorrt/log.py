# SPDX-License-Identifier: Apache-2.0
"""TensorRT's log and progress while it builds, and how to stop it."""

from __future__ import annotations

import threading
import time
from typing import Any

from hgdeploy.bundle.names import TensorRtRuntime
from hgdeploy.convert.tensorrt.layers import LOGGED
from hgdeploy.engines.tensorrt.logger import Messages
from hgdeploy.system.progress import OnLine

_PROGRESS_SECONDS = 5.0


class BuildLog(Messages):
    """What the library says during a build, and whether it should stop.

    Args:
        stop: set by another thread to end the build.
        on_progress: called with one line at a time.

    Attributes:
        layers: what TensorRT-RTX lists at the end of a build, for the first GPU that it is for.
    """

    def __init__(self, stop: threading.Event, on_progress: OnLine) -> None:
        super().__init__()
        self.stop = stop
        self.on_progress = on_progress
        self.layers = ""

    def take(self, severity: str, message: str) -> None:
        """Keep errors, warnings, and the first list of the engine's layers."""
        if severity == "VERBOSE" and message.startswith(LOGGED):
            self.layers = self.layers or message
        super().take(severity, message)


def progress_monitor(trt: Any, log: BuildLog, runtime: TensorRtRuntime) -> Any:
    """Return a monitor for the library to report its steps to, and to ask whether to go on.

    The library calls it from threads of its own, and would only print an exception.
    """
    steps: dict[str, int] = {}
    outermost: list[str] = []
    last = time.monotonic()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, count: int) -> None:
            steps[phase] = count
            if parent is None:
                outermost.append(phase)
                log.on_progress(f"{runtime.name}: {phase}")

        def step_complete(self, phase: str, step: int) -> bool:
            nonlocal last
            if time.monotonic() - last >= _PROGRESS_SECONDS:
                last = time.monotonic()
                path = phase if phase in outermost else ": ".join([*outermost[-1:], phase])
                count = steps.get(phase, "?")
                log.on_progress(f"{runtime.name}: {path}, step {step + 1} of {count}")
            return not log.stop.is_set()

        def phase_finish(self, phase: str) -> None:
            pass

    return Monitor()
