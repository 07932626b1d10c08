# SPDX-License-Identifier: Apache-2.0
"""The process that reads images for `hgdeploy.images.isolated_reader`."""

from __future__ import annotations

from pathlib import Path

from hgdeploy.errors import ImageError
from hgdeploy.images.reader import ImageReader, one_opencv_thread
from hgdeploy.system.processes import Message, Parent
from hgdeploy.transforms.operators_config import parse_ops


def _answer(reader: ImageReader, path: str) -> Message:
    try:
        tensor, decode, preprocess = reader.read_file(Path(path))
    except ImageError as error:
        return Message({"error": str(error)})
    return Message({"decode": decode, "preprocess": preprocess}, {"tensor": tensor})


def main() -> None:
    """Take the settings, then answer one path after the other."""
    parent = Parent()
    settings = parent.receive()
    if settings is None:
        return
    ops, fast_decode = settings.values["ops"], settings.values["fast_decode"]
    reader = ImageReader(parse_ops(ops, "ops"), fast_decode)
    one_opencv_thread()  # the parent has as many children as threads
    parent.answer(Message({}))
    while (request := parent.receive()) is not None:
        parent.answer(_answer(reader, request.values["path"]))


if __name__ == "__main__":
    main()
