# SPDX-License-Identifier: Apache-2.0
"""What TensorRT says while it builds, and how it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hgdeploy.bundle.names import TensorRtRuntime
from hgdeploy.errors import one_line

Tell = Callable[[str], None]

_PROGRESS_SECONDS = 5.0
MOST_ERRORS = 3


@dataclass
class BuildLog:
    """What the library has said, and whether it is to stop."""

    stop: threading.Event
    tell: Tell
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def take(self, severity: str, message: str) -> None:
        """Keep an error or a warning."""
        kept = {"INTERNAL_ERROR": self.errors, "ERROR": self.errors, "WARNING": self.warnings}
        if severity in kept:
            kept[severity].append(message)

    def reason(self) -> str:
        """Return the errors since the start on one line."""
        if not self.errors:
            return "it does not say why"
        return one_line(RuntimeError("\n".join(dict.fromkeys(self.errors))))


def monitor_of(trt: Any, log: BuildLog, runtime: TensorRtRuntime) -> Any:
    """Return what the library tells its steps to, and asks whether to go on.

    It calls from threads of its own, and an exception would only be printed.
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
                log.tell(f"{runtime.name}: {phase}")

        def step_complete(self, phase: str, step: int) -> bool:
            nonlocal last
            if time.monotonic() - last >= _PROGRESS_SECONDS:
                last = time.monotonic()
                told = phase if phase in outermost else ": ".join([*outermost[-1:], phase])
                log.tell(f"{runtime.name}: {told}, step {step + 1} of {steps.get(phase, '?')}")
            return not log.stop.is_set()

        def phase_finish(self, phase: str) -> None:
            pass

    return Monitor()
