# SPDX-License-Identifier: Apache-2.0
"""Download files over HTTP, and continue interrupted downloads.

Nothing that arrives is trusted: its length is checked, and its digest where one is published.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hgdeploy._version import __version__
from hgdeploy.errors import ConfigError, DownloadError
from hgdeploy.system.digests import file_sha256
from hgdeploy.system.documents import read_json
from hgdeploy.system.files import put_in_place, write_text, writing
from hgdeploy.system.locks import claim
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.zoo.fetch.connection import (
    Address,
    Budget,
    RefusedError,
    TransientError,
    open_address,
    shown,
)
from hgdeploy.zoo.models import OFFICIAL_URL
from hgdeploy.zoo.registry import info, names

OnBytes = Callable[[str, int, "int | None"], None]
"""Called with the file's name, the bytes received and the bytes expected (None if unknown)."""

# The pause before each attempt.
_PAUSES_S = (0.0, 0.25, 0.5, 1.0)
CHUNK = 1 << 20
# The largest official model (829 M parameters) has one file of 3.3 GB.
MAX_BYTES = 10 << 30


class _TooLargeError(RefusedError):
    """A file of which nothing is worth keeping."""


def download_file(
    url: str,
    destination: Path,
    *,
    sha256: str | None = None,
    max_bytes: int = MAX_BYTES,
    on_bytes: OnBytes | None = None,
    on_warning: OnLine = nothing,
) -> Path:
    """Download a file; an interrupted download continues where it stopped.

    What has arrived is kept in `DESTINATION.part` (with its source in `DESTINATION.part.json`)
    until it is complete and checked. It is continued only if the server confirms, by ETag or
    Last-Modified, that the file is still the same. A server that sends next to nothing for 30 s, or
    more than `max_bytes`, is not waited for.

    Args:
        url: an http or https address. Its user and password, if any, are sent to its server, and
            neither shown nor stored.
        destination: the file to write; it appears in one step, when it is complete.
        sha256: expected hex digest; None if none is published.
        max_bytes: how large the file may be.
        on_bytes: called with the bytes received and the bytes expected.
        on_warning: called with one line if the download cannot be locked against a second process.

    Returns:
        `destination`.

    Raises:
        DownloadError: there is no connection, the server refuses, its answer makes no sense, is too
            short, too long or too slow, or the digest is wrong.
        OutputError: the file cannot be written.
    """
    address = Address.of(url)
    part = destination.with_name(f"{destination.name}.part")
    with writing(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
    busy = DownloadError(f"{part}: another process is downloading it; wait until it is done")
    with claim(part, busy, on_warning):
        _attempts(address, part, max_bytes, on_bytes)
        if sha256 is not None:
            found = file_sha256(part)
            if found != sha256:
                _discard(part)
                raise DownloadError(
                    f"{shown(address.url)}: has SHA-256 {found}, expected {sha256}; it was deleted"
                )
        put_in_place(part, destination)
        with writing(destination):
            _source_file(part).unlink(missing_ok=True)
    return destination


def _attempts(address: Address, part: Path, max_bytes: int, on_bytes: OnBytes | None) -> None:
    budget = Budget(max_bytes)
    problem: Exception | None = None
    for pause in _PAUSES_S:
        time.sleep(pause)
        problem = _attempt(address, part, budget, on_bytes)
        if problem is None:
            return
    raise DownloadError(
        f"{shown(address.url)}: {shown(problem)} ({len(_PAUSES_S)} attempts)"
    ) from problem


def _attempt(
    address: Address, part: Path, budget: Budget, on_bytes: OnBytes | None
) -> TransientError | None:
    try:
        _fetch(address, part, budget, on_bytes)
    except TransientError as error:
        return error
    except RefusedError as error:
        if isinstance(error, _TooLargeError):
            _discard(part)
        raise DownloadError(f"{shown(address.url)}: {shown(error)}") from error
    return None


def _fetch(address: Address, part: Path, budget: Budget, on_bytes: OnBytes | None) -> None:
    """Send one request: continue `part` if the server still has the same file, else start again."""
    have, validator = _resumable(address.url, part)
    headers = {"User-Agent": f"hgdeploy/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    with open_address(address, headers, budget) as response:
        if response.status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            _discard(part)
            raise TransientError(f"HTTP {response.status} {response.reason}")
        start, total = _announced(response, have)
        _check_size(total or 0, budget)
        with writing(part), part.open("r+b" if start else "wb") as file:
            file.truncate(start)
            file.seek(start)
            if not start:
                _note_source(address.url, part, response)
            for chunk in _chunks(response):
                file.write(chunk)
                _check_size(file.tell(), budget)
                if on_bytes is not None:
                    on_bytes(part.stem, file.tell(), total)
            size = file.tell()
    if total is not None and size != total:
        raise TransientError(f"the connection ended at {size} of {total} bytes")


def _check_size(size: int, budget: Budget) -> None:
    if size > budget.most_bytes:
        raise _TooLargeError(
            f"has {size:,} bytes or more, expected at most {budget.most_bytes:,}; check the address"
        )


def _announced(response: Any, have: int) -> tuple[int, int | None]:
    """Return where the answer starts in the file, and the file's full length (None if unknown)."""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise RefusedError("was sent compressed, which was not asked for")
    length = response.headers.get("Content-Length", "")
    # No file's length has more than 18 digits, and Python reads 4300 at most.
    if response.status == http.client.PARTIAL_CONTENT:
        stated = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", stated)
        if match is None or int(match[1]) != have:
            raise RefusedError(f"asked for bytes {have}-, got {stated!r}")
        return have, int(match[3])
    if response.headers.get("Transfer-Encoding", "").lower() == "chunked":
        return 0, None
    if not length:
        raise RefusedError("states no length, so a broken connection would not be noticed")
    if not re.fullmatch(r"[0-9]{1,18}", length):
        raise RefusedError(f"states a length of {length[:40]!r}, expected a number of bytes")
    return 0, int(length)


def _chunks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(
                f"the connection broke: {error or type(error).__name__}"
            ) from error
        except ValueError as error:  # a chunk of a negative size
            raise RefusedError(f"the server's answer makes no sense: {error}") from error
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
    if not isinstance(source, dict) or source.get("url") != url:
        return 0, ""
    validator = source.get("validator")
    # It goes into a header again, so it must be one line.
    sendable = isinstance(validator, str) and validator.isascii() and validator.isprintable()
    return (size, str(validator)) if validator and sendable else (0, "")


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
        ConfigError: there is no such model, or it has no official archive; or the mirror's address
            has a query, behind which no path can be put.
    """
    url = info(name).inference_url
    if url is None:
        raise ConfigError(
            f"{name}: has no official inference archive; these models have one: "
            + ", ".join(other for other in names() if info(other).inference_url)
        )
    return mirrored(url, OFFICIAL_URL, base_url)


def mirrored(url: str, official: str, base_url: str | None = None) -> str:
    """Return the address of an official file, on a mirror where there is one.

    Args:
        url: the file's address.
        official: the start of it that a mirror's address stands for.
        base_url: see `official_url`.

    Raises:
        ConfigError: the mirror's address has a query, behind which no path can be put.
    """
    base = base_url
    if base is None:
        base = os.environ.get("HGDEPLOY_MODELS_URL") or official
    if "?" in base or "#" in base:
        raise ConfigError(
            f"{shown(re.split('[?#]', base)[0])}: the address of a mirror ends in a path, not in a "
            "query (? or #)"
        )
    return base.rstrip("/") + url.removeprefix(official)
