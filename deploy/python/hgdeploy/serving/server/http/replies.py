# SPDX-License-Identifier: Apache-2.0
"""Answers that are no inference: refusals, and the line of the access log."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hgdeploy.errors import one_line
from hgdeploy.serving.server.refusals import RefusedError, Why

# A client that is gone reads no answer; the log has this status, as nginx's does.
GONE = 499
_STATUS = {
    Why.WRONG: 400,
    Why.UNSUPPORTED: 400,
    Why.UNAUTHORIZED: 401,
    Why.UNKNOWN: 404,
    Why.TOO_SLOW: 408,
    Why.TOO_LARGE: 413,
    Why.BUSY: 503,
    Why.CLOSING: 503,
    Why.LATE: 504,
}


def refusal(error: RefusedError, document: dict[str, Any] | None = None) -> Response:
    """Return the answer to a request that is refused.

    Args:
        error: why.
        document: what to say instead of `{"error": ...}`.
    """
    headers = {"Retry-After": "1"} if error.why in (Why.BUSY, Why.CLOSING) else {}
    if error.why is Why.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.why is Why.TOO_SLOW:
        headers["Connection"] = "close"
    # What is left of a body that is too large is read and dropped for a while: a client that still
    # sends would find the connection cut, and not this answer.
    return JSONResponse(document or {"error": one_line(error)}, _STATUS[error.why], headers)


async def no_address(request: Request, error: Any) -> Response:
    """Answer a request for an address, or with a method, that there is not."""
    text = f"{request.method} {request.url.path[:200]}: there is no such address"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        text = f"{request.url.path[:200]} takes {allowed}, not {request.method}"
    return JSONResponse({"error": text}, error.status_code, error.headers)


async def broken(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """Answer what nobody foresaw; the server's log has the traceback."""
    return JSONResponse({"error": f"the server failed: {type(error).__name__}"}, 500)
