# SPDX-License-Identifier: Apache-2.0
"""The headers of image files: kind and size, read before any memory is spent on pixels."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from hgdeploy.errors import ImageError
from hgdeploy.images.boxes import (
    CODESTREAM,
    JP2_SIGNATURE,
    brands,
    read_avif_size,
    read_jpeg2000_size,
)
from hgdeploy.images.jpeg import JpegHeader, read_jpeg_header
from hgdeploy.images.png import SIGNATURE, Span, read_png_header


@dataclass(frozen=True)
class ImageHeader:
    """What an image file says of itself before its pixels.

    Attributes:
        kind: the format's name.
        width: of the stored picture, before EXIF orientation.
        height: likewise.
        whole: whether the file goes on to its end; None if that takes too long to find out.
        jpeg: more about a JPEG; None for other formats.
        spare: start and end of each part of the file that no pixel depends on.
        rare: how its pixels are stored, where OpenCV may not read them.
    """

    kind: str
    width: int
    height: int
    whole: bool | None = None
    jpeg: JpegHeader | None = None
    spare: tuple[Span, ...] = ()
    rare: str = ""


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
                return read(kind, data)
            except (struct.error, IndexError, OverflowError):  # a position past the end
                raise ImageError(f"is truncated ({kind})") from None
            except ValueError as error:
                raise ImageError(f"is corrupt ({kind}): {error}") from None
    for kind, matches in _UNREAD:
        if matches(data):
            raise ImageError(f"is {kind}, which is not read; convert it to JPEG or PNG")
    if data.startswith(_LFS):
        raise ImageError("is a Git LFS pointer, and no image yet; fetch it with: git lfs pull")
    known = ", ".join(kind for kind, _, _ in _FORMATS)
    raise ImageError(f"is not an image (starts with {data[:8]!r}; known formats: {known})")


def _read_jpeg(kind: str, data: bytes) -> ImageHeader:
    header = read_jpeg_header(data)
    return ImageHeader(kind, header.width, header.height, header.whole, header, rare=header.rare)


def _read_png(kind: str, data: bytes) -> ImageHeader:
    header = read_png_header(data)
    return ImageHeader(kind, header.width, header.height, header.whole, spare=header.spare)


def _read_bmp(kind: str, data: bytes) -> ImageHeader:
    (pixels, header_size) = struct.unpack_from("<II", data, 10)
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    # OpenCV knows masks for 16 bits only behind a header of 40 bytes, and only these two.
    masks = struct.unpack_from("<III", data, 54) if (bits, compression) == (16, 3) else ()
    rare = ""
    if masks and (header_size != 40 or masks not in _MASKS):
        places = ", ".join(f"{mask:#x}" for mask in masks)
        rare = f"16-bit pixels of masks {places} behind a header of {header_size} bytes"
    elif bits not in (1, 4, 8, 16, 24, 32):
        rare = f"{bits}-bit pixels"
    elif compression > 3:
        rare = f"compression {compression}"
    height = abs(height)  # a negative height only means: first row first
    row = (abs(width) * bits + 31) // 32 * 4
    plain = compression in (0, 3) and pixels + row * height <= len(data)
    return ImageHeader(kind, abs(width), height, True if plain else None, rare=rare)


_MASKS = ((0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F))


def _read_gif(kind: str, data: bytes) -> ImageHeader:
    return ImageHeader(kind, *struct.unpack_from("<HH", data, 6))


def _read_webp(kind: str, data: bytes) -> ImageHeader:
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
    return ImageHeader(kind, width, height, riff_size + 8 <= len(data))


def _read_tiff(kind: str, data: bytes) -> ImageHeader:
    """Read the tags of the first page, in classic TIFF and BigTIFF of either byte order."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    count_format, entry_format, room = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    (directory,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + count_format, data, directory)
    if count > 0xFFFF:  # BigTIFF has room for 2**64
        raise ValueError(f"its directory has {count} entries")
    first = directory + struct.calcsize(order + count_format)
    entry_size = struct.calcsize(order + entry_format) + room
    values: dict[int, int] = {}
    for entry in range(first, first + count * entry_size, entry_size):
        tag, form, number = struct.unpack_from(order + entry_format, data, entry)
        if tag not in _TAGS or tag in values:  # libtiff takes the first of two
            continue
        place, letter = entry + entry_size - room, {1: "B", 3: "H", 4: "I", 16: "Q"}.get(form)
        if letter is None:
            if tag in (_WIDTH, _HEIGHT):
                raise ValueError("its size is not a whole number")
            continue
        if number * struct.calcsize(order + letter) > room:  # several values lie elsewhere
            (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, place)
        (values[tag],) = struct.unpack_from(order + letter, data, place)
    if not values.keys() >= {_WIDTH, _HEIGHT}:
        raise ValueError("its size is missing")
    return ImageHeader(kind, values[_WIDTH], values[_HEIGHT], rare=_rare_tiff(values))


_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOURS, _SAMPLE_FORMAT = 256, 257, 258, 259, 277, 339
_TAGS = (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOURS, _SAMPLE_FORMAT)
_SAMPLES = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex floating-point"}
# Those that libtiff unpacks without any other library, and JPEG and Deflate.
_COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32809, 32946)
_COMPRESSION_NAMES = {
    33003: "JPEG 2000",
    34661: "JBIG",
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
}


def _rare_tiff(values: dict[int, int]) -> str:
    bits, sample = values.get(_BITS, 1), values.get(_SAMPLE_FORMAT, 1)
    compression = values.get(_COMPRESSION, 1)
    rare = []
    if sample != 1 or bits not in (1, 2, 4, 8, 16):
        rare.append(" ".join([f"{bits}-bit", *filter(None, [_SAMPLES.get(sample)]), "samples"]))
    if values.get(_COLOURS, 1) > 4:
        rare.append(f"{values[_COLOURS]} samples for each pixel")
    if compression not in _COMPRESSIONS:
        rare.append(f"{_COMPRESSION_NAMES.get(compression, str(compression))} compression")
    return " and ".join(rare)


_PNM = re.compile(rb"P[1-6](?:\s|#[^\r\n]*[\r\n])+(\d{1,10})(?:\s|#[^\r\n]*[\r\n])+(\d{1,10})\s")


def _read_pnm(kind: str, data: bytes) -> ImageHeader:
    sides = _PNM.match(data)
    if sides is None and re.fullmatch(rb"P[1-6][\s\d]*", data):
        raise IndexError
    if sides is None:
        raise ValueError("its size is missing")
    return ImageHeader(kind, int(sides[1]), int(sides[2]))


def _read_avif(kind: str, data: bytes) -> ImageHeader:
    return ImageHeader(kind, *read_avif_size(data))


def _read_jpeg2000(kind: str, data: bytes) -> ImageHeader:
    return ImageHeader(kind, *read_jpeg2000_size(data))


_Matches = Callable[[bytes], bool]
_FORMATS: tuple[tuple[str, _Matches, Callable[[str, bytes], ImageHeader]], ...] = (
    ("JPEG", lambda data: data.startswith(b"\xff\xd8\xff"), _read_jpeg),
    ("PNG", lambda data: data.startswith(SIGNATURE), _read_png),
    ("BMP", lambda data: data.startswith(b"BM"), _read_bmp),
    ("WebP", lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _read_webp),
    ("TIFF", lambda data: data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _read_tiff),
    ("GIF", lambda data: data[:6] in (b"GIF87a", b"GIF89a"), _read_gif),
    ("AVIF", lambda data: not brands(data).isdisjoint((b"avif", b"avis")), _read_avif),
    ("JPEG 2000", lambda data: data.startswith((JP2_SIGNATURE, CODESTREAM)), _read_jpeg2000),
    ("PNM", lambda data: re.match(rb"P[1-6][\s#]", data) is not None, _read_pnm),
)
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# Pictures that OpenCV does not read, or not as `cv2.imread` does, by what users call them.
_UNREAD: tuple[tuple[str, _Matches], ...] = (
    ("HEIC", lambda data: not brands(data).isdisjoint(_HEIC)),
    ("JPEG XL", lambda data: data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"))),
    ("a Photoshop file", lambda data: data.startswith(b"8BPS")),
    ("OpenEXR", lambda data: data.startswith(b"\x76\x2f\x31\x01")),
    ("a Sun raster file", lambda data: data.startswith(b"\x59\xa6\x6a\x95")),
    ("Radiance HDR", lambda data: data.startswith((b"#?RADIANCE", b"#?RGBE"))),
    ("PAM or PFM", lambda data: re.match(rb"P[7Ff]\s", data) is not None),
    ("a Windows icon", lambda data: re.match(rb"\0\0[\1\2]\0[^\0]\0", data) is not None),
    ("JPEG XR", lambda data: data.startswith(b"II\xbc")),
    ("DDS", lambda data: data.startswith(b"DDS ")),
    ("QOI", lambda data: data.startswith(b"qoif")),
)
_LFS = b"version https://git-lfs.github.com/spec/"
