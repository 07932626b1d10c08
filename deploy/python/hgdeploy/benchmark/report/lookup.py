# SPDX-License-Identifier: Apache-2.0
"""Finds the case that belongs in each place of a table or a plot."""

from __future__ import annotations

from dataclasses import dataclass

from hgdeploy.benchmark.case_result import Configuration
from hgdeploy.benchmark.report.results import ReportedCase, Results
from hgdeploy.zoo.published import PUBLISHED, REFERENCE, Published, published, table_name
from hgdeploy.zoo.registry import network_of


@dataclass(frozen=True)
class Source:
    """Where the figures of a table come from: one line on the hardware, and the command."""

    measured_on: str
    command: str


@dataclass(frozen=True)
class Line:
    """One line of a table: a model, and the environment in which its figures were measured."""

    model: str
    environment: str

    @property
    def published(self) -> Published | None:
        """The published figures of the model; None if there are none."""
        return published(self.model)


class Lookup:
    """Finds cases by the model's name in the published table.

    Args:
        results: the results files.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self._cases = {
            (table_name(case.result.model), case.environment, case.configuration): case
            for case in results.cases()
        }
        self.configurations = tuple(dict.fromkeys(case.configuration for case in results.cases()))
        self.environments = tuple(dict.fromkeys(file.environment for file in results.files))
        known = [entry.model for entry in PUBLISHED]
        measured = [table_name(case.result.model) for case in results.cases()]
        self.models = tuple(dict.fromkeys([*known, *measured]))

    def find(self, line: Line, configuration: Configuration) -> ReportedCase | None:
        """Return the case of a line in a configuration; None if there is none.

        Models of the same network differ in their weights and take the same time: if only one of
        them is in the results, its case stands for the others too; see `borrowed`.
        """
        own = self._own(line.model, line, configuration)
        if own is not None:
            return own
        network = network_of(line.model)
        twins = [model for model in self.models if network_of(model) == network]
        found = [self._own(model, line, configuration) for model in twins]
        cases = [case for case in found if case is not None]
        return next((case for case in cases if case.result.stats), next(iter(cases), None))

    def _own(self, model: str, line: Line, configuration: Configuration) -> ReportedCase | None:
        return self._cases.get((model, line.environment, configuration))

    def over_reference(self, case: ReportedCase) -> float | None:
        """Return the median over ResNet50's in the same configuration; None if one is missing."""
        base = self.find(Line(REFERENCE, case.environment), case.configuration)
        if base is None or base.result.stats is None or case.result.stats is None:
            return None
        return case.result.stats.median / base.result.stats.median

    def lines(self, configuration: Configuration | None = None) -> tuple[Line, ...]:
        """Return the lines of a table, for every environment with a case in `configuration`."""
        environments = [
            environment
            for environment in self.environments
            if any(
                case.environment == environment and configuration in (None, case.configuration)
                for case in self._cases.values()
            )
        ]
        return tuple(Line(model, at) for model in self.models for at in environments)

    def sources(self, configuration: Configuration | None = None) -> tuple[Source, ...]:
        """Return the sources of the cases in `configuration`; None for those of all cases."""
        return tuple(
            Source(
                f"{file.hardware()}; suite {file.head.suite}, {file.head.created}",
                file.command_line(),
            )
            for file in self.results.files
            if configuration is None
            or any(result.configuration == configuration for result in file.results)
        )


def borrowed(line: Line, case: ReportedCase) -> bool:
    """Return whether a line shows the case of another model of the same network."""
    return table_name(case.result.model) != line.model
