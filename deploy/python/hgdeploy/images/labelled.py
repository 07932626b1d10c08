# SPDX-License-Identifier: Apache-2.0
"""Images whose class is known, from a list or from a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import InputError
from hgdeploy.images.find import ImageFile, find_images
from hgdeploy.system.checks import cut
from hgdeploy.system.documents import read_lines
from hgdeploy.system.kinds import is_class_id
from hgdeploy.system.progress import OnLine, nothing


def read_labelled_images(
    path: Path,
    images: Path,
    names: Mapping[int, str] | None,
    on_warning: OnLine = nothing,
    *,
    delimiter: str | None = None,
) -> tuple[tuple[ImageFile, ...], tuple[int, ...]]:
    """Read labelled images: PaddleClas's list, or a folder for each class.

    A line of a list ends with a class id, or with the whole name of one of the model's labels.

    A folder is named by one of the model's labels, or by a part of one between commas where only
    one label has that part. It may also be named by a class id, unless a label of the model is a
    number: then numbers are labels.

    Args:
        path: a text file of `PATH LABEL` lines, paths relative to `images`; or the folder `images`
            itself, whose sub-folders are named as above.
        images: the images' folder.
        names: the model's labels by class id; None where it has none.
        on_warning: called with a line about files that were left out of the folders.
        delimiter: what stands between path and label in the list, before the label for the last
            time; None for a tab where a line has one, else spaces; `\\t` is a tab.

    Returns:
        The images and their classes, in the same order.

    Raises:
        InputError: a line or folder does not have that form, names no class of the model, or gives
            an image another class than a line before.
    """
    if path.is_dir():
        found = _labelled_folders(find_images(images, on_warning), names)
    else:
        found = _labelled_list(path, images, names or {}, delimiter)
    if not found:
        raise InputError(f"{path} names no labelled images")
    for file, label in found:
        if names is not None and label not in names:
            raise InputError(
                f"{cut(file.name)} has class id {label}, and the model's labels end at {max(names)}"
            )
    return tuple(file for file, _ in found), tuple(label for _, label in found)


def read_attributes(path: Path, images: Path) -> tuple[tuple[ImageFile, ...], NDArray[np.int64]]:
    """Read PaddleClas's list of images with several labels: `PATH<tab>0,1,...`.

    Args:
        path: the list.
        images: the folder that its paths count from.

    Returns:
        The images, and for each one row of labels: 1, 0, or -1 for what is not known.

    Raises:
        InputError: the list cannot be read, a line has another form, or other labels than the
            first.
    """
    found: list[tuple[ImageFile, list[int]]] = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        name, _, written = line.strip().rpartition("\t")
        labels = written.split(",")
        if not name or not set(labels) <= {"-1", "0", "1"}:
            raise InputError(f"{path}, line {number}: {line[:60]!r} is not 'PATH<tab>0,1,...'")
        row = [int(label) for label in labels]
        if found and len(row) != len(found[0][1]):
            raise InputError(
                f"{path}, line {number} has {len(row)} labels, and the first {len(found[0][1])}"
            )
        found.append((ImageFile(str(images / name), name), row))
    if not found:
        raise InputError(f"{path} names no labelled images")
    return tuple(file for file, _ in found), np.array([row for _, row in found], np.int64)


def _lines(path: Path) -> Sequence[str]:
    try:
        return read_lines(path)
    except (OSError, ValueError) as error:
        raise InputError(f"label list {path} cannot be read: {error}") from None


def _labelled_list(
    path: Path, images: Path, names: Mapping[int, str], delimiter: str | None
) -> list[tuple[ImageFile, int]]:
    found = []
    known: dict[str, int] = {}
    classes = {name.strip(): index for index, name in names.items()}
    root = str(images)  # a million lines take pathlib half a minute
    for number, name, written in listed_labels(path, delimiter):
        if written not in classes and not is_class_id(written):
            between, also = delimiter or " ", " or one of the labels" if classes else ""
            raise InputError(
                f"{path}, line {number}: {cut(name + between + written)} is not "
                f"'PATH{between}LABEL' with a class id{also}"
            )
        label = classes[written] if written in classes else int(written)
        place = os.path.normpath(os.path.join(root, name))  # noqa: PTH118
        # a.jpg and ./a.jpg are one image; x/../a.jpg is elsewhere where x is a link to a folder.
        if known.setdefault(place, label) != label:
            raise InputError(
                f"{path}, line {number}: {cut(name)} has class {label}, and {known[place]} in "
                "a line before"
            )
        at = str(images / name) if ".." in name else place
        found.append((ImageFile(at, name), label))
    return found


def listed_labels(path: Path, delimiter: str | None) -> Iterator[tuple[int, str, str]]:
    """Read a list of `PATH LABEL` lines; paths may have spaces, and labels too, behind a tab.

    Args:
        path: the list.
        delimiter: see `read_labelled_images`.

    Yields:
        The line's number, the image's path and the label, as they are written.

    Raises:
        InputError: the list cannot be read, or a line has another form.
    """
    if delimiter == r"\t":  # as a shell hands it on; no list separates by these two characters
        delimiter = "\t"
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        between = delimiter or ("\t" if "\t" in line.strip() else None)
        name, *label = line.strip().rsplit(between, 1)
        if not name.strip() or not label or not label[0].strip():
            raise InputError(
                f"{path}, line {number}: {line[:60]!r} is not 'PATH{delimiter or ' '}LABEL'"
            )
        yield number, name.strip(), label[0].strip()


def _labelled_folders(
    files: Iterable[ImageFile], names: Mapping[int, str] | None
) -> list[tuple[ImageFile, int]]:
    classes = _classes_by_name(names or {})
    numbers_are_labels = any(map(is_class_id, classes))
    found = []
    for file in files:
        # A folder that may not be searched is among the files, to fail as what is in it would.
        inside = "/" in file.name or file.path.is_dir()
        folder = file.name.partition("/")[0] if inside else ""
        meant = classes.get(folder, set())
        if not meant and is_class_id(folder) and not numbers_are_labels:
            meant = {int(folder)}
        if len(meant) > 1:
            raise InputError(
                f"{cut(file.name)}: {cut(folder)} is the name of the classes "
                f"{', '.join(map(str, sorted(meant)))}; name the folder by the class id"
                + (", in a list of 'PATH LABEL' lines" if numbers_are_labels else "")
            )
        if not meant:
            allowed = "one of the model's labels" if classes else "a class id"
            if classes and not numbers_are_labels:
                allowed = f"a class id or {allowed}"
            raise InputError(f"{cut(file.name)} is in no folder that is {allowed}")
        found.append((file, min(meant)))
    return found


def _classes_by_name(names: Mapping[int, str]) -> dict[str, set[int]]:
    """Return the classes that a folder's name may mean: a whole label goes before a part of one."""
    whole: dict[str, set[int]] = {}
    parts: dict[str, set[int]] = {}
    for index, name in names.items():
        whole.setdefault(name.strip(), set()).add(index)
        for part in name.split(","):
            parts.setdefault(part.strip(), set()).add(index)
    return {**parts, **whole}
