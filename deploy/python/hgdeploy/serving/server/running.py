# SPDX-License-Identifier: Apache-2.0
"""Runs a server: it listens, loads its models, serves until a signal, and drains."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from hgdeploy.serving.server.models import Load, Models


class Listener(Protocol):
    """What answers requests, in threads of its own."""

    def start(self) -> None:
        """Answer requests; as long as the models are not ready, that they are not."""

    def ready(self) -> None:
        """Say from now on that the models are ready."""

    def check(self) -> None:
        """Raise what has ended it, if anything has."""

    def stop(self, seconds: float) -> Callable[[], bool]:
        """Take no more requests, and give those that have begun so many seconds.

        Returns:
            A function that waits for them, and returns whether all were answered.
        """


def run_server(
    models: Models,
    loads: Sequence[Load],
    listeners: Sequence[Listener],
    drain: float,
    on_ready: Callable[[], None],
) -> bool:
    """Serve until SIGTERM or Ctrl-C.

    It listens at once, so that others can see that it lives. A second signal does what it did
    before.

    Args:
        models: what is served.
        loads: loads each of them; in this thread, since some libraries take signals for themselves
            as they load, which only the main thread can give back.
        listeners: what answers requests.
        drain: seconds that requests which have begun may take once it ends.
        on_ready: called when all models have answered once.

    Returns:
        Whether all requests that had begun were answered.

    Raises:
        HGDeployError: a model cannot be loaded.
    """
    seconds = 0.0
    try:
        for one in listeners:
            one.start()
        models.load(loads)
        for one in listeners:
            one.ready()
        on_ready()
        _wait_for_signal(listeners)
        seconds = drain
    finally:
        until = time.monotonic() + seconds
        waits = [one.stop(seconds) for one in listeners]
        ended = [wait() for wait in waits]
        ended.append(models.close(max(0.0, until - time.monotonic())))
    return all(ended)


def _wait_for_signal(listeners: Sequence[Listener]) -> None:
    ending = threading.Event()
    with _taken_signals(ending.set):
        while not ending.wait(1.0):
            for one in listeners:
                one.check()


@contextlib.contextmanager
def _taken_signals(on_signal: Callable[[], None]) -> Iterator[None]:
    """Call a function where SIGTERM or Ctrl-C comes while the `with` block runs."""
    taken = (signal.SIGTERM, signal.SIGINT)
    before = {one: signal.signal(one, lambda *_: on_signal()) for one in taken}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
