# SPDX-License-Identifier: Apache-2.0
"""How many callers may be in an engine at once, and how all of them are waited for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Slots:
    """Places for so many callers at once; who wants all of them lets nobody else in meanwhile.

    Taken one by one, the last place would go again and again to a caller who comes back at once.

    Args:
        count: how many callers may be in at once.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = threading.BoundedSemaphore(count)
        self._entrance = threading.Lock()

    def __enter__(self) -> None:
        with self._entrance:
            self._free.acquire()

    def __exit__(self, *_: object) -> None:
        self._free.release()

    @contextlib.contextmanager
    def all(self) -> Iterator[None]:
        """Wait until everybody has left, and keep all others out for the `with` block."""
        self.take_all()
        try:
            yield
        finally:
            for _ in range(self._count):
                self._free.release()
            self._entrance.release()

    def take_all(self, seconds: float = -1) -> bool:
        """Keep all others out for good, once everybody has left.

        Args:
            seconds: how long each caller may take to leave, at most; -1 for any time.

        Returns:
            Whether everybody has left in time; if not, nobody is kept out.
        """
        if not self._entrance.acquire(timeout=seconds):
            return False
        limit = None if seconds < 0 else seconds
        taken = sum(self._free.acquire(timeout=limit) for _ in range(self._count))
        if taken < self._count:
            if taken:
                self._free.release(taken)
            self._entrance.release()
        return taken == self._count
