# SPDX-License-Identifier: Apache-2.0
"""Reads the results files that a report shows together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hgdeploy.benchmark.case_result import CaseResult, Configuration
from hgdeploy.benchmark.result_file import ResultFile, load_results
from hgdeploy.errors import ConfigError
from hgdeploy.zoo.published import table_name


@dataclass(frozen=True)
class ReportedCase:
    """The result of a case, and the file that it is in, which says where it was measured."""

    file: ResultFile
    result: CaseResult

    @property
    def environment(self) -> str:
        """The short hash that identifies the machine and its libraries."""
        return self.file.environment

    @property
    def configuration(self) -> Configuration:
        """What was measured, except for the model."""
        return self.result.configuration


@dataclass(frozen=True)
class Results:
    """Results files that are shown together; `mixed` if their environments differ."""

    files: tuple[ResultFile, ...]
    mixed: bool

    def cases(self) -> tuple[ReportedCase, ...]:
        """Return the cases of all files, in order."""
        return tuple(ReportedCase(file, result) for file in self.files for result in file.results)


def read_measured(path: Path) -> ResultFile:
    """Read one results file with at least one case.

    Raises:
        ConfigError: the file cannot be read, or it has no case yet.
    """
    file = load_results(path)
    if not file.results:
        raise ConfigError(f"{path} has no cases yet; let hgdeploy benchmark finish one")
    return file


def read_all(paths: Sequence[Path], mix_environments: bool = False) -> Results:
    """Read results files to show them together.

    Args:
        paths: the files, at least one.
        mix_environments: whether files from different environments are allowed.

    Raises:
        ConfigError: a file is wrong, environments differ, or the same case occurs twice.
    """
    files = tuple(read_measured(path) for path in paths)
    first = files[0]
    for file in files:
        if file.environment != first.environment and not mix_environments:
            raise ConfigError(
                f"{first.path} and {file.path} come from different environments "
                f"({first.environment}, {file.environment}) and are not comparable; "
                "--mix-environments shows them together, marked as not comparable"
            )
    results = Results(files, len({file.environment for file in files}) > 1)
    seen: dict[tuple[str, Configuration, str], ReportedCase] = {}
    for case in results.cases():
        key = (table_name(case.result.model), case.configuration, case.environment)
        if key in seen:
            paths_of_both = (str(seen[key].file.path), str(case.file.path))
            places = " and ".join(dict.fromkeys(paths_of_both))
            raise ConfigError(
                f"{case.result.name()} is twice in {places}; leave one out, or use hgdeploy "
                "benchmark compare"
            )
        seen[key] = case
    return results
