# SPDX-License-Identifier: Apache-2.0
"""AVIF and JPEG 2000 files, whose parts are boxes: how large their pictures are."""

from __future__ import annotations

import struct
from collections.abc import Iterator

JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
CODESTREAM = b"\xff\x4f\xff\x51"
# OpenCV reads no more. A decoder takes four bytes for each pixel of each of them, and a header of
# a few bytes may declare thousands.
_MOST_COMPONENTS = 4


def brands(data: bytes) -> set[bytes]:
    """Return the brands of a file whose first box is `ftyp`; none of another file."""
    if data[4:8] != b"ftyp":
        return set()
    (size,) = struct.unpack_from(">I", data)
    return {data[at : at + 4] for at in (8, *range(16, min(size, 256), 4))}


def read_avif_size(data: bytes) -> tuple[int, int]:
    """Return width and height of an AVIF file: of its largest picture, as others are parts of it.

    Args:
        data: the contents of the file.

    Raises:
        struct.error: a box reaches past the end.
        ValueError: what is wrong with the picture.
    """
    meta, end = _first(data, b"meta", 0, len(data))
    properties, end = _first(data, b"iprp", meta + 4, end)
    container, end = _first(data, b"ipco", properties, end)
    found = _boxes(data, b"ispe", container, end)
    sizes = [struct.unpack_from(">II", data, body + 4) for body, _ in found]
    if not sizes:
        raise ValueError("its size is missing")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return width, height


def read_jpeg2000_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a JPEG 2000 file, or of its codestream alone.

    Args:
        data: the contents of the file.

    Raises:
        struct.error: a box reaches past the end.
        ValueError: what is wrong with the picture.
    """
    start, components = 0, 0
    if data.startswith(JP2_SIGNATURE):
        header, end = _first(data, b"jp2h", 0, len(data))
        for palette, _ in _boxes(data, b"pclr", header, end):
            components = max(components, data[palette + 2])
        start, _ = _first(data, b"jp2c", 0, len(data))
    if not data.startswith(CODESTREAM, start):
        raise ValueError("its picture does not begin with a size")
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    components = max(components, *struct.unpack_from(">H", data, start + 40))
    if components > _MOST_COMPONENTS:
        raise ValueError(f"it has {components} colours, more than the limit of {_MOST_COMPONENTS}")
    return max(right - left, 0), max(bottom - top, 0)


def _first(data: bytes, kind: bytes, start: int, end: int) -> tuple[int, int]:
    """Return start and end of the contents of the first box of a kind in a part of the file."""
    found = next(_boxes(data, kind, start, end), None)
    if found is None:
        raise ValueError(f"it has no box {kind.decode()}")
    return found


def _boxes(data: bytes, kind: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of the contents of each box of a kind in a part of the file."""
    while start < end:
        size, found = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        elif size == 0:  # it goes on to the end
            size = end - start
        if start + size < body:
            raise ValueError(f"a box has {size} bytes")
        if start + size > len(data):
            raise struct.error("a box reaches past the end")
        if found == kind:
            yield body, min(start + size, end)  # else boxes inside one another cost quadratic time
        start += size
