# SPDX-License-Identifier: Apache-2.0
"""Ends calls whose client keeps the server waiting."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

_TICK_SECONDS = 0.5


class Watch:
    """Cancels calls that wait for their client for too long, in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: dict[object, tuple[float, Any]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="grpc-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End it; calls may then wait."""
        self._ended.set()

    @contextlib.contextmanager
    def limited(self, context: Any, seconds: float) -> Iterator[None]:
        """Cancel a call where the `with` block takes longer than so many seconds."""
        mine = object()
        with self._lock:
            self._due[mine] = (time.monotonic() + seconds, context)
        try:
            yield
        finally:
            with self._lock:
                del self._due[mine]

    def _run(self) -> None:
        while not self._ended.wait(_TICK_SECONDS):
            now = time.monotonic()
            with self._lock:
                late = [context for due, context in self._due.values() if now >= due]
            for context in late:
                context.cancel()
