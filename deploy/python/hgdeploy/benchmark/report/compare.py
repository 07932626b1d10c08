# SPDX-License-Identifier: Apache-2.0
"""Two result files case by case: did anything become slower?"""

from __future__ import annotations

from dataclasses import dataclass

from hgdeploy.benchmark.case import Case
from hgdeploy.benchmark.report.tables import NOTHING, milliseconds
from hgdeploy.benchmark.result_file import ResultFile
from hgdeploy.benchmark.row import Row
from hgdeploy.benchmark.stats import CANT_TELL, FASTER, SLOWER, compare_samples
from hgdeploy.errors import ConfigError, ValidationError

BROKEN = "no longer runs"


@dataclass(frozen=True)
class Compared:
    """One case of both files.

    Attributes:
        a: the case in the first file.
        b: the same case in the second.
        ratio: median of B over that of A, with its 95 % interval; None where one of them failed.
        verdict: `faster`, `slower` (B than A), `can't tell`, `no longer runs`, `runs now` or
            `failed in both`.
        note: what else to know.
    """

    a: Row
    b: Row
    ratio: tuple[float, float, float] | None
    verdict: str
    note: str


@dataclass(frozen=True)
class Comparison:
    """Two files compared; `only_a` and `only_b` hold the cases that the other file lacks."""

    a: ResultFile
    b: ResultFile
    threshold: float
    cases: tuple[Compared, ...]
    only_a: tuple[Row, ...]
    only_b: tuple[Row, ...]


def compare_files(
    a: ResultFile, b: ResultFile, threshold: float = 0.05, mix_environments: bool = False
) -> Comparison:
    """Compare the cases that are in both files.

    B is `slower` where the whole 95 % interval of the ratio B/A lies above 1 + threshold, `faster`
    where it lies below 1 / (1 + threshold). The interval covers the noise within a run and not
    what the machine did between the two, which the threshold has to allow for.

    Args:
        a: the results before.
        b: the results after.
        threshold: the relative difference that counts, from 0.
        mix_environments: whether the files may come from different environments.

    Raises:
        ConfigError: the environments differ, or the files have no case in common.
    """
    if a.environment != b.environment and not mix_environments:
        raise ConfigError(
            f"{a.path} and {b.path} come from different environments ({a.environment}, "
            f"{b.environment}) and do not compare; --mix-environments compares them anyway"
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
    """End with an error where a case became slower or stopped running.

    Raises:
        ValidationError: at least one did.
    """
    bad = [case for case in comparison.cases if case.verdict in (SLOWER, BROKEN)]
    if bad:
        first = bad[0]
        how = f"{first.ratio[0]:.3f} times as slow" if first.ratio else first.verdict
        raise ValidationError(
            f"{len(bad)} of {len(comparison.cases)} cases are slower by more than "
            f"{comparison.threshold:.1%} or no longer run in {comparison.b.path}; "
            f"{first.a.name()}: {how}"
        )


def as_markdown(comparison: Comparison) -> str:
    """Return the comparison as a Markdown table, with the cases of one file only under it."""
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


def _by_case(file: ResultFile) -> dict[Case, Row]:
    found: dict[Case, Row] = {}
    for row in file.rows:
        if row.case in found:
            raise ConfigError(f"{file.path}: {row.name()} is there twice")
        found[row.case] = row
    return found


def _compared(a: Row, b: Row, threshold: float) -> Compared:
    if a.stats is None or b.stats is None:
        reasons = [f"{n}: {c.reason}" for n, c in (("A", a), ("B", b)) if c.stats is None]
        verdict = "failed in both"
        if a.stats is not None:
            verdict = BROKEN
        elif b.stats is not None:
            verdict = "runs now"
        return Compared(a, b, None, verdict, "; ".join(reasons))
    # One round each: rounds of two separate runs did not alternate, so they make no pairs.
    found = compare_samples([b.samples_ms], [a.samples_ms])
    verdict = CANT_TELL
    if found.low > 1 + threshold:
        verdict = SLOWER
    elif found.high < 1 / (1 + threshold):
        verdict = FASTER
    note = "model files differ" if a.model_sha256 != b.model_sha256 else ""
    return Compared(a, b, (found.ratio, found.low, found.high), verdict, note)


def _row(case: Compared) -> str:
    medians = [milliseconds(c.stats.median) if c.stats else c.status for c in (case.a, case.b)]
    ratio = [NOTHING, NOTHING]
    if case.ratio is not None:
        ratio = [f"{case.ratio[0]:.3f}", f"{case.ratio[1]:.3f} to {case.ratio[2]:.3f}"]
    verdict = f"{case.verdict} ({case.note})" if case.note else case.verdict
    cells = (case.a.name(), *medians, *ratio, verdict)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
