# SPDX-License-Identifier: Apache-2.0
"""PNG files: what their chunks say, and which of them no pixel depends on."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# `cv2.imread` gives an animation's default image (IDAT), but `cv2.imdecode` gives the first frame
# instead, so the chunks of the animation are left out. Compressed text is left out because libpng
# unpacks it: twice, up to 8 MB from 8 KB, and up to a thousand times in a file.
_SPARE = frozenset((b"acTL", b"fcTL", b"fdAT", b"zTXt", b"iTXt"))
Span = tuple[int, int]


@dataclass(frozen=True)
class PngHeader:
    """What the chunks of a PNG file say.

    Attributes:
        width: of the stored picture, before EXIF orientation.
        height: likewise.
        whole: whether the file goes on to its last chunk.
        spare: start and end of each part that costs time and that no pixel depends on.
    """

    width: int
    height: int
    whole: bool
    spare: tuple[Span, ...]


def read_png_header(data: bytes) -> PngHeader:
    """Read the names and lengths of all chunks.

    Args:
        data: the contents of the file.

    Raises:
        struct.error: a chunk begins past the end.
        ValueError: what is wrong with a chunk.
    """
    first, width, height = struct.unpack_from(">4sII", data, 12)
    if first == b"CgBI":
        raise ValueError("it is Apple's own kind, as Xcode packs it into apps; convert it first")
    if first != b"IHDR":
        raise ValueError(f"its first chunk is {first!r}")
    position, chunk = len(SIGNATURE), b""
    spare: list[Span] = []
    while chunk != b"IEND":
        length, chunk = struct.unpack_from(">I4s", data, position)
        if not chunk.isalpha():
            raise ValueError(f"a chunk is called {chunk!r}")
        end = position + 12 + length
        if chunk in _SPARE:
            spare.append((position, end))
        position = end
    return PngHeader(width, height, position <= len(data), tuple(spare))


def without_parts(data: bytes, spans: Iterable[Span]) -> bytes:
    """Return `data` without these parts, which are in order and do not overlap."""
    view, kept, start = memoryview(data), [], 0
    for left, right in spans:
        kept.append(view[start:left])
        start = right
    return b"".join([*kept, view[start:]])
