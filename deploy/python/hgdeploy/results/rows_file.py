# SPDX-License-Identifier: Apache-2.0
"""The file that a run appends its rows to: whole rows, and no bytes of anybody else."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hgdeploy.errors import ConfigError, OutputError
from hgdeploy.results.match import whole_lines
from hgdeploy.results.rows import Row, row_from_line
from hgdeploy.results.run_record import RunRecord
from hgdeploy.results.tables import TABLE_SUFFIXES, table_format
from hgdeploy.system.files import to_disk

ROWS = ".rows.jsonl"
"""What is added to the name of a table for the rows that it will be made of."""


def results_files(path: Path) -> tuple[Path, Path, Path]:
    """Return what is written for a result file: itself, the rows on their way to it, the record.

    The rows of a `.jsonl` file are appended to the file itself.

    Raises:
        ConfigError: another suffix, Parquet without pyarrow, or another file's rows.
    """
    table = table_format(path)
    target = Path(os.path.realpath(path))  # a link stays one, and its file is replaced
    rows = target if table is None else target.with_name(f"{target.name}{ROWS}")
    of = Path(target.name.removesuffix(ROWS))
    if table is None and of.name != target.name and of.suffix.lower() in TABLE_SUFFIXES:
        raise ConfigError(
            f"--output {path}: a run keeps the rows of {of} there until all are done; name another"
        )
    return target, rows, RunRecord(target).path


class RowsFile:
    """A file of lines, opened for more of them; close it.

    Args:
        path: the file; it is made where it is not there.

    Attributes:
        written: how many lines were appended.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._end = os.fstat(self._file.fileno()).st_size
        self.written = 0
        self._spoiled = ""

    def append(self, line: bytes) -> None:
        """Append a line; once this returns, no signal can lose it.

        Raises:
            OSError: the disk is full, for example; the lines before this one are intact.
            OutputError: something else has changed the file.
        """
        self.check()
        end, done = self._end + len(line), 0
        try:
            while done < len(line):
                done += self._file.write(line[done:])
        except BaseException:  # whatever happened, half a line must not stay
            self._file.truncate(self._end)
            raise
        self._end, self.written = end, self.written + 1

    def spoiled(self) -> str:
        """Return what something else did to the file, in a word; empty where it did nothing.

        The name must lead to this file, and its size be what was written.
        """
        if self._spoiled or self.closed:
            return self._spoiled
        mine = os.fstat(self._file.fileno())
        try:
            named = self._path.stat()
        except OSError:
            self._spoiled = "removed"
        else:
            if not os.path.samestat(mine, named):
                self._spoiled = "replaced"
            elif mine.st_size != self._end:
                self._spoiled = "cut" if mine.st_size < self._end else "written to"
        return self._spoiled

    def check(self) -> None:
        """Raise where something else has changed the file.

        Raises:
            OutputError: what was done to it.
        """
        if self.spoiled():
            raise OutputError(
                f"{self._path} was {self._spoiled} during the run by something else, so that rows "
                "are missing"
            )

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._file.closed

    def to_disk(self) -> None:
        """Have all lines on disk.

        Raises:
            OSError: the disk failed to take them.
        """
        to_disk(self._file.fileno())

    def close(self) -> None:
        """Close the file with its lines on disk.

        Raises:
            OSError: the disk failed to take them.
        """
        with self._file:
            self.to_disk()


def in_order(order: array[int]) -> bool:
    """Return whether these numbers rise."""
    places = np.frombuffer(order, np.int64)
    return bool((places[1:] > places[:-1]).all())


def ordered_lines(path: Path, order: array[int]) -> Iterator[bytes]:
    """Yield the lines of a file by these numbers, with only their positions in memory."""
    if in_order(order):
        yield from whole_lines(path)
        return
    ends = np.cumsum(np.fromiter(map(len, whole_lines(path)), np.int64))
    starts = np.concatenate([[0], ends[:-1]])
    with path.open("rb") as file:
        for row in np.argsort(np.frombuffer(order, np.int64)):
            file.seek(starts[row])
            yield file.readline()


def all_rows(path: Path, order: array[int]) -> Iterator[Row]:
    """Yield the rows of a file by these numbers, one for each.

    Raises:
        OutputError: there are more or fewer rows, or one is damaged.
    """
    found = 0
    for line in ordered_lines(path, order):
        found += 1
        try:
            yield row_from_line(line)
        except ValueError:
            raise OutputError(f"{path}: row {found} was damaged during the run") from None
    if found != len(order):
        raise OutputError(f"{path} has {found} rows, expected {len(order)}")
