# SPDX-License-Identifier: Apache-2.0
"""Images whose class is known, from a list or from a folder for each class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hgdeploy.errors import InputError
from hgdeploy.images.find import ImageFile, find_images


def read_labelled_images(
    path: Path, images: Path, names: Mapping[int, str] | None
) -> tuple[tuple[ImageFile, ...], tuple[int, ...]]:
    """Read labelled images: PaddleClas's list, or a folder for each class.

    Args:
        path: a text file of `PATH LABEL` lines, paths relative to `images`; or the folder `images`
            itself, whose sub-folders are named by class ids or by the model's labels.
        images: the images' folder.
        names: the model's labels by class id, for folders that are named by labels.

    Returns:
        The images and their classes, in the same order.

    Raises:
        InputError: a line or folder does not have that form.
    """
    found = _labelled_folders(images, names) if path.is_dir() else _labelled_list(path, images)
    if not found:
        raise InputError(f"{path} names no labelled images")
    return tuple(file for file, _ in found), tuple(label for _, label in found)


def _labelled_list(path: Path, images: Path) -> list[tuple[ImageFile, int]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"label list {path} cannot be read: {error}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal():
            raise InputError(f"{path}, line {number}: {line[:60]!r} is not 'PATH LABEL'")
        found.append((ImageFile(str(images / name), name), int(label)))
    return found


def _labelled_folders(images: Path, names: Mapping[int, str] | None) -> list[tuple[ImageFile, int]]:
    classes = {
        part.strip(): index
        for index, name in (names or {}).items()
        for part in (name, *name.split(","))
    }
    found = []
    for file in find_images(images):
        folder = file.name.partition("/")[0] if "/" in file.name else ""
        label = int(folder) if folder.isdecimal() else classes.get(folder)
        if label is None:
            raise InputError(
                f"{file.name} is in no folder that is a class id or one of the model's labels"
            )
        found.append((file, label))
    return found
