# SPDX-License-Identifier: Apache-2.0
"""Search folders, of any depth; a folder that may not be searched fails by itself."""

from __future__ import annotations

import fnmatch
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hgdeploy.system.machine import raise_if_exhausted


@dataclass
class Search:
    """What a search of folders has met.

    Its methods raise a ResourceError where this process may have no more open files or memory.

    Attributes:
        files: the files, in no order. A link whose target is gone counts as a file.
        closed: each folder that cannot be searched, with the reason.
    """

    files: list[str] = field(default_factory=list)
    closed: dict[str, OSError] = field(default_factory=dict)
    _walked: set[str] = field(default_factory=set)  # a pattern may match folders in one another

    def walk(self, folder: Path) -> None:
        """Meet all files in a folder and below it; links are followed, each folder only once."""
        seen: set[tuple[int, int]] = set()
        # Links wait until all real folders are done, so that a folder is found under its own name.
        real, links = deque([str(folder)]), deque[str]()
        while real or links:
            current = (real or links).popleft()
            if current in self._walked:
                continue
            self._walked.add(current)
            try:
                status = Path(current).stat()
            except OSError as error:
                self._close(current, error)
                continue
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                continue
            seen.add(identity)
            for entry in self._entries(current):
                if _is_folder(entry):
                    (links if entry.is_symlink() else real).append(_path(entry))
                else:
                    self.files.append(_path(entry))

    def glob(self, base: Path, parts: Sequence[str]) -> None:
        """Meet the files that a pattern matches below a folder, and those in matching folders.

        Args:
            base: the folder.
            parts: one pattern for each level below it; `**` stands for any number of levels, and
                does not follow links.
        """
        waiting, seen = [(str(base), 0)], set[tuple[str, int]]()
        while waiting:
            state = place, level = waiting.pop()
            if state in seen:
                continue
            seen.add(state)
            if level == len(parts):
                if _is_folder(Path(place)):
                    self.walk(Path(place))
                else:
                    self.files.append(place)
            elif parts[level] == "**":
                waiting.append((place, level + 1))
                folders = filter(_is_folder, self._entries(place))
                waiting += [(_path(entry), level) for entry in folders if not entry.is_symlink()]
            elif is_pattern(parts[level]):
                matches = re.compile(fnmatch.translate(os.path.normcase(parts[level]))).match
                names = (e for e in self._entries(place) if matches(os.path.normcase(e.name)))
                waiting += [(_path(entry), level + 1) for entry in names]
            elif self._is_there(below := Path(place, parts[level])):
                waiting.append((str(below), level + 1))

    def _is_there(self, path: Path) -> bool:
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            self._close(str(path), error)
            return False
        return True

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        """Yield what is in a folder; a file, which a pattern may match like one, holds nothing."""
        try:
            with os.scandir(folder) as entries:
                yield from entries
        except NotADirectoryError:
            return
        except OSError as error:
            self._close(folder, error)

    def _close(self, folder: str, error: OSError) -> None:
        raise_if_exhausted(error)
        self.closed[folder] = error


def is_pattern(text: str) -> bool:
    """Return whether text has characters that mean something in a pattern."""
    return any(character in text for character in "*?[")


def _path(entry: os.DirEntry[str]) -> str:
    # Without what comes before the paths of a search that begins in the current folder.
    return entry.path.removeprefix(f"{os.curdir}{os.sep}")


def _is_folder(path: os.DirEntry[str] | Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # such as a link to itself: not a folder, and reading it will say why
        return False
