# SPDX-License-Identifier: Apache-2.0
"""One process at a time: the right to write a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import IO

from hgdeploy.errors import OutputError
from hgdeploy.system.files import writing


class Claim:
    """The right to write a file, held by one process; a death by any signal releases it.

    It is a lock on `.NAME.lock` beside the file, since the file itself may be replaced meanwhile.
    On Windows nothing is locked.

    Args:
        path: the file to write.

    Raises:
        OutputError: another process has claimed it, or its folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._lock = path.with_name(f".{path.name}.lock")
        with writing(path):
            self._file = self._lock.open("ab")
            try:
                while not _locked(self._file, self._lock):
                    self._file.close()
                    self._file = self._lock.open("ab")
            except BlockingIOError:
                self._file.close()
                raise OutputError(
                    f"{path}: another process is writing it; wait for it, or name another file"
                ) from None
            except BaseException:
                self._file.close()
                raise

    def release(self) -> None:
        """Let others write; a second call does nothing."""
        if not self._file.closed:
            self._lock.unlink(missing_ok=True)
            self._file.close()

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _locked(file: IO[bytes], path: Path) -> bool:
    """Lock a file; False if its former holder has removed it meanwhile, so that it locks nothing.

    Raises:
        BlockingIOError: another process holds it.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
