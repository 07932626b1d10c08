# SPDX-License-Identifier: Apache-2.0
"""A bounded queue of images in front of one model, and the threads that work it off in batches.

As in the folder pipeline, a thread takes a batch all the way: it reads its images, runs the engine
and makes the answers, so that others read while one is inside the engine.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from hgdeploy.classify.batch import Answer, Image
from hgdeploy.serving.server.refusals import RefusedError, Why
from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import BATCH_SIZE, MANY, THREADS, number, whole

LONGEST_DELAY_MS = 60_000


@dataclass(frozen=True)
class QueueOptions:
    """How images wait and are worked off.

    Attributes:
        workers: threads that read, infer and make answers.
        max_batch: the most images of one inference.
        max_delay_ms: how long an image may wait for others to share its inference.
        max_queue: the most images that may wait.
    """

    workers: int = 1
    max_batch: int = 1
    max_delay_ms: float = 0.0
    max_queue: int = 128

    def __post_init__(self) -> None:
        check_fields(
            self,
            workers=THREADS,
            max_batch=BATCH_SIZE,
            max_delay_ms=number(0, LONGEST_DELAY_MS),
            max_queue=whole(1, MANY),
        )


@dataclass
class QueueTimes:
    """What a queue has done so far.

    Attributes:
        images: that were worked off.
        runs: batches that they were in.
        waited: seconds that they waited, summed over all images.
    """

    images: int = 0
    runs: int = 0
    waited: float = 0.0


class _Waiting:
    """An image that waits for its answer; `due` is when nobody wants it any more."""

    __slots__ = ("arrived", "due", "future", "image")

    def __init__(self, image: Image, due: float | None) -> None:
        self.image = image
        self.due = due
        self.arrived = time.monotonic()
        self.future: Future[Answer] = Future()

    def is_over(self, now: float) -> bool:
        """Return whether nobody waits for it; its future then has ended."""
        if self.due is not None and now >= self.due and not self.future.done():
            late = RefusedError(
                Why.LATE, "the request's timeout has passed before it was worked off"
            )
            if self.future.set_running_or_notify_cancel():
                self.future.set_exception(late)
        return self.future.done()


class Scheduler:
    """Works images off in the order of their arrival; safe to call from many threads at once.

    Args:
        work: makes the answers of at most `max_batch` images, in order; many threads call it.
        options: how.
    """

    def __init__(
        self, work: Callable[[Sequence[Image]], Sequence[Answer]], options: QueueOptions
    ) -> None:
        self.options = options
        self.times = QueueTimes()
        self._work = work
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._threads = [
            threading.Thread(target=self._run, name=f"serve-{i}", daemon=True)
            for i in range(options.workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many images wait."""
        return len(self._queue)

    def check_count(self, count: int) -> None:
        """Refuse a request with more images than may ever wait.

        Raises:
            RefusedError: it has.
        """
        if count > (most := self.options.max_queue):
            text = f"the request has {count} images, and at most {most} may wait"
            raise RefusedError(Why.TOO_LARGE, text)

    def submit(self, images: Sequence[Image], due: float | None = None) -> list[Future[Answer]]:
        """Let images wait for their turn: all of them or none.

        A future that is cancelled before its turn costs no work. One that ends with an exception
        has a `RefusedError`, or the engine's own error.

        Args:
            images: those of one request.
            due: when nobody wants the answers any more, as `time.monotonic` gives it.

        Returns:
            One future per image, in order.

        Raises:
            RefusedError: there is no room for them, or the server ends.
        """
        self.check_count(len(images))
        most = self.options.max_queue
        added = [_Waiting(image, due) for image in images]
        with self._changed:
            if self._closing:
                raise RefusedError(Why.CLOSING, "the server ends and takes no more requests")
            if len(self._queue) + len(added) > most:
                self._drop_over()
            if len(self._queue) + len(added) > most:
                text = f"{len(self._queue)} images wait already, at most {most} may; try again"
                raise RefusedError(Why.BUSY, text)
            self._queue.extend(added)
            self._changed.notify(len(added))
        return [one.future for one in added]

    def close(self, seconds: float) -> bool:
        """Take no more images, and wait for those that are there.

        Args:
            seconds: how long to wait at most; what is not begun by then is refused.

        Returns:
            Whether all threads have ended.
        """
        until = time.monotonic() + seconds
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            left, self._queue = self._queue, deque()
        for one in left:
            if one.future.set_running_or_notify_cancel():
                one.future.set_exception(RefusedError(Why.CLOSING, "the server has ended"))
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while batch := self._take():
            self._answer(batch)
            del batch  # nobody needs its images while this thread waits

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        try:
            answers = self._work([one.image for one in batch])
        except Exception as error:  # it is told to those who wait; this thread goes on
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for one in batch:  # the others' requests are not to fail with one, as for its memory
                self._answer([one])
        else:
            for one, answer in zip(batch, answers, strict=True):
                one.future.set_result(answer)

    def _take(self) -> list[_Waiting]:
        """Return the next images, at most a batch; none where the server ends."""
        with self._changed:
            while True:
                while not self._queue:
                    if self._closing:
                        return []
                    self._changed.wait()
                self._wait_for_others()
                batch = self._next_batch()
                if self._queue:
                    self._changed.notify()
                if batch:
                    return batch

    def _wait_for_others(self) -> None:
        """Wait until a batch is full, or its first image has waited long enough."""
        delay = self.options.max_delay_ms / 1000
        while self._queue and len(self._queue) < self.options.max_batch and not self._closing:
            left = self._queue[0].arrived + delay - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _next_batch(self) -> list[_Waiting]:
        now = time.monotonic()
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self.options.max_batch:
            one = self._queue.popleft()
            if not one.is_over(now) and one.future.set_running_or_notify_cancel():
                batch.append(one)
                self.times.waited += now - one.arrived
        self.times.images += len(batch)
        self.times.runs += bool(batch)
        return batch

    def _drop_over(self) -> None:
        now = time.monotonic()
        self._queue = deque(one for one in self._queue if not one.is_over(now))
