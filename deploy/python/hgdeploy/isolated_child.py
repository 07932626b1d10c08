# SPDX-License-Identifier: Apache-2.0
"""The process that reads images for `hgdeploy.isolated_reader`, until its stdin ends."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from hgdeploy.errors import ImageError
from hgdeploy.image_reader import ImageReader, one_opencv_thread
from hgdeploy.preprocess import parse_ops


def _answer(reader: ImageReader, path: str) -> tuple[dict[str, Any], bytes]:
    try:
        tensor, decode, preprocess = reader.read_file(Path(path))
    except ImageError as error:
        return {"error": str(error)}, b""
    facts = {"dtype": tensor.dtype.name, "shape": tensor.shape, "bytes": tensor.nbytes}
    return {**facts, "decode": decode, "preprocess": preprocess}, tensor.tobytes()


def main() -> None:
    """Take the settings, then answer one path after the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    # The answers get stdout for themselves; what native code prints there goes to stderr.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    reader = ImageReader(parse_ops(settings["ops"], "ops"), settings["fast_decode"])
    one_opencv_thread()  # the parent has as many children as threads
    answer, data = {"dtype": "uint8", "shape": [0], "bytes": 0, "decode": 0, "preprocess": 0}, b""
    while True:
        answers.write(json.dumps(answer).encode("ascii") + b"\n" + data)
        answers.flush()
        line = sys.stdin.readline()
        if not line:
            return
        answer, data = _answer(reader, json.loads(line))


if __name__ == "__main__":
    main()
