# SPDX-License-Identifier: Apache-2.0
"""Listens at an address, patiently but not for ever, until it is told to end."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hgdeploy.errors import ConfigError
from hgdeploy.serving.server.doors import Tls

_BACKLOG = 1024
# A connection without a whole request's head for so long is closed, after twice as long at most.
_HEAD_SECONDS = 10.0
# An answer, of which the system holds what it has room for, is to be read within so many seconds.
_ANSWER_SECONDS = 30.0
_MOST_CONNECTIONS = 1000
_MOST_HEAD_BYTES = 1 << 16


class _Patient(HttpToolsProtocol):
    """A connection that waits neither for a request's head nor for its answer's reader for ever.

    The parser, llhttp, takes a quarter of the time of one in Python, but a head of any length.
    """

    _unparsed = 0
    _watched: Any = None
    _held: Any = None
    _held_since = 0.0
    _timers: dict[str, asyncio.TimerHandle]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does so only for sockets that name their protocol. Without it an answer's body
        # waits for the client's word on its head: 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timers = {}
        self._watch(first=True)
        self._watch_answer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in self._timers.values():
            timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > _MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > _MOST_HEAD_BYTES:
            raise ValueError("the head is too long")  # which the parser makes an error of its own
        super().on_headers_complete()
        self.headers = []  # what comes behind the body is no header

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and self.cycle.response_started != self.cycle.response_complete:
            self.transport.abort()  # it would stand in the middle of an answer
        else:
            super().send_400_response(msg)

    def _watch(self, *, first: bool = False) -> None:
        if not self.transport.is_closing():
            waits = self.cycle is None or self.cycle.response_complete
            state = (self.cycle, waits)
            if waits and not first and state == self._watched:
                self.transport.close()
            self._watched = state
        self._timers["head"] = self.loop.call_later(_HEAD_SECONDS, self._watch)

    def _watch_answer(self) -> None:
        """Cut the connection where the same answer is not taken; closing it would wait as well."""
        now, state = self.loop.time(), (self.cycle, self.transport.get_write_buffer_size() > 0)
        if state != self._held:
            self._held, self._held_since = state, now
        elif state[1] and now - self._held_since > _ANSWER_SECONDS:
            self.transport.abort()
        again = self.loop.call_later(_ANSWER_SECONDS / 10, self._watch_answer)
        self._timers["answer"] = again


class HttpServer(uvicorn.Server):
    """A server at one address.

    Args:
        app: its addresses.
        where: host and port to listen at; port 0 for any that is free.
        tls: its certificate; None for plain HTTP.

    Attributes:
        address: where it listens.

    Raises:
        ConfigError: it cannot listen there, or the certificate cannot be used.
    """

    def __init__(self, app: Starlette, where: tuple[str, int], tls: Tls | None = None) -> None:
        config = uvicorn.Config(
            app,
            http=_Patient,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            ssl_certfile=None if tls is None else tls.certificate,
            ssl_keyfile=None if tls is None else tls.key,
        )
        if tls is not None:
            tls.check()
        config.load()
        logging.getLogger("uvicorn.error").addFilter(_is_news)
        super().__init__(config)
        self._socket = _listening(where)
        host, port = self._socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._failure: BaseException | None = None
        self.address = f"{'http' if tls is None else 'https'}://{shown}:{port}"

    def start(self) -> None:
        """Serve in a thread of its own."""
        self._thread.start()

    def ready(self) -> None:
        """Do nothing: each request asks the models."""

    def check(self) -> None:
        """Raise what has ended it, if anything has."""
        if self._failure is not None:
            raise self._failure

    def stop(self, seconds: float) -> Callable[[], bool]:
        """Take no more connections, and give the requests that have begun so many seconds.

        Returns:
            A function that waits for them, and returns whether all were answered.
        """
        self.config.timeout_graceful_shutdown = seconds  # type: ignore[assignment]
        until = time.monotonic() + seconds
        self.should_exit = True

        def wait() -> bool:
            if self._thread.ident is not None:
                self._thread.join()
            return time.monotonic() < until or not seconds

        return wait

    def _run(self) -> None:
        try:
            self.run(sockets=[self._socket])
        except BaseException as error:  # `check` tells it
            self._failure = error

    def close(self) -> None:
        """Give the address back; a second call does nothing."""
        self._socket.close()


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a line of uvicorn's says what the server's own lines do not."""
    return not str(record.msg).startswith("Cancel ")  # that its time to end is over


def _listening(where: tuple[str, int]) -> socket.socket:
    host, port = where
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server(where, family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such address"
        raise ConfigError(f"cannot listen at {host}:{port}: {reason}; choose another") from None
