# SPDX-License-Identifier: Apache-2.0
"""The parent's side of a case's process: ask, wait without spinning, and end it in time."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from hgdeploy.benchmark.case_result import FAILED, TIMEOUT
from hgdeploy.errors import HGDeployError
from hgdeploy.system.messages import Message
from hgdeploy.system.processes import ChildError, ChildProcess, ChildTimeoutError
from hgdeploy.system.progress import OnLine, nothing


class CaseError(Exception):
    """A case cannot be measured; this becomes its result, and the suite goes on."""

    def __init__(self, reason: str, status: str = FAILED) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class CaseProcess:
    """A child process that answers requests; `child` describes these.

    Args:
        limit_s: how many seconds it may take for all its answers together.

    Raises:
        EngineError: the system cannot start the process.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = self._left_s = limit_s
        # Libraries leave files in the current folder and read settings there: each has its own.
        self._folder = tempfile.TemporaryDirectory(prefix="hgdeploy-benchmark-")
        module = "hgdeploy.benchmark.worker.child"
        self._child = ChildProcess(module, folder=Path(self._folder.name), quiet=True)

    @property
    def pid(self) -> int:
        """The child's process id, which is also that of its process group."""
        return self._child.pid

    def ask(self, request: dict[str, Any], on_line: OnLine = nothing) -> dict[str, Any]:
        """Send a request, and sleep until its answer comes.

        Args:
            request: what to `do`, and its arguments.
            on_line: called with each line about how far it is.

        Raises:
            CaseError: the child refuses with a reason, died, or is over its time limit.
        """
        started, left = time.monotonic(), max(self._left_s, 0.0)
        try:
            return dict(self._child.ask(Message(request), left, on_line).values)
        except ChildTimeoutError:
            reason = f"it took longer than the limit of {self._limit_s:g} s"
            raise CaseError(reason, TIMEOUT) from None
        except ChildError as error:
            raise CaseError(f"its process {error}") from None
        except HGDeployError as error:
            raise CaseError(str(error)) from None
        finally:
            self._left_s -= time.monotonic() - started

    def close(self) -> None:
        """End the child and every process that it started; a second call does nothing."""
        self._child.close()
        self._folder.cleanup()
