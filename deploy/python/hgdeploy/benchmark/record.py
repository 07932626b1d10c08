# SPDX-License-Identifier: Apache-2.0
"""The results so far, in a file that is whole after every case.

Another case's failure, a crash or Ctrl-C loses no row that is finished.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from hgdeploy.benchmark.case import Case
from hgdeploy.benchmark.result_file import Head, ResultFile, load_results
from hgdeploy.benchmark.row import OK, Row
from hgdeploy.errors import ConfigError, OutputError
from hgdeploy.system.files import write_text


class Record:
    """The results so far, in memory and, where a path was given, in a file.

    Args:
        path: the file; None keeps them in memory only.
        head: everything but the cases.
        order: in which the rows of these cases come, whatever is finished first.
        resume: go on with the file that is there.

    Raises:
        OutputError: the file cannot be written, or is there and must not be overwritten.
        ConfigError: the file to resume is of another suite, environment or settings.
    """

    def __init__(
        self,
        path: Path | None,
        head: Head,
        order: Iterable[Case] = (),
        *,
        resume: bool = False,
    ) -> None:
        self._path = path
        self._order = {case: place for place, case in enumerate(order)}
        self.results = ResultFile(path, head)
        if path is None:
            if resume:
                raise ConfigError("--resume needs --output, the file to go on with")
            return
        if path.is_dir() or not path.absolute().parent.is_dir():
            why = "it is a folder" if path.is_dir() else "its folder does not exist"
            raise OutputError(f"--output {path}: {why}")
        if path.exists() and not resume:
            raise OutputError(
                f"--output {path} exists; go on with it by --resume, name another, or delete it"
            )
        if path.exists():
            self.results = dataclasses.replace(self.results, rows=_rows_to_keep(path, head))
        self._save()

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows so far, in order."""
        return self.results.rows

    def done(self, case: Case) -> bool:
        """Tell whether the case has a row that is ok."""
        return any(row.case == case and row.status == OK for row in self.rows)

    def add(self, row: Row) -> None:
        """Add a row, in place of an older one of the same case, and save.

        Raises:
            OutputError: the file cannot be written.
        """
        others = [old for old in self.rows if old.case != row.case]
        last = len(self._order)
        rows = sorted([*others, row], key=lambda row: self._order.get(row.case, last))
        self.results = dataclasses.replace(self.results, rows=tuple(rows))
        self._save()

    def _save(self) -> None:
        if self._path is not None:
            write_text(self._path, self.results.to_json())


def _rows_to_keep(path: Path, head: Head) -> tuple[Row, ...]:
    """Return the rows of a file that is resumed.

    Raises:
        ConfigError: it cannot be read, or was measured in another environment, by another suite
            or with other settings than this one.
    """
    old = load_results(path)
    was, here = old.head.environment, head.environment
    if was["id"] != here["id"]:
        changed = sorted(
            key for key in here if was.get(key) != here[key] and key not in ("id", "commit")
        )
        raise ConfigError(
            f"{path} is of another environment ({', '.join(changed)} differ); write to another file"
        )
    if old.head.suite != head.suite:
        raise ConfigError(f"{path} is of the suite {old.head.suite!r}, not {head.suite!r}")
    for key, value in head.settings.items():
        if old.head.settings.get(key) != value:
            raise ConfigError(
                f"{path} was measured with {key} {old.head.settings.get(key)!r}, not {value!r}; "
                "measure with the same settings, or write to another file"
            )
    return old.rows
