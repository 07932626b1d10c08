# SPDX-License-Identifier: Apache-2.0
"""Inference over gRPC: a request that has begun waits for its answer, alone or in a stream."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from hgdeploy.classify.batch import Answer
from hgdeploy.serving.server.answers import answer_document
from hgdeploy.serving.server.counts import Counting
from hgdeploy.serving.server.grpc.messages import document_of, response_of
from hgdeploy.serving.server.models import Models
from hgdeploy.serving.server.protocol import infer_of
from hgdeploy.serving.server.refusals import RefusedError, Why
from hgdeploy.system.kinds import WEEK_SECONDS

# Messages that may be held at once, in the largest size; more would wait in vain for the CPUs.
_MOST_HELD = 16


class Begun:
    """A request whose images wait; it is over when `answer` or `drop` has been called.

    Args:
        models: what is served.
        messages: those that are held.
        request: the message.
        seconds: until nobody wants the answer; None for no limit.

    Attributes:
        name: what its sender calls it.

    Raises:
        RefusedError: it is wrong, or there is no room for it.
    """

    def __init__(
        self, models: Models, messages: Messages, request: Any, seconds: float | None
    ) -> None:
        with contextlib.ExitStack() as stack:
            found = models.using(request.model_name, request.model_version or None)
            self._version, self._model = stack.enter_context(found)
            self._counting = stack.enter_context(Counting(self._model.counts))
            stack.enter_context(messages.holding(request))
            self.name = request.id
            asked = infer_of(self._model, *document_of(request))
            outputs = [dataclasses.replace(one, binary=True) for one in asked.outputs]
            self._asked = dataclasses.replace(asked, outputs=outputs)
            limits = [one for one in (asked.timeout, seconds) if one is not None]
            self._due = time.monotonic() + min(limits) if limits else None
            self._futures = self._model.submit(asked.images, self._due)
            self._held = stack.pop_all()

    def answer(self) -> Any:
        """Wait for the `ModelInferResponse`.

        Raises:
            RefusedError: an image failed, the deadline has passed, or the call has ended.
        """
        try:
            answers = [self._answer(future) for future in self._futures]
            parts = answer_document(self._model, self._version, self._asked, answers)
            response = response_of(*parts)
            self._counting.failed = False
        finally:
            self.drop()
        return response

    def cancel(self) -> None:
        """Let nobody work on it any more; what waits for its answer ends."""
        for future in self._futures:
            future.cancel()

    def drop(self) -> None:
        """End it without an answer; a second call does nothing."""
        self.cancel()
        self._held.close()

    def _answer(self, future: Future[Answer]) -> Answer:
        left = None if self._due is None else max(0.0, self._due - time.monotonic())
        try:
            return future.result(left)
        except concurrent.futures.CancelledError:
            raise RefusedError(Why.LATE, "the call was cancelled") from None
        except concurrent.futures.TimeoutError:
            text = "the timeout has passed before the answer was there"
            raise RefusedError(Why.LATE, text) from None


class Messages:
    """The messages that are held at the moment.

    Args:
        max_body_mb: the largest of them, in MB (2**20 bytes).
    """

    def __init__(self, max_body_mb: float) -> None:
        self._most = int(max_body_mb * (1 << 20)) * _MOST_HELD
        self._held = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def holding(self, request: Any) -> Iterator[None]:
        """Count a message as held until the `with` block ends.

        Raises:
            RefusedError: there is no room for it.
        """
        size = request.ByteSize()
        with self._lock:
            if self._held + size > self._most:
                raise RefusedError(Why.BUSY, "too many large requests arrive at once; try again")
            self._held += size
        try:
            yield
        finally:
            with self._lock:
                self._held -= size


def seconds_left(context: Any) -> float | None:
    """Return how long a call's client waits for it; None for no limit."""
    left: float | None = context.time_remaining()
    # A call without a deadline has one after thousands of years, or None.
    return left if left is not None and left < WEEK_SECONDS else None
