# SPDX-License-Identifier: Apache-2.0
"""Find image files and decode them to RGB: every file gives its whole picture or a reason.

OpenCV decodes, because its pixels are the ones that PaddleClas feeds to a model. Around it stands
what it does not do: the size is read from the header before any memory is spent, a picture of
which only a part is there is refused, and every failure is an ImageError of a few words.
"""

from __future__ import annotations

import functools
import os
import stat
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import ImageError, InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
LIST_SUFFIXES = (".txt", ".lst", ".list")

# More than any camera makes (200 million) and than WebP can hold, yet 0.8 GB at most once decoded.
# Without it a PNG of 875 KB can take 5 GB: OpenCV itself stops only at 2**30.
MAX_PIXELS = 2**28

# OpenCV indexes the encoded bytes with a 32-bit int.
_MAX_BYTES = 2**31 - 1


@dataclass(frozen=True)
class ImageFile:
    """One file to classify.

    Attributes:
        path: where it is.
        name: what to call it in results, with forward slashes; see `find_images`.
    """

    path: Path
    name: str


def find_images(inputs: str | Path | Sequence[str | Path]) -> list[ImageFile]:
    """Find the image files that inputs stand for.

    An input is one of these, tried in this order:

    - a folder: its images by suffix, in any case, with those of all folders below it. Links to
      folders are followed, and no folder is searched twice.
    - a text list (.txt, .lst, .list; UTF-8): one path per line, relative to the folder of the
      list. Blank lines and spaces around a path are skipped. Order and repetitions are kept, and
      so are files that do not exist: they fail when they are read.
    - any other file: itself, whatever its suffix.
    - a pattern with `*`, `?`, `[...]` or `**`: the images that it matches, and those in the
      folders that it matches. A path that exists is never taken for a pattern.

    Folders and patterns give their files sorted by path, as plain strings.

    Args:
        inputs: one input, or several whose files follow each other.

    Returns:
        At least one file. With one input, its name is relative to the searched folder (for a
        pattern, to its part before the first wildcard), for a single file the file name, and for a
        text list the line. With several, whose names could be the same, it is the whole path.

    Raises:
        InputError: an input does not exist, cannot be searched, or has no images.
    """
    if isinstance(inputs, str | os.PathLike):
        return _find(inputs)
    if not inputs:
        raise InputError("no input was given; name an image, a folder, a pattern or a text list")
    if len(inputs) == 1:
        return _find(inputs[0])
    found = [file for one in inputs for file in _find(one)]
    return [ImageFile(file.path, file.path.as_posix()) for file in found]


def _find(one: str | Path) -> list[ImageFile]:
    text = os.fspath(one)
    if not text.strip():
        raise InputError("an input is an empty path; name an image, a folder, a pattern or a list")
    try:
        return _search(Path(text), text)
    except OSError as error:  # such as a name that is too long, or a closed folder above it
        raise InputError(f"{text}: cannot be searched: {_reason(error)}") from None


def _search(path: Path, text: str) -> list[ImageFile]:
    if path.is_dir():
        files, base = _walk(path), path
    elif path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
        return _read_list(path)
    elif path.exists():
        return [ImageFile(path, path.name)]
    elif _is_pattern(text):
        files, base = _glob(path)
    else:
        raise InputError(f"{text}: does not exist")
    if not files:
        raise InputError(f"{text}: no images found (searched for {', '.join(IMAGE_SUFFIXES)})")
    return [ImageFile(file, file.relative_to(base).as_posix()) for file in files]


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _sorted(files: Iterable[Path]) -> list[Path]:
    return sorted(files, key=str)  # Path's own order is by component, PaddleClas's by character


def _walk(folder: Path) -> list[Path]:
    """All images in a folder and below it."""
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    # Links wait until all real folders are done, so that a folder is found under its own name.
    real, links = deque([folder]), deque[Path]()
    while real or links:
        current = (real or links).popleft()
        try:
            status = current.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(current) as entries:
                for entry in entries:
                    path = current / entry.name
                    if _is_folder(entry):
                        (links if entry.is_symlink() else real).append(path)
                    elif _is_image(path):
                        found.append(path)
        except OSError as error:
            raise InputError(f"{current}: cannot be searched: {_reason(error)}") from None
    return _sorted(found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself: not a folder, and reading it will say why
        return False


def _glob(pattern: Path) -> tuple[list[Path], Path]:
    """Images that a pattern matches, and the folder before its first wildcard."""
    fixed = next(index for index, part in enumerate(pattern.parts) if _is_pattern(part))
    base = Path(*pattern.parts[:fixed])
    found: set[Path] = set()
    try:
        for match in base.glob(str(Path(*pattern.parts[fixed:]))):
            if match.is_dir():
                found.update(_walk(match))
            elif _is_image(match):
                found.add(match)
    except ValueError as error:
        raise InputError(f"{pattern}: is not a valid pattern: {error}") from None
    return _sorted(found), base


def _read_list(path: Path) -> list[ImageFile]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}); save it so") from None
    lines = [line.strip() for line in text.split("\n")]
    files = [ImageFile(path.parent / line, Path(line).as_posix()) for line in lines if line]
    if not files:
        raise InputError(f"{path}: the list is empty; write one image path per line")
    return files


def _reason(error: OSError | ValueError) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error)).lower()


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read and decode one image file; safe to call from many threads at once.

    Args:
        path: the file. It is read as bytes, so that any name works on any system.
        max_pixels: refuse a picture of more pixels, before decoding it.

    Returns:
        See `decode_image`.

    Raises:
        ImageError: a short reason without the path, such as `is a directory` or `is truncated`.
    """
    return decode_image(_read_bytes(Path(path)), max_pixels=max_pixels)


def _read_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        # Only a regular file: opening a pipe or a device may block forever.
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is not a regular file but a pipe, socket or device")
        if status.st_size > _MAX_BYTES:
            raise ImageError(f"has {status.st_size} bytes, more than the limit of {_MAX_BYTES}")
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError("does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError(f"cannot be read: {_reason(error)}") from None


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode one JPEG, PNG, BMP, WebP, TIFF or GIF; safe to call from many threads at once.

    EXIF orientation is applied, alpha dropped, gray and palette widened to three channels, 16 bits
    reduced to 8, and of several frames or pages the first is taken: the pixels are those of
    `cv2.imread(path, cv2.IMREAD_COLOR)`.

    A missing part is refused. Bytes changed in place are noticed only where the format has
    checksums or the decoder stumbles over them.

    Args:
        data: the contents of the file.
        max_pixels: refuse a picture of more pixels, before decoding it.

    Returns:
        Contiguous uint8 array of shape (height, width, 3), values 0..255, in RGB order.

    Raises:
        ImageError: a short reason, such as `is truncated (JPEG)`.
    """
    header = _read_header(data)
    pixels = header.width * header.height
    if pixels > max_pixels:
        raise ImageError(
            f"has {pixels} pixels ({header.width}x{header.height}), more than the limit of "
            f"{max_pixels}"
        )
    if pixels == 0:
        raise ImageError(f"is corrupt ({header.kind}): its size is {header.width}x{header.height}")
    if header.whole is False:
        raise ImageError(f"is truncated ({header.kind})")
    cv2 = _quiet_cv2()
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if bgr is not None:
            rgb: NDArray[np.uint8] = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            return rgb
    except cv2.error as error:
        detail = " ".join(str(error.err).split())
        raise ImageError(f"cannot be decoded ({header.kind}): {detail}") from None
    if header.kind == "GIF" and not _reads_gif():
        raise ImageError(f"is a GIF, which OpenCV {cv2.__version__} cannot read; use 4.12 or later")
    fault = "is corrupt" if header.whole else "is truncated or corrupt"
    raise ImageError(f"{fault} ({header.kind})")


@functools.cache
def _quiet_cv2() -> ModuleType:
    """OpenCV, told not to log: what is wrong with a file is in the ImageError.

    libjpeg and libpng still print a line of their own about some corrupt files.
    """
    import cv2

    # The function moved in OpenCV 5.
    set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    set_log_level(0)
    return cv2


@functools.cache
def _reads_gif() -> bool:
    information = str(_quiet_cv2().getBuildInformation())
    return any(line.split() == ["GIF:", "YES"] for line in information.splitlines())


@dataclass(frozen=True)
class _Header:
    """What the first bytes say, and whether the last are there (None: cannot be told cheaply)."""

    kind: str
    width: int
    height: int
    whole: bool | None


def _read_header(data: bytes) -> _Header:
    if not data:
        raise ImageError("is empty")
    for kind, matches, read in _FORMATS:
        if matches(data):
            try:
                width, height, whole = read(data)
            except (struct.error, IndexError, OverflowError):  # a place past the end
                raise ImageError(f"is truncated ({kind})") from None
            except ValueError as error:
                raise ImageError(f"is corrupt ({kind}): {error}") from None
            return _Header(kind, width, height, whole)
    known = ", ".join(kind for kind, _, _ in _FORMATS)
    raise ImageError(f"is not an image (starts with {data[:8]!r}; known are {known})")


def _read_jpeg(data: bytes) -> tuple[int, int, bool]:
    """Size, and whether the end is there.

    OpenCV fills a scan that stops early (a download into a file of the final length, say) with
    whatever its last bytes decode to, so an end marker has to follow the start of the scan. It
    cannot stand inside a scan, and the one of a thumbnail stands before it.
    """
    width = height = 0
    for marker, position in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, position + 3)
        elif marker == 0xDA:
            return width, height, data.rfind(b"\xff\xd9") > position
    raise ValueError("it ends before the picture begins")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Markers, each with the position of its length field, up to the end of the image."""
    position = 2
    while True:
        position = data.find(b"\xff", position)
        if position < 0:
            raise IndexError
        while data[position] == 0xFF:  # any number of them may stand before a marker
            position += 1
        marker = data[position]
        position += 1
        if marker == 0xD9:
            return
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # these stand alone
            continue
        yield marker, position
        position += struct.unpack_from(">H", data, position)[0]


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
    """Size of the first page, in classic TIFF and BigTIFF of either byte order."""
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
        raise ValueError("it states no size")
    return sides[256], sides[257], None


_Reader = Callable[[bytes], tuple[int, int, bool | None]]
_FORMATS: tuple[tuple[str, Callable[[bytes], bool], _Reader], ...] = (
    ("JPEG", lambda data: data.startswith(b"\xff\xd8\xff"), _read_jpeg),
    ("PNG", lambda data: data.startswith(b"\x89PNG\r\n\x1a\n"), _read_png),
    ("BMP", lambda data: data.startswith(b"BM"), _read_bmp),
    ("WebP", lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _read_webp),
    ("TIFF", lambda data: data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _read_tiff),
    ("GIF", lambda data: data[:6] in (b"GIF87a", b"GIF89a"), _read_gif),
)
