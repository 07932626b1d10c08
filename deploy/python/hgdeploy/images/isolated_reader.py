# SPDX-License-Identifier: Apache-2.0
"""Read images in processes of their own, so that a decoder may crash or hang on one of them.

Each reading thread uses one child process (`hgdeploy.images.isolated_child`) at a time. A child
that takes too long is killed, one that dies is replaced, and only the image it was reading fails.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import HGDeployError, ImageError, ResourceError
from hgdeploy.images.reader import ReadImage
from hgdeploy.system.checks import check
from hgdeploy.system.kinds import WEEK_SECONDS, number
from hgdeploy.system.messages import Message
from hgdeploy.system.processes import (
    ChildError,
    ChildProcess,
    ChildTimeoutError,
    check_not_forked,
)
from hgdeploy.transforms.operators import Op
from hgdeploy.transforms.operators_config import ops_to_config

# A child imports OpenCV before it answers its first request; no image's time is charged for that.
_START_SECONDS = 60.0


class IsolatedReader:
    """Reads image files as `ImageReader` does; safe to call from many threads at once.

    Args:
        ops: the preprocessing.
        fast_decode: see `ImageReader`.
        seconds: how long one image may take.

    Raises:
        ConfigError: `seconds` is not a time that can be waited.
    """

    def __init__(self, ops: Sequence[Op], fast_decode: bool, seconds: float) -> None:
        check("the image timeout", seconds, number(above=0, most=WEEK_SECONDS))
        settings = {"ops": ops_to_config(ops), "fast_decode": fast_decode}
        self._start = Message({"do": "start", **settings})
        self._seconds = seconds
        self._idle: queue.SimpleQueue[ChildProcess] = queue.SimpleQueue()
        self._closed = False
        self._opened_by = os.getpid()

    def read_file(self, path: Path, out: NDArray[Any] | None = None) -> ReadImage:
        """Read a file.

        Args:
            path: the file.
            out: where to put the tensor; None for a new array.

        Raises:
            ImageError: it cannot be read, took too long, or crashed the decoder.
            EngineError: another process opened this reader.
        """
        check_not_forked(self._opened_by, "the image reader")
        answer = self._ask(path)
        tensor = answer.arrays["tensor"]
        if out is not None:
            np.copyto(out, tensor)
            tensor = out
        return ReadImage(tensor, **answer.values)

    def _ask(self, path: Path) -> Message:
        try:
            child = self._child()
        except (ChildError, HGDeployError) as error:
            # Not the image's fault, which would be kept as such by a run that is resumed.
            raise ResourceError(
                f"a process that reads images did not start: {error}; use fewer --workers"
            ) from None
        try:
            # Absolute: the child stays in the folder in which it was started.
            request = Message({"do": "read", "path": os.fspath(path.absolute())})
            return child.ask(request, self._seconds)
        except ChildTimeoutError as error:
            raise ImageError(f"{error} to read, the limit of --image-timeout") from None
        except ChildError as error:
            raise ImageError(f"crashed the decoder ({error.how})") from None
        except (ImageError, ResourceError):
            raise
        except HGDeployError as error:  # raised by a library in the child, not by us
            raise ImageError(f"crashed the decoder ({error})") from None
        finally:
            if child.alive and not self._closed:
                self._idle.put(child)
            else:
                child.close()

    def _child(self) -> ChildProcess:
        """Return a child that is ready to read."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            child = ChildProcess("hgdeploy.images.isolated_child")
        try:
            child.ask(self._start, _START_SECONDS)
        except BaseException:
            child.close()
            raise
        return child

    def close(self) -> None:
        """End the processes; a second call does nothing."""
        self._closed = True
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return
