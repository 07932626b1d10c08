# SPDX-License-Identifier: Apache-2.0
"""One process at a time: the right to write a file, or into a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from hgdeploy.errors import HGDeployError
from hgdeploy.system.files import writing
from hgdeploy.system.progress import OnLine, nothing

try:
    import fcntl
except ImportError:  # Windows
    _SYSTEM_LOCKS = False
else:
    _SYSTEM_LOCKS = True


class Lock:
    """The right to write, held by one process; take it with `claim` or `wait_for`.

    It is the system's lock on a file of its own, since what is written may be replaced meanwhile:
    `.NAME.lock` beside a file, `.lock` in a folder. The system releases it when its holder dies by
    whatever signal; the empty file stays until the next holder is done.
    """

    def __init__(self, path: Path, file: IO[bytes] | None) -> None:
        self._path = path
        self._file = file

    def release(self) -> None:
        """Let others write; a second call does nothing."""
        if self._file is not None:
            file, self._file = self._file, None
            with file:
                self._path.unlink(missing_ok=True)

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def claim(path: Path, busy: HGDeployError, on_warning: OnLine = nothing) -> Lock:
    """Take the right to write, or refuse at once.

    Args:
        path: the file or folder.
        busy: what is raised where another process has the right.
        on_warning: takes a line where the system or the file system has no locks; the right is then
            given to everybody.

    Raises:
        HGDeployError: `busy`.
        OutputError: the folder cannot be written.
    """
    lock_file = _lock_file(path)
    with writing(path):
        try:
            return Lock(lock_file, _locked(lock_file, path, on_warning, wait=False))
        except BlockingIOError:
            raise busy from None


def wait_for(path: Path, waiting: str, on_progress: OnLine = nothing) -> Lock:
    """Take the right to write, after whoever has it.

    Args:
        path: the file or folder.
        waiting: what is said, once, where another process has the right.
        on_progress: takes that line, and the one of `claim`.

    Raises:
        OutputError: the folder cannot be written.
    """
    lock_file = _lock_file(path)
    with writing(path):
        try:
            return Lock(lock_file, _locked(lock_file, path, on_progress, wait=False))
        except BlockingIOError:
            on_progress(waiting)
        return Lock(lock_file, _locked(lock_file, path, on_progress, wait=True))


@contextlib.contextmanager
def holding(folder: Path) -> Iterator[bool]:
    """Hold a folder itself for the `with` block, so that others know that it is in use.

    Yields:
        Whether it is held: not where another process or thread holds it, and not where the system
        or the file system has no locks on folders.
    """
    with contextlib.ExitStack() as kept:
        try:
            held = _SYSTEM_LOCKS and _holds(folder, kept)
        except OSError:
            held = False
        yield held


def _holds(folder: Path, kept: contextlib.ExitStack) -> bool:
    handle = os.open(folder, os.O_RDONLY)
    kept.callback(os.close, handle)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True


def _lock_file(path: Path) -> Path:
    return path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")


def _locked(lock_file: Path, path: Path, on_warning: OnLine, *, wait: bool) -> IO[bytes] | None:
    """Open and lock a file; None where there are no locks.

    Raises:
        BlockingIOError: another process holds it, and `wait` is false.
    """
    if not _SYSTEM_LOCKS:
        on_warning(_without(path, "this system has no file locks"))
        return None
    while True:
        file = lock_file.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(file, lock_file):
                return file
            file.close()  # its former holder has removed it meanwhile, so that it locks nothing
        except OSError as error:
            file.close()
            if isinstance(error, BlockingIOError):
                raise
            lock_file.unlink(missing_ok=True)
            on_warning(_without(path, error.strerror or str(error)))
            return None
        except BaseException:
            file.close()
            raise


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _without(path: Path, reason: str) -> str:
    return f"{path} cannot be locked ({reason}): let no other process write it meanwhile"
