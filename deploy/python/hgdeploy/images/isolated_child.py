# SPDX-License-Identifier: Apache-2.0
"""The process that reads images for `hgdeploy.images.isolated_reader`."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hgdeploy.images.reader import ImageReader, use_one_opencv_thread
from hgdeploy.system.messages import Message, serve
from hgdeploy.transforms.operators_config import parse_ops


class _Reading:
    """Answers the requests: `start` brings the settings, and each `read` names one file."""

    reader: ImageReader

    def start(self, request: Message) -> Message:
        ops = parse_ops(request.values["ops"], "ops")
        # Where memory ends, the system is to end this process, and with it one image, not the run.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        self.reader = ImageReader(ops, request.values["fast_decode"])
        use_one_opencv_thread()  # the parent has as many children as threads
        return Message({})

    def read(self, request: Message) -> Message:
        tensor, decode, preprocess = self.reader.read_file(Path(request.values["path"]))
        return Message({"decode": decode, "preprocess": preprocess}, {"tensor": tensor})


def main() -> None:
    """Take the settings, then answer one path after the other."""
    reading = _Reading()
    serve({"start": reading.start, "read": reading.read})


if __name__ == "__main__":
    main()
