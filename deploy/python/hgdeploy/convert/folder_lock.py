# SPDX-License-Identifier: Apache-2.0
"""One process at a time builds into a folder; the others wait for what it makes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hgdeploy.errors import OutputError

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows
    flock = None  # type: ignore[assignment]


@contextlib.contextmanager
def folder_lock(folder: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder for this process, waiting where another one holds it.

    The system's lock on the folder itself is taken, so that no file stays behind, and a process
    that is killed holds nothing any more. Where the system or the file system has no such lock, the
    work is done without: two builders then do it twice, and either result is whole.

    Args:
        folder: it is made where it does not exist.
        tell: is told once if there is a wait, or if the file system has no locks.

    Raises:
        OutputError: the folder cannot be made or opened.
    """
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if flock is not None:
                handle = os.open(folder, os.O_RDONLY)
                held.callback(os.close, handle)
                _lock(handle, folder, tell)
        except OSError as error:
            raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from None
        yield


def _lock(handle: int, folder: Path, tell: Callable[[str], None]) -> None:
    try:
        flock(handle, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        tell(f"another process builds in {folder}: waiting for it")
        flock(handle, LOCK_EX)
    except OSError as error:  # some network file systems
        tell(f"{folder} cannot be locked ({error.strerror}): building without a lock")
