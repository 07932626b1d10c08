# SPDX-License-Identifier: Apache-2.0
"""The results file: schema 1, whole after every case.

    {"schema": 1, "suite": NAME, "created": ISO TIME, "command": [...], "settings": {...},
     "environment": {...}, "cases": [ROW, ...]}

A row has the keys of `Row`, in its order. Another case's failure, a crash or Ctrl-C loses no row
that is finished: the file is written aside and renamed.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgdeploy.benchmark.case import Case
from hgdeploy.errors import ConfigError, OutputError

SCHEMA = 1
OK, FAILED, TIMEOUT = "ok", "failed", "timeout"

Document = dict[str, Any]


@dataclass
class Row:
    """What is known of one case.

    Attributes:
        case: the case.
        status: `ok`, `failed` or `timeout`.
        reason: why it is not ok, in one line.
        weights: where the model's weights are from (`random`, `file`); None where nothing tells.
        artifact: the file that the engine loaded.
        model_sha256: hash of the artifact and of the weights beside it.
        runtime: what really ran, see `RuntimeInfo`.
        load_ms: from nothing to a loaded model, import of the library included.
        first_ms: the first inference.
        peak_rss_mb: the most memory that the case's process had in use.
        overhead_us: what the harness itself adds to each sample.
        samples_ms: every sample after the warm-up.
        rounds: the round of each sample of an interleaved suite, from 0.
        timings_ms: parts of each sample by name, where the engine times its device.
        stats: see `Stats`.
        warnings: what looks wrong with the samples, and advice.
        started: when, in ISO 8601.
    """

    case: Case
    status: str = OK
    reason: str | None = None
    weights: str | None = None
    artifact: str | None = None
    model_sha256: str | None = None
    runtime: dict[str, Any] | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    peak_rss_mb: float | None = None
    overhead_us: float | None = None
    samples_ms: list[float] = field(default_factory=list)
    rounds: list[int] | None = None
    timings_ms: dict[str, list[float]] | None = None
    stats: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    started: str = field(default_factory=lambda: now())


def now() -> str:
    """Return the time in ISO 8601, to the second, with its zone."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def load_results(path: Path) -> Document:
    """Read a results file.

    Raises:
        ConfigError: it is missing, or is no results file of this schema.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"results {path} do not exist") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"results {path} cannot be read: {error}") from None
    if not isinstance(raw, dict) or "schema" not in raw or not isinstance(raw.get("cases"), list):
        raise ConfigError(f"{path} is no results file of hgdeploy benchmark")
    if raw["schema"] != SCHEMA:
        raise ConfigError(f"results {path} have schema {raw['schema']!r}, expected {SCHEMA}")
    return raw


class Record:
    """The results so far, in memory and, where a path was given, in a file.

    Args:
        path: the file; None keeps them in memory only.
        head: everything but the cases.
        order: in which the rows of these cases come, whatever is finished first.
        resume: go on with the file that is there.

    Raises:
        OutputError: the file cannot be written, or is there and must not be overwritten.
        ConfigError: the file to resume is of another suite, environment or settings.
    """

    def __init__(
        self,
        path: Path | None,
        head: Mapping[str, Any],
        order: Iterable[Case] = (),
        *,
        resume: bool = False,
    ) -> None:
        self._path = path
        self._order = {_key(dataclasses.asdict(case)): i for i, case in enumerate(order)}
        self.document: Document = {"schema": SCHEMA, **head, "cases": []}
        if path is None:
            if resume:
                raise ConfigError("--resume needs --output, the file to go on with")
            return
        if path.is_dir() or not path.absolute().parent.is_dir():
            why = "it is a folder" if path.is_dir() else "its folder does not exist"
            raise OutputError(f"--output {path}: {why}")
        if path.exists() and not resume:
            raise OutputError(
                f"--output {path} exists; go on with it by --resume, name another, or delete it"
            )
        if path.exists():
            self.document["cases"] = _cases_to_keep(path, head)
        self._save()

    def done(self, case: Case) -> bool:
        """Tell whether the case has a row that is ok."""
        facts = dataclasses.asdict(case)
        cases = self.document["cases"]
        return any(row["case"] == facts and row["status"] == OK for row in cases)

    def add(self, row: Row) -> None:
        """Add a row, in place of an older one of the same case, and save.

        Raises:
            OutputError: the file cannot be written.
        """
        facts = json.loads(json.dumps(dataclasses.asdict(row), allow_nan=False))
        others = [old for old in self.document["cases"] if old["case"] != facts["case"]]
        last = len(self._order)
        self.document["cases"] = sorted(
            [*others, facts], key=lambda row: self._order.get(_key(row["case"]), last)
        )
        self._save()

    def _save(self) -> None:
        if self._path is None:
            return
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        try:
            aside.write_text(_text(self.document), encoding="utf-8", newline="\n")
            aside.replace(self._path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise OutputError(f"--output {self._path}: {error.strerror or error}") from None


def _key(case: Mapping[str, Any]) -> str:
    return json.dumps(case, sort_keys=True)


def _cases_to_keep(path: Path, head: Mapping[str, Any]) -> list[Any]:
    """Return the rows of a file that is resumed.

    Raises:
        ConfigError: what it was measured with is not what is at hand.
    """
    old = load_results(path)
    was, here = old.get("environment", {}), head["environment"]
    if was.get("id") != here["id"]:
        changed = sorted(
            key for key in here if was.get(key) != here[key] and key not in ("id", "commit")
        )
        raise ConfigError(
            f"{path} is of another environment ({', '.join(changed)} differ); write to another file"
        )
    if old.get("suite") != head["suite"]:
        raise ConfigError(f"{path} is of the suite {old.get('suite')!r}, not {head['suite']!r}")
    settings = old.get("settings", {})
    for key, value in head["settings"].items():
        if settings.get(key) != value:
            raise ConfigError(
                f"{path} was measured with {key} {settings.get(key)!r}, not {value!r}; measure "
                "with the same settings, or write to another file"
            )
    return list(old["cases"])


def _text(document: Document) -> str:
    """Return JSON of one fact a line, so that a difference in git shows what has changed."""
    head = {key: value for key, value in document.items() if key != "cases"}
    facts = [f'"{key}": {_block(value, 2)}' for key, value in head.items()]
    rows = ",".join(f"\n  {_block(row, 3)}" for row in document["cases"])
    return "{\n " + ",\n ".join([*facts, f'"cases": [{rows}\n ]']) + "\n}\n"


def _block(value: Any, indent: int) -> str:
    if not isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    lines = (f'"{key}": {json.dumps(item, ensure_ascii=False)}' for key, item in value.items())
    return "{" + f",\n{' ' * indent}".join(lines) + "}"


def rows_of(document: Document, status: str | None = None) -> Sequence[Mapping[str, Any]]:
    """Return a document's rows; those of one status where it is given."""
    return [row for row in document["cases"] if status is None or row["status"] == status]
