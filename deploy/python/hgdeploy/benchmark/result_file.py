# SPDX-License-Identifier: Apache-2.0
"""Reads and writes the results file, schema 1.

    {"schema": 1, "suite": NAME, "created": ISO TIME, "command": [...], "settings": {...},
     "environment": {...}, "cases": [CASE, ...]}

Each case has the fields of `CaseResult` as keys, in their order.
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
from hgdeploy.benchmark.case_result import OK, STATUSES, CaseResult, now
from hgdeploy.benchmark.stats import Stats
from hgdeploy.engines import ENGINES, RuntimeInfo
from hgdeploy.engines.options import PRECISIONS
from hgdeploy.errors import ConfigError
from hgdeploy.system.checks import Given, mapping
from hgdeploy.system.documents import read_json
from hgdeploy.system.kinds import (
    anything,
    exactly,
    flag,
    list_of,
    mapping_of,
    number,
    optional,
    text,
    whole,
)

SCHEMA = 1
# Fields of a case that the file names only where they are not as usual.
_SELDOM = {"streams": 1, "tensorrt": False}
_HINT = "is it a result of hgdeploy benchmark?"


@dataclass(frozen=True)
class Head:
    """What a results file states once for all its cases.

    Attributes:
        suite: the suite's name.
        command: the command that measured, split into words.
        settings: how the cases were measured; a resumed suite must have the same settings.
        environment: the machine and its libraries, see `describe_environment`.
        created: when the file was created, in ISO 8601.
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
        path: the file; None if the results are in memory only.
        head: what holds for all cases.
        results: the results of the cases, in order.
    """

    path: Path | None
    head: Head
    results: tuple[CaseResult, ...] = ()

    @property
    def environment(self) -> str:
        """The short hash that identifies the machine and its libraries."""
        return str(self.head.environment["id"])

    def command_line(self) -> str:
        """Return the command, quoted for a shell."""
        return shlex.join(self.head.command)

    def hardware(self) -> str:
        """Return CPU, memory, GPUs, system, libraries and commit on one line.

        Raises:
            ConfigError: the environment lacks a fact, or has a wrong one.
        """
        return _hardware(Given(f"{self.path}: environment", self.head.environment, _HINT))

    def to_json(self) -> str:
        """Return JSON with one fact per line, so that a diff shows what has changed."""
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
        cases = ",".join(f"\n  {_block(_facts(result), 3)}" for result in self.results)
        return "{\n " + ",\n ".join([*lines, f'"cases": [{cases}\n ]']) + "\n}\n"


def _facts(result: CaseResult) -> dict[str, Any]:
    """Return a result as it is written to JSON; `asdict` would copy every sample."""
    facts = {one.name: getattr(result, one.name) for one in dataclasses.fields(result)}
    for name in ("case", "runtime", "stats"):
        if facts[name] is not None:
            facts[name] = dataclasses.asdict(facts[name])
    if facts["gpu"] is None:
        del facts["gpu"]
    for name, usual in _SELDOM.items():
        if facts["case"][name] == usual:
            del facts["case"][name]
    return {**facts, "timings_ms": result.timings_ms or None}


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
        ConfigError: the file cannot be read, is not JSON, or is not of schema 1.
    """
    try:
        values = read_json(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    given = Given(f"{path}:", values, _HINT)
    schema = given.read("schema", anything)
    if schema != SCHEMA or type(schema) is not int:
        raise ConfigError(
            f"{path} has schema {schema!r}, and this version reads schema {SCHEMA}; measure again "
            "or use the version of HGDeploy that wrote it"
        )
    head = Head(
        suite=given.read("suite", text),
        command=given.read("command", list_of(_as_line)),
        settings=given.read("settings", mapping),
        environment=given.read("environment", mapping),
        created=given.read("created", text),
    )
    found = ResultFile(path, head, given.read("cases", list_of(_case_result)))
    found.hardware()  # refuses an incomplete environment before anything is shown
    return found


def _hardware(environment: Given) -> str:
    cpus = environment.read("cpus", whole(1))
    libraries = environment.read("libraries", mapping)
    gpus = environment.read("gpu", list_of(_as_line))
    commit = environment.read("commit", optional(text))
    memory = environment.read("memory_mb", optional(_NUMBER))
    words = [
        f"{environment.read('cpu', text)}, {cpus} CPU{'' if cpus == 1 else 's'}",
        f"governor {environment.read('governor', optional(text)) or 'unknown'}",
        "memory unknown" if memory is None else f"{memory / 1024:.1f} GiB memory",
        f"GPU {', '.join(gpus)}" if gpus else "no GPU",
        environment.read("os", text),
        f"Python {environment.read('python', text)}",
        ", ".join(f"{name} {version}" for name, version in libraries.items() if version),
        f"commit {commit[:12] if commit else 'unknown'}"
        + (" with uncommitted changes" if environment.read("dirty", anything) else ""),
        f"environment {environment.read('id', text)}",
    ]
    return "; ".join(word for word in words if word)


# Far above any real time or size; a larger figure would not fit into a report.
_NUMBER = number(0, 1e15)


def _as_line(given: Given) -> str:
    """Accept anything, and return it as text on one line."""
    return " ".join(str(anything(given)).split())


def _case_result(given: Given) -> CaseResult:
    status = given.read("status", exactly(*STATUSES))
    measured = status == OK
    samples = list_of(_NUMBER, 1, words="a list with at least one number where the status is ok")
    timings = given.read("timings_ms", optional(mapping_of(list_of(_NUMBER))))
    return CaseResult(
        case=given.read("case", _case),
        status=status,
        reason=_reason(given, measured),
        weights=given.read("weights", optional(text)),
        artifact=given.read("artifact", optional(text)),
        model_sha256=given.read("model_sha256", optional(text)),
        runtime=given.read("runtime", optional(_runtime)),
        gpu=given.read("gpu", optional(mapping)),
        load_ms=given.read("load_ms", optional(_NUMBER)),
        first_ms=given.read("first_ms", optional(_NUMBER)),
        peak_rss_mb=given.read("peak_rss_mb", optional(_NUMBER)),
        overhead_us=given.read("overhead_us", optional(_NUMBER)),
        samples_ms=given.read("samples_ms", samples) if measured else (),
        rounds=given.read("rounds", optional(list_of(whole(0)))),
        timings_ms=timings or {},
        stats=given.read("stats", _stats) if measured else None,
        warnings=given.read("warnings", list_of(_as_line)),
        started=given.read("started", text),
    )


def _reason(given: Given, measured: bool) -> str | None:
    reason = " ".join((given.read("reason", optional(text)) or "").split())
    return reason or (None if measured else "no reason was recorded")


def _case(given: Given) -> Case:
    return Case(
        model=given.read("model", text),
        engine=given.read("engine", exactly(*ENGINES)),
        precision=given.read("precision", exactly(*PRECISIONS)),
        batch=given.read("batch", whole(1)),
        threads=given.read("threads", optional(whole(1))),
        device=given.read("device", text),
        scope=given.read("scope", exactly(*SCOPES)),
        streams=given.read("streams", optional(whole(1))) or 1,
        tensorrt=given.read("tensorrt", optional(flag)) or False,
    )


def _runtime(given: Given) -> RuntimeInfo:
    return RuntimeInfo(
        engine=given.read("engine", text),
        library=given.read("library", text),
        version=given.read("version", text),
        device=given.read("device", text),
        providers=given.read("providers", list_of(_as_line)),
        precision=given.read("precision", text),
        threads=given.read("threads", optional(whole(1))),
    )


def _stats(given: Given) -> Stats:
    names = ("min", "mean", "p90", "p95", "p99", "max", "throughput")
    low, high = given.read("median_ci", list_of(_NUMBER, 2, 2, words="two numbers"))
    return Stats(
        n=given.read("n", whole(1)),
        median=given.read("median", number(above=0, most=1e15)),
        median_ci=(low, high),
        **{name: given.read(name, _NUMBER) for name in names},
    )
