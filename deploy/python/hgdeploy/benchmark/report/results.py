# SPDX-License-Identifier: Apache-2.0
"""Results files that are shown together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hgdeploy.benchmark.result_file import ResultFile, load_results
from hgdeploy.benchmark.row import Configuration, Row
from hgdeploy.errors import ConfigError
from hgdeploy.zoo.published import table_name


@dataclass(frozen=True)
class CaseResult:
    """One row, and the file that it stands in, which says where it was measured."""

    file: ResultFile
    row: Row

    @property
    def environment(self) -> str:
        """Short hash of the machine and its libraries."""
        return self.file.environment

    @property
    def configuration(self) -> Configuration:
        """What the case measures besides its model."""
        return self.row.configuration


@dataclass(frozen=True)
class Results:
    """Results files that are shown together; `mixed` where their environments differ."""

    files: tuple[ResultFile, ...]
    mixed: bool

    def cases(self) -> tuple[CaseResult, ...]:
        """Return the cases of all files, in order."""
        return tuple(CaseResult(file, row) for file in self.files for row in file.rows)


def read_measured(path: Path) -> ResultFile:
    """Read one results file that has at least one case.

    Raises:
        ConfigError: it cannot be read, or holds no case yet.
    """
    file = load_results(path)
    if not file.rows:
        raise ConfigError(f"{path} holds no case yet; let hgdeploy benchmark finish one")
    return file


def read_all(paths: Sequence[Path], mix_environments: bool = False) -> Results:
    """Read results files that are to be shown together.

    Args:
        paths: the files, at least one.
        mix_environments: whether files from different environments are allowed.

    Raises:
        ConfigError: a file is wrong, environments differ, or two files hold the same case.
    """
    files = tuple(read_measured(path) for path in paths)
    first = files[0]
    for file in files:
        if file.environment != first.environment and not mix_environments:
            raise ConfigError(
                f"{first.path} and {file.path} come from different environments "
                f"({first.environment}, {file.environment}) and do not compare; "
                "--mix-environments shows them together, marked as not comparable"
            )
    results = Results(files, len({file.environment for file in files}) > 1)
    seen: dict[tuple[str, Configuration, str], CaseResult] = {}
    for case in results.cases():
        key = (table_name(case.row.model), case.configuration, case.environment)
        if key in seen:
            paths_of_both = (str(seen[key].file.path), str(case.file.path))
            places = " and ".join(dict.fromkeys(paths_of_both))
            raise ConfigError(
                f"{case.row.name()} is twice in {places}; leave one out, or use hgdeploy "
                "benchmark compare"
            )
        seen[key] = case
    return results
