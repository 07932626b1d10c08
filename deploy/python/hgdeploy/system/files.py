# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or as they were before, and that one process writes at a time."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hgdeploy.errors import OutputError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's errors into an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file aside; it takes its name, on disk, once the block has ended well.

    However the block ends, `path` is either as it was or whole. A process that is killed leaves
    `.NAME.tmp`, which the next one overwrites: let only one write a `path` at a time.

    Raises:
        OutputError: it cannot be written; `path` is as it was.
    """
    aside = path.with_name(f".{path.name}.tmp")
    with writing(path):
        try:
            # The raw file is closed first: a buffer that cannot be flushed is then dropped.
            with aside.open("wb", buffering=0) as raw:
                stream = io.BufferedWriter(raw)
                yield stream
                stream.flush()
                os.fsync(raw.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def check_replaceable(path: Path) -> None:
    """Refuse, before any work is done, what `replacing` could not write; nothing is changed.

    Raises:
        OutputError: the folder is missing or closed, or something else has that name.
    """
    with writing(path), tempfile.TemporaryFile(dir=path.absolute().parent):
        if path.exists() and not path.is_file():
            raise OutputError(f"{path} cannot be written: it is not a regular file")


def write_text(path: Path, text: str) -> Path:
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    return path
