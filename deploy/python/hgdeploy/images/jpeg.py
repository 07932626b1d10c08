# SPDX-License-Identifier: Apache-2.0
"""JPEG files: what their headers say, and a faster way to the pixels that OpenCV gives.

simplejpeg and OpenCV decode with the same library (libjpeg-turbo), so for a plain file their pixels
are equal in every bit, and simplejpeg needs about half the time for a large photograph. Files that
are not plain, or have any fault, are left to OpenCV.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_END = b"\xff\xd9"
# Progressive files have about ten. Each one may cost a pass over the whole picture and only a few
# bytes, so that a file of some kilobytes could keep a decoder busy for hours. Large pictures may
# have fewer: as many as give so many pixels in all scans together, which take about five seconds.
MAX_SCANS = 100
_MAX_SCANS_OF_ANY = 20
_MAX_SCANNED_PIXELS = 2**30
_NO_FILL = re.compile(rb"[^\xff]")


@dataclass(frozen=True)
class JpegHeader:
    """What a JPEG file says of itself before its pixels.

    Attributes:
        width: of the stored picture, before EXIF orientation.
        height: likewise.
        whole: whether the file has its end marker.
        plain: 8 bits, one or three colours and no rare coding.
        exif: the APP1 segments, which may hold the orientation.
        rare: how it is coded, where OpenCV may not read it.
    """

    width: int
    height: int
    whole: bool
    plain: bool
    exif: bytes
    rare: str


def read_jpeg_header(data: bytes) -> JpegHeader:
    """Read the segments before the first scan.

    OpenCV fills a scan that stops early (a download into a file of the final length, say) with
    whatever its last bytes decode to, so an end marker has to follow the start of the scan. It
    cannot occur inside a scan, and a thumbnail's own comes before it.

    Args:
        data: the contents of the file.

    Raises:
        IndexError: a segment reaches past the end; or struct.error.
        ValueError: what is wrong with the picture.
    """
    frame = width = height = colours = precision = frames = 0
    exif: list[bytes] = []
    for marker, position in _segments(data):
        if marker in _FRAMES:
            frame, frames = marker, frames + 1
            precision, height, width, colours = struct.unpack_from(">BHHB", data, position + 2)
        elif marker == 0xE1:
            (length,) = struct.unpack_from(">H", data, position)
            exif.append(data[position - 2 : position + length])
        elif marker == 0xDA:
            plain = frames == 1 and frame in (0xC0, 0xC1, 0xC2) and precision == 8
            plain = plain and colours in (1, 3)
            if frame != 0xC0 or data[position + 2] != colours:
                plain = _check_scans(data, position, width * height) and plain
            whole = data.rfind(_END) > position
            rare = _rare(frame, precision, colours)
            return JpegHeader(width, height, whole, plain, b"".join(exif), rare)
    raise ValueError("it ends before the picture begins")


_FRAMES = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
_READ_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # baseline, extended, progressive; arithmetic
_FRAME_NAMES = {0xC3: "lossless coding", 0xCB: "lossless coding", 0xF7: "JPEG-LS coding"}


def _rare(frame: int, precision: int, colours: int) -> str:
    """Return what libjpeg-turbo, as OpenCV uses it, does not read; nothing where it reads all."""
    rare = []
    if frame and frame not in _READ_FRAMES:
        rare.append(_FRAME_NAMES.get(frame, "hierarchical coding"))
    if frame and precision in (12, 16):
        rare.append(f"{precision}-bit samples")
    if frame and colours == 2:
        rare.append("two colours")
    return " and ".join(rare)


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the markers, each with the position of its length field, up to the end of the image."""
    position = 2
    while True:
        position = data.find(b"\xff", position)
        if position < 0:
            raise IndexError
        found = _NO_FILL.search(data, position)  # any number of them may come before a marker
        if found is None:
            raise IndexError
        marker, position = data[found.start()], found.end()
        if marker == 0xD9:
            return
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # these stand alone
            continue
        yield marker, position
        position += struct.unpack_from(">H", data, position)[0]


def _check_scans(data: bytes, start: int, pixels: int) -> bool:
    """Refuse too many scans; return whether all EXIF data comes before the first of several."""
    end = data.find(_END, start)
    scans = 1 + data.count(b"\xff\xda", start, end if end >= 0 else len(data))
    limit = min(MAX_SCANS, max(_MAX_SCANS_OF_ANY, _MAX_SCANNED_PIXELS // max(pixels, 1)))
    if scans > limit:
        raise ValueError(
            f"its picture comes in {scans} scans, more than the limit of {limit} for {pixels} "
            "pixels (each may cost a pass over all of them)"
        )
    return data.find(b"\xff\xe1", start) < 0


def scale_divisor(header: JpegHeader, shrink_to: int | None) -> int:
    """Return 1, 2, 4 or 8: the most that both sides can be divided by, down to `shrink_to`.

    libjpeg-turbo decodes at any number of eighths, but only these are fast, and OpenCV has no
    others.

    Args:
        header: gives the size.
        shrink_to: the least length of the short side; None for the full size.
    """
    if shrink_to is None:
        return 1
    short = min(header.width, header.height)
    return next((d for d in (8, 4, 2) if -(-short // d) >= shrink_to), 1)


def decode_plain_jpeg(
    data: bytes, header: JpegHeader, divisor: int, cv2: ModuleType
) -> NDArray[np.uint8] | None:
    """Decode a plain and faultless JPEG to RGB.

    Args:
        data: the contents of the file.
        header: what `read_jpeg_header` returned for it.
        divisor: see `scale_divisor`.
        cv2: OpenCV.

    Returns:
        The pixels that OpenCV would give; None if OpenCV has to decode the file itself.
    """
    simplejpeg = _simplejpeg()
    if simplejpeg is None or not (header.plain and header.whole):
        return None
    width, height = -(-header.width // divisor), -(-header.height // divisor)
    turn = _turn(header.exif, cv2) if header.exif else _NO_TURN
    if turn is None:
        return None
    try:
        # Strict: what libjpeg-turbo only warns of is an error here, and is left to OpenCV.
        rgb: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, "RGB", min_height=height, min_width=width, strict=True
        )
    except (ValueError, RuntimeError, MemoryError):
        return None
    if rgb.shape != (height, width, 3):  # sides of a few pixels have no unique scale
        return None
    return _turned(rgb, turn, cv2)


@functools.cache
def _simplejpeg() -> Any:
    """Return the module; None if it is not installed, since OpenCV gives the same pixels."""
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


# Whether rows and columns change places, and OpenCV's code for the flip that follows.
_Turn = tuple[bool, int | None]
_NO_TURN: _Turn = (False, None)
_TURNS: tuple[_Turn, ...] = tuple(
    (swap, flip) for swap in (False, True) for flip in (None, 0, 1, -1)
)


def _turned(image: NDArray[np.uint8], turn: _Turn, cv2: ModuleType) -> NDArray[np.uint8]:
    swap, flip = turn
    if swap:
        image = cv2.transpose(image)
    return image if flip is None else cv2.flip(image, flip)


def _turn(exif: bytes, cv2: ModuleType) -> _Turn | None:
    """Return how OpenCV turns a picture with these APP1 segments.

    OpenCV decodes a tiny picture for that, because readers disagree about damaged or repeated EXIF
    data.
    """
    file, upright = _probe()
    seen = cv2.imdecode(np.frombuffer(file[:2] + exif + file[2:], np.uint8), cv2.IMREAD_COLOR)
    return next((t for t in _TURNS if np.array_equal(seen, _turned(upright, t, cv2))), None)


@functools.cache
def _probe() -> tuple[bytes, NDArray[np.uint8]]:
    """Return a JPEG that looks different in each orientation, and its pixels."""
    import cv2

    corners = np.array([[0, 80], [160, 240]], np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    file = cv2.imencode(".jpg", corners)[1]
    upright: Any = cv2.imdecode(file, cv2.IMREAD_COLOR)
    return file.tobytes(), upright
