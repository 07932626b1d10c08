# SPDX-License-Identifier: Apache-2.0
"""Processes of our own, which answer one request at a time: the one way to have any.

`ChildProcess` is such a process as its parent sees it. What it runs is a module that calls
`hgdeploy.system.messages.serve`. What both may rely on:

- Modules are found where the parent finds them, this package too, and none in the current folder.
- Requests and answers have stdin and stdout for themselves; what is printed there goes to stderr.
- A child belongs to the process that started it; one that was forked from that cannot ask it.
- A child has a process group of its own: Ctrl-C reaches the parent alone. The whole group ends when
  it is closed, takes too long or is interrupted, and also when the parent is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, cast

from hgdeploy.errors import EngineError, error_from_kind, one_line
from hgdeploy.system.machine import descendants, out_of_memory_kills
from hgdeploy.system.messages import LINE, Message, read_message, write_message
from hgdeploy.system.progress import OnLine, nothing

Fds = Collection[int]
# Before anything is imported: Python 3.10 has the current folder first in the path in any case.
_START = (
    "import sys; sys.path = [entry for entry in sys.path if entry]; import runpy; "
    "runpy.run_module(sys.argv.pop(), run_name='__main__', alter_sys=True)"
)
_PACKAGE_ROOT = str(Path(__file__).absolute().parents[2])
# What is kept of what a child prints: a log in which to look for an error.
_KEPT_BYTES = 1 << 16
# The last line that a child printed, as far as it fits into an error.
_MOST_LETTERS = 200
# How long to wait for last words where another process still holds a dead child's stderr.
_LAST_WORDS_SECONDS = 2.0


def check_not_forked(opened_by: int, what: str) -> None:
    """Refuse what another process has opened: this one was forked from it since.

    Args:
        opened_by: the process id of whoever opened it.
        what: its name, for the error.

    Raises:
        EngineError: this is another process.
    """
    if os.getpid() != opened_by:
        raise EngineError(
            f"{what} was opened by another process ({opened_by}), from which this one was forked; "
            "open it after the fork, in each process that uses it"
        )


# Whether memory was short, and what a message says of it.
_KILLED_BY = {
    True: " (out of memory)",
    False: " (by another process; memory was not short)",
    None: " (out of memory?)",
}


class ChildError(Exception):
    """A child process ended instead of answering; the message says how, after "its process".

    Attributes:
        how: the signal's name or the exit code alone.
        memory: whether the system ended it because memory was short; None where that is not known.
        said: the last line that it printed; may be empty.
    """

    def __init__(
        self, message: str, how: str | None = None, memory: bool | None = False, said: str = ""
    ) -> None:
        super().__init__(message)
        self.how = message if how is None else how
        self.memory = memory
        self.said = said


class ChildTimeoutError(ChildError):
    """A child process took too long to answer, and was ended for it."""


class ChildProcess:
    """A child process, as its parent sees it; one thread at a time may ask.

    Args:
        module: what it runs; it calls `serve`.
        folder: its current folder; None for that of this process.
        quiet: only keep what it prints, instead of passing it on to stderr.
        files: numbers of open files that it gets, under the same numbers; not on Windows.

    Raises:
        EngineError: the system starts no process.
    """

    def __init__(
        self, module: str, *, folder: Path | None = None, quiet: bool = False, files: Fds = ()
    ) -> None:
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, module],
                cwd=folder,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=files,
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # on Windows
            )
        except OSError as error:
            raise EngineError(
                f"cannot start a process for {module}: {one_line(error)}; "
                "end other programs, or raise this user's limits (ulimit -u, ulimit -n)"
            ) from None
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)
        self._module, self._started_by = module, os.getpid()
        self._kills = out_of_memory_kills()
        self._owes_answer = self._closed = False
        self._printed = b""
        self._listener = threading.Thread(target=self._listen, args=[quiet], daemon=True)
        self._listener.start()

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be asked: it was not ended, and owes no answer to an earlier request."""
        return not (self._closed or self._owes_answer)

    @property
    def printed(self) -> str:
        """What it has printed, or the end of that where it is much; complete once it is closed."""
        return self._printed.decode("utf-8", errors="replace")

    def ask(
        self, request: Message, seconds: float | None = None, on_line: OnLine = nothing
    ) -> Message:
        """Send a request and wait for its answer, asleep.

        Args:
            request: `do` names one of the child's handlers.
            seconds: how long the answer may take; None for any time.
            on_line: called with each line that the handler gives to `tell_parent`.

        Raises:
            ChildTimeoutError: it took longer.
            ChildError: the process ended instead. After either, and after an interruption, it is
                closed.
            HGDeployError: what the handler raised; the child can be asked again.
        """
        late = threading.Event()
        timer = self._timer(seconds, late)
        try:
            self.send(request)
            return self.receive(on_line)
        except ChildError:
            if late.is_set():
                raise ChildTimeoutError(f"took longer than {seconds:g} s") from None
            raise
        finally:
            if timer is not None:
                timer.cancel()
                timer.join()
            # An answer that was not waited for would be taken for that to the next request.
            if self._owes_answer or late.is_set():
                self.close()

    def send(self, request: Message) -> None:
        """Send a request whose answer `receive` will wait for.

        Raises:
            ChildError: the process has ended.
            EngineError: another process started it.
        """
        check_not_forked(self._started_by, f"the process for {self._module}")
        if self._owes_answer:
            self.close()
        with self._ended_is_an_error():
            self._owes_answer = True
            write_message(self._requests, request)

    def receive(self, on_line: OnLine = nothing) -> Message:
        """Wait for the answer to the request that was sent; as `ask`, without a time limit."""
        with self._ended_is_an_error():
            while (answer := read_message(self._answers)) is not None and LINE in answer.values:
                on_line(str(answer.values[LINE]))
            if answer is None:
                raise ValueError("no answer")
        self._owes_answer = False
        if "error" in answer.values:
            raise error_from_kind(*answer.values["error"])
        return answer

    def close(self) -> None:
        """End it and all that it has started; a second call does nothing, nor one after a fork."""
        if self._closed or os.getpid() != self._started_by:
            return
        self._closed = True
        self._kill()
        self._process.wait()
        self._listener.join(_LAST_WORDS_SECONDS)
        for pipe in (self._requests, self._answers):
            with contextlib.suppress(OSError):  # a request that nobody reads any more
                pipe.close()

    def _timer(self, seconds: float | None, late: threading.Event) -> threading.Timer | None:
        if seconds is None:
            return None

        def expire() -> None:
            late.set()
            self._kill()

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        return timer

    def _kill(self) -> None:
        """End the process, its group, and what has left the group, such as children like this."""
        if self._process.returncode is not None:
            return  # its number may be another's by now
        others = list(descendants(self.pid))
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.pid, signal.SIGKILL)
            else:
                self._process.kill()
        for pid in others:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _listen(self, quiet: bool) -> None:
        """Keep the end of what the child prints; it can print without end."""
        with cast("IO[bytes]", self._process.stderr) as stream:
            while chunk := os.read(stream.fileno(), _KEPT_BYTES):
                self._printed = (self._printed + chunk)[-_KEPT_BYTES:]
                if not quiet:
                    with contextlib.suppress(OSError):  # nobody reads ours
                        os.write(2, chunk)

    @contextlib.contextmanager
    def _ended_is_an_error(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):
            self.close()
            raise self._error() from None

    def _error(self) -> ChildError:
        """Say how the process ended, with the last thing that it printed."""
        code = self._process.returncode
        how = _signal_name(-code) if code < 0 else f"exit code {code}"
        message = f"was ended by {how}" if code < 0 else f"ended with {how}"
        memory: bool | None = False
        if how == "SIGKILL":
            kills = out_of_memory_kills()
            memory = None if kills is None or self._kills is None else kills > self._kills
            message += _KILLED_BY[memory]
        lines = [line.strip() for line in self.printed.splitlines() if line.strip()]
        said = one_line(Exception(lines[-1]))[:_MOST_LETTERS] if lines else ""
        return ChildError(f"{message}; it said: {said}" if said else message, how, memory, said)


def _environment() -> dict[str, str]:
    """Return this process's environment, in which Python finds the modules found here."""
    path = [str(Path(entry).absolute()) for entry in sys.path if entry]
    if _PACKAGE_ROOT not in path:  # found in the current folder, which the child's path leaves out
        path.insert(0, _PACKAGE_ROOT)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
