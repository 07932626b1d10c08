# SPDX-License-Identifier: Apache-2.0
"""Find image files: in folders, by patterns, in text lists."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hgdeploy.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
"""The suffixes of the files that count as images in a folder, in upper or lower case."""

LIST_SUFFIXES = (".txt", ".lst", ".list")
"""The suffixes of text lists of paths, in upper or lower case."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file to classify.

    It holds text, because a million of them may be in memory and a `Path` takes four times as much.

    Attributes:
        place: its path, as text.
        name: what to call it in results, with forward slashes; see `find_images`.
    """

    place: str
    name: str

    @property
    def path(self) -> Path:
        """Its path."""
        return Path(self.place)


def find_images(inputs: str | Path | Sequence[str | Path]) -> list[ImageFile]:
    """Find the image files that the inputs name.

    An input is one of these, tried in this order:

    - a folder: the images in it and in all folders below it, by suffix in upper or lower case.
      Links to folders are followed, and no folder is searched twice.
    - a text list (.txt, .lst, .list; UTF-8): one path per line, relative to the folder of the
      list. Blank lines and spaces around a path are skipped. Order and repetitions are kept, and
      so are files that do not exist: they fail when they are read.
    - any other file: itself, whatever its suffix.
    - a pattern with `*`, `?`, `[...]` or `**`: the images that it matches, and those in the
      folders that it matches. A path that exists is never taken for a pattern.

    The files of a folder or pattern are sorted by path, compared as plain strings.

    Args:
        inputs: one input, or several; their files follow each other.

    Returns:
        At least one file. With one input, a file's name is its path relative to the searched folder
        (for a pattern, to the folder before the first wildcard), for a single file the file name,
        and for a text list the line. With several, whose names could clash, it is the whole path.

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
    except OSError as error:  # such as a name that is too long, or an unreadable folder above it
        raise InputError(f"{text}: cannot be searched: {reason_of_access_error(error)}") from None


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
    """Return all images in a folder and below it, sorted by character, as PaddleClas does."""
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
            reason = reason_of_access_error(error)
            raise InputError(f"{current}: cannot be searched: {reason}") from None
    found.sort()
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself: not a folder, and reading it will say why
        return False


def _glob(pattern: Path) -> tuple[list[str], Path]:
    """Return the images that a pattern matches, and the folder before its first wildcard."""
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
        raise InputError(
            f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    lines = [line.strip() for line in text.split("\n")]
    files = [ImageFile(str(path.parent / line), Path(line).as_posix()) for line in lines if line]
    if not files:
        raise InputError(f"{path}: the list is empty; write one image path per line")
    return files


def reason_of_access_error(error: OSError | ValueError) -> str:
    """Return why a file could not be accessed, in the system's own words, without the path."""
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error)).lower()
