# SPDX-License-Identifier: Apache-2.0
"""Many threads at one kind of work, results in order, and the number of threads found by measuring.

Each thread takes a piece of work all the way, so that no stage waits for another: while one thread
is inside the engine, others read files. On a CPU that leaves no core idle without a queue between
stages to be tuned; how many threads pay depends on how long files make them wait, which only the
run itself shows. The thread whose result is the next in order hands it over itself: a thread for
that alone would be woken for each piece, and take its turn at Python's lock from the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from hgdeploy.errors import ResourceError

Work = TypeVar("Work")


Result = TypeVar("Result")


# Results that may wait for a slow one before them, for each thread: a large file among small ones
# then holds nobody up.
_WINDOW = 16


_JOIN_SECONDS = 0.2


# Where waiting cannot be interrupted (Windows), an interruption is seen after this.
_WAIT_SECONDS = 0.5


# A rate counts once it was taken over this long and this many pieces for each thread.
_SPAN_SECONDS = 1.0


_SPAN_PIECES = 8


# One more thread has to bring this much, or it goes again.
_GAIN = 1.03


# Where the process has so much of the CPUs' time, no thread waits for anything but them.
_BUSY = 0.9


class WorkerTuner:
    """Decides how many threads may work: while CPUs are idle, one more as long as each pays.

    Args:
        least: threads to begin with.
        most: threads never to exceed.
        cpus: CPUs that the process may use.
        clock: seconds, monotonic.
        cpu_clock: seconds of CPU time that the process has had, all threads together.
    """

    def __init__(
        self,
        least: int,
        most: int,
        cpus: int,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.workers = least
        self._most = most
        self._cpus = cpus
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._rate = 0.0  # of one thread less
        self._settled = least >= most
        self._start: float | None = None
        self._cpu_start = 0.0
        self._pieces = 0

    def done(self, pieces: int = 1) -> None:
        """Take note that work was finished; `workers` may change."""
        if self._settled:
            return
        now = self._clock()
        if self._start is None:  # the first result shows when all threads are under way
            self._start, self._cpu_start = now, self._cpu_clock()
            return
        self._pieces += pieces
        seconds = now - self._start
        if seconds < _SPAN_SECONDS or self._pieces < _SPAN_PIECES * self.workers:
            return
        rate = self._pieces / seconds
        if rate < self._rate * _GAIN:
            self.workers -= 1
            self._settled = True
        elif self.workers == self._most or self._busy(seconds):
            self._settled = True
        else:
            self.workers += 1
        self._rate, self._start, self._pieces = rate, None, 0

    def _busy(self, seconds: float) -> bool:
        return self._cpu_clock() - self._cpu_start >= _BUSY * seconds * self._cpus


class _Run(Generic[Work, Result]):
    """The threads, and what has to be known of all pieces; every field is guarded by `_room`."""

    def __init__(
        self,
        work: Callable[[Work], Result],
        pieces: Iterable[Work],
        deliver: Callable[[Result], None],
        tuner: WorkerTuner,
    ) -> None:
        self._work = work
        self._deliver = deliver
        self._tuner = tuner
        self._pieces = enumerate(pieces)
        self._room = threading.Condition(threading.Lock())  # is there for another piece
        self._taken = 0
        self._results: dict[int, Result] = {}  # those that wait for one before them
        self._errors: dict[int, BaseException] = {}  # likewise
        self._next = 0  # the piece whose result is handed over next
        self._delivering = False  # a thread is at it
        self._threads: list[threading.Thread] = []
        self._ended = False  # no piece is taken any more
        self._stopped = False  # and no result handed over
        self._finished = threading.Event()  # no thread is left, or an error came in its turn

    def finish(self) -> None:
        """Do all the work; raise the first error."""
        try:
            with self._room:
                self._add_threads()
            while not self._finished.wait(_WAIT_SECONDS):
                pass
        finally:
            self._stop()
        if self._next in self._errors:
            raise self._errors[self._next]

    def _add_threads(self) -> None:
        while len(self._threads) < self._tuner.workers and not self._ended:
            # Daemons: one that hangs in a file system must not keep the process from ending.
            thread = threading.Thread(target=self._run, name="hgdeploy worker", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                raise ResourceError(
                    f"the system gives this process no more than {len(self._threads)} threads for "
                    "its work; use fewer --workers, or raise the limit (ulimit -u, pids.max)"
                ) from None
            self._threads.append(thread)

    def _stop(self) -> None:
        """Let what has begun go on for a moment, and nothing new begin."""
        with self._room:
            self._ended = self._stopped = True
            self._room.notify_all()
            threads = list(self._threads)
        end = time.monotonic() + _JOIN_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        while (piece := self._take()) is not None:
            number, work = piece
            try:
                result = self._work(work)
            except BaseException as error:  # raised where all the work is waited for
                with self._room:
                    self._errors[number] = error
            else:
                with self._room:
                    self._results[number] = result
            self._hand_over()

    def _take(self) -> tuple[int, Work] | None:
        """Take the next piece when there is room for it; None where this thread is to end."""
        with self._room:
            self._room.wait_for(self._may_take)
            if not self._ended and len(self._threads) <= self._tuner.workers:
                try:
                    for piece in self._pieces:
                        self._taken += 1
                        return piece
                except BaseException as error:
                    self._errors[self._taken] = error
                self._ended = True
            self._threads.remove(threading.current_thread())
            self._room.notify_all()
            if not self._threads:
                self._finished.set()
            return None

    def _may_take(self) -> bool:
        room = self._taken - self._next < _WINDOW * self._tuner.workers
        return room or self._ended or len(self._threads) > self._tuner.workers

    def _hand_over(self) -> None:
        """Hand over the results whose turn it is, unless another thread is at it."""
        with self._room:
            if self._delivering:
                return
            self._delivering = True
        while True:
            with self._room:
                failed = self._next in self._errors
                if self._stopped or failed or self._next not in self._results:
                    self._delivering = False
                    if failed:
                        self._ended = True
                        self._finished.set()
                    return
                result = self._results.pop(self._next)
            try:
                self._deliver(result)
                with self._room:
                    self._next += 1
                    self._tuner.done()
                    self._add_threads()
                    self._room.notify_all()
            except BaseException as error:  # raised where all the work is waited for
                with self._room:
                    self._errors[self._next] = error


def in_order(
    work: Callable[[Work], Result],
    pieces: Iterable[Work],
    deliver: Callable[[Result], None],
    tuner: WorkerTuner,
) -> None:
    """Do `work` on each piece, on several threads, and hand over the results in order.

    Memory holds a bounded number of pieces and results. When it is left by an exception, work that
    has not begun is dropped, and nothing is handed over any more.

    Args:
        work: called from many threads at once; what it raises is raised here, in its turn.
        pieces: taken only as fast as they are worked on, from one thread at a time.
        deliver: called with one result at a time, in order, from any of the threads: a signal's
            exception, which comes in the main thread, never breaks it off. What it raises is raised
            here.
        tuner: how many threads; it learns of each result.
    """
    _Run(work, pieces, deliver, tuner).finish()
