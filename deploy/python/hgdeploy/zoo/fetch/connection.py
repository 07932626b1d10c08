# SPDX-License-Identifier: Apache-2.0
"""Open an address of the web; what its server may take of our time and memory is bounded.

Every byte of an answer, its headers included, comes through `_Bounded`, which counts bytes and
the time spent waiting for them. Without that, a server could go on for ever within any one of
Python's own limits: a byte every few seconds, or one "100 Continue" after another.
"""

from __future__ import annotations

import base64
import functools
import http.client
import io
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from hgdeploy.errors import DownloadError
from hgdeploy.transforms.prediction import printable

_CONNECT_S = 10.0
# A server has to send at least so much in each such span of waiting. Nothing is tried again after
# that: it has had its time.
_SPAN_S = 30.0
_SPAN_BYTES = 300_000
_TOTAL_S = 12 * 3600.0
_MOST_HEAD_BYTES = 256 << 10
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_SHOWN = 300


class TransientError(Exception):
    """A failure that may not occur in another attempt."""


class RefusedError(Exception):
    """An answer, or an address, that is not to be had again."""


@dataclass(frozen=True)
class Address:
    """An address without its user and password, which are sent but never shown nor stored.

    Attributes:
        url: the address.
        authorization: the header that carries user and password; None where it has none.
    """

    url: str
    authorization: str | None

    @classmethod
    def of(cls, url: str) -> Address:
        """Split an address.

        Raises:
            DownloadError: it is not a whole http or https address.
        """
        try:
            parts = urlsplit(url)
            whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # such as [::1 or a port of letters
            whole = False
        if not whole or not url.isprintable() or " " in url:
            raise DownloadError(f"{shown(url)}: expected an http or https address")
        user, at, host = parts.netloc.rpartition("@")
        token = base64.b64encode(unquote(user).encode()).decode("ascii")
        return cls(parts._replace(netloc=host).geturl(), f"Basic {token}" if at else None)


def shown(text: object) -> str:
    """Return what a server or an address says, fit for a message.

    It is one line without control characters, not too long, and without any password.
    """
    plain = re.sub(r"(://|^//).*@", r"\1***@", " ".join(str(text).split()))
    return printable(plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]}...")


@dataclass
class Budget:
    """What one download may take, over all its attempts.

    Attributes:
        most_bytes: the largest file.
    """

    most_bytes: int
    _total_s: float = field(default=0.0, init=False)
    _span_s: float = field(default=0.0, init=False)
    _span_bytes: int = field(default=0, init=False)

    def left_s(self) -> float:
        """Return for how long the next bytes may be waited for."""
        return _SPAN_S - self._span_s

    def spend(self, seconds: float, received: int) -> None:
        """Count waiting, and the bytes that it brought.

        Raises:
            RefusedError: they were too few, or it took too long in all.
        """
        self._total_s += seconds
        self._span_s += seconds
        self._span_bytes += received
        if self._total_s > _TOTAL_S:
            raise RefusedError(f"takes longer than {_TOTAL_S / 3600:g} h")
        if self._span_s < _SPAN_S:
            return
        if self._span_bytes < _SPAN_BYTES:
            raise RefusedError(
                f"sent only {self._span_bytes:,} bytes in {self._span_s:.0f} s, which is taken for "
                "a server that hangs; try again later, or another server"
            )
        self._span_s, self._span_bytes = 0.0, 0


class _Bounded(io.RawIOBase):
    """A connection's bytes, counted."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket, budget: Budget) -> None:
        self._raw, self._connection, self._budget = raw, connection, budget
        self.left = _MOST_HEAD_BYTES

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive some bytes, as long as the budget allows."""
        wait = self._budget.left_s()
        self._connection.settimeout(wait)
        start = time.monotonic()
        try:
            received = self._raw.readinto(buffer) or 0
        except TimeoutError:
            self._budget.spend(wait, 0)
            raise
        self._budget.spend(time.monotonic() - start, received)
        self.left -= received
        if self.left < 0:
            raise RefusedError("sends more than it may: headers, or a body, without an end")
        return received

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer that comes through `_Bounded`."""

    def __init__(self, connection: socket.socket, *args: Any, budget: Budget, **kw: Any) -> None:
        super().__init__(connection, *args, **kw)
        self._budget = budget
        self._bounded = _Bounded(self.fp.detach(), connection, budget)
        self.fp = io.BufferedReader(self._bounded)

    def begin(self) -> None:
        """Read the head; from then on a whole file may come, with as much again around it."""
        super().begin()
        self._bounded.left = 2 * self._budget.most_bytes + _MOST_HEAD_BYTES


class _Handler(urllib.request.AbstractHTTPHandler):
    """Opens http and https addresses within a budget."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._budget = budget

    http_request = urllib.request.AbstractHTTPHandler.do_request_
    https_request = urllib.request.AbstractHTTPHandler.do_request_

    def http_open(self, request: urllib.request.Request) -> Any:
        """Answer an http request."""
        return self.do_open(self._connecting(http.client.HTTPConnection), request)

    def https_open(self, request: urllib.request.Request) -> Any:
        """Answer an https request."""
        return self.do_open(self._connecting(http.client.HTTPSConnection), request)

    def _connecting(self, kind: type[http.client.HTTPConnection]) -> Any:
        def connect(host: str, **kwargs: Any) -> http.client.HTTPConnection:
            connection = kind(host, **kwargs)
            response = functools.partial(_Response, budget=self._budget)
            connection.response_class = response  # type: ignore[assignment]
            return connection

        return connect


def open_address(address: Address, headers: Mapping[str, str], budget: Budget) -> Any:
    """Return the answer to a GET request, with a status of 2xx or 416; redirects are followed.

    Args:
        address: what to ask for. User and password are sent to its own server only.
        headers: sent with every request.
        budget: what may be spent.

    Raises:
        TransientError: the connection failed, or the server said that it is busy.
        RefusedError: the server has no such file, or its answer makes no sense.
    """
    url = address.url
    for _ in range(_MOST_REDIRECTS + 1):
        request = urllib.request.Request(url, headers=dict(headers))
        if address.authorization and urlsplit(url)[:2] == urlsplit(address.url)[:2]:
            request.add_header("Authorization", address.authorization)
        response = _send(request, budget)
        if response.status not in _REDIRECTS:
            return _accepted(response)
        with response:
            target = response.headers.get("Location", "")
        url = _redirected(url, target)
    raise RefusedError(f"redirects more than {_MOST_REDIRECTS} times")


def _redirected(url: str, target: str) -> str:
    try:
        there = Address.of(urljoin(url, target)).url
    except (DownloadError, ValueError):
        raise RefusedError(f"redirects to {target!r}, expected an http or https address") from None
    if urlsplit(url).scheme == "https" and urlsplit(there).scheme == "http":
        raise RefusedError(
            f"redirects from https to {there}, where anyone on the way could change the file; "
            "name an https address, or that one if you trust the network"
        )
    return there


def _proxy(url: str) -> str:
    """Return the proxy that the environment names for an address, or nothing.

    Raises:
        RefusedError: it is none that we know how to ask.
    """
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    scheme, mark, _ = proxy.partition("://")
    if mark and scheme.lower() not in ("http", "https"):
        raise RefusedError(
            f"{parts.scheme}_proxy names a {scheme} proxy, expected http://HOST:PORT; "
            "or put the host into no_proxy"
        )
    return proxy if mark else f"http://{proxy}"


def _send(request: urllib.request.Request, budget: Budget) -> Any:
    proxy = _proxy(request.full_url)
    # There are no handlers for other schemes, for redirects, or for what a status means.
    try:
        opener = urllib.request.OpenerDirector()
        opener.add_handler(urllib.request.ProxyHandler())
        opener.add_handler(_Handler(budget))
        opener.add_handler(urllib.request.UnknownHandler())
        return opener.open(request, timeout=min(_CONNECT_S, budget.left_s()))
    except OSError as error:
        cause = getattr(error, "reason", None) or error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise RefusedError(f"certificate refused: {cause.verify_message}") from error
        how = f" through the proxy {shown(proxy)}" if proxy else ""
        raise TransientError(
            f"cannot connect{how}: {cause or type(cause).__name__}; check the network"
            f"{' and the proxy' if proxy else ''}"
        ) from error
    except (http.client.InvalidURL, ValueError) as error:
        raise RefusedError(f"cannot be asked for: {error}") from error
    except http.client.HTTPException as error:
        name = type(error).__name__
        raise TransientError(f"the server's answer makes no sense: {error or name}") from error


def _accepted(response: Any) -> Any:
    status = response.status
    if 200 <= status < 300 or status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        return response
    with response:
        reason = f"HTTP {status} {response.reason}"
    if status in (408, 429) or status >= 500:
        raise TransientError(reason)
    raise RefusedError(f"{reason}; check the address")
