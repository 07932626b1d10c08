# SPDX-License-Identifier: Apache-2.0
"""What the figures show: measured and published points, and their frontiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hgdeploy.benchmark.report.lookup import Line, Lookup, borrowed
from hgdeploy.benchmark.report.results import CaseResult
from hgdeploy.benchmark.row import Configuration
from hgdeploy.errors import ConfigError
from hgdeploy.zoo.published import PUBLISHED


@dataclass(frozen=True)
class Panel:
    """One panel: a configuration in one environment."""

    configuration: Configuration
    environment: str

    def title(self, lookup: Lookup) -> str:
        """Return its heading."""
        text = self.configuration.text()
        if lookup.results.mixed:
            text += f"\nenvironment {self.environment}, not comparable with the others"
        return text


@dataclass(frozen=True)
class Point:
    """A model in the accuracy plot; `borrowed` where the same network's latency stands for it."""

    model: str
    latency: float
    top1: float
    borrowed: bool


def accuracy_points(lookup: Lookup, panel: Panel) -> tuple[list[Point], list[str]]:
    """Return the points of an accuracy panel, and the published models that have none."""
    points, absent = [], []
    for entry in PUBLISHED:
        line = Line(entry.model, panel.environment)
        case = lookup.find(line, panel.configuration)
        if case is not None and case.row.stats is not None:
            hollow = borrowed(line, case)
            points.append(Point(entry.model, case.row.stats.median, entry.top1, hollow))
        else:
            absent.append(f"{entry.model} ({'not measured' if case is None else case.row.status})")
    return points, absent


def panels_of(lookup: Lookup) -> list[Panel]:
    panels = [
        Panel(configuration, environment)
        for configuration in lookup.configurations
        for environment in lookup.environments
        if measured(lookup, Panel(configuration, environment))
    ]
    if not panels:
        raise ConfigError("no case was measured, so there is nothing to plot; see the md report")
    return panels


def measured(lookup: Lookup, panel: Panel) -> list[CaseResult]:
    at = panel.configuration, panel.environment
    return [
        case
        for case in lookup.results.cases()
        if (case.configuration, case.environment) == at and case.row.stats is not None
    ]


def frontiers(points: Sequence[Point]) -> list[list[Point]]:
    """Return PP-HGNet's points as lines to draw: the distilled models, and the plain ones."""
    ours = sorted(
        (point for point in points if point.model.startswith("PPHGNet")),
        key=lambda point: (point.latency, point.top1),
    )
    distilled = [point for point in ours if point.model.endswith("_ssld")]
    plain = [point for point in ours if not point.model.endswith("_ssld")]
    return [line for line in (distilled, plain) if len(line) > 1]
