# SPDX-License-Identifier: Apache-2.0
"""Download files over HTTP, and continue interrupted downloads.

Nothing that arrives is trusted: its length is checked, and its digest where one is published.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hgdeploy._version import __version__
from hgdeploy.errors import ConfigError, DownloadError
from hgdeploy.system.digests import file_sha256
from hgdeploy.system.documents import read_json
from hgdeploy.system.files import put_in_place, write_text, writing
from hgdeploy.system.locks import claim
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.zoo.models import OFFICIAL_URL
from hgdeploy.zoo.registry import info, names

OnBytes = Callable[[str, int, "int | None"], None]
"""Called with the file's name, the bytes received and the bytes expected (None if unknown)."""

# The pause before each attempt.
_PAUSES_S = (0.0, 0.25, 0.5, 1.0)
_TIMEOUT_S = 30.0
CHUNK = 1 << 20


class _TransientError(Exception):
    """A failure that may not occur in another attempt."""


def download_file(
    url: str,
    destination: Path,
    *,
    sha256: str | None = None,
    on_bytes: OnBytes | None = None,
    on_warning: OnLine = nothing,
) -> Path:
    """Download a file; an interrupted download continues where it stopped.

    What has arrived is kept in `DESTINATION.part` (with its source in `DESTINATION.part.json`)
    until it is complete and checked. It is continued only if the server confirms, by ETag or
    Last-Modified, that the file is still the same.

    Args:
        url: an http or https address.
        destination: the file to write; it appears in one step, when it is complete.
        sha256: expected hex digest; None if none is published.
        on_bytes: called with the bytes received and the bytes expected.
        on_warning: called with one line if the download cannot be locked against a second process.

    Returns:
        `destination`.

    Raises:
        DownloadError: there is no connection, the server refuses, its answer is too short or has no
            end, or the digest is wrong.
        OutputError: the file cannot be written.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url}: expected an http or https address")
    part = destination.with_name(f"{destination.name}.part")
    with writing(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
    busy = DownloadError(f"{part}: another process is downloading it; wait until it is done")
    with claim(part, busy, on_warning):
        _attempts(url, part, on_bytes)
        if sha256 is not None:
            found = file_sha256(part)
            if found != sha256:
                _discard(part)
                raise DownloadError(
                    f"{url}: has SHA-256 {found}, expected {sha256}; it was deleted"
                )
        put_in_place(part, destination)
        with writing(destination):
            _source_file(part).unlink(missing_ok=True)
    return destination


def _attempts(url: str, part: Path, on_bytes: OnBytes | None) -> None:
    problem = None
    for pause in _PAUSES_S:
        time.sleep(pause)
        problem = _attempt(url, part, on_bytes)
        if problem is None:
            return
    raise DownloadError(f"{url}: {problem} ({len(_PAUSES_S)} attempts)") from problem


def _attempt(url: str, part: Path, on_bytes: OnBytes | None) -> _TransientError | None:
    try:
        _fetch(url, part, on_bytes)
    except _TransientError as error:
        return error
    return None


def _fetch(url: str, part: Path, on_bytes: OnBytes | None) -> None:
    """Send one request: continue `part` if the server still has the same file, else start again."""
    have, validator = _resumable(url, part)
    headers = {"User-Agent": f"hgdeploy/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    with _open_url(urllib.request.Request(url, headers=headers), part) as response:
        start, total = _announced(response, have)
        with writing(part), part.open("r+b" if start else "wb") as file:
            file.truncate(start)
            file.seek(start)
            if not start:
                _note_source(url, part, response)
            for chunk in _chunks(response):
                file.write(chunk)
                if on_bytes is not None:
                    on_bytes(part.stem, file.tell(), total)
            size = file.tell()
    if total is not None and size != total:
        raise _TransientError(f"the connection ended at {size} of {total} bytes")


def _open_url(request: urllib.request.Request, part: Path) -> Any:
    # There are no handlers for file:, ftp: and data:, to which a redirect could otherwise lead.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    url = request.full_url
    try:
        return opener.open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            reason = f"HTTP {error.code} {error.reason}"
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            _discard(part)
            raise _TransientError(reason) from error
        if error.code in (408, 429) or error.code >= 500:
            raise _TransientError(reason) from error
        raise DownloadError(f"{url}: {reason}; check the address") from error
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", None) or error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise DownloadError(f"{url}: certificate refused: {cause.verify_message}") from error
        raise _TransientError(
            f"cannot connect: {cause or type(cause).__name__}; check the network and any proxy"
        ) from error


def _announced(response: Any, have: int) -> tuple[int, int | None]:
    """Return where the answer starts in the file, and the file's full length (None if unknown)."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(f"{response.url}: was sent compressed, which was not asked for")
    length = response.headers.get("Content-Length", "")
    if response.status == http.client.PARTIAL_CONTENT:
        stated = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", stated)
        if match is None or int(match[1]) != have:
            raise DownloadError(f"{response.url}: asked for bytes {have}-, got {stated!r}")
        return have, int(match[3])
    if length.isdecimal():
        return 0, int(length)
    if response.headers.get("Transfer-Encoding", "").lower() == "chunked":
        return 0, None
    raise DownloadError(
        f"{response.url}: states no length, so a broken connection would not be noticed"
    )


def _chunks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _TransientError(
                f"the connection broke: {error or type(error).__name__}"
            ) from error
        if not chunk:
            return
        yield chunk


def _source_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _note_source(url: str, part: Path, response: Any) -> None:
    """Write down where `part` comes from; a weak ETag does not promise the same bytes."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
    source = {"url": url, "validator": validator}
    write_text(_source_file(part), json.dumps(source))


def _resumable(url: str, part: Path) -> tuple[int, str]:
    """Return how many bytes of this file are there, and what identifies its version."""
    try:
        source = read_json(_source_file(part))
        size = part.stat().st_size
    except (OSError, ValueError):
        return 0, ""
    if not isinstance(source, dict) or source.get("url") != url or not source.get("validator"):
        return 0, ""
    return size, str(source["validator"])


def _discard(part: Path) -> None:
    with writing(part):
        part.unlink(missing_ok=True)
        _source_file(part).unlink(missing_ok=True)


def official_url(name: str, base_url: str | None = None) -> str:
    """Return the address of a model's official inference archive.

    Args:
        name: one of `names()`.
        base_url: a mirror with the official layout; None uses the environment variable
            HGDEPLOY_MODELS_URL if it is set, else the official address.

    Raises:
        ConfigError: there is no such model, or it has no official archive.
    """
    url = info(name).inference_url
    if url is None:
        raise ConfigError(
            f"{name}: has no official inference archive; these models have one: "
            + ", ".join(other for other in names() if info(other).inference_url)
        )
    base = base_url or os.environ.get("HGDEPLOY_MODELS_URL") or OFFICIAL_URL
    return base.rstrip("/") + url.removeprefix(OFFICIAL_URL)
