# SPDX-License-Identifier: Apache-2.0
"""The other writers of predictions: PaddleClas's lines, the list of failures, folders by class."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Protocol, TextIO

from hgdeploy.errors import ConfigError, OutputError
from hgdeploy.images.find import LIST_SUFFIXES, ImageFile
from hgdeploy.results.outputs import check_suffix, claiming
from hgdeploy.results.rows import FileFacts
from hgdeploy.system.files import check_replaceable, replacing, writing
from hgdeploy.transforms.prediction import Prediction, printable, text_line


class Writer(Protocol):
    """Takes predictions one by one; `close` without `finish` means that some are missing."""

    def write(self, prediction: Prediction, facts: FileFacts) -> None:
        """Take one prediction, and the image's file as it was when it was read."""

    def finish(self) -> None:
        """Make the files that need all images, once every image has been written."""

    def close(self) -> None:
        """Release files and memory; a second call does nothing."""


class LineWriter:
    """Writes PaddleClas's line for each classified image; failures are reported elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, prediction: Prediction, facts: FileFacts) -> None:  # noqa: ARG002
        """Write one line at once, so that a reader sees it immediately."""
        if prediction.error is None:
            self._stream.write(text_line(prediction) + "\n")
            self._stream.flush()

    def finish(self) -> None:
        """Do nothing: each line was written at once."""

    def close(self) -> None:
        """Leave the stream to its owner."""


def failures_files(path: Path) -> tuple[Path, Path]:
    """Return what is written for a list of failures: itself, and the reasons beside it."""
    return path, path.with_name(f"{path.name}.reasons.tsv")


class FailuresWriter:
    """Lists the images that failed, so that the list can be given to `predict` again.

    `NAME` has one absolute path per line, and `NAME.reasons.tsv` beside it the same paths, with
    control characters escaped, each with its reason. Both replace existing files when the run is
    finished, and are empty except for the heading if nothing failed.

    Args:
        path: the list; it must have a suffix that `find_images` reads as a list.

    Raises:
        ConfigError: another suffix.
        OutputError: it cannot be written, or another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        check_suffix("--failures", path, LIST_SUFFIXES)
        self._path, self._reasons_path = failures_files(path)
        with contextlib.ExitStack() as held:
            held.enter_context(claiming((self._path, self._reasons_path)))
            with writing(path):
                # Files without a name: a killed run leaves nothing behind.
                folder = path.absolute().parent
                self._list = held.enter_context(tempfile.TemporaryFile(dir=folder))
                self._reasons = held.enter_context(tempfile.TemporaryFile(dir=folder))
            self._held = held.pop_all()
        self._reasons.write(b"path\treason\n")
        self._failed = 0
        self._unlisted = 0

    def write(self, prediction: Prediction, facts: FileFacts) -> None:
        """Take one prediction; one that did not fail is ignored."""
        if prediction.error is None:
            return
        path = str(facts.path.absolute())
        self._failed += 1
        with writing(self._path):
            if _listable(path):
                self._list.write(path.encode("utf-8") + b"\n")
            else:
                self._unlisted += 1
            reason = f"{printable(path)}\t{printable(prediction.error)}\n"
            self._reasons.write(reason.encode("utf-8"))

    def finish(self) -> None:
        """Make both files.

        Raises:
            OutputError: one of them cannot be written; an existing file is unchanged.
        """
        for part, path in ((self._list, self._path), (self._reasons, self._reasons_path)):
            with replacing(path) as stream:
                part.seek(0)
                shutil.copyfileobj(part, stream)

    def close(self) -> None:
        """Drop the gathered failures, and let others write."""
        with writing(self._path):
            self._held.close()

    def text(self) -> str:
        """Return what is in the files, in one sentence."""
        sentence = (
            f"{self._failed} failed images are in {self._path}, with reasons in "
            f"{self._reasons_path.name}"
        )
        if self._unlisted:
            sentence += (
                f"; {self._unlisted} of them only there, since a text list cannot hold a name that "
                "has line breaks, spaces at its end or bytes that are not UTF-8"
            )
        return sentence


def _listable(path: str) -> bool:
    """Return whether a line of a UTF-8 text list can hold a path; see `find_images`."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\n" not in path and path == path.strip()


class LabelFolderWriter:
    """Copies each classified image into the folder of its best class, as `SavePreLabel` promises.

    The path relative to the searched folder is kept. No file is ever replaced: where another image
    has that name, a number is put before the suffix.

    Args:
        folder: the folder that holds one folder per class; it is made where it is not there.
        files: the images that will be classified.

    Raises:
        ConfigError: one of them lies in the folder, which would grow with each run.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, files: Iterable[ImageFile] = ()) -> None:
        self._folder = folder
        self._sources: dict[str, str] = {}  # of the copies of this run
        self.check_apart(files)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            check_replaceable(folder / "copy")

    def check_apart(self, files: Iterable[ImageFile]) -> None:
        """Refuse images to classify that lie in the folder.

        Raises:
            ConfigError: one of them does.
        """
        real = os.path.realpath(self._folder)
        for place in {os.path.dirname(file.place) for file in files}:  # noqa: PTH120 (a million)
            if Path(os.path.realpath(place)).is_relative_to(real):
                raise ConfigError(
                    f"SavePreLabel.save_dir {self._folder}: images to classify lie in it "
                    f"({place or os.curdir}), and copies would be copied again; name a folder "
                    "without images"
                )

    def write(self, prediction: Prediction, facts: FileFacts) -> None:
        """Copy one image; one that failed has no class and is left alone.

        Raises:
            OutputError: the folder cannot be written.
        """
        if prediction.error is not None:
            return
        best = prediction.class_ids[0] if prediction.class_ids else "none"
        # A name may be a whole path, but it must not lead out of the class's folder.
        parts = [part for part in PurePosixPath(prediction.path).parts if part not in ("/", "..")]
        try:
            target = self._free(self._folder.joinpath(str(best), *parts), facts.path)
            if target is None:
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            with facts.path.open("rb") as image, replacing(target) as copy:
                shutil.copyfileobj(image, copy)
            shutil.copymode(facts.path, target)
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"SavePreLabel cannot copy {facts.path}: {reason}") from None

    def _free(self, wanted: Path, image: Path) -> Path | None:
        """Return a name that no other image has; None where this image is there already."""
        target, number = wanted, 1
        while True:
            # A file system may take names in another case for the same.
            source = self._sources.setdefault(str(target).casefold(), str(image))
            if source == str(image):
                if not os.path.lexists(target):
                    return target
                if target.is_file() and filecmp.cmp(image, target, shallow=False):
                    return None
            number += 1
            target = wanted.with_name(f"{wanted.stem}.{number}{wanted.suffix}")

    def finish(self) -> None:
        """Do nothing: each copy was made at once."""

    def close(self) -> None:
        """Do nothing."""
