# SPDX-License-Identifier: Apache-2.0
"""The results file, schema 1, read and written.

    {"schema": 1, "suite": NAME, "created": ISO TIME, "command": [...], "settings": {...},
     "environment": {...}, "cases": [ROW, ...]}

A row has the fields of `Row` as keys, in their order.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgdeploy.benchmark.case import SCOPES, Case
from hgdeploy.benchmark.json_reader import JsonReader
from hgdeploy.benchmark.row import OK, STATUSES, Row, now
from hgdeploy.benchmark.stats import Stats
from hgdeploy.engines import ENGINES, RuntimeInfo
from hgdeploy.engines.options import PRECISIONS
from hgdeploy.errors import ConfigError

SCHEMA = 1


@dataclass(frozen=True)
class Head:
    """What a results file says once for all its cases.

    Attributes:
        suite: the suite's name.
        command: the command that measured, in words.
        settings: how it was measured; a resumed suite must have the same.
        environment: the machine and its libraries, see `describe_environment`.
        created: when the file was begun, ISO 8601.
    """

    suite: str
    command: tuple[str, ...]
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    created: str = field(default_factory=now)


@dataclass(frozen=True)
class ResultFile:
    """The content of one results file.

    Attributes:
        path: the file; None where the results are in memory only.
        head: what holds for all its cases.
        rows: its cases in order.
    """

    path: Path | None
    head: Head
    rows: tuple[Row, ...] = ()

    @property
    def environment(self) -> str:
        """Short hash of the machine and its libraries."""
        return str(self.head.environment["id"])

    def command_line(self) -> str:
        """Return the command as a shell takes it."""
        return shlex.join(self.head.command)

    def hardware(self) -> str:
        """Return CPU, memory, GPUs, system, libraries and commit on one line.

        Raises:
            ConfigError: the environment lacks a fact, or has a wrong one.
        """
        return _hardware(JsonReader(self.path or Path(), self.head.environment, "environment"))

    def to_json(self) -> str:
        """Return JSON of one fact a line, so that a difference in git shows what has changed."""
        head = self.head
        facts: dict[str, Any] = {
            "schema": SCHEMA,
            "suite": head.suite,
            "created": head.created,
            "command": head.command,
            "settings": head.settings,
            "environment": head.environment,
        }
        lines = [f'"{key}": {_block(value, 2)}' for key, value in facts.items()]
        rows = ",".join(f"\n  {_block(_facts(row), 3)}" for row in self.rows)
        return "{\n " + ",\n ".join([*lines, f'"cases": [{rows}\n ]']) + "\n}\n"


def _facts(row: Row) -> dict[str, Any]:
    """Return a row as JSON has it; `asdict` would copy every sample."""
    facts = {one.name: getattr(row, one.name) for one in dataclasses.fields(row)}
    for name in ("case", "runtime", "stats"):
        if facts[name] is not None:
            facts[name] = dataclasses.asdict(facts[name])
    return {**facts, "timings_ms": row.timings_ms or None}


def _block(value: Any, indent: int) -> str:
    if not isinstance(value, Mapping):
        return _line(value)
    lines = (f'"{key}": {_line(item)}' for key, item in value.items())
    return "{" + f",\n{' ' * indent}".join(lines) + "}"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def load_results(path: Path) -> ResultFile:
    """Read one results file.

    Args:
        path: a JSON file that `hgdeploy benchmark` wrote.

    Raises:
        ConfigError: it cannot be read, is not JSON, or not of schema 1.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    reader = JsonReader(path, values)
    schema = reader.raw("schema")
    if schema != SCHEMA or type(schema) is not int:
        raise ConfigError(
            f"{path} has schema {schema!r}, and this version reads schema {SCHEMA}; measure again "
            "or use the version of HGDeploy that wrote it"
        )
    head = Head(
        suite=reader.text("suite"),
        command=tuple(str(word) for word in reader.sequence("command")),
        settings=reader.mapping("settings"),
        environment=reader.mapping("environment"),
        created=reader.text("created"),
    )
    found = ResultFile(path, head, tuple(_row(row) for row in reader.each("cases")))
    found.hardware()  # refuses an environment that lacks a fact before anything is shown
    return found


def _hardware(environment: JsonReader) -> str:
    cpus = environment.count("cpus")
    libraries = environment.mapping("libraries")
    gpus = [str(gpu) for gpu in environment.sequence("gpu")]
    commit, memory = environment.text_or_none("commit"), environment.number_or_none("memory_mb")
    words = [
        f"{environment.text('cpu')}, {cpus} CPU{'' if cpus == 1 else 's'}",
        f"governor {environment.text_or_none('governor') or 'unknown'}",
        "memory unknown" if memory is None else f"{memory / 1024:.1f} GiB memory",
        f"GPU {', '.join(gpus)}" if gpus else "no GPU",
        environment.text("os"),
        f"Python {environment.text('python')}",
        ", ".join(f"{name} {version}" for name, version in libraries.items() if version),
        f"commit {commit[:12] if commit else 'unknown'}"
        + (" with uncommitted changes" if environment.raw("dirty") else ""),
        f"environment {environment.text('id')}",
    ]
    return "; ".join(word for word in words if word)


def _row(reader: JsonReader) -> Row:
    status = reader.one_of("status", STATUSES)
    measured = status == OK
    row = Row(
        case=_case(reader.inner("case")),
        status=status,
        reason=_reason(reader, measured),
        weights=reader.text_or_none("weights"),
        artifact=reader.text_or_none("artifact"),
        model_sha256=reader.text_or_none("model_sha256"),
        runtime=_runtime(reader.inner_or_none("runtime")),
        load_ms=reader.number_or_none("load_ms"),
        first_ms=reader.number_or_none("first_ms"),
        peak_rss_mb=reader.number_or_none("peak_rss_mb"),
        overhead_us=reader.number_or_none("overhead_us"),
        samples_ms=reader.numbers("samples_ms") if measured else (),
        rounds=reader.indices_or_none("rounds"),
        timings_ms=reader.numbers_by_name("timings_ms"),
        stats=_stats(reader.inner("stats")) if measured else None,
        warnings=tuple(" ".join(str(text).split()) for text in reader.sequence("warnings")),
        started=reader.text("started"),
    )
    if measured and not row.samples_ms:
        raise reader.wrong("samples_ms", "at least one number where the status is ok")
    return row


def _reason(reader: JsonReader, measured: bool) -> str | None:
    reason = " ".join((reader.text_or_none("reason") or "").split())
    return reason or (None if measured else "no reason was recorded")


def _case(reader: JsonReader) -> Case:
    return Case(
        model=reader.text("model"),
        engine=reader.one_of("engine", ENGINES),
        precision=reader.one_of("precision", PRECISIONS),
        batch=reader.count("batch"),
        threads=reader.count_or_none("threads"),
        device=reader.text("device"),
        scope=reader.one_of("scope", SCOPES),
    )


def _runtime(reader: JsonReader | None) -> RuntimeInfo | None:
    if reader is None:
        return None
    return RuntimeInfo(
        engine=reader.text("engine"),
        library=reader.text("library"),
        version=reader.text("version"),
        device=reader.text("device"),
        providers=tuple(str(name) for name in reader.sequence("providers")),
        precision=reader.text("precision"),
        threads=reader.count_or_none("threads"),
    )


def _stats(reader: JsonReader) -> Stats:
    interval = reader.numbers("median_ci")
    if len(interval) != 2:
        raise reader.wrong("median_ci", "two numbers")
    names = ("min", "mean", "median", "p90", "p95", "p99", "max", "throughput")
    values = {name: reader.number(name) for name in names}
    if values["median"] <= 0:
        raise reader.wrong("median", "more than 0")
    return Stats(n=reader.count("n"), median_ci=(interval[0], interval[1]), **values)
