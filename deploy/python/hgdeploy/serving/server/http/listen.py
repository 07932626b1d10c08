# SPDX-License-Identifier: Apache-2.0
"""Listens at an address until SIGTERM or Ctrl-C, then answers what has begun and ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from hgdeploy.errors import ConfigError

_BACKLOG = 1024
# A connection without a whole request's head for so long is closed, after twice as long at most.
_HEAD_SECONDS = 10.0
_MOST_CONNECTIONS = 1000


class _Patient(H11Protocol):
    """A connection that does not wait for ever for the next request's head."""

    _watched: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does so only for sockets that name their protocol. Without it an answer's body
        # waits for the client's word on its head: 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch(first=True)

    def _watch(self, *, first: bool = False) -> None:
        if self.transport.is_closing():
            return
        waits = self.cycle is None or self.cycle.response_complete
        state = (self.cycle, waits)
        if waits and not first and state == self._watched:
            self.transport.close()
            return
        self._watched = state
        self.loop.call_later(_HEAD_SECONDS, self._watch)


class HttpServer(uvicorn.Server):
    """A server at one address.

    Args:
        app: its addresses.
        where: host and port to listen at; port 0 for any that is free.
        drain: seconds that requests which have begun may take once it ends.

    Attributes:
        address: where it listens.

    Raises:
        ConfigError: it cannot listen there.
    """

    def __init__(self, app: Starlette, where: tuple[str, int], drain: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Patient,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                limit_concurrency=_MOST_CONNECTIONS,
                timeout_graceful_shutdown=max(1, round(drain)),
            )
        )
        self._socket = _listening(where)
        host, port = self._socket.getsockname()[:2]
        self.address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run_until_ended(self) -> None:
        """Serve until `should_exit` is set, or SIGTERM or Ctrl-C comes."""
        asyncio.run(self.serve(sockets=[self._socket]))

    def close(self) -> None:
        """Give the address back; a second call does nothing."""
        self._socket.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End by SIGTERM and Ctrl-C, without raising them again as uvicorn's own would."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        taken = (signal.SIGTERM, signal.SIGINT)
        before = {one: signal.signal(one, self.handle_exit) for one in taken}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def _listening(where: tuple[str, int]) -> socket.socket:
    host, port = where
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server(where, family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such address"
        raise ConfigError(f"cannot listen at {host}:{port}: {reason}; choose another") from None
