# SPDX-License-Identifier: Apache-2.0
"""Find image files and decode them to RGB: every file gives its whole picture or a reason.

OpenCV decodes, because its pixels are the ones that PaddleClas feeds to a model; for plain JPEG
files `hgdeploy.jpeg` gives the same ones faster. Around it stands what OpenCV does not do: the size
is read from the header before any memory is spent, a picture of which only a part is there is
refused, and every failure is an ImageError of a few words.
"""

from __future__ import annotations

import functools
import os
import stat
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import ImageError, InputError
from hgdeploy.image_headers import ImageHeader, read_header
from hgdeploy.jpeg import decode_plain_jpeg, reduction

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
LIST_SUFFIXES = (".txt", ".lst", ".list")

# More than any camera makes (200 million) and than WebP can hold, yet 0.8 GB at most once decoded.
# Without it a PNG of 875 KB can take 5 GB: OpenCV itself stops only at 2**30.
MAX_PIXELS = 2**28

# OpenCV indexes the encoded bytes with a 32-bit int.
_MAX_BYTES = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file to classify.

    A million of them may be in memory, and a path takes four times as much as its text.

    Attributes:
        place: where it is, as text.
        name: what to call it in results, with forward slashes; see `find_images`.
    """

    place: str
    name: str

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.place)


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
    return [ImageFile(file.place, file.path.as_posix()) for file in found]


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
        return [ImageFile(str(path), path.name)]
    elif _is_pattern(text):
        files, base = _glob(path)
    else:
        raise InputError(f"{text}: does not exist")
    if not files:
        raise InputError(f"{text}: no images found (searched for {', '.join(IMAGE_SUFFIXES)})")
    return [ImageFile(file, Path(file).relative_to(base).as_posix()) for file in files]


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _walk(folder: Path) -> list[str]:
    """All images in a folder and below it, sorted by character, as PaddleClas does."""
    found: list[str] = []
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
                        found.append(str(path))
        except OSError as error:
            raise InputError(f"{current}: cannot be searched: {_reason(error)}") from None
    found.sort()
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself: not a folder, and reading it will say why
        return False


def _glob(pattern: Path) -> tuple[list[str], Path]:
    """Images that a pattern matches, and the folder before its first wildcard."""
    fixed = next(index for index, part in enumerate(pattern.parts) if _is_pattern(part))
    base = Path(*pattern.parts[:fixed])
    found: set[str] = set()
    try:
        for match in base.glob(str(Path(*pattern.parts[fixed:]))):
            if match.is_dir():
                found.update(_walk(match))
            elif _is_image(match):
                found.add(str(match))
    except ValueError as error:
        raise InputError(f"{pattern}: is not a valid pattern: {error}") from None
    return sorted(found), base


def _read_list(path: Path) -> list[ImageFile]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}); save it so") from None
    lines = [line.strip() for line in text.split("\n")]
    files = [ImageFile(str(path.parent / line), Path(line).as_posix()) for line in lines if line]
    if not files:
        raise InputError(f"{path}: the list is empty; write one image path per line")
    return files


def _reason(error: OSError | ValueError) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error)).lower()


def read_image(
    path: str | Path, *, max_pixels: int = MAX_PIXELS, shrink_to: int | None = None
) -> NDArray[np.uint8]:
    """Read and decode one image file; safe to call from many threads at once.

    Args:
        path: the file. It is read as bytes, so that any name works on any system.
        max_pixels: refuse a picture of more pixels, before decoding it.
        shrink_to: see `decode_image`.

    Returns:
        See `decode_image`.

    Raises:
        ImageError: a short reason without the path, such as `is a directory` or `is truncated`.
    """
    return decode_image(_read_bytes(Path(path)), max_pixels=max_pixels, shrink_to=shrink_to)


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


def decode_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, shrink_to: int | None = None
) -> NDArray[np.uint8]:
    """Decode one JPEG, PNG, BMP, WebP, TIFF or GIF; safe to call from many threads at once.

    EXIF orientation is applied, alpha dropped, gray and palette widened to three channels, 16 bits
    reduced to 8, and of several frames or pages the first is taken: the pixels are those of
    `cv2.imread(path, cv2.IMREAD_COLOR)`.

    A missing part is refused. Bytes changed in place are noticed only where the format has
    checksums or the decoder stumbles over them.

    Args:
        data: the contents of the file.
        max_pixels: refuse a picture of more pixels, before decoding it.
        shrink_to: let a JPEG be decoded at a half, a quarter or an eighth of its size, the smallest
            whose short side still has this many pixels. It saves much of the time of a large
            photograph and changes pixels a little. None, and all other formats: full size.

    Returns:
        Contiguous uint8 array of shape (height, width, 3), values 0..255, in RGB order.

    Raises:
        ImageError: a short reason, such as `is truncated (JPEG)`.
    """
    header = read_header(data)
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
    divisor = 1
    if header.jpeg is not None:
        divisor = reduction(header.jpeg, shrink_to)
        rgb = decode_plain_jpeg(data, header.jpeg, divisor, _quiet_cv2())
        if rgb is not None:
            return rgb
    return _decode_with_opencv(data, header, divisor)


def _decode_with_opencv(data: bytes, header: ImageHeader, divisor: int) -> NDArray[np.uint8]:
    cv2 = _quiet_cv2()
    # Its flags for reduced sizes are 16, 32 and 64 for a half, a quarter and an eighth.
    flags = cv2.IMREAD_COLOR_RGB | (0 if divisor == 1 else 8 * divisor)
    try:
        rgb: NDArray[np.uint8] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if rgb is not None:
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
