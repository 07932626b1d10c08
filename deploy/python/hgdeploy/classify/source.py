# SPDX-License-Identifier: Apache-2.0
"""What `Classifier.predict` takes: paths, bytes, open files, pixels, and series of these."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import InputError
from hgdeploy.images.find import ImageFile, find_images
from hgdeploy.system.progress import OnLine

Source = str | Path | ImageFile | bytes | IO[bytes] | NDArray[Any] | Iterable[Any]
Found = ImageFile | bytes | NDArray[Any]
"""One image: a file, the contents of one, or pixels."""


def each_image(source: Source, on_warning: OnLine, index: int = 0) -> Iterator[tuple[str, Found]]:
    """Yield the images of a source, each with its name.

    Args:
        source: see `Classifier.predict`.
        on_warning: called with a line about files that were left out.
        index: names an image that has no file name.

    Raises:
        InputError: a named file, folder or glob holds no images, or a source is of another kind.
    """
    if isinstance(source, str | os.PathLike):
        yield from ((file.name, file) for file in find_images(source, on_warning))
    elif isinstance(source, ImageFile):
        yield source.name, source
    elif isinstance(source, bytes | bytearray | memoryview):
        yield f"<bytes {index}>", bytes(source)
    elif isinstance(source, np.ndarray) and source.ndim != 4:
        yield f"<array {index}>", source
    elif hasattr(source, "read"):  # before iterables, since an open file is one: of its lines
        name = getattr(source, "name", None)
        yield name if isinstance(name, str) else f"<file {index}>", _read_open_file(source)
    elif is_series(source):
        for i, part in enumerate(source):
            yield from each_image(part, on_warning, i)
    else:
        raise InputError(
            f"cannot classify a {type(source).__name__}, expected a path, bytes, a file open for "
            "reading bytes, a uint8 RGB array, or an iterable of these"
        )


def is_series(source: object) -> TypeGuard[Iterable[Any]]:
    """Return whether a source is a series of others, and not one image or path."""
    if isinstance(source, str | os.PathLike | bytes | bytearray | memoryview):
        return False
    if isinstance(source, np.ndarray):
        return source.ndim == 4
    # An open file is iterable too: of its lines.
    series = isinstance(source, Iterable) and not hasattr(source, "read")
    return series and not _is_one_thing(source)


def _is_one_thing(source: object) -> bool:
    """Return whether an iterable is no series of images: a mapping, or another library's array.

    An array of another library may have its colours in another order or place. What has one
    dimension may be a series, such as a column of paths.
    """
    array = hasattr(source, "__array__") and not isinstance(source, np.ndarray)
    return isinstance(source, Mapping) or (array and getattr(source, "ndim", 0) != 1)


def _read_open_file(file: Any) -> bytes:
    """Return what an open file still holds.

    Raises:
        InputError: it cannot be read, is open for text, or is at its end.
    """
    if isinstance(file, io.TextIOBase):
        raise InputError("cannot classify a file that is open for text; open it with mode 'rb'")
    try:
        data = file.read()
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise InputError(f"an open file cannot be read: {error}") from None
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InputError(f"an open file gave {type(data).__name__}, expected bytes")
    if not data:
        raise InputError("an open file has nothing left to read; call its seek(0) before")
    return bytes(data)
