# SPDX-License-Identifier: Apache-2.0
"""The results so far, in a file that is complete after every case.

If a later case fails, the process crashes or the user presses Ctrl-C, no finished result is lost.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from hgdeploy.benchmark.case import Case
from hgdeploy.benchmark.case_result import OK, CaseResult
from hgdeploy.benchmark.result_file import Head, ResultFile, load_results
from hgdeploy.errors import ConfigError, OutputError
from hgdeploy.results.outputs import claiming
from hgdeploy.system.files import write_text


def claiming_record(path: Path | None) -> contextlib.AbstractContextManager[None]:
    """Hold the right to write a results file; one that cannot be is left for `Record` to refuse.

    Raises:
        OutputError: another process is writing it.
    """
    if path is None or path.is_dir() or not path.absolute().parent.is_dir():
        return contextlib.nullcontext()
    return claiming([path])


class Record:
    """The results so far, in memory and, if a path is given, in a file.

    Args:
        path: the results file; None keeps the results in memory only.
        head: everything in the file except the cases.
        order: the cases in the order of their results in the file, whichever is finished first.
        resume: continue the file if it exists.
        keep: tells which of the results of a file that is continued still hold.

    Raises:
        OutputError: the file cannot be written, or it exists and `resume` is False.
        ConfigError: the file to resume belongs to another suite or environment, or was measured
            with other settings.
    """

    def __init__(
        self,
        path: Path | None,
        head: Head,
        order: Iterable[Case] = (),
        *,
        resume: bool = False,
        keep: Callable[[CaseResult], bool] = lambda _: True,
    ) -> None:
        self._path = path
        self._order = {case: place for place, case in enumerate(order)}
        self.file = ResultFile(path, head)
        if path is None:
            if resume:
                raise ConfigError("--resume needs --output, the file to continue")
            return
        if path.is_dir() or not path.absolute().parent.is_dir():
            why = "it is a folder" if path.is_dir() else "its folder does not exist"
            raise OutputError(f"--output {path}: {why}")
        if path.exists() and not resume:
            raise OutputError(
                f"--output {path} exists; continue it with --resume, name another, or delete it"
            )
        if path.exists():
            kept = tuple(filter(keep, _results_to_keep(path, head)))
            self.file = dataclasses.replace(self.file, results=kept)
        self._save()

    @property
    def results(self) -> tuple[CaseResult, ...]:
        """The results so far, in the order of the file."""
        return self.file.results

    def done(self, case: Case) -> bool:
        """Return whether the case has a result with the status `ok`."""
        return any(result.case == case and result.status == OK for result in self.results)

    def add(self, result: CaseResult) -> None:
        """Add a result, or replace an older one of the same case, and save the file.

        Raises:
            OutputError: the file cannot be written.
        """
        others = [old for old in self.results if old.case != result.case]
        last = len(self._order)
        results = sorted([*others, result], key=lambda result: self._order.get(result.case, last))
        self.file = dataclasses.replace(self.file, results=tuple(results))
        self._save()

    def _save(self) -> None:
        if self._path is not None:
            write_text(self._path, self.file.to_json())


def _results_to_keep(path: Path, head: Head) -> tuple[CaseResult, ...]:
    """Return the results in a file that is to be resumed.

    Raises:
        ConfigError: the file cannot be read, or it was measured in another environment, by another
            suite or with other settings.
    """
    old = load_results(path)
    was, here = old.head.environment, head.environment
    if was["id"] != here["id"]:
        changed = sorted(
            key for key in here if was.get(key) != here[key] and key not in ("id", "commit")
        )
        raise ConfigError(
            f"{path} was measured in another environment (different: {', '.join(changed)}); "
            "write to another file"
        )
    if old.head.suite != head.suite:
        raise ConfigError(f"{path} belongs to the suite {old.head.suite!r}, not to {head.suite!r}")
    for key, value in head.settings.items():
        if old.head.settings.get(key) != value:
            raise ConfigError(
                f"{path} was measured with {key} {old.head.settings.get(key)!r}, not {value!r}; "
                "measure with the same settings, or write to another file"
            )
    return old.results
