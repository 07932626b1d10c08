# SPDX-License-Identifier: Apache-2.0
"""SHA-256 digests of files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

_CHUNK = 1 << 20


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def combined_digest(digests: Sequence[str]) -> str:
    """Return the digest that stands for files with these: their own if one, else that of all."""
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
