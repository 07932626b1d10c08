# SPDX-License-Identifier: Apache-2.0
"""The images of a data set with their labels, from `DataLoader.<Train|Eval>.dataset`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import InputError
from hgdeploy.images.find import ImageFile
from hgdeploy.images.labelled import listed_labels, read_attributes, read_labelled_images
from hgdeploy.system.checks import cut
from hgdeploy.system.kinds import is_class_id
from hgdeploy.system.progress import OnLine

Names = Mapping[int, str]


@dataclass(frozen=True)
class Samples:
    """Labelled images.

    Attributes:
        files: the images.
        labels: int64 of shape (n,), each image's class; or float32 of shape (n, classes), 1 for
            each class that it has, of several.
        classes: how many classes there are.
        names: the classes' names by id, where folders or lists name them.
    """

    files: tuple[ImageFile, ...]
    labels: NDArray[np.int64] | NDArray[np.float32]
    classes: int
    names: Names | None


def read_samples(
    root: Path,
    listed: Path | None,
    delimiter: str | None,
    names: Names | None,
    on_warning: OnLine,
) -> Samples:
    """Read images that have one class each.

    Args:
        root: the images' folder.
        listed: the list of `PATH LABEL` lines; None for a folder for each class in `root`.
        delimiter: see `hgdeploy.images.labelled.read_labelled_images`.
        names: the classes' names by id; None to number those of folders or lists from 0, in
            alphabetical order, unless they are class ids themselves.
        on_warning: called with a line about files that were left out.

    Raises:
        InputError: there is no such folder or list, a line has another form, or a class no image.
    """
    if not root.is_dir():
        raise InputError(f"the images' folder {root} does not exist")
    folders = listed is None or listed.is_dir()
    place = root if listed is None else listed
    known = names if names is not None else _names(place, delimiter, folders=folders)
    images = place if folders else root
    files, labels = read_labelled_images(place, images, known, on_warning, delimiter=delimiter)
    if known is not None and names is None and set(labels) != set(known):
        empty = known[min(set(known) - set(labels))]
        raise InputError(f"{place}: the class {cut(empty)} has no images; add some, or remove it")
    classes = len(known) if known is not None else max(labels) + 1
    return Samples(files, np.array(labels, np.int64), classes, known)


def are_numbered(root: Path, listed: Path | None, delimiter: str | None) -> bool:
    """Return whether the folders or the list have class ids, and no names."""
    place = root if listed is None else listed
    return _names(place, delimiter, folders=place.is_dir()) is None


def _names(place: Path, delimiter: str | None, *, folders: bool) -> Names | None:
    """Return the classes of a folder of folders, or of a list, by number; None where they are ids.

    Raises:
        InputError: some of them are ids, and others are not.
    """
    if folders:
        with os.scandir(place) as entries:
            found = {e.name for e in entries if e.is_dir() and not e.name.startswith(".")}
    else:
        labels = (label for _, _, label in listed_labels(place, delimiter))
        first = next(labels, "0")
        # A million lines are not read twice for this; a name among ids is refused with its line.
        found = {first} if is_class_id(first) else {first, *labels}
    named = sorted(name for name in found if not is_class_id(name))
    if not named:
        return None
    if len(named) < len(found):
        number = min(found - set(named))
        raise InputError(
            f"{place}: some classes have names, such as {cut(named[0])}, and others numbers, such "
            f"as {number}; write names or numbers only"
        )
    return dict(enumerate(named))


def read_multilabel(root: Path, listed: Path) -> Samples:
    """Read images that have any of several classes: PaddleClas's list `PATH<tab>0,1,...`.

    Raises:
        InputError: there is no such folder or list, a line has another form, or a label is not
            known.
    """
    if not root.is_dir():
        raise InputError(f"the images' folder {root} does not exist")
    files, rows = read_attributes(listed, root)
    unknown = np.flatnonzero((rows < 0).any(axis=1))
    if len(unknown):
        raise InputError(
            f"{listed}: {cut(files[unknown[0]].name)} has a label of -1, not known, from which "
            "nothing can be learnt; write 0 or 1, or remove the line"
        )
    return Samples(files, rows.astype(np.float32), rows.shape[1], None)


def check_classes(samples: Samples, classes: int | None, where: str) -> int:
    """Return how many classes there are, and refuse labels that the network has no class for.

    Raises:
        InputError: an image has a class beyond them.
    """
    if classes is None:
        return samples.classes
    several = samples.labels.ndim == 2
    if several and samples.classes != classes:
        raise InputError(
            f"{where} has {samples.classes} labels for each image, and the network {classes} "
            f"classes; set Arch.class_num to {samples.classes}"
        )
    if not several and samples.classes > classes:
        worst = int(np.argmax(samples.labels))
        raise InputError(
            f"{where}: {cut(samples.files[worst].name)} has class {samples.labels[worst]}, and the "
            f"network {classes} classes, from 0; set Arch.class_num to {samples.classes}"
        )
    return classes
