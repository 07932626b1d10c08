# SPDX-License-Identifier: Apache-2.0
"""The notes under the tables of a report."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from hgdeploy.benchmark.case_result import Configuration
from hgdeploy.benchmark.report.lookup import Line, Lookup, borrowed
from hgdeploy.benchmark.report.results import ReportedCase, Results
from hgdeploy.zoo.published import REFERENCE, over_reference, published, table_name

_OURS = "PPHGNet"
_AMPERE = 8  # the first generation with TF32


def borrowings(lookup: Lookup, configurations: Sequence[Configuration]) -> tuple[str, ...]:
    """Return the note that says which models were measured in place of which."""
    pairs = [
        f"{line.model} as {case.result.model}"
        for configuration in configurations
        for line in lookup.lines(configuration)
        if (case := lookup.find(line, configuration)) is not None and borrowed(line, case)
    ]
    if not pairs:
        return ()
    both = ", ".join(dict.fromkeys(pairs))
    return (f"* measured here under another model's name, of the same network: {both}",)


def headline(results: Results) -> str:
    """Return what was found, in a sentence; empty where results do not compare or none were taken.

    It is about the configuration in which the reference, else any model, has the lowest latency.
    """
    lookup = Lookup(results)
    timed = [case for case in results.cases() if case.result.stats is not None]
    if results.mixed or not timed:
        return ""
    named = [case for case in timed if table_name(case.result.model) == REFERENCE]
    best = min(named or timed, key=_median)
    count = len(lookup.configurations)
    first = f"of {count} configurations, " if count > 1 else ""
    found = f"{first}{best.result.model} is fastest in" if first else f"{best.result.model} in"
    found += f" {best.configuration.text()}: {_median(best):.3g} ms"
    ratios = [
        f"{case.result.model} takes {ratio:.2f} times as long{_published_ratio(case)}"
        for case in timed
        if case.configuration == best.configuration
        and table_name(case.result.model).startswith(_OURS)
        and (ratio := lookup.over_reference(case)) is not None
    ]
    return f"Found: {found}." + (f" There {', '.join(ratios)}." if ratios else "")


def _published_ratio(case: ReportedCase) -> str:
    entry = published(table_name(case.result.model))
    ratio = over_reference(entry)[0] if entry is not None else None
    return "" if ratio is None else f" (published on a V100: {ratio:.2f})"


def _median(case: ReportedCase) -> float:
    return case.result.stats.median if case.result.stats is not None else math.inf


def precision_notes(lookup: Lookup, configuration: Configuration) -> tuple[str, ...]:
    """Return the note on TF32, for fp32 on a GPU where trtexec would compute in it."""
    if (configuration.engine, configuration.precision) != ("tensorrt", "fp32"):
        return ()
    own = [c for c in lookup.results.cases() if c.configuration == configuration]
    if not any(_has_tf32(case.result.gpu) for case in own):
        return ()
    other = dataclasses.replace(configuration, precision="tf32")
    measured = "measured too" if other in lookup.configurations else "not measured"
    return (
        "fp32 is IEEE fp32. From compute capability 8.0 on, trtexec's default is TF32, which is "
        f"the precision tf32 here ({measured}).",
    )


def _has_tf32(gpu: Mapping[str, Any] | None) -> bool:
    generation = str((gpu or {}).get("compute_capability", "")).partition(".")[0]
    return generation.isdigit() and int(generation) >= _AMPERE


def warnings(lookup: Lookup, configuration: Configuration) -> tuple[str, ...]:
    """Return the warnings of a configuration's cases, and whether ResNet50 is missing."""
    notes = [
        f"{case.result.model}{f' ({case.environment})' if lookup.results.mixed else ''}: {warning}"
        for case in lookup.results.cases()
        if case.configuration == configuration
        for warning in case.result.warnings
    ]
    measured = [
        environment
        for environment in lookup.environments
        if (case := lookup.find(Line(REFERENCE, environment), configuration)) is not None
        and case.result.stats is not None
    ]
    if not measured:
        notes.append(f"{REFERENCE} was not measured here, so nothing is given as its multiple.")
    return tuple(notes)
