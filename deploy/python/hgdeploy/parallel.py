# SPDX-License-Identifier: Apache-2.0
"""Many threads at one kind of work, results in order, and the number of threads found by measuring.

Each thread takes a piece of work all the way, so that no stage waits for another: while one thread
is inside the engine, others read files. On a CPU that leaves no core idle without a queue between
stages to be tuned; how many threads pay depends on how long files make them wait, which only the
run itself shows.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import Generic, TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")

# Results that may wait for a slow one before them, for each thread: a large file among small ones
# then holds nobody up.
_WINDOW = 16
_JOIN_SECONDS = 0.2
# A rate counts once it was taken over this long and this many pieces for each thread.
_SPAN_SECONDS = 1.0
_SPAN_PIECES = 8
# One more thread has to bring this much, or it goes again.
_GAIN = 1.03


class WorkerTuner:
    """Decides how many threads may work: one more as long as each brings a gain.

    Args:
        least: threads to begin with.
        most: threads never to exceed.
        clock: seconds, monotonic.
    """

    def __init__(
        self, least: int, most: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.workers = least
        self._most = most
        self._clock = clock
        self._rate = 0.0  # of one thread less
        self._settled = least >= most
        self._start: float | None = None
        self._pieces = 0

    def done(self, pieces: int = 1) -> None:
        """Take note that work was finished; `workers` may change."""
        if self._settled:
            return
        now = self._clock()
        if self._start is None:  # the first result tells when all threads are under way
            self._start = now
            return
        self._pieces += pieces
        seconds = now - self._start
        if seconds < _SPAN_SECONDS or self._pieces < _SPAN_PIECES * self.workers:
            return
        rate = self._pieces / seconds
        if rate < self._rate * _GAIN:
            self.workers -= 1
            self._settled = True
        elif self.workers == self._most:
            self._settled = True
        else:
            self.workers += 1
        self._rate, self._start, self._pieces = rate, None, 0


class _Threads(Generic[Work, Result]):
    """Daemon threads: one that hangs in a file system must not keep the process from ending."""

    def __init__(self, work: Callable[[Work], Result]) -> None:
        self._work = work
        self._tasks: queue.SimpleQueue[tuple[Future[Result], Work] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stopping = False

    def resize(self, count: int) -> None:
        """Have `count` threads, from when they are free."""
        while len(self._threads) < count:
            thread = threading.Thread(target=self._run, name="hgdeploy worker", daemon=True)
            self._threads.append(thread)
            thread.start()
        while len(self._threads) > count:
            self._threads.pop()
            self._tasks.put(None)

    def submit(self, work: Work) -> Future[Result]:
        """Put work in line."""
        future: Future[Result] = Future()
        self._tasks.put((future, work))
        return future

    def stop(self) -> None:
        """Let what has begun go on for a moment, and nothing new begin."""
        self._stopping = True
        threads = list(self._threads)
        self.resize(0)
        end = time.monotonic() + _JOIN_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            if self._stopping:
                continue
            future, work = task
            try:
                future.set_result(self._work(work))
            except BaseException as error:  # it is raised where the result is waited for
                future.set_exception(error)


def ordered_map(
    work: Callable[[Work], Result], pieces: Iterable[Work], tuner: WorkerTuner
) -> Generator[Result, None, None]:
    """Do `work` on each piece, on several threads, and yield the results in order.

    Memory holds a bounded number of pieces and results. When the iterator is closed or left by an
    exception, work that has not begun is dropped.

    Args:
        work: called from many threads at once; what it raises is raised here, in its turn.
        pieces: taken only as fast as they are worked on.
        tuner: how many threads; it is told of each result.
    """
    threads: _Threads[Work, Result] = _Threads(work)
    waiting: deque[Future[Result]] = deque()
    remaining = iter(pieces)
    try:
        while True:
            threads.resize(tuner.workers)
            for piece in remaining:
                waiting.append(threads.submit(piece))
                if len(waiting) >= _WINDOW * tuner.workers:
                    break
            if not waiting:
                return
            result = waiting.popleft().result()
            tuner.done()
            yield result
    finally:
        threads.stop()
