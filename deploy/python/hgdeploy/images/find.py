# SPDX-License-Identifier: Apache-2.0
"""Find image files: in folders, by patterns, in text lists."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hgdeploy.errors import InputError
from hgdeploy.images.search import Search, is_pattern
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.transforms.prediction import printable

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".png", ".apng", ".bmp", ".dib"),
    *(".webp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""The suffixes of the files that count as images in a folder, in upper or lower case."""

LIST_SUFFIXES = (".txt", ".lst", ".list")
"""The suffixes of text lists of paths, in upper or lower case."""

# Suffixes of files that are no pictures and often lie beside them; others are named, as they may be
# pictures of a kind that is not read.
_NO_PICTURES = (
    *(*LIST_SUFFIXES, ".md", ".rst", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".xml"),
    *(".yml", ".yaml", ".ini", ".html", ".log", ".py", ".sh", ".db"),
)
_PICTURES = {".heic": "HEIC", ".heif": "HEIC", ".hif": "HEIC", ".jxl": "JPEG XL"}
_SHOWN_SUFFIXES = 5


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


def find_images(
    inputs: str | Path | Sequence[str | Path], on_warning: OnLine = nothing
) -> list[ImageFile]:
    """Find the image files that the inputs name.

    An input is one of these, tried in this order:

    - a folder: the images in it and in all folders below it, by suffix in upper or lower case.
      Links to folders are followed, and no folder is searched twice. A folder below it that may not
      be searched is in the result under its own name, and fails when it is read.
    - a text list (.txt, .lst, .list; UTF-8): one path per line, relative to the folder of the
      list. Blank lines and spaces around a path are skipped. Order and repetitions are kept, and
      so are files that do not exist: they fail when they are read. A folder stands for the images
      in it, and fails itself where it has none or may not be searched.
    - any other file: itself, whatever its suffix.
    - a pattern with `*`, `?`, `[...]` or `**`: the images that it matches, and those in the
      folders that it matches. A path that exists, or the part of it that does, is never taken for a
      pattern.

    The files of a folder or pattern are sorted by path, compared as plain strings.

    Args:
        inputs: one input, or several; their files follow each other.
        on_warning: called with a line that counts the files that were left out by their suffixes.

    Returns:
        At least one file. With one input, a file's name is its path relative to the searched folder
        (for a pattern, to the folder before the first wildcard), for a single file the file name,
        and for a text list the line. With several, whose names could clash, it is the whole path.

    Raises:
        InputError: an input does not exist, cannot be searched, or has no images.
    """
    if isinstance(inputs, str | os.PathLike):
        return _find(inputs, on_warning)
    if not inputs:
        raise InputError("no input was given; name an image, a folder, a pattern or a text list")
    if len(inputs) == 1:
        return _find(inputs[0], on_warning)
    found = [file for one in inputs for file in _find(one, on_warning)]
    return [ImageFile(file.place, file.path.as_posix()) for file in found]


def _find(one: str | Path, on_warning: OnLine) -> list[ImageFile]:
    text = os.fspath(one)
    if not text.strip():
        raise InputError("an input is an empty path; name an image, a folder, a pattern or a list")
    path, shown = Path(text), printable(text)
    try:
        if path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
            return _read_list(path, on_warning)
        if path.exists() and not path.is_dir():
            return [ImageFile(str(path), path.name)]
        found = Search()
        if path.is_dir():
            base = path
            found.walk(path)
        elif is_pattern(text):
            base, parts = _existing(path)
            found.glob(base, parts)
        elif path.is_symlink():
            raise InputError(
                f"{shown}: is a link to {printable(str(path.readlink()))}: {_why(path)}"
            )
        else:
            raise InputError(f"{shown}: does not exist")
    except OSError as error:  # such as a name that is too long, or an unreadable folder above it
        raise InputError(f"{shown}: cannot be searched: {reason_of_access_error(error)}") from None
    return _images(found, base, shown, on_warning)


def _why(link: Path) -> str:
    """Return why a link leads to nothing, in the system's words."""
    try:
        link.stat()
    except OSError as error:
        return reason_of_access_error(error)
    return "there is something now"


def _existing(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the part of a pattern that exists as it stands, and the rest of it."""
    parts = pattern.parts
    known = next(n for n in range(len(parts), -1, -1) if Path(*parts[:n]).exists())
    return Path(*parts[:known]), parts[known:]


def _images(found: Search, base: Path, shown: str, on_warning: OnLine) -> list[ImageFile]:
    """Return what was found under its names, and the folders that could not be searched."""
    if str(base) in found.closed:
        reason = reason_of_access_error(found.closed[str(base)])
        raise InputError(f"{shown}: cannot be searched: {reason}")
    places, others = {*found.closed}, Counter[str]()
    for place in set(found.files):
        name, suffix = _split(place)
        if suffix in IMAGE_SUFFIXES or name.lower() in IMAGE_SUFFIXES:  # also a file called .jpg
            places.add(place)
        elif suffix not in _NO_PICTURES and (suffix or not name.startswith(".")):
            others[suffix] += 1
    left_out = _left_out(others)
    if not places:
        raise InputError(
            f"{shown}: no images found (searched for {', '.join(IMAGE_SUFFIXES)}){left_out}"
        )
    if left_out:
        on_warning(f"{shown}{left_out}")
    return [ImageFile(place, Path(place).relative_to(base).as_posix()) for place in sorted(places)]


def _split(place: str) -> tuple[str, str]:
    """Return a file's name and its suffix in lower case, as `Path` does, but without making one."""
    name = place.rpartition(os.sep)[2]
    dot = name.rfind(".")
    return name, name[dot:].lower() if 0 < dot < len(name) - 1 else ""


def _left_out(others: Counter[str]) -> str:
    """Return the end of a line: the files that were left out, or nothing if there are none."""
    if not others:
        return ""
    kinds = []
    for suffix, count in others.most_common(_SHOWN_SUFFIXES):
        name = printable(suffix) or "without a suffix"
        note = f" ({_PICTURES[suffix]}: convert to JPEG or PNG)" if suffix in _PICTURES else ""
        kinds.append(f"{count} {name}{note}")
    if len(others) > _SHOWN_SUFFIXES:
        kinds.append("...")
    number = others.total()
    return f": {number} other file{'s' * (number > 1)} left out, by suffix: {', '.join(kinds)}"


def _read_list(path: Path, on_warning: OnLine) -> list[ImageFile]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{printable(str(path))}: is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    lines = [line.strip() for line in text.split("\n")]
    files: list[ImageFile] = []
    for line in filter(None, lines):
        file = ImageFile(str(path.parent / line), Path(line).as_posix())
        # Nothing is asked of the disk for a million lines that name images.
        may_be_folder = _split(line)[1] not in IMAGE_SUFFIXES
        files += _in_folder(file, on_warning) if may_be_folder else [file]
    if not files:
        raise InputError(
            f"{printable(str(path))}: the list is empty; write one image path per line"
        )
    return files


def _in_folder(listed: ImageFile, on_warning: OnLine) -> list[ImageFile]:
    """Return the images of a folder in a list; what is none, or cannot be searched, as it is."""
    found = Search()
    try:
        if not listed.path.is_dir():
            return [listed]
        found.walk(listed.path)
        images = _images(found, listed.path, printable(listed.name), on_warning)
    except (OSError, InputError):  # reading it will say why
        return [listed]
    return [ImageFile(file.place, f"{listed.name}/{file.name}") for file in images]


def reason_of_access_error(error: OSError | ValueError) -> str:
    """Return why a file could not be accessed, in the system's own words, without the path."""
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error)).lower()
