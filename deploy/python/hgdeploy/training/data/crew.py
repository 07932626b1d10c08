# SPDX-License-Identifier: Apache-2.0
"""Processes that read images into memory which they share with this one.

Threads would not do: what Python itself does for each image, holding its lock, ends at about 650
images a second on 16 CPUs, where a GPU trains on 3,000.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import queue
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import HGDeployError, ResourceError
from hgdeploy.system.messages import Message
from hgdeploy.system.processes import ChildError, ChildProcess
from hgdeploy.training.data.pipeline import AnyOp, ops_to_json

# A process imports numpy, OpenCV and Pillow before it answers its first request.
_START_SECONDS = 120.0
CAN_SHARE = hasattr(os, "memfd_create")
"""Whether this system has memory that processes share without a file: Linux has."""


class Crew:
    """The processes, each of which starts when it is first needed.

    Args:
        ops: what they do to an image.
        seed: of what is random.
        shape: of all the memory: rows, and a row's channels, height and width.

    Attributes:
        rows: the memory, float32.
    """

    def __init__(self, ops: Sequence[AnyOp], seed: int, shape: tuple[int, ...]) -> None:
        # Not in /dev/shm, which is 64 MB in a container: less than one batch.
        self._memory = os.memfd_create("hgdeploy images")
        size = max(mmap.PAGESIZE, math.prod(shape) * np.dtype(np.float32).itemsize)
        os.ftruncate(self._memory, size)
        mapped = mmap.mmap(self._memory, size)
        self.rows: NDArray[np.float32] = np.frombuffer(
            mapped, np.float32, math.prod(shape)
        ).reshape(shape)
        start = {"ops": ops_to_json(ops), "seed": seed, "memory": self._memory, "shape": shape}
        self._start = Message({"do": "start", **start})
        self._idle: queue.SimpleQueue[ChildProcess] = queue.SimpleQueue()

    def read(self, epoch: int, images: Sequence[tuple[int, int, str]]) -> dict[int, str]:
        """Read some images, in one process; called from as many threads as there are to be.

        Args:
            epoch: the epoch.
            images: each one's row, its index, and its path.

        Returns:
            Why an image could not be read, by row; the rows of the others are filled.

        Raises:
            ResourceError: the system starts no more processes, or gives them no memory.
        """
        with contextlib.suppress(ChildError):
            return self._ask(epoch, images)
        # Perhaps not for an image's sake: each is tried again, after which it is known which.
        failed = {}
        for image in images:
            try:
                failed.update(self._ask(epoch, [image]))
            except ChildError as error:
                failed[image[0]] = f"crashed the decoder ({error.how})"
        return failed

    def close(self) -> None:
        """End the processes, and give the memory back once `rows` is not used any more."""
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                break
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def _ask(self, epoch: int, images: Sequence[tuple[int, int, str]]) -> dict[int, str]:
        child = self._child()
        try:
            answer = child.ask(Message({"do": "read", "epoch": epoch, "images": images}))
            return {int(row): reason for row, reason in answer.values["failed"].items()}
        finally:
            if child.alive:
                self._idle.put(child)
            else:
                child.close()

    def _child(self) -> ChildProcess:
        """Return a process that is ready to read."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            pass
        try:
            child = ChildProcess("hgdeploy.training.data.crew_child", files=(self._memory,))
            try:
                child.ask(self._start, _START_SECONDS)
            except BaseException:
                child.close()
                raise
        except (ChildError, HGDeployError) as error:
            raise ResourceError(
                f"a process that reads images did not start: {error}; set DataLoader.Train.loader."
                "num_workers to fewer"
            ) from None
        return child
