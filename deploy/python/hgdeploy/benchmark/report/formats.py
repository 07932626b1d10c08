# SPDX-License-Identifier: Apache-2.0
"""Benchmark results as Markdown, CSV or one self-contained HTML page."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence

from hgdeploy.benchmark.case_result import Configuration
from hgdeploy.benchmark.report.lookup import Line, Lookup
from hgdeploy.benchmark.report.results import ReportedCase, Results
from hgdeploy.benchmark.report.tables import (
    NOT_MEASURED,
    UNKNOWN,
    Table,
    TableRow,
    preface,
    tables,
    title,
)
from hgdeploy.results.frame import framed
from hgdeploy.zoo.published import over_reference

_STYLE = (
    "@media(prefers-color-scheme:dark){svg{background:#fff}}"
    # What lies beyond an edge shows as a shadow there; covers of the page's colour hide it at ends.
    ".wide{overflow-x:auto;background:linear-gradient(to right,var(--back),transparent 2rem),"
    "linear-gradient(to left,var(--back),transparent 2rem) right,"
    "linear-gradient(to right,#8888,transparent .7rem),"
    "linear-gradient(to left,#8888,transparent .7rem) right;background-repeat:no-repeat;"
    "background-size:2rem 100%;background-attachment:local,local,scroll,scroll}"
    "table{margin:0 0 .5rem;font-size:.87em}td,th{padding:.2rem .45rem;text-align:right}"
    "th{vertical-align:bottom;max-width:9rem}"
    "td:first-child,th:first-child{text-align:left;position:sticky;left:0;background:var(--head)}"
    ".source,.note,summary{font-size:.85em;color:var(--dim)}"
    ".source,.note{margin:.2rem 0;overflow-wrap:anywhere}summary{cursor:pointer}"
    "code{background:var(--head)}svg{max-width:100%;height:auto}"
    "@media(max-width:30rem){th:first-child,td:first-child{min-width:6rem;"
    "max-width:7.5rem;overflow-wrap:anywhere}}"
)


def as_markdown(results: Results) -> str:
    """Return the results as Markdown tables, with the sources below each."""
    lines = [f"# {title(results)}", ""]
    for sentence in preface(results):
        lines += [_markdown_text(sentence), ""]
    for table in tables(results):
        lines += [f"## {_markdown_text(table.title)}", "", *_markdown_table(table), ""]
        lines += [f"- {_markdown_text(note)}" for note in table.notes]
        for source in table.sources:
            lines.append(f"- Measured on: {_markdown_text(source.measured_on)}")
            lines.append(f"- Made by: {_markdown_code(source.command)}")
        lines.append("")
    return "\n".join(lines)


def _markdown_table(table: Table) -> list[str]:
    rows = [table.head, *(row.cells for row in table.rows)]
    written = ["| " + " | ".join(map(_markdown_text, cells)) + " |" for cells in rows]
    return [written[0], "|---|" + "---:|" * (len(table.head) - 1), *written[1:]]


def _markdown_text(text: str) -> str:
    """Return text with the characters escaped that Markdown or HTML would interpret."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _markdown_code(text: str) -> str:
    """Return text as a code span, in double backticks if it contains a backtick."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def as_csv(results: Results) -> str:
    """Return the results as CSV: a row for each case, and for each published model without one.

    The cells of what is not published or was not measured are empty; `status` says which it is.
    """
    lookup = Lookup(results)
    stream = io.StringIO()
    rows = [
        _csv_row(lookup, line, configuration)
        for configuration in lookup.configurations
        for line in lookup.lines(configuration)
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _csv_row(lookup: Lookup, line: Line, configuration: Configuration) -> dict[str, object]:
    case, entry = lookup.find(line, configuration), line.published
    over, over_revised = over_reference(entry) if entry is not None else (None, None)
    row: dict[str, object] = {
        "model": line.model,
        "engine": configuration.engine,
        "precision": configuration.precision,
        "threads": configuration.threads,
        "batch": configuration.batch,
        "device": configuration.device,
        "scope": configuration.scope,
        "environment": line.environment,
        "comparable": "no: environments differ" if lookup.results.mixed else "yes",
        "published_top1_percent": entry.top1 if entry else None,
        "published_v100_ms": entry.v100_ms if entry else None,
        "published_revised_v100_ms": entry.v100_ms_revised if entry else None,
        "published_v100_over_resnet50": over and round(over, 4),
        "published_revised_v100_over_resnet50": over_revised and round(over_revised, 4),
        "status": NOT_MEASURED if case is None else case.result.status,
    }
    return row if case is None else row | _csv_measured(lookup, case)


def _csv_measured(lookup: Lookup, case: ReportedCase) -> dict[str, object]:
    found, file = case.result, case.file
    row: dict[str, object] = {"reason": found.reason}
    if found.stats is not None:
        stats, over = found.stats, lookup.over_reference(case)
        row |= {"measured_n": stats.n}
        for name in ("min", "mean", "median", "p90", "p95", "p99", "max"):
            row[f"measured_{name}_ms"] = getattr(stats, name)
        row |= {
            "measured_median_low_ms": stats.median_ci[0],
            "measured_median_high_ms": stats.median_ci[1],
            "measured_throughput_per_s": stats.throughput,
            "measured_over_resnet50": over and round(over, 4),
        }
    return row | {
        "load_ms": found.load_ms,
        "first_ms": found.first_ms,
        "peak_rss_mb": found.peak_rss_mb,
        "overhead_us": found.overhead_us,
        "measured_as": found.model,
        "weights": found.weights or UNKNOWN,
        "model_sha256": found.model_sha256,
        "warnings": " / ".join(found.warnings),
        "hardware": file.hardware(),
        "command": file.command_line(),
        "created": file.head.created,
    }


def as_html(results: Results, figures: Sequence[tuple[str, str]] = ()) -> str:
    """Return the results as one page that needs no other file.

    Args:
        results: the results files.
        figures: titles and SVG elements to put between the first table and the others.
    """
    name = title(results)
    first, *others = tables(results)
    body = "".join(
        [
            f"<h1>{html.escape(name)}</h1>\n",
            *(f"<p>{html.escape(sentence)}</p>\n" for sentence in preface(results)),
            _html_table(first),
            *(f"<section><h2>{html.escape(head)}</h2>\n{svg}</section>\n" for head, svg in figures),
            *(_html_table(table) for table in others),
        ]
    )
    return framed(name, _STYLE, body)


def _html_table(table: Table) -> str:
    shown = [row for row in table.rows if row.measured] or list(table.rows)
    others = [row for row in table.rows if row not in shown]
    parts = [f"<section><h2>{html.escape(table.title)}</h2>", _html_rows(table.head, shown)]
    if others:
        names = ", ".join(row.cells[0] for row in others)
        parts.append(f"<details><summary>{NOT_MEASURED}: {html.escape(names)}</summary>")
        parts += [_html_rows(table.head, others), "</details>\n"]
    parts += [f"<p class='note'>{html.escape(note)}</p>\n" for note in table.notes]
    for source in table.sources:
        parts.append(f"<p class='source'>Measured on: {html.escape(source.measured_on)}<br>")
        parts.append(f"Made by: <code>{html.escape(source.command)}</code></p>\n")
    return "".join([*parts, "</section>\n"])


def _html_rows(head: Sequence[str], rows: Sequence[TableRow]) -> str:
    parts = ["<div class='wide'><table>\n<tr>"]
    parts += [f"<th>{html.escape(cell)}</th>" for cell in head]
    parts.append("</tr>\n")
    for row in rows:
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells)
        parts.append(f"<tr{' class=failed' * row.failed}>{cells}</tr>\n")
    return "".join([*parts, "</table></div>\n"])
