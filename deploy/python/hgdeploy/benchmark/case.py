# SPDX-License-Identifier: Apache-2.0
"""What is measured: cases, the settings of a measurement, and suites, which are read from YAML.

A suite is the product of its lists, without what is excluded:

    name: smoke
    models: [PPHGNet_tiny, deploy/models/mine]
    engines: [paddle, onnxruntime]
    precisions: [fp32]
    batches: [1, 8]
    threads: [1, all]
    scopes: [engine]
    exclude: [{engine: paddle, batch: 8}]
    min_seconds: 3
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgdeploy.engines import ENGINES
from hgdeploy.engines.options import PRECISIONS
from hgdeploy.engines.run import Run
from hgdeploy.errors import ConfigError
from hgdeploy.system.checks import Given, Kind, check, check_fields
from hgdeploy.system.documents import read_yaml
from hgdeploy.system.kinds import (
    BATCH_SIZE,
    MANY,
    THREADS,
    WEEK_SECONDS,
    anything,
    as_text,
    flag,
    keys,
    list_of,
    number,
    one_of,
    optional,
    path,
    text,
    whole,
)

SCOPES = ("engine", "pipeline")

# Each list of a suite, and the field of a case that takes its values. The first changes slowest.
_MOST_CASES = 10_000
_LISTS = {
    "models": "model",
    "engines": "engine",
    "precisions": "precision",
    "batches": "batch",
    "threads": "threads",
    "scopes": "scope",
}
_USUAL: Mapping[str, tuple[str, ...]] = {"engines": ("paddle",), "precisions": ("fp32",)}


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        model: a model of the zoo, or a bundle's folder (`./NAME` if the zoo has that name too).
        engine: the engine's name.
        precision: `fp32`, `tf32`, `fp16`, `bf16` or `int8`.
        batch: images per inference.
        threads: CPU threads of one inference; None for all that this process may use.
        device: `cpu` or `gpu:N`.
        scope: `engine` (infer() on a ready tensor) or `pipeline` (from a photograph's JPEG bytes
            to its best classes).
    """

    model: str
    engine: str = "paddle"
    precision: str = "fp32"
    batch: int = 1
    threads: int | None = None
    device: str = "cpu"
    scope: str = "engine"

    def __post_init__(self) -> None:
        check_fields(
            self,
            model=text,
            engine=one_of(ENGINES),
            precision=one_of(PRECISIONS),
            batch=BATCH_SIZE,
            threads=optional(THREADS),
            device=text,
            scope=one_of(SCOPES),
        )

    @property
    def run(self) -> Run:
        """The case's engine, precision and device."""
        return Run(self.engine, self.precision, self.device)

    def label(self) -> str:
        """Return a short name of the case, such as `PPHGNet_tiny paddle fp32 batch 1 threads 2`."""
        words = [self.model, self.engine, self.precision, f"batch {self.batch}"]
        words.append(f"threads {self.threads or 'all'}" if self.device == "cpu" else self.device)
        return " ".join([*words, *([self.scope] if self.scope != "engine" else [])])


@dataclass(frozen=True)
class Settings:
    """How a case is measured.

    The defaults are those of TensorRT's trtexec: 200 ms of warm-up, then at least 3 s and 10 runs.

    Attributes:
        warmup_seconds: how long to run, at least, before measuring.
        warmup_iterations: how many times to run, at least, before measuring.
        min_seconds: how long to measure, at least.
        min_iterations: how many samples to take, at least.
        time_limit_seconds: the longest a case may take, including loading; waiting for the other
            cases of an interleaved suite does not count.
        interleave: measure the cases in turns, round by round.
        rounds: the number of rounds of an interleaved measurement.
    """

    warmup_seconds: float = 0.2
    warmup_iterations: int = 3
    min_seconds: float = 3.0
    min_iterations: int = 10
    time_limit_seconds: float = 600.0
    interleave: bool = False
    rounds: int = 10

    def __post_init__(self) -> None:
        check_fields(
            self,
            warmup_seconds=number(0, WEEK_SECONDS),
            warmup_iterations=whole(0, MANY),
            min_seconds=number(0, WEEK_SECONDS),
            min_iterations=whole(1, MANY),
            time_limit_seconds=number(1, WEEK_SECONDS),
            interleave=flag,
            rounds=whole(1, MANY),
        )


@dataclass(frozen=True)
class Suite:
    """Lists whose product gives the cases, and how to measure them.

    Attributes:
        name: the name of the suite and its results.
        models: models; `Case` describes the values of all lists.
        engines: engines' names; none for what serves each model, see `worker.prepare.served`.
        precisions: precisions; none likewise.
        batches: batch sizes.
        threads: numbers of threads; None for all.
        scopes: scopes.
        device: the device of all cases.
        exclude: each entry maps fields of a case to values; a case that matches an entry in all
            of its fields is left out.
        image: the photograph for the scope `pipeline`; None for one that comes with HGDeploy.
        settings: how each case is measured.
    """

    name: str = "command line"
    models: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1,)
    threads: tuple[int | None, ...] = (None,)
    scopes: tuple[str, ...] = ("engine",)
    device: str = "cpu"
    exclude: tuple[Mapping[str, Any], ...] = ()
    image: Path | None = None
    settings: Settings = field(default_factory=Settings)

    def values(self, name: str) -> tuple[Any, ...]:
        """Return a list of the suite, by its name; of an empty one, what serves most models."""
        return getattr(self, name) or _USUAL.get(name, ())

    def cases(self) -> tuple[Case, ...]:
        """Return the cases in order: the models change slowest, the scopes fastest.

        Raises:
            ConfigError: a value is not allowed, a case occurs twice, no case is left, or there
                are more than could be measured in months.
        """
        lists = [self.values(name) for name in _LISTS]
        number = math.prod(map(len, lists))
        if number > _MOST_CASES:
            raise ConfigError(f"the suite {self.name} has {number} cases, more than {_MOST_CASES}")
        product = itertools.product(*lists)
        made = [
            Case(**dict(zip(_LISTS.values(), values, strict=True)), device=self.device)
            for values in product
        ]
        kept = tuple(case for case in made if not self._excluded(case))
        if len(set(kept)) < len(kept):
            twice = next(case for case in kept if kept.count(case) > 1)
            raise ConfigError(f"the suite {self.name} has the same case twice: {twice.label()}")
        if not kept:
            raise ConfigError(f"the suite {self.name} has no cases left; name at least one model")
        return kept

    def _excluded(self, case: Case) -> bool:
        return any(
            all(getattr(case, key) == value for key, value in entry.items())
            for entry in self.exclude
        )


def load_suite(path: Path) -> Suite:
    """Read a suite from a YAML file.

    Its `image` is relative to the file's folder; its models are relative to the current folder.

    Raises:
        ConfigError: the file, a key or a value is wrong.
    """
    raw = read_yaml(path, "suite")
    try:
        suite = parse_suite(raw, path.stem)
        suite.cases()
    except ConfigError as error:
        raise ConfigError(f"suite {path}: {error}") from None
    if suite.image is not None:
        suite = dataclasses.replace(suite, image=path.parent / suite.image)
    return suite


def parse_suite(raw: Mapping[str, Any], name: str) -> Suite:
    """Return the `Suite` for the keys and values of a YAML file.

    Args:
        raw: the content of the YAML file.
        name: the suite's name if the file gives none.

    Raises:
        ConfigError: a key is unknown or a value is wrong.
    """
    words = "a list with at least one value"
    lists = {key: list_of(_item(case_key), 1, words=words) for key, case_key in _LISTS.items()}
    measuring = dict.fromkeys((field.name for field in dataclasses.fields(Settings)), anything)
    plain = {"name": as_text, "device": as_text, "image": optional(path), "exclude": anything}
    values = keys({**lists, **plain, **measuring})(Given("", raw))
    settings = Settings(**{key: values.pop(key) for key in measuring if key in values})
    exclude = values.pop("exclude", ())
    suite = Suite(**{"name": name, **values}, settings=settings)
    entries = list_of(_exclusion(suite), words="a list of mappings such as {engine: paddle}")
    return dataclasses.replace(suite, exclude=check("exclude", exclude, entries))


def threads_of(value: object) -> Any:
    """Return None for `all` or null, the number for its digits, and anything else unchanged."""
    if value in (None, "all"):
        return None
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        return int(value)
    return value


def _item(key: str) -> Kind[Any]:
    """Return the kind of a list's values; `Case` itself checks them further."""
    return (lambda given: threads_of(given.value)) if key == "threads" else anything


def _exclusion(suite: Suite) -> Kind[dict[str, Any]]:
    """Return the kind of an entry of `exclude`: fields of cases, with values that the suite has."""
    kinds = {key: _listed(key, suite.values(name)) for name, key in _LISTS.items()}

    def read(given: Given) -> dict[str, Any]:
        entry = keys(kinds)(given)
        if not entry:
            raise given.refused("keys and values such as {engine: paddle, batch: 8}")
        return entry

    return read


def _listed(key: str, values: Sequence[Any]) -> Kind[Any]:
    """Return the kind of a value in `exclude`: one that is not in the suite's list is a typo."""

    def read(given: Given) -> Any:
        value = _item(key)(given)
        if value not in values:
            names = ", ".join("all" if one is None else str(one) for one in values)
            raise given.refused(f"one of the suite's own: {names}")
        return value

    return read
