# SPDX-License-Identifier: Apache-2.0
"""Reads the bodies of requests: none larger, slower or all together more than the server allows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from hgdeploy.serving.server.refusals import RefusedError, Why, WrongError
from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import WEEK_SECONDS, number

_MB = 1 << 20
# Bodies that may be held at once, in the largest size; more would wait in vain for the CPUs.
_MOST_HELD = 16
_MOST_PARTS = 1000


@dataclass(frozen=True)
class BodyLimits:
    """What a client may send.

    Attributes:
        max_body_mb: the largest body, in MB (2**20 bytes).
        seconds: how long a body may take to arrive.
    """

    max_body_mb: float = 16.0
    seconds: float = 30.0

    def __post_init__(self) -> None:
        check_fields(
            self,
            max_body_mb=number(0.001, 2047),
            seconds=number(above=0, most=WEEK_SECONDS),
        )


class Bodies:
    """The bodies that are held at the moment; for one event loop.

    Args:
        limits: what each of them may be.
    """

    def __init__(self, limits: BodyLimits) -> None:
        self.limits = limits
        self._most = int(limits.max_body_mb * _MB)
        self._held = 0
        # Which would say on stderr of every form what its sender is told.
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

    @contextlib.asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Read a body, and count it as held until the `with` block ends.

        Raises:
            RefusedError: it is too large or too slow, or there is no room for it.
            ClientDisconnect: its sender is gone.
        """
        encoding = request.headers.get("content-encoding", "identity")
        if encoding != "identity":
            text = f"a body with Content-Encoding {encoding!r} is not read; send it as it is"
            raise RefusedError(Why.UNSUPPORTED, text)
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > self._most:
            raise self._too_large()
        parts: list[bytes] = []
        try:
            try:
                await asyncio.wait_for(self._collect(request, parts), self.limits.seconds)
            except asyncio.TimeoutError:
                text = f"the body did not arrive within {self.limits.seconds:g} seconds"
                raise RefusedError(Why.TOO_SLOW, text) from None
            yield b"".join(parts)
        finally:
            self._held -= sum(map(len, parts))

    async def _collect(self, request: Request, parts: list[bytes]) -> None:
        size = 0
        async for chunk in request.stream():
            parts.append(chunk)
            size += len(chunk)
            self._held += len(chunk)
            if size > self._most:
                raise self._too_large()
            if self._held > self._most * _MOST_HELD:
                raise RefusedError(Why.BUSY, "too many large requests arrive at once; try again")

    def _too_large(self) -> RefusedError:
        text = f"the body is larger than {self.limits.max_body_mb:g} MB, the server's limit"
        return RefusedError(Why.TOO_LARGE, text)


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 31  # what is held already is not written to a disk


async def files_of_form(request: Request, body: bytes) -> list[tuple[str, bytes]]:
    """Return the files of a form (`multipart/form-data`), each with its name.

    Raises:
        WrongError: it is no form, or has no files.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemory(request.headers, stream(), max_files=_MOST_PARTS, max_fields=_MOST_PARTS)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = getattr(error, "message", "") or "it has no boundary"
        raise WrongError(f"the form cannot be read: {reason}") from None
    files = [
        (part.filename or "image", await part.read())
        for _, part in form.multi_items()
        if not isinstance(part, str)
    ]
    await form.close()
    if not files:
        raise WrongError("the form has no file; send one with curl -F image=@PICTURE")
    return files
