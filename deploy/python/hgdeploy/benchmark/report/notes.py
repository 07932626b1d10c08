# SPDX-License-Identifier: Apache-2.0
"""The notes under the tables of a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hgdeploy.benchmark.case_result import Configuration
from hgdeploy.benchmark.report.lookup import Line, Lookup, borrowed
from hgdeploy.zoo.published import REFERENCE

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
