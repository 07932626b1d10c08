# SPDX-License-Identifier: Apache-2.0
"""Counts the requests of a model."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Requests:
    """Requests of one kind.

    Attributes:
        count: how many.
        seconds: how long they took together.
    """

    count: int = 0
    seconds: float = 0.0


class Counts:
    """The requests of a model since it was loaded; safe to call from many threads at once.

    Attributes:
        answered: those that have their answer.
        failed: those that have a reason instead.
        last: when the last one ended, in seconds as `time.time` gives them; 0 before the first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.answered = self.failed = Requests()
        self.last = 0.0

    def add(self, seconds: float, *, failed: bool) -> None:
        """Count one request."""
        kind = "failed" if failed else "answered"
        with self._lock:
            before: Requests = getattr(self, kind)
            setattr(self, kind, Requests(before.count + 1, before.seconds + seconds))
            self.last = time.time()


class Counting:
    """Counts a request of a model when the `with` block ends, however it ends.

    Args:
        counts: where.

    Attributes:
        failed: whether it failed, which it has until somebody says otherwise.
    """

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._start = time.perf_counter()
        self.failed = True

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.perf_counter() - self._start

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_: object) -> None:
        self._counts.add(self.seconds, failed=self.failed)
