# SPDX-License-Identifier: Apache-2.0
"""A validation's report as JSON, Markdown or one self-contained HTML page."""

from __future__ import annotations

import dataclasses
import html
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hgdeploy.errors import OutputError
from hgdeploy.results.outputs import check_suffix
from hgdeploy.system.files import check_replaceable, write_text
from hgdeploy.validation.accuracy import Accuracy
from hgdeploy.validation.compare import AGREEMENT
from hgdeploy.validation.pairs import PairReport
from hgdeploy.validation.validate import Report

TableRow = tuple[str, ...]
"""The cells of one row of a table for people."""


def check_report_path(path: Path) -> None:
    """Refuse a path that a report could not be written to, before the work begins.

    Raises:
        ConfigError: an unknown suffix.
        OutputError: it cannot be written.
    """
    check_suffix("--report", path, _RENDER)
    if not path.absolute().parent.is_dir():
        raise OutputError(f"--report {path}: its folder does not exist")
    check_replaceable(path)


def write_report(report: Report, path: Path) -> None:
    """Write `report` in the format of the path's suffix.

    Raises:
        ConfigError: an unknown suffix.
        OutputError: the file cannot be written.
    """
    write_text(path, _RENDER[check_suffix("--report", path, _RENDER)](report))


def as_json(report: Report) -> str:
    """Return the report as JSON; an infinite limit becomes null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    facts = {"schema": 1, "passed": report.passed, **dataclasses.asdict(report)}
    return json.dumps(plain(facts), indent=2, sort_keys=True) + "\n"


_PAIR_HEAD = (
    "reference", "candidate", "inputs", "rows", "max abs", "mean abs", "max log", "times noise",
    "cosine",
)  # fmt: skip
_ACCURACY_HEAD = ("run", "images", "top-1 (95 % interval)", "top-5 (95 % interval)")
_WORST_HEAD = ("pair", "input", "difference", "reference's answer", "candidate's answer")


def _pair_row(pair: PairReport) -> TableRow:
    c = pair.comparison
    return (
        pair.reference,
        pair.candidate,
        pair.inputs,
        str(c.rows),
        f"{c.max_abs:.2e}",
        f"{c.mean_abs:.2e}",
        f"{c.max_log:.2e}",
        "" if pair.times_noise is None else f"{pair.times_noise:.2g}",
        f"{c.min_cosine:.6f}",
        f"{c.top1_agreement:.4f}",
        *([f"{c.topk_agreement:.4f}"] if c.agreement_by == "top-1" else []),
        "passed" if not pair.misses else f"FAILED: {'; '.join(pair.misses)}",
    )


def _pair_head(report: Report) -> TableRow:
    """Return the heading of the pairs, which all have scores of one kind."""
    by = {pair.comparison.agreement_by for pair in report.pairs}
    shares = ("top-1", "top-5") if by <= {"top-1"} else tuple(AGREEMENT[one] for one in by)
    return (*_PAIR_HEAD, *shares, "verdict")


def _accuracy_row(a: Accuracy) -> TableRow:
    def share(value: float, interval: tuple[float, float]) -> str:
        return f"{value:.2%} ({interval[0]:.2%} to {interval[1]:.2%})"

    return a.run, str(a.rows), share(a.top1, a.top1_interval), share(a.top5, a.top5_interval)


def _worst_rows(report: Report) -> list[TableRow]:
    """Return the worst images of the pairs with the reference; other pairs repeat them."""
    reference = next(iter(report.runtimes))
    return [
        (
            f"{pair.reference} / {pair.candidate}",
            worst.name,
            f"{worst.max_abs:.2e}",
            f"{worst.reference_class} ({worst.reference_score:.5f})",
            f"{worst.candidate_class} ({worst.candidate_score:.5f})",
        )
        for pair in report.pairs
        if pair.inputs == "images" and pair.reference == reference
        for worst in pair.worst
    ]


def _tables(report: Report) -> list[tuple[str, TableRow, list[TableRow]]]:
    """Return the report's tables as (title, heading, rows), without the empty ones."""
    ran: list[TableRow] = [
        (name, f"{r.library} {r.version}", r.precision, r.device, ", ".join(r.providers))
        for name, r in report.runtimes.items()
    ]
    tables: list[tuple[str, TableRow, list[TableRow]]] = [
        ("Warnings", ("warning",), [(warning,) for warning in report.warnings]),
        ("Pairs", _pair_head(report), [_pair_row(pair) for pair in report.pairs]),
        ("Accuracy", _ACCURACY_HEAD, [_accuracy_row(a) for a in report.accuracies]),
        ("Largest differences", _WORST_HEAD, _worst_rows(report)),
        ("What ran", ("run", "library", "precision", "device", "providers"), ran),
        ("Images that failed", ("image", "reason"), list(report.failed)),
    ]
    return [table for table in tables if table[2]]


def _title(report: Report) -> str:
    verdict = "passed" if report.passed else "FAILED"
    return f"Validation of {report.bundle}: {verdict if report.pairs else 'nothing was compared'}"


def as_markdown(report: Report) -> str:
    """Return the report as Markdown tables."""
    lines = [f"# {_title(report)}", ""]
    for title, head, rows in _tables(report):
        lines += [f"## {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines)


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222}"
    "table{border-collapse:collapse;margin:0 0 1.5rem}"
    "td,th{border:1px solid #ccc;padding:.25rem .6rem;text-align:left}"
    "th{background:#f3f3f3}.failed{background:#fde2e2}"
)


def as_html(report: Report) -> str:
    """Return the report as one HTML page that needs no other file."""
    title = html.escape(_title(report))
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>",
    ]
    for name, head, rows in _tables(report):
        parts.append(f"<h2>{html.escape(name)}</h2><table><tr>")
        parts += [f"<th>{html.escape(cell)}</th>" for cell in head]
        parts.append("</tr>")
        for row in rows:
            kind = " class='failed'" if any(cell.startswith("FAILED") for cell in row) else ""
            cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
            parts.append(f"<tr{kind}>{cells}</tr>")
        parts.append("</table>")
    return "".join([*parts, "</body></html>\n"])


_RENDER: Mapping[str, Callable[[Report], str]] = {
    ".json": as_json,
    ".md": as_markdown,
    ".html": as_html,
}
