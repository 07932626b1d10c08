# SPDX-License-Identifier: Apache-2.0
"""The golden set in tests/data/golden: pictures, and what preprocessing makes of them.

Python's tests and those of the C++ part check the same set, so that neither changes unnoticed, nor
both together with a library. To make it anew, where a change is meant:

    PYTHONPATH=deploy/python:tests/makers python tests/makers/golden_set.py
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from image_files import encoded, every_kind, exif, picture
from numpy.typing import NDArray
from PIL import Image

from hgdeploy.images.decode import decode_image
from hgdeploy.transforms.operators_config import parse_ops
from hgdeploy.transforms.preprocess import Preprocessor

FOLDER = Path(__file__).parents[1] / "data" / "golden"
NAMES = {
    "cv2": ("nearest", "bilinear", "bicubic", "area", "lanczos"),
    "pil": ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"),
}
Ops = list[dict[str, Any]]
# The C++ part refuses these by name where its OpenCV is Debian's.
NOT_IN_DEBIAN = (".gif", ".avif")
_KEPT_TENSORS = 6


def inputs() -> dict[str, bytes]:
    """Return the contents of the pictures' files, by name."""
    kinds = every_kind()
    files = {name: data for name, data in kinds.items() if len(data) < 10_000}
    image = Image.fromarray(picture(40, 24))
    for orientation in range(1, 9):
        files[f"exif{orientation}.jpg"] = encoded(image, "JPEG", exif=exif(orientation))
    for kind in ("PNG", "WEBP"):
        files[f"exif6.{kind.lower()}"] = encoded(image, kind, exif=exif(6))
    files["wide.jpg"] = encoded(Image.fromarray(picture(160, 120)), "JPEG", quality=90)
    files["tall.png"] = encoded(Image.fromarray(picture(30, 90)), "PNG")
    return dict(sorted(files.items()))


def usual(short: int, crop: int, **resize: object) -> Ops:
    normalize = {"scale": "1.0/255.0", "order": ""}
    return [
        {"ResizeImage": {"resize_short": short, **resize}},
        {"CropImage": {"size": crop}},
        {"NormalizeImage": normalize},
        {"ToCHWImage": None},
    ]


def cases() -> Iterator[tuple[str, Ops]]:
    """Yield (name of a file, operators): all interpolations, layouts and kinds of files."""
    for name in inputs():
        yield name, usual(32, 24)
    for backend, interpolations in NAMES.items():
        for interpolation in interpolations:
            how = {"backend": backend, "interpolation": interpolation}
            yield "wide.jpg", usual(64, 56, **how)
            yield "tall.png", usual(64, 56, **how)
            yield "tall.png", [{"ResizeImage": {"size": [40, 33], **how}}]
    half = {"order": "chw", "channel_num": 4, "output_fp16": True}
    yield "wide.jpg", [{"DecodeImage": {"to_rgb": False}}, *usual(48, 40)]
    yield "wide.jpg", [*usual(48, 40)[:2], {"ToCHWImage": None}, {"NormalizeImage": half}]
    yield "wide.jpg", [*usual(48, 40)[:2], {"ToCHWImage": None}]
    yield "wide.jpg", usual(48, 40)[:3]
    for interpolation in NAMES["cv2"]:
        late = {"ResizeImage": {"size": [50, 31], "interpolation": interpolation}}
        yield "wide.jpg", [{"NormalizeImage": {"order": "hwc", "channel_num": 4}}, late]


def digest(tensor: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()


def main() -> None:
    """Write the set: the pictures, cases.json, and some tensors whole."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    files = inputs()
    for name, data in files.items():
        (FOLDER / name).write_bytes(data)
    rows = []
    for index, (name, ops) in enumerate(cases()):
        tensor = Preprocessor(parse_ops(ops, "ops"))(decode_image(files[name]))
        row = {"file": name, "ops": ops, "dtype": str(tensor.dtype), "shape": list(tensor.shape)}
        rows.append({**row, "sha256": digest(tensor)})
        if index % 17 == 0 and index // 17 < _KEPT_TENSORS:
            rows[-1]["tensor"] = f"{index:03}.npy"
            np.save(FOLDER / f"{index:03}.npy", tensor)
    text = ",\n".join(json.dumps(row) for row in rows)
    (FOLDER / "cases.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
