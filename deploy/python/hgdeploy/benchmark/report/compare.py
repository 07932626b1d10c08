# SPDX-License-Identifier: Apache-2.0
"""Compares two results files case by case: did anything become slower?"""

from __future__ import annotations

from dataclasses import dataclass

from hgdeploy.benchmark.case import Case
from hgdeploy.benchmark.case_result import CaseResult
from hgdeploy.benchmark.report.tables import NOTHING, milliseconds
from hgdeploy.benchmark.result_file import ResultFile
from hgdeploy.benchmark.stats import CANT_TELL, FASTER, SLOWER, compare_samples
from hgdeploy.errors import ConfigError, ValidationError

BROKEN = "no longer runs"


@dataclass(frozen=True)
class ComparedCase:
    """One case that is in both files.

    Attributes:
        a: its result in the first file.
        b: its result in the second.
        ratio: B's median over A's, then the ends of its 95 % interval; None if one of them failed.
        verdict: `faster`, `slower` (B than A), `can't tell`, `no longer runs`, `runs now` or
            `failed in both`.
        note: what else there is to know about the difference; empty for nothing.
    """

    a: CaseResult
    b: CaseResult
    ratio: tuple[float, float, float] | None
    verdict: str
    note: str


@dataclass(frozen=True)
class Comparison:
    """Two files compared; `only_a` and `only_b` are the results of cases in one file only."""

    a: ResultFile
    b: ResultFile
    threshold: float
    cases: tuple[ComparedCase, ...]
    only_a: tuple[CaseResult, ...]
    only_b: tuple[CaseResult, ...]


def compare_files(
    a: ResultFile, b: ResultFile, threshold: float = 0.05, mix_environments: bool = False
) -> Comparison:
    """Compare the cases that are in both files.

    B is `slower` if the whole 95 % interval of the ratio B/A lies above 1 + threshold, and `faster`
    if it lies below 1 / (1 + threshold). The interval covers the noise within a run, but not what
    changed on the machine between the two runs; the threshold has to allow for that.

    Args:
        a: the results before.
        b: the results after.
        threshold: the smallest relative difference that counts, from 0.
        mix_environments: whether the files may come from different environments.

    Raises:
        ConfigError: the environments differ, or the files have no case in common.
    """
    if a.environment != b.environment and not mix_environments:
        raise ConfigError(
            f"{a.path} and {b.path} come from different environments ({a.environment}, "
            f"{b.environment}) and are not comparable; --mix-environments compares them anyway"
        )
    cases_a, cases_b = _by_case(a), _by_case(b)
    common = [key for key in cases_a if key in cases_b]
    if not common:
        raise ConfigError(f"{a.path} and {b.path} have no case in common")
    return Comparison(
        a,
        b,
        threshold,
        tuple(_compared(cases_a[key], cases_b[key], threshold) for key in common),
        tuple(case for key, case in cases_a.items() if key not in cases_b),
        tuple(case for key, case in cases_b.items() if key not in cases_a),
    )


def raise_where_slower(comparison: Comparison) -> None:
    """Raise an error if a case became slower or no longer runs.

    Raises:
        ValidationError: at least one case did or does.
    """
    bad = [case for case in comparison.cases if case.verdict in (SLOWER, BROKEN)]
    if bad:
        first = bad[0]
        how = f"takes {first.ratio[0]:.3f} times as long" if first.ratio else first.verdict
        raise ValidationError(
            f"{len(bad)} of {len(comparison.cases)} cases are slower by more than "
            f"{comparison.threshold:.1%} or no longer run in {comparison.b.path}; "
            f"{first.a.name()}: {how}"
        )


def as_markdown(comparison: Comparison) -> str:
    """Return the comparison as a Markdown table, and below it the cases of only one file."""
    mixed = comparison.a.environment != comparison.b.environment
    lines = [
        f"# {comparison.b.path} against {comparison.a.path}",
        "",
        *(["NOT COMPARABLE: the two come from different environments.", ""] if mixed else []),
        "| case | A median ms | B median ms | B / A | 95 % interval | verdict |",
        "|---|---:|---:|---:|---:|---|",
        *(_row(case) for case in comparison.cases),
        "",
    ]
    for name, cases in (("A", comparison.only_a), ("B", comparison.only_b)):
        lines += [f"- only in {name}: {case.name()}" for case in cases]
    for name, file in (("A", comparison.a), ("B", comparison.b)):
        where = f"{file.path}, {file.head.created}; {file.hardware()}"
        lines.append(f"- {name}: {where}; `{file.command_line()}`")
    return "\n".join([*lines, ""])


def _by_case(file: ResultFile) -> dict[Case, CaseResult]:
    found: dict[Case, CaseResult] = {}
    for result in file.results:
        if result.case in found:
            raise ConfigError(f"{file.path}: {result.name()} is in it twice")
        found[result.case] = result
    return found


def _compared(a: CaseResult, b: CaseResult, threshold: float) -> ComparedCase:
    if a.stats is None or b.stats is None:
        reasons = [f"{n}: {c.reason}" for n, c in (("A", a), ("B", b)) if c.stats is None]
        verdict = "failed in both"
        if a.stats is not None:
            verdict = BROKEN
        elif b.stats is not None:
            verdict = "runs now"
        return ComparedCase(a, b, None, verdict, "; ".join(reasons))
    # One round each: the rounds of two separate runs did not alternate, so they are not pairs.
    found = compare_samples([b.samples_ms], [a.samples_ms])
    verdict = CANT_TELL
    if found.low > 1 + threshold:
        verdict = SLOWER
    elif found.high < 1 / (1 + threshold):
        verdict = FASTER
    note = "model files differ" if a.model_sha256 != b.model_sha256 else ""
    return ComparedCase(a, b, (found.ratio, found.low, found.high), verdict, note)


def _row(case: ComparedCase) -> str:
    medians = [milliseconds(c.stats.median) if c.stats else c.status for c in (case.a, case.b)]
    ratio = [NOTHING, NOTHING]
    if case.ratio is not None:
        ratio = [f"{case.ratio[0]:.3f}", f"{case.ratio[1]:.3f} to {case.ratio[2]:.3f}"]
    verdict = f"{case.verdict} ({case.note})" if case.note else case.verdict
    cells = (case.a.name(), *medians, *ratio, verdict)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
