# SPDX-License-Identifier: Apache-2.0
"""Processes of our own that answer one request at a time, and both ends of the line to them.

A message is a line of JSON and, behind it, the bytes of the arrays that the line describes. A child
is a module run with `-m`: it makes a `Parent` first and ends when `receive` gives None.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import one_line


class Message(NamedTuple):
    """What is asked or answered.

    Attributes:
        values: anything that JSON can hold.
        arrays: arrays by name.
    """

    values: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = {}


class ChildError(Exception):
    """A child process did not answer; the message says how it ended."""


class ChildTimeoutError(ChildError):
    """A child process took too long to answer, and was ended for it."""


class Child:
    """A child process, as its parent sees it; one thread at a time may ask.

    Args:
        module: what it runs.
    """

    def __init__(self, module: str) -> None:
        path = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Safe: a module of the user's in the current folder must not hide a library; Python
            # 3.10 does not know that yet.
            env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        )
        self.alive = True

    def ask(self, message: Message, seconds: float | None = None) -> Message:
        """Send a message and wait for the answer.

        Args:
            message: the request.
            seconds: how long the answer may take; None for any time.

        Raises:
            ChildTimeoutError: it took longer.
            ChildError: the process ended instead. After either it is no longer alive.
        """
        if seconds is None:
            self.send(message)
            return self.receive()
        late = threading.Event()
        timer = threading.Timer(seconds, self._stop, [late])
        timer.daemon = True
        timer.start()
        try:
            self.send(message)
            return self.receive()
        except ChildError:
            if late.is_set():
                raise ChildTimeoutError(f"took longer than {seconds:g} s") from None
            raise
        finally:
            timer.cancel()

    def send(self, message: Message) -> None:
        """Send a message whose answer `receive` will wait for.

        Raises:
            ChildError: the process has ended.
        """
        with self._until_it_ends():
            _send(self._pipe(self._process.stdin), message)

    def receive(self) -> Message:
        """Wait for the answer to the message that was sent.

        Raises:
            ChildError: the process ended instead.
        """
        with self._until_it_ends():
            answer = _receive(self._pipe(self._process.stdout))
            if answer is None:
                raise ValueError("no answer")
            return answer

    def kill(self) -> None:
        """End the process, whatever it is doing; a second call does nothing."""
        self.alive = False
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what could not be sent is of no interest any more
                    continue

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        if pipe is None:
            raise ValueError("a process without pipes")
        return pipe

    @contextlib.contextmanager
    def _until_it_ends(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):
            self.kill()
            raise ChildError(self._end()) from None

    def _stop(self, late: threading.Event) -> None:
        late.set()
        self._process.kill()

    def _end(self) -> str:
        code = self._process.returncode
        try:
            return signal.Signals(-code).name if code < 0 else f"exit code {code}"
        except ValueError as error:
            return one_line(error)


class Parent:
    """The process that started this one, as a child sees it.

    Answers get stdout for themselves: what native code prints there goes to stderr. Ctrl-C is for
    the parent, which ends this process.
    """

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._answers = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def receive(self) -> Message | None:
        """Wait for the next request; None when there will be no more."""
        return _receive(sys.stdin.buffer)

    def answer(self, message: Message) -> None:
        """Send an answer."""
        _send(self._answers, message)


def _send(stream: IO[bytes], message: Message) -> None:
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    described = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    stream.write(json.dumps([message.values, described]).encode("ascii") + b"\n")
    for array in arrays.values():
        stream.write(array.reshape(-1).view(np.uint8).data)
    stream.flush()


def _receive(stream: Any) -> Message | None:
    """Read one message; None at the end of the stream.

    Raises:
        ValueError: the stream ends within a message.
    """
    line = stream.readline()
    if not line:
        return None
    values, described = json.loads(line)
    arrays = {}
    for name, (dtype, shape) in described.items():
        arrays[name] = array = np.empty(shape, dtype)
        if stream.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
            raise ValueError("the message stops early")
    return Message(values, arrays)
