# SPDX-License-Identifier: Apache-2.0
"""The process that reads training images for `hgdeploy.training.data.crew`."""

from __future__ import annotations

import contextlib
import math
import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import ImageError
from hgdeploy.images.reader import use_one_opencv_thread
from hgdeploy.system.messages import Message, serve
from hgdeploy.training.data.pipeline import Pipeline, ops_from_json


class _Reading:
    """Answers the requests: `start` brings the settings, and each `read` names some files."""

    pipeline: Pipeline
    rows: NDArray[np.float32]

    def start(self, request: Message) -> Message:
        # Where memory ends, the system is to end this process, and with it one image, not the run.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        given, shape = request.values, request.values["shape"]
        self.pipeline = Pipeline(ops_from_json(given["ops"]), given["seed"], "ops")
        memory = mmap.mmap(given["memory"], 0)
        self.rows = np.frombuffer(memory, np.float32, math.prod(shape)).reshape(shape)
        use_one_opencv_thread()  # there is a process for each CPU
        return Message({})

    def read(self, request: Message) -> Message:
        failed = {}
        for row, index, path in request.values["images"]:
            try:
                self.pipeline(Path(path), request.values["epoch"], index, self.rows[row])
            except ImageError as error:
                failed[row] = str(error)
        return Message({"failed": failed})


def main() -> None:
    """Take the settings, then read some files after the others."""
    reading = _Reading()
    serve({"start": reading.start, "read": reading.read})


if __name__ == "__main__":
    main()
