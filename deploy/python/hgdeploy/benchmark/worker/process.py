# SPDX-License-Identifier: Apache-2.0
"""The parent's side of a case's process: ask, wait without spinning, end it in time.

Requests and answers are one JSON object a line, on the child's stdin and stdout. The child keeps
its stdout to itself (see `child`), so that what native libraries print cannot stand between.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from hgdeploy.benchmark.record import FAILED, TIMEOUT
from hgdeploy.errors import one_line

# Of a crashed child's last words, what fits on a line.
_WORDS = 200


class CaseError(Exception):
    """A case cannot be measured; a row of the results, not the end of the suite."""

    def __init__(self, reason: str, status: str = FAILED) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class CaseProcess:
    """A child process that answers requests; see `child` for these.

    Args:
        limit_s: the most seconds that it may spend on answers, all together.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = self._left_s = limit_s
        self._expired = False
        # An empty folder: a module of the user's in the current one must not hide a library.
        self._folder = tempfile.TemporaryDirectory(prefix="hgdeploy-benchmark-")
        package = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self._log = (Path(self._folder.name) / "stderr").open("w+b")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hgdeploy.benchmark.worker.child"],
            cwd=self._folder.name,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends the group
        )

    @property
    def pid(self) -> int:
        """The child's process id, which is also that of its process group."""
        return self._process.pid

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer, asleep.

        Raises:
            CaseError: the child says why it cannot, died, or is over its time limit.
        """
        timer = threading.Timer(max(self._left_s, 0.0), self._expire)
        started = time.monotonic()
        timer.start()
        try:
            line = self._exchange(json.dumps(request).encode() + b"\n")
        finally:
            timer.cancel()
            self._left_s -= time.monotonic() - started
        if self._expired:
            raise CaseError(f"it took longer than the limit of {self._limit_s:g} s", TIMEOUT)
        if not line.endswith(b"\n"):
            raise CaseError(self._death())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CaseError(answer["error"])
        return answer

    def close(self) -> None:
        """End the child and all that it started; a second call does nothing."""
        self._kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # a request that nobody reads any more
                    stream.close()
        self._folder.cleanup()

    def _exchange(self, line: bytes) -> bytes:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            return b""
        try:
            stdin.write(line)
            stdin.flush()
        except BrokenPipeError:
            return b""
        return stdout.readline()

    def _expire(self) -> None:
        self._expired = True
        self._kill()

    def _kill(self) -> None:
        if self._process.poll() is not None and not hasattr(os, "killpg"):
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def _death(self) -> str:
        """Tell how the child ended, with the last thing that it said."""
        code = self._process.wait()
        how = f"its process ended with exit code {code}"
        if code < 0:
            how = f"its process was ended by {_signal_name(-code)}"
            if -code == signal.SIGKILL:
                how += " (out of memory?)"
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines()]
        said = [line for line in lines if line]
        return f"{how}; it said: {one_line(Exception(said[-1]))[:_WORDS]}" if said else how


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
