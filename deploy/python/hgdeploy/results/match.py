# SPDX-License-Identifier: Apache-2.0
"""Match the rows of an earlier run with the images that are found now."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hgdeploy.images.find import ImageFile
from hgdeploy.results.rows import file_facts, row_from_line
from hgdeploy.transforms.prediction import printable

_SHOWN = 3  # examples in a message


@dataclass
class Match:
    """Which rows of an earlier run belong to which of the images that are found now.

    Attributes:
        files: the images that are found now.
        order: for each row that is kept, the index of its image.
        keeps: for each row, whether it is kept.
        failed: how many kept rows are of images that failed.
        misfits: how many rows are not kept.
        examples: the first of those, with the reason.
        size: the bytes of all rows, without half a line at the end.
    """

    files: Sequence[ImageFile]
    order: array[int] = field(default_factory=lambda: array("q"))
    keeps: bytearray = field(default_factory=bytearray)
    failed: int = 0
    misfits: int = 0
    examples: list[str] = field(default_factory=list)
    size: int = 0

    def take_all(self, lines: Iterable[bytes]) -> None:
        """Match every row."""
        waiting = _Places(self.files)
        for line in lines:
            self.size += len(line)
            reason = self._take(line, waiting)
            self.keeps.append(reason is None)
            if reason is not None:
                self.misfits += 1
                if len(self.examples) < _SHOWN:
                    self.examples.append(reason)

    def _take(self, line: bytes, waiting: _Places) -> str | None:
        """Match one row; return what is wrong with it, else None."""
        try:
            row = row_from_line(line)
        except ValueError:
            return f"line {len(self.keeps) + 1} is damaged"
        place = waiting.pop(row["path"])
        if place is None:
            return f"{printable(row['path'])[:200]} is not among them"
        facts = file_facts(self.files[place].path)
        if (row["size"], row["mtime_ns"]) != (facts.size, facts.mtime_ns):
            return f"{printable(row['path'])[:200]} has changed"
        self.order.append(place)
        self.failed += row["error"] is not None
        return None

    def refusal(self, path: Path) -> str:
        """Return a message: which rows of the result file `path` do not fit, and what to do."""
        more = f" and {self.misfits - _SHOWN} more" if self.misfits > _SHOWN else ""
        return (
            f"--resume: {self.misfits} rows of {path} do not fit the images found now: "
            f"{', '.join(self.examples)}{more}; add --redo-changed to drop these rows and "
            "classify what changed again"
        )

    def remaining(self) -> array[int]:
        """Return the indices of the images that have no row, in order."""
        missing = np.ones(len(self.files), bool)
        missing[np.frombuffer(self.order, np.int64)] = False
        return array("q", np.flatnonzero(missing).astype(np.int64).tobytes())


class _Places:
    """The indices of the images with each name; equal names are taken in order."""

    def __init__(self, files: Sequence[ImageFile]) -> None:
        self._first: dict[str, int] = {}
        self._again: dict[str, deque[int]] = {}
        for place, file in enumerate(files):
            if file.name in self._first:
                self._again.setdefault(file.name, deque()).append(place)
            else:
                self._first[file.name] = place

    def pop(self, name: str) -> int | None:
        """Return the next index with that name, and remove it; None if there is none left."""
        place = self._first.pop(name, None)
        if self._again.get(name):
            self._first[name] = self._again[name].popleft()
        return place


def whole_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, but not half a line that a killed process left at the end."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line
