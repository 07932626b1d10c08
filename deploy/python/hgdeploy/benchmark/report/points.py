# SPDX-License-Identifier: Apache-2.0
"""What the plots show: panels, the points of measured models, and their frontiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hgdeploy.benchmark.case_result import Configuration
from hgdeploy.benchmark.report.lookup import Line, Lookup, borrowed
from hgdeploy.benchmark.report.results import ReportedCase
from hgdeploy.errors import ConfigError
from hgdeploy.zoo.published import PUBLISHED


@dataclass(frozen=True)
class Panel:
    """One panel of a plot: a configuration in one environment."""

    configuration: Configuration
    environment: str

    def title(self, lookup: Lookup) -> str:
        """Return the panel's title."""
        text = self.configuration.text()
        if lookup.results.mixed:
            text += f"\nenvironment {self.environment}, not comparable with the others"
        return text


@dataclass(frozen=True)
class Point:
    """A model in the accuracy plot.

    Attributes:
        model: its name.
        latency: the median in milliseconds.
        top1: the published accuracy in per cent.
        borrowed: whether the latency was measured on another model of the same network.
    """

    model: str
    latency: float
    top1: float
    borrowed: bool


def accuracy_points(lookup: Lookup, panel: Panel) -> tuple[list[Point], list[str]]:
    """Return the points of an accuracy panel, and the published models without a point."""
    points, absent = [], []
    for entry in PUBLISHED:
        line = Line(entry.model, panel.environment)
        case = lookup.find(line, panel.configuration)
        if case is not None and case.result.stats is not None:
            hollow = borrowed(line, case)
            points.append(Point(entry.model, case.result.stats.median, entry.top1, hollow))
        else:
            absent.append(
                f"{entry.model} ({'not measured' if case is None else case.result.status})"
            )
    return points, absent


def panels_of(lookup: Lookup) -> list[Panel]:
    """Return a panel for each configuration and environment with a measured case.

    Raises:
        ConfigError: no case was measured.
    """
    panels = [
        Panel(configuration, environment)
        for configuration in lookup.configurations
        for environment in lookup.environments
        if measured_cases(lookup, Panel(configuration, environment))
    ]
    if not panels:
        raise ConfigError(
            "there is nothing to plot: no case was measured; see the md report for the reasons"
        )
    return panels


def measured_cases(lookup: Lookup, panel: Panel) -> list[ReportedCase]:
    """Return the cases of a panel that have samples."""
    at = panel.configuration, panel.environment
    return [
        case
        for case in lookup.results.cases()
        if (case.configuration, case.environment) == at and case.result.stats is not None
    ]


def frontiers(points: Sequence[Point]) -> list[list[Point]]:
    """Return the lines that join PP-HGNet's points: the distilled models, and the plain ones."""
    ours = sorted(
        (point for point in points if point.model.startswith("PPHGNet")),
        key=lambda point: (point.latency, point.top1),
    )
    distilled = [point for point in ours if point.model.endswith("_ssld")]
    plain = [point for point in ours if not point.model.endswith("_ssld")]
    return [line for line in (distilled, plain) if len(line) > 1]
