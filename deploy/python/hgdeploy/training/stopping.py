# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM in a training: noted, so that it ends between two updates."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn


class Stop:
    """Remembers that a signal asked to stop; a second one is not waited for.

    Attributes:
        asked: whether one came.
    """

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, Any] = {}
        self._number: int = signal.SIGINT

    def take(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; a second one does what it would have done."""
        if self.asked:
            self._pass(number, frame)
        self.asked, self._number = True, number

    def again(self) -> NoReturn:
        """Do what the signal would have done.

        Raises:
            KeyboardInterrupt: as Ctrl-C does.
        """
        self._pass(self._number, None)

    def _pass(self, number: int, frame: FrameType | None) -> NoReturn:
        handler = self.before.get(number)
        if callable(handler):
            handler(number, frame)
        raise KeyboardInterrupt


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """Yield what notes Ctrl-C and SIGTERM, unless this process ignores them."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    for one in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(one) not in (signal.SIG_IGN, None):
            stop.before[one] = signal.signal(one, stop.take)
    try:
        yield stop
    finally:
        for number, handler in stop.before.items():
            signal.signal(number, handler)
