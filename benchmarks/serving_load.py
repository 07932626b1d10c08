# SPDX-License-Identifier: Apache-2.0
"""A load generator for HTTP servers on this machine that takes little of the CPUs it shares.

One thread, connections that stay open, requests that are made beforehand. Closed loop: each client
asks again when it has its answer. Open loop: requests are due at random times (a Poisson process),
whatever the server does, and an answer's time counts from when its request was due: a request that
waits for a connection, or for this program, counts in full.
"""

from __future__ import annotations

import random
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_READ_BYTES = 1 << 16
_SEND_BYTES = 1 << 20
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
# An answer that has not come by then is lost.
_ANSWER_SECONDS = 30.0
_MOST_REQUESTS = 10_000_000
_HOST = "127.0.0.1"  # no other machine is ever loaded

Check = Callable[[int, int, bytes], bool]
"""Returns whether an answer is right: the place of its request, its status, its body."""


@dataclass
class Result:
    """What a run gave.

    Attributes:
        sent: requests that were begun.
        right: answers that are as expected.
        refused: those with status 503 or 429.
        wrong: any other answers.
        lost: requests without an answer.
        seconds: from the first request until the last answer.
        cpu_seconds: CPU time of the load generator.
        late_ms: the longest time that a request was sent after it was due, in milliseconds.
        latencies_ms: of the right answers, in their order.
    """

    sent: int = 0
    right: int = 0
    refused: int = 0
    wrong: int = 0
    lost: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    late_ms: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)


class _Connection:
    """A connection that stays open, with at most one request on its way."""

    __slots__ = ("answer", "due", "left", "place", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((_HOST, port), timeout=_ANSWER_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        self.socket.setblocking(False)
        self.left = memoryview(b"")
        self.answer = b""
        self.place = -1
        self.due = 0.0

    def send(self) -> bool:
        """Send what is left of the request; return whether something still is."""
        try:
            self.left = self.left[self.socket.send(self.left) :]
        except BlockingIOError:
            return True
        return bool(self.left)

    def read(self) -> tuple[int, bytes] | None:
        """Return the answer's status and body; None while it is not complete.

        Raises:
            ConnectionError: the server has closed the connection.
        """
        data = self.socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionError("closed by the server")
        self.answer = self.answer + data if self.answer else data
        head_size = self.answer.find(_HEAD_END)
        if head_size < 0:
            return None
        head = self.answer[:head_size].lower()
        place = head.find(_LENGTH)
        if place < 0:
            raise ConnectionError("an answer without its length")
        size = int(head[place + len(_LENGTH) :].split(b"\r\n", 1)[0])
        start = head_size + len(_HEAD_END)
        if len(self.answer) < start + size:
            return None
        body, self.answer = self.answer[start : start + size], b""
        return int(head[9:12]), body


class Load:
    """Sends requests to a server on this machine.

    Args:
        port: where it listens.
        requests: what is sent, in turns: each a whole request of HTTP/1.1.
        check: whether an answer is right.
        most: the most connections.
    """

    def __init__(self, port: int, requests: Sequence[bytes], check: Check, most: int = 512) -> None:
        self._port, self._requests, self._check, self._most = port, requests, check, most
        self._selector = selectors.DefaultSelector()
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()

    def closed(self, clients: int, seconds: float, most_requests: int = _MOST_REQUESTS) -> Result:
        """Let so many clients ask, each as soon as it has its answer, for so long."""
        self._renew()
        run = _Run(self, seconds, most_requests)
        for _ in range(clients):
            run.begin(time.perf_counter())
        run.follow(next_due=None)
        return run.ended()

    def open(self, rate: float, seconds: float, seed: int = 0) -> Result:
        """Ask at random times, `rate` times a second on average, for so long."""
        self._renew()
        draw = random.Random(seed)
        run = _Run(self, seconds, _MOST_REQUESTS)
        run.follow(next_due=lambda: draw.expovariate(rate))
        return run.ended()

    def close(self) -> None:
        """Close all connections."""
        for one in list(self._open):
            self.drop(one)
        self._selector.close()

    def _renew(self) -> None:
        """Close what was left open: the server may be about to close it as well."""
        while self._idle:
            self.drop(self._idle.pop())

    # For a run.

    def take(self) -> _Connection | None:
        """Return a connection without a request, a new one where there is none; None if too many.

        Raises:
            OSError: the server takes no connection.
        """
        while self._idle:
            one = self._idle.pop()
            if one in self._open:  # the server may have closed it
                return one
        if len(self._open) >= self._most:
            return None
        one = _Connection(self._port)
        self._selector.register(one.socket, selectors.EVENT_READ, one)
        self._open.add(one)
        return one

    def give(self, one: _Connection) -> None:
        """Keep a connection whose answer is there."""
        self._idle.append(one)

    def drop(self, one: _Connection) -> None:
        """Close a connection; a second time does nothing."""
        if one not in self._open:
            return
        self._open.remove(one)
        self._selector.unregister(one.socket)
        one.socket.close()

    def request(self, number: int) -> tuple[int, bytes]:
        """Return a request with its place in the list."""
        place = number % len(self._requests)
        return place, self._requests[place]

    def writes(self, one: _Connection, still: bool) -> None:
        """Watch whether a connection takes more of its request, or no longer."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if still else 0)
        self._selector.modify(one.socket, events, one)

    def ready(self, seconds: float) -> list[tuple[_Connection, int]]:
        """Return the connections where something happens within so many seconds."""
        return [(key.data, events) for key, events in self._selector.select(seconds)]

    def is_right(self, place: int, status: int, body: bytes) -> bool:
        """Return whether an answer is right."""
        return self._check(place, status, body)


class _Run:
    """One run of a load."""

    def __init__(self, load: Load, seconds: float, most: int) -> None:
        self._load, self._most = load, most
        self.result = Result()
        self._start = time.perf_counter()
        self._cpu = time.process_time()
        self._end = self._start + seconds
        self._last = self._start
        self._under_way: set[_Connection] = set()
        self._waiting: deque[float] = deque()

    def begin(self, due: float) -> None:
        """Send a request that is due, or let it wait for a connection."""
        one = self._load.take()
        if one is None:
            self._waiting.append(due)
            return
        one.place, request = self._load.request(self.result.sent)
        one.due, one.left = due, memoryview(request)
        self.result.sent += 1
        self._under_way.add(one)
        self.result.late_ms = max(self.result.late_ms, 1000 * (time.perf_counter() - due))
        try:
            if one.send():
                self._load.writes(one, True)
        except OSError:
            self._lose(one)

    def follow(self, next_due: Callable[[], float] | None) -> None:
        """Take answers, and send what is due next, until all is answered or lost.

        Args:
            next_due: seconds from a request to the next; None to send one for each answer.
        """
        due = self._start + next_due() if next_due else None
        while True:
            now = time.perf_counter()
            while next_due and due is not None and due <= now:
                self.begin(due)
                due += next_due()
                if due >= self._end or self.result.sent >= self._most:
                    due = None
            if due is None and not self._under_way and not self._waiting:
                return
            if now > self._end + _ANSWER_SECONDS:
                self.result.lost += len(self._waiting)
                for one in list(self._under_way):
                    self._lose(one)
                return
            for one, events in self._load.ready(0.5 if due is None else max(0.0, due - now)):
                self._step(one, events, again=next_due is None)

    def ended(self) -> Result:
        """Return what the run gave."""
        self.result.seconds = self._last - self._start
        self.result.cpu_seconds = time.process_time() - self._cpu
        return self.result

    def _step(self, one: _Connection, events: int, *, again: bool) -> None:
        try:
            if events & selectors.EVENT_WRITE and not one.send():
                self._load.writes(one, False)
            answer = one.read() if events & selectors.EVENT_READ else None
        except OSError:
            self._lose(one)
            self._go_on(again)
            return
        if answer is None:
            return
        now = self._last = time.perf_counter()
        self._under_way.discard(one)
        self._count(one, *answer, 1000 * (now - one.due))
        self._load.give(one)
        self._go_on(again)

    def _go_on(self, again: bool) -> None:
        """Send the next request, if one waits, or if each answer brings one."""
        now = time.perf_counter()
        if self._waiting:
            self.begin(self._waiting.popleft())
        elif again and now < self._end and self.result.sent < self._most:
            self.begin(now)

    def _count(self, one: _Connection, status: int, body: bytes, ms: float) -> None:
        if status in (429, 503):
            self.result.refused += 1
        elif self._load.is_right(one.place, status, body):
            self.result.right += 1
            self.result.latencies_ms.append(ms)
        else:
            self.result.wrong += 1

    def _lose(self, one: _Connection) -> None:
        if one in self._under_way:
            self._under_way.discard(one)
            self.result.lost += 1
        self._load.drop(one)
