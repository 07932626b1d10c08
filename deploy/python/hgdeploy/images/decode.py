# SPDX-License-Identifier: Apache-2.0
"""From a file or its bytes to RGB pixels.

OpenCV decodes, because its pixels are the ones that PaddleClas feeds to a model; for plain JPEG
files `hgdeploy.images.jpeg` gives the same pixels faster. This module adds what OpenCV does not do:
the size is read from the header before any memory is spent, an incomplete picture is refused, and
every failure is an ImageError of a few words.
"""

from __future__ import annotations

import functools
import os
import stat
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import ImageError, ResourceError
from hgdeploy.images.find import reason_of_access_error
from hgdeploy.images.headers import ImageHeader, read_header
from hgdeploy.images.jpeg import decode_plain_jpeg, scale_divisor
from hgdeploy.images.png import without_parts
from hgdeploy.system.machine import raise_if_exhausted

# More than any camera makes (200 million) and than WebP can hold, yet 0.8 GB at most once decoded,
# and two to six times as much while it is decoded (docs/images.md). Without it a PNG of 875 KB can
# take 10 GB: OpenCV itself stops only at 2**30.
MAX_PIXELS = 2**28
# OpenCV indexes the encoded bytes with a 32-bit int.
_MAX_BYTES = 2**31 - 1
# Its decoder mistakes the order of colours where it is asked for RGB and the picture has alpha.
_BGR_ONLY = ("AVIF",)
# As OpenCV's build information names them.
_MAY_LACK = ("GIF", "AVIF", "JPEG 2000")


def read_image(
    path: str | Path, *, max_pixels: int = MAX_PIXELS, shrink_to: int | None = None
) -> NDArray[np.uint8]:
    """Read and decode one image file; safe to call from many threads at once.

    Args:
        path: the file. It is read as bytes, so that any name works on any system.
        max_pixels: a picture of more pixels is refused before it is decoded.
        shrink_to: see `decode_image`.

    Returns:
        See `decode_image`.

    Raises:
        ImageError: a short reason without the path, such as `is a directory` or `is truncated`.
        ResourceError: the system has no more open files or memory for this process.
    """
    return decode_image(_read_bytes(Path(path)), max_pixels=max_pixels, shrink_to=shrink_to)


def _read_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        # Only a regular file: opening a pipe or a device could block forever.
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(path):  # where it may not be searched, that is the reason
                raise ImageError("is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is not a regular file but a pipe, socket or device")
        if status.st_size > _MAX_BYTES:
            raise ImageError(f"has {status.st_size} bytes, more than the limit of {_MAX_BYTES}")
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError("does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        if isinstance(error, OSError):
            raise_if_exhausted(error)
        raise ImageError(f"cannot be read: {reason_of_access_error(error)}") from None


def decode_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, shrink_to: int | None = None
) -> NDArray[np.uint8]:
    """Decode one image file; safe to call from many threads at once.

    It may be a JPEG, PNG, BMP, WebP, TIFF, GIF, AVIF, JPEG 2000 or PNM (PBM, PGM, PPM).

    EXIF orientation is applied, alpha is dropped, gray and palette images become three channels, 16
    bits become 8, and of several frames or pages the first is taken: the pixels are those of
    `cv2.imread(path, cv2.IMREAD_COLOR)`.

    An incomplete file is refused. Bytes changed in place are noticed only if the format has
    checksums or the decoder stumbles over them.

    Args:
        data: the contents of the file.
        max_pixels: a picture of more pixels is refused before it is decoded.
        shrink_to: decode a JPEG at a half, a quarter or an eighth of its size: the smallest whose
            short side still has this many pixels. It saves much of the time for a large photograph
            and changes pixels a little. With None, and for all other formats: full size.

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
        divisor = scale_divisor(header.jpeg, shrink_to)
        rgb = decode_plain_jpeg(data, header.jpeg, divisor, _quiet_cv2())
        if rgb is not None:
            return rgb
    if header.spare:
        data = without_parts(data, header.spare)
    return _decode_with_opencv(data, header, divisor)


def _decode_with_opencv(data: bytes, header: ImageHeader, divisor: int) -> NDArray[np.uint8]:
    cv2 = _quiet_cv2()
    bgr = header.kind in _BGR_ONLY
    # Its flags for reduced sizes are 16, 32 and 64 for a half, a quarter and an eighth.
    reduced = 0 if divisor == 1 else 8 * divisor
    flags = (cv2.IMREAD_COLOR if bgr else cv2.IMREAD_COLOR_RGB) | reduced
    try:
        pixels: NDArray[np.uint8] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise ResourceError(
                f"there is no memory for a picture of {header.width}x{header.height} pixels; use "
                "fewer --workers"
            ) from None
        detail = " ".join(str(error.err).split())
        raise ImageError(f"cannot be decoded ({header.kind}): {detail}") from None
    if pixels is None:
        raise ImageError(_why_none(header))
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if bgr else pixels


def _why_none(header: ImageHeader) -> str:
    """Return why OpenCV gives no pixels of a file whose header is right."""
    version = _quiet_cv2().__version__
    if not _has_decoder(header.kind):
        return f"is {header.kind}, which this build of OpenCV {version} cannot read"
    if header.rare:
        return (
            f"is a {header.kind} with {header.rare}, which OpenCV {version} does not read; convert "
            "it to PNG"
        )
    return f"{'is corrupt' if header.whole else 'is truncated or corrupt'} ({header.kind})"


@functools.cache
def _quiet_cv2() -> ModuleType:
    """Return OpenCV with its log switched off: the ImageError says what is wrong with a file.

    libjpeg and libpng still print a line of their own about some corrupt files.
    """
    import cv2

    # The function moved in OpenCV 5.
    set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    set_log_level(0)
    return cv2


@functools.cache
def _has_decoder(kind: str) -> bool:
    """Return whether OpenCV was built with a decoder; it may lack those of newer formats."""
    lines = str(_quiet_cv2().getBuildInformation()).splitlines()
    said = [line.partition(":")[2].strip() for line in lines if line.strip().startswith(f"{kind}:")]
    return kind not in _MAY_LACK or (bool(said) and said[0] != "NO")
