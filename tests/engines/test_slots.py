# SPDX-License-Identifier: Apache-2.0
"""Callers take turns, and who wants to have all places is not left waiting."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from hgdeploy.engines.slots import Slots


@contextlib.contextmanager
def busy(slots: Slots) -> Iterator[list[None]]:
    """Callers that come back at once, each time; and one entry for each time that one was in."""
    entered: list[None] = []
    started, stop = threading.Event(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            with slots:
                entered.append(None)
                started.set()
                stop.wait(0.001)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    started.wait()
    yield entered
    stop.set()
    for thread in threads:
        thread.join()


def test_callers_who_come_back_at_once_do_not_keep_others_waiting():
    slots = Slots(2)
    with busy(slots) as entered:
        before = len(entered)
        with slots.all():
            within = len(entered)
            # Those who were in, those who stood before the door, and hardly any of those behind.
            assert within - before < 50
            threading.Event().wait(0.05)
            assert len(entered) == within, "nobody comes in meanwhile"
        while len(entered) == within:  # all come back
            threading.Event().wait(0.001)


def test_a_caller_who_does_not_leave_is_given_up_and_nobody_is_kept_out():
    slots = Slots(2)
    with slots:
        assert not slots.take_all(0.01)
        with slots:
            pass
    assert slots.take_all(0.01)
    assert not slots.take_all(0.01), "all are kept out for good"
