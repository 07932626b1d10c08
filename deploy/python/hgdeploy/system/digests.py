# SPDX-License-Identifier: Apache-2.0
"""SHA-256 digests of files."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

_CHUNK = 1 << 20
# Clocks of file systems tick up to every 2 s (FAT): a file that was changed so shortly before it
# was read might be changed again and bear the same times.
_SETTLED_NS = 3_000_000_000

_State = tuple[int, int, int, int, int]
_known: dict[_State, str] = {}


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 digest of a file.

    Within a process a file is read once, as long as its inode, size and times stay the same.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        before = _state(file.fileno())
        if before in _known:
            return _known[before]
        settled = time.time_ns() - max(before[3:]) > _SETTLED_NS
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        if settled and _state(file.fileno()) == before:
            _known[before] = digest.hexdigest()
    return digest.hexdigest()


def _state(descriptor: int) -> _State:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def combined_digest(digests: Sequence[str]) -> str:
    """Return the digest that stands for files with these: their own if one, else that of all."""
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
