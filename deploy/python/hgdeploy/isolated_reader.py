# SPDX-License-Identifier: Apache-2.0
"""Read images in processes of their own, so that a decoder may crash or hang on one.

Each reading thread has a child process (`hgdeploy.isolated_child`) at a time. A child that takes
too long is killed, one that dies is replaced, and only the image it was reading fails. Requests go
down the child's stdin as lines of JSON; an answer is such a line, followed by the tensor's bytes.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import ConfigError, ImageError, one_line
from hgdeploy.image_reader import ReadImage
from hgdeploy.preprocess import Op, ops_to_config

# A child imports OpenCV before it answers its first request, which is no image's fault.
_START_SECONDS = 60.0


class IsolatedReader:
    """Reads image files as `ImageReader` does; may be called from many threads at once.

    Args:
        ops: the preprocessing.
        fast_decode: see `ImageReader`.
        seconds: how long one image may take.

    Raises:
        ConfigError: no such time.
    """

    def __init__(self, ops: Sequence[Op], fast_decode: bool, seconds: float) -> None:
        if not 0 < seconds < threading.TIMEOUT_MAX:
            raise ConfigError(f"the image timeout is {seconds}, expected seconds above 0")
        self._request = json.dumps({"ops": ops_to_config(ops), "fast_decode": fast_decode})
        self._seconds = seconds
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self._closed = False

    def read_file(self, path: Path, out: NDArray[Any] | None = None) -> ReadImage:
        """Read a file.

        Args:
            path: the file.
            out: where the tensor is to be put; None for an array of its own.

        Raises:
            ImageError: it cannot be read, took too long, or crashed the decoder.
        """
        read = self._read(path)
        if out is None:
            return read
        np.copyto(out, read.tensor)
        return read._replace(tensor=out)

    def _read(self, path: Path) -> ReadImage:
        try:
            child = self._idle.get_nowait()
        except queue.Empty:
            child = _Child()
            child.ask(self._request, _START_SECONDS)
        try:
            return child.ask(json.dumps(os.fspath(path)), self._seconds)
        finally:
            if child.alive and not self._closed:
                self._idle.put(child)
            else:
                child.kill()

    def close(self) -> None:
        """End the processes; a second call does nothing."""
        self._closed = True
        while True:
            try:
                self._idle.get_nowait().kill()
            except queue.Empty:
                return


class _Child:
    """One process that reads one image at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hgdeploy.isolated_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.alive = True

    def ask(self, request: str, seconds: float) -> ReadImage:
        """Send a line and wait for the answer; the process is dead after any but a plain failure.

        Raises:
            ImageError: what the child said, or how it died.
        """
        late = threading.Event()
        timer = threading.Timer(seconds, self._stop, [late])
        timer.daemon = True
        timer.start()
        try:
            answer, data = self._exchange(request)
        except (OSError, ValueError):
            self.kill()
            if late.is_set():
                raise ImageError(
                    f"took longer than {seconds:g} s to read, the limit of --image-timeout"
                ) from None
            raise ImageError(f"crashed the decoder ({self._end()})") from None
        finally:
            timer.cancel()
        if "error" in answer:
            raise ImageError(answer["error"])
        tensor = np.frombuffer(data, answer["dtype"]).reshape(answer["shape"])
        return ReadImage(tensor, answer["decode"], answer["preprocess"])

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self.alive = False
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what could not be sent is of no interest any more
                    continue

    def _exchange(self, request: str) -> tuple[dict[str, Any], bytearray]:
        if self._process.stdin is None or self._process.stdout is None:
            raise ValueError("a process without pipes")
        self._process.stdin.write(request.encode("ascii") + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        size = answer.get("bytes", 0)
        data = bytearray(self._process.stdout.read(size))
        if len(data) < size:
            raise ValueError("the answer stops early")
        return answer, data

    def _stop(self, late: threading.Event) -> None:
        late.set()
        self._process.kill()

    def _end(self) -> str:
        code = self._process.returncode
        try:
            return signal.Signals(-code).name if code < 0 else f"exit code {code}"
        except ValueError as error:
            return one_line(error)
