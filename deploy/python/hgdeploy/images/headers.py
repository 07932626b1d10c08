# SPDX-License-Identifier: Apache-2.0
"""The headers of image files: kind and size, read before any memory is spent on pixels."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from hgdeploy.errors import ImageError
from hgdeploy.images.jpeg import JpegHeader, read_jpeg_header


@dataclass(frozen=True)
class ImageHeader:
    """What an image file says of itself before its pixels.

    Attributes:
        kind: the format's name.
        width: of the stored picture, before EXIF orientation.
        height: likewise.
        whole: whether the file goes on to its end; None if that takes too long to find out.
        jpeg: more about a JPEG; None for other formats.
    """

    kind: str
    width: int
    height: int
    whole: bool | None
    jpeg: JpegHeader | None = None


def read_header(data: bytes) -> ImageHeader:
    """Read the header of an image file.

    Args:
        data: the contents of the file.

    Raises:
        ImageError: the format is not known, or the header is damaged or incomplete.
    """
    if not data:
        raise ImageError("is empty")
    for kind, matches, read in _FORMATS:
        if matches(data):
            try:
                facts = read(data)
            except (struct.error, IndexError, OverflowError):  # a position past the end
                raise ImageError(f"is truncated ({kind})") from None
            except ValueError as error:
                raise ImageError(f"is corrupt ({kind}): {error}") from None
            return ImageHeader(kind, *facts)
    known = ", ".join(kind for kind, _, _ in _FORMATS)
    raise ImageError(f"is not an image (starts with {data[:8]!r}; known formats: {known})")


def _read_jpeg(data: bytes) -> tuple[int, int, bool, JpegHeader]:
    header = read_jpeg_header(data)
    return header.width, header.height, header.whole, header


def _read_png(data: bytes) -> tuple[int, int, bool]:
    first, width, height = struct.unpack_from(">4sII", data, 12)
    if first != b"IHDR":
        raise ValueError(f"its first chunk is {first!r}")
    position, chunk = 8, b""
    while chunk != b"IEND":
        length, chunk = struct.unpack_from(">I4s", data, position)
        if not chunk.isalpha():
            raise ValueError(f"a chunk is called {chunk!r}")
        position += 12 + length
    return width, height, position <= len(data)


def _read_bmp(data: bytes) -> tuple[int, int, None]:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    return abs(width), abs(height), None  # a negative height only means: first row first


def _read_gif(data: bytes) -> tuple[int, int, None]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height, None


def _read_webp(data: bytes) -> tuple[int, int, bool]:
    (riff_size,) = struct.unpack_from("<I", data, 4)
    chunk = data[12:16]
    if chunk == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        width, height = low_width + (high_width << 16) + 1, low_height + (high_height << 16) + 1
    elif chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif chunk == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif len(chunk) < 4:
        raise IndexError
    else:
        raise ValueError(f"its first chunk is {chunk!r}")
    return width, height, riff_size + 8 <= len(data)


def _read_tiff(data: bytes) -> tuple[int, int, None]:
    """Read the size of the first page, in classic TIFF and BigTIFF of either byte order."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    count_format, entry_format, entry_size = ("Q", "HHQ", 20) if big else ("H", "HHI", 12)
    (directory,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + count_format, data, directory)
    if count > 0xFFFF:  # BigTIFF has room for 2**64
        raise ValueError(f"its directory has {count} entries")
    first = directory + struct.calcsize(order + count_format)
    sides: dict[int, int] = {}
    for position in range(first, first + count * entry_size, entry_size):
        tag, kind, _ = struct.unpack_from(order + entry_format, data, position)
        if tag in (256, 257):
            value_format = {3: "H", 4: "I", 16: "Q"}.get(kind)
            if value_format is None:
                raise ValueError("its size is not a whole number")
            value_position = position + struct.calcsize(order + entry_format)
            (sides[tag],) = struct.unpack_from(order + value_format, data, value_position)
        elif tag > 257:  # tags are in rising order
            break
    if len(sides) < 2:
        raise ValueError("its size is missing")
    return sides[256], sides[257], None


_Facts = tuple[int, int, bool | None] | tuple[int, int, bool, JpegHeader]
_Reader = Callable[[bytes], _Facts]
_FORMATS: tuple[tuple[str, Callable[[bytes], bool], _Reader], ...] = (
    ("JPEG", lambda data: data.startswith(b"\xff\xd8\xff"), _read_jpeg),
    ("PNG", lambda data: data.startswith(b"\x89PNG\r\n\x1a\n"), _read_png),
    ("BMP", lambda data: data.startswith(b"BM"), _read_bmp),
    ("WebP", lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _read_webp),
    ("TIFF", lambda data: data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _read_tiff),
    ("GIF", lambda data: data[:6] in (b"GIF87a", b"GIF89a"), _read_gif),
)
