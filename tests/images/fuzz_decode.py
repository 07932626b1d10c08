# SPDX-License-Identifier: Apache-2.0
"""Fuzz the image decoder with atheris (`pip install -e '.[cpu,fuzz]'`); see docs/images.md.

Whatever the bytes, `decode_image` gives uint8 RGB of no more pixels than allowed or an ImageError,
and for a JPEG the pixels of OpenCV. Arguments are libFuzzer's, such as `-runs=200000`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris
import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "deploy" / "python"))
sys.path.insert(0, str(Path(__file__).parents[1] / "makers"))

with atheris.instrument_imports(include=["hgdeploy"]):
    from hgdeploy.errors import ImageError
    from hgdeploy.images.decode import decode_image

from hostile_files import hostile_files

MAX_PIXELS = 10**6


def check_decoding(data: bytes) -> None:
    """Decode at full and at reduced size; raises what should not happen."""
    for shrink_to in (None, 8):
        try:
            image = decode_image(data, max_pixels=MAX_PIXELS, shrink_to=shrink_to)
        except ImageError as error:
            if "\n" in str(error):
                raise ValueError("the reason has several lines") from error
            continue
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise TypeError(f"{image.dtype} of shape {image.shape}")
        if not 0 < image.size <= 3 * MAX_PIXELS:
            raise ValueError(f"an image of shape {image.shape}")
        if shrink_to is None and data.startswith(b"\xff\xd8"):
            seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if seen is None or not np.array_equal(seen[:, :, ::-1], image):
                raise ValueError("other pixels than OpenCV's")


def main() -> int:
    """Run libFuzzer on files of every kind, and on those that it makes of them."""
    with tempfile.TemporaryDirectory() as folder:
        for index, (_, data, _) in enumerate(hostile_files()):
            if len(data) < 20_000:
                (Path(folder) / str(index)).write_bytes(data)
        fuzzer = os.fork()
        if fuzzer == 0:
            options = ["-max_len=20000", "-rss_limit_mb=1500", "-keep_seed=1"]
            atheris.Setup([*sys.argv, *options, folder], check_decoding)
            atheris.Fuzz()  # ends the process without a farewell, hence one of its own
        _, status = os.waitpid(fuzzer, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
