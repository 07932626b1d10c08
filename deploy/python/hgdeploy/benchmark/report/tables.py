# SPDX-License-Identifier: Apache-2.0
"""The published table, with what was measured beside it, as plain cells.

Everything here is a pure function of the results files; `formats` writes the cells.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from hgdeploy.benchmark.case_result import CaseResult, Configuration
from hgdeploy.benchmark.report.lookup import Line, Lookup, Source, borrowed
from hgdeploy.benchmark.report.notes import borrowings, headline, precision_notes, warnings
from hgdeploy.benchmark.report.results import ReportedCase, Results
from hgdeploy.zoo.published import REFERENCE, over_reference

NOTHING = "-"
NOT_MEASURED = "not measured"
UNKNOWN = "unknown"
BORROWED = " *"
# Of a run on a GPU, by the names that engines and `worker.on_gpu` give them.
_STAGES = ("enqueue", "h2d", "compute", "compute without graph", "d2h", "host")
_PUBLISHED_HEAD = (
    "top-1 % (published)",
    "ms (published, V100)",
    "ms (published revised, V100)",
    f"/ {REFERENCE} (published, V100)",
    f"/ {REFERENCE} (published revised, V100)",
)


@dataclass(frozen=True)
class TableRow:
    """The cells of one row; whether they show a case that failed, and whether one was measured."""

    cells: tuple[str, ...]
    failed: bool = False
    measured: bool = True


@dataclass(frozen=True)
class Table:
    """A table with its title, and the notes and sources that belong below it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]
    sources: tuple[Source, ...]


def tables(results: Results) -> tuple[Table, ...]:
    """Return all tables: the overview, each configuration in full, and how the runs went."""
    lookup = Lookup(results)
    found = [_detail(lookup, configuration) for configuration in lookup.configurations]
    if len(found) != 1:
        found.insert(0, _overview(lookup))
    timed = [case for case in results.cases() if case.result.timings_ms]
    return (*found, *([_device_times(lookup, timed)] if timed else []), _runs(lookup))


def title(results: Results) -> str:
    """Return the title of the report."""
    suites = ", ".join(dict.fromkeys(file.head.suite for file in results.files))
    return f"Latency: {suites}" + (" (not comparable: environments differ)" * results.mixed)


def preface(results: Results) -> tuple[str, ...]:
    """Return the sentences that explain how to read the tables."""
    sentences = [
        "Columns marked published are PaddleClas's figures, taken on an NVIDIA Tesla V100 with "
        "TensorRT FP32 at batch 1; PaddleClas carries two sets that disagree. Everything else was "
        "measured on the machine named under each table.",
        "Milliseconds do not carry from one machine to another. What may be held against the "
        f"published figures is the latency as a multiple of {REFERENCE}'s.",
        "Medians have a 95 % interval; a latency is that of a whole batch.",
    ]
    found = headline(results)
    if found:
        sentences.insert(0, found)
    if results.mixed:
        sentences.insert(
            0,
            "NOT COMPARABLE: these results come from different environments, named in the column "
            "environment; no difference between them says anything about a model or an engine.",
        )
    return tuple(sentences)


def milliseconds(value: float) -> str:
    """Return a latency, in text, with four significant digits."""
    return f"{value:.0f}" if value >= 1000 else f"{value:#.4g}"


def _two_decimals(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _published_cells(line: Line) -> tuple[str, ...]:
    entry = line.published
    if entry is None:
        return (NOTHING,) * len(_PUBLISHED_HEAD)
    figures = (entry.top1, entry.v100_ms, entry.v100_ms_revised, *over_reference(entry))
    return tuple(_two_decimals(value) for value in figures)


def _outcome(lookup: Lookup, line: Line, configuration: Configuration) -> tuple[str, bool]:
    """Return the median, or why there is none, and whether the case failed."""
    case = lookup.find(line, configuration)
    if case is None:
        return NOT_MEASURED, False
    mark = BORROWED * borrowed(line, case)
    if case.result.stats is None:
        return f"{case.result.failure()}{mark}", True
    return f"{milliseconds(case.result.stats.median)}{mark}", False


def _key_head(lookup: Lookup) -> tuple[str, ...]:
    return ("model", "environment") if lookup.results.mixed else ("model",)


def _key_cells(lookup: Lookup, line: Line) -> tuple[str, ...]:
    return (line.model, line.environment) if lookup.results.mixed else (line.model,)


def _overview(lookup: Lookup) -> Table:
    """Return the table with one line per model and the medians of every configuration."""

    def row(line: Line) -> TableRow:
        cells: list[str] = []
        failed = False
        for configuration in lookup.configurations:
            text, this_failed = _outcome(lookup, line, configuration)
            case = lookup.find(line, configuration)
            ratio = lookup.over_reference(case) if case is not None else None
            cells.append(text if ratio is None else f"{text} ({ratio:.2f})")
            failed = failed or this_failed
        measured = any(cell != NOT_MEASURED for cell in cells)
        shown = (*_key_cells(lookup, line), *_published_cells(line), *cells)
        return TableRow(shown, failed, measured)

    return Table(
        "Overview",
        (
            *_key_head(lookup),
            *_PUBLISHED_HEAD,
            *(f"{c.text()}: median ms (/ {REFERENCE})" for c in lookup.configurations),
        ),
        tuple(row(line) for line in lookup.lines()),
        (
            f"In brackets: the median over {REFERENCE}'s, measured in the same configuration.",
            *borrowings(lookup, lookup.configurations),
        ),
        lookup.sources(),
    )


def _detail(lookup: Lookup, configuration: Configuration) -> Table:
    """Return the table of one configuration, with intervals and percentiles."""

    def row(line: Line) -> TableRow:
        case = lookup.find(line, configuration)
        outcome, failed = _outcome(lookup, line, configuration)
        figures = [NOTHING] * 4
        if case is not None and case.result.stats is not None:
            stats = case.result.stats
            figures = [
                " to ".join(milliseconds(end) for end in stats.median_ci),
                milliseconds(stats.p90),
                milliseconds(stats.p99),
                _two_decimals(lookup.over_reference(case)),
            ]
        cells = (*_key_cells(lookup, line), *_published_cells(line), outcome, *figures)
        return TableRow(cells, failed, case is not None)

    return Table(
        configuration.text(),
        (
            *_key_head(lookup),
            *_PUBLISHED_HEAD,
            f"median {'GPU compute ' if configuration.scope == 'gpu' else ''}ms (measured)",
            "95 % interval",
            "p90 ms",
            "p99 ms",
            f"/ {REFERENCE} (measured)",
        ),
        tuple(row(line) for line in lookup.lines(configuration)),
        (
            *borrowings(lookup, (configuration,)),
            *precision_notes(lookup, configuration),
            *warnings(lookup, configuration),
        ),
        lookup.sources(configuration),
    )


def _device_times(lookup: Lookup, cases: Sequence[ReportedCase]) -> Table:
    """Return the table of the stages that engines time on their device, such as h2d and d2h."""
    found = [stages_of(case.result) for case in cases]
    stages = list(dict.fromkeys(itertools.chain(*found)))
    rows = [
        TableRow(
            (
                *_key_cells(lookup, Line(case.result.model, case.environment)),
                case.configuration.text(),
                *(f"{own[stage]:.3f}" if stage in own else NOTHING for stage in stages),
            ),
            False,
        )
        for case, own in zip(cases, found, strict=True)
    ]
    return Table(
        "Where the device's time goes, median ms",
        (*_key_head(lookup), "configuration", *stages),
        tuple(rows),
        (),
        lookup.sources(),
    )


def stages_of(result: CaseResult) -> dict[str, float]:
    """Return the median of each stage of a case's runs in ms, in the order in which they happen."""
    medians = {name: statistics.median(ms) for name, ms in result.timings_ms.items() if ms}
    if result.case.scope == "gpu" and result.stats is not None:
        medians["compute"] = result.stats.median
    order = sorted(medians, key=lambda name: _STAGES.index(name) if name in _STAGES else -1)
    return {name: medians[name] for name in order}


def _runs(lookup: Lookup) -> Table:
    """Return the table of what was measured besides latency."""

    def number(value: float | None, form: str) -> str:
        return NOTHING if value is None else format(value, form)

    rows = [
        TableRow(
            (
                *_key_cells(lookup, Line(case.result.model, case.environment)),
                case.configuration.text(),
                str(case.result.stats.n) if case.result.stats else case.result.failure(),
                number(case.result.load_ms, ".1f"),
                number(case.result.first_ms, ".2f"),
                number(case.result.peak_rss_mb, ".0f"),
                number(case.result.overhead_us, ".2f"),
                number(case.result.stats.throughput if case.result.stats else None, ".1f"),
                case.result.weights or UNKNOWN,
            ),
            case.result.stats is None,
        )
        for case in lookup.results.cases()
    ]
    head = (
        "configuration", "runs", "load ms", "first inference ms", "peak memory MB",
        "harness overhead us", "images/s", "weights",
    )  # fmt: skip
    return Table(
        "How the runs went",
        (*_key_head(lookup), *head),
        tuple(rows),
        ("Random weights do the same work as trained ones.",)
        if any(case.result.weights == "random" for case in lookup.results.cases())
        else (),
        lookup.sources(),
    )
