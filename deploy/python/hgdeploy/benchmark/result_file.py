# SPDX-License-Identifier: Apache-2.0
"""Reads the benchmark's result files, schema 1, into frozen records."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hgdeploy.benchmark.json_reader import JsonReader
from hgdeploy.benchmark.stats import Stats
from hgdeploy.errors import ConfigError
from hgdeploy.zoo.published import table_name

SCHEMA = 1
_STATUSES = ("ok", "failed", "timeout")


@dataclass(frozen=True)
class Configuration:
    """What a case measures besides its model."""

    engine: str
    precision: str
    batch: int
    threads: int | None
    device: str
    scope: str

    def text(self) -> str:
        """Return it in words, such as `onnxruntime fp32, 2 threads, batch 1, cpu`."""
        words = [f"{self.engine} {self.precision}"]
        if self.threads is not None:
            words.append("1 thread" if self.threads == 1 else f"{self.threads} threads")
        elif self.device == "cpu":
            words.append("all threads")
        words += [f"batch {self.batch}", self.device]
        return ", ".join(words if self.scope == "engine" else [*words, f"{self.scope} scope"])


@dataclass(frozen=True)
class CaseResult:
    """One case; `stats` is None where it was not measured, and `reason` says why.

    `timings` are the parts of each sample in ms, by name, where the engine times its device.
    """

    model: str
    configuration: Configuration
    environment: str
    status: str
    reason: str
    weights: str
    model_sha256: str | None
    load_ms: float | None
    first_ms: float | None
    peak_rss_mb: float | None
    overhead_us: float | None
    samples: tuple[float, ...]
    stats: Stats | None
    warnings: tuple[str, ...]
    timings: Mapping[str, tuple[float, ...]]

    def name(self) -> str:
        """Return model and configuration in words."""
        return f"{self.model}, {self.configuration.text()}"


@dataclass(frozen=True)
class ResultFile:
    """One result file.

    Attributes:
        path: where it was read.
        suite: the suite's name.
        created: when it was begun, ISO 8601.
        command: the command that made it.
        environment: short hash of the machine and its libraries.
        hardware: CPU, system, libraries and commit on one line.
        cases: its cases in order.
    """

    path: Path
    suite: str
    created: str
    command: str
    environment: str
    hardware: str
    cases: tuple[CaseResult, ...]


def read_results(path: Path) -> ResultFile:
    """Read one result file.

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
    if not reader.sequence("cases"):
        raise ConfigError(f"{path} holds no case yet; let hgdeploy benchmark finish one")
    environment = reader.inner("environment").text("id")
    return ResultFile(
        path=path,
        suite=reader.text("suite"),
        created=reader.text("created"),
        command=shlex.join(str(word) for word in reader.sequence("command")),
        environment=environment,
        hardware=_hardware(reader.inner("environment")),
        cases=tuple(_case(case, environment) for case in reader.each("cases")),
    )


def _hardware(environment: JsonReader) -> str:
    """Return the environment on one line: CPU, memory, GPUs, system, libraries, commit."""
    cpus = environment.count("cpus")
    libraries = environment.raw("libraries")
    if not isinstance(libraries, Mapping):
        raise environment.wrong("libraries", "an object")
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


def _case(reader: JsonReader, environment: str) -> CaseResult:
    case = reader.inner("case")
    status = reader.one_of("status", _STATUSES)
    measured = status == "ok"
    reason = reader.text_or_none("reason") or ""
    result = CaseResult(
        model=case.text("model"),
        configuration=Configuration(
            engine=case.text("engine"),
            precision=case.text("precision"),
            batch=case.count("batch"),
            threads=case.count_or_none("threads"),
            device=case.text("device"),
            scope=case.text("scope"),
        ),
        environment=environment,
        status=status,
        reason=" ".join(reason.split()) or ("" if measured else "no reason was recorded"),
        weights=reader.text_or_none("weights") or "unknown",
        model_sha256=reader.text_or_none("model_sha256"),
        load_ms=reader.number_or_none("load_ms"),
        first_ms=reader.number_or_none("first_ms"),
        peak_rss_mb=reader.number_or_none("peak_rss_mb"),
        overhead_us=reader.number_or_none("overhead_us"),
        samples=reader.numbers("samples_ms") if measured else (),
        stats=_stats(reader.inner("stats")) if measured else None,
        warnings=tuple(" ".join(str(text).split()) for text in reader.sequence("warnings")),
        timings=reader.numbers_by_name("timings_ms"),
    )
    if measured and not result.samples:
        raise reader.wrong("samples_ms", "at least one number where the status is ok")
    return result


def _stats(reader: JsonReader) -> Stats:
    interval = reader.numbers("median_ci")
    if len(interval) != 2:
        raise reader.wrong("median_ci", "two numbers")
    names = ("min", "mean", "median", "p90", "p95", "p99", "max", "throughput")
    values = {name: reader.number(name) for name in names}
    if values["median"] <= 0:
        raise reader.wrong("median", "more than 0")
    return Stats(n=reader.count("n"), median_ci=(interval[0], interval[1]), **values)


@dataclass(frozen=True)
class Results:
    """Result files that are shown together; `mixed` where their environments differ."""

    files: tuple[ResultFile, ...]
    mixed: bool

    def cases(self) -> tuple[CaseResult, ...]:
        """Return the cases of all files, in order."""
        return tuple(case for file in self.files for case in file.cases)


def read_all(paths: Sequence[Path], mix_environments: bool = False) -> Results:
    """Read result files that are to be shown together.

    Args:
        paths: the files, at least one.
        mix_environments: whether files from different environments are allowed.

    Raises:
        ConfigError: a file is wrong, environments differ, or two files hold the same case.
    """
    files = tuple(read_results(path) for path in paths)
    first = files[0]
    for file in files:
        if file.environment != first.environment and not mix_environments:
            raise ConfigError(
                f"{first.path} and {file.path} come from different environments "
                f"({first.environment}, {file.environment}) and do not compare; "
                "--mix-environments shows them together, marked as not comparable"
            )
    seen: dict[tuple[str, Configuration, str], Path] = {}
    for file in files:
        for case in file.cases:
            key = (table_name(case.model), case.configuration, case.environment)
            if key in seen:
                places = " and ".join(dict.fromkeys((str(seen[key]), str(file.path))))
                raise ConfigError(
                    f"{case.name()} is twice in {places}; leave one out, or use hgdeploy "
                    "benchmark compare"
                )
            seen[key] = file.path
    return Results(files, len({file.environment for file in files}) > 1)
