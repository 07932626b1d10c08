# SPDX-License-Identifier: Apache-2.0
"""Counts the requests of each model."""

from __future__ import annotations

import threading
import time


class Counts:
    """Requests by model and version; safe to call from many threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], tuple[int, int, float]] = {}

    def add(self, name: str, version: str, seconds: float, *, failed: bool) -> None:
        """Count one request."""
        with self._lock:
            good, bad, total = self.of(name, version)
            self._counts[name, version] = (good + (not failed), bad + failed, total + seconds)

    def of(self, name: str, version: str) -> tuple[int, int, float]:
        """Return a model's requests: answered, failed, and the seconds of all."""
        return self._counts.get((name, version), (0, 0, 0.0))


class Counting:
    """Counts a request of a model when the `with` block ends, however it ends.

    Args:
        counts: where.
        name: the model's name.
        version: its version.

    Attributes:
        failed: whether it failed, which it has until somebody says otherwise.
    """

    def __init__(self, counts: Counts, name: str, version: str) -> None:
        self._counts, self._name, self._version = counts, name, version
        self._start = time.perf_counter()
        self.failed = True

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.perf_counter() - self._start

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_: object) -> None:
        self._counts.add(self._name, self._version, self.seconds, failed=self.failed)
