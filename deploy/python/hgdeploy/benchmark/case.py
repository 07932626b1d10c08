# SPDX-License-Identifier: Apache-2.0
"""What is measured: cases, the settings of a measurement, and suites of both in YAML.

A suite is a product of lists, less what is excluded:

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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hgdeploy.engines import ENGINES
from hgdeploy.engines.options import PRECISIONS
from hgdeploy.engines.run import Run
from hgdeploy.errors import ConfigError, nearest

SCOPES = ("engine", "pipeline")

# The list in a suite, and the field of a case that its values go to. The first changes slowest.
_LISTS = {
    "models": "model",
    "engines": "engine",
    "precisions": "precision",
    "batches": "batch",
    "threads": "threads",
    "scopes": "scope",
}
_PLAIN = ("name", "device", "image", "exclude")


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        model: a model of the zoo, or a bundle's folder (`./NAME` where the zoo has that name too).
        engine: the engine's name.
        precision: `fp32`, `fp16`, `bf16` or `int8`.
        batch: images an inference takes.
        threads: CPU threads of one inference; None for all this process may use.
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
        for name, allowed in (("engine", ENGINES), ("precision", PRECISIONS), ("scope", SCOPES)):
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"unknown {name} {value!r}, {nearest(str(value), allowed)}")
        for name in ("model", "device"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ConfigError(f"{name} is {value!r}, expected a name")
        for name, value in (("batch", self.batch), ("threads", self.threads)):
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{name} is {value!r}, expected a whole number from 1")

    @property
    def run(self) -> Run:
        """Engine, precision and device."""
        return Run(self.engine, self.precision, self.device)

    def label(self) -> str:
        """Return the case in a few words, such as `PPHGNet_tiny paddle fp32 batch 1 threads 2`."""
        words = [self.model, self.engine, self.precision, f"batch {self.batch}"]
        words.append(f"threads {self.threads or 'all'}" if self.device == "cpu" else self.device)
        return " ".join([*words, *([self.scope] if self.scope != "engine" else [])])


@dataclass(frozen=True)
class Settings:
    """How a case is measured.

    The defaults are those of TensorRT's trtexec: 200 ms of warm-up, then at least 3 s and 10 runs.

    Attributes:
        warmup_seconds: run at least so long before measuring.
        warmup_iterations: and at least so often.
        min_seconds: measure at least so long.
        min_iterations: and at least so often.
        time_limit_seconds: the most a case may take, loading included; waiting for the other
            cases of an interleaved suite does not count.
        interleave: measure the cases in turns, round by round.
        rounds: into how many rounds an interleaved measurement is split.
    """

    warmup_seconds: float = 0.2
    warmup_iterations: int = 3
    min_seconds: float = 3.0
    min_iterations: int = 10
    time_limit_seconds: float = 600.0
    interleave: bool = False
    rounds: int = 10

    def __post_init__(self) -> None:
        for name, least in (("warmup_seconds", 0), ("min_seconds", 0), ("time_limit_seconds", 1)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < least:
                raise ConfigError(f"{name} is {value!r}, expected a number from {least}")
            object.__setattr__(self, name, float(value))
        for name, least in (("warmup_iterations", 0), ("min_iterations", 1), ("rounds", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigError(f"{name} is {value!r}, expected a whole number from {least}")
        if type(self.interleave) is not bool:
            raise ConfigError(f"interleave is {self.interleave!r}, expected true or false")


@dataclass(frozen=True)
class Suite:
    """Lists whose product are the cases, and how to measure them.

    Attributes:
        name: what the results are called.
        models: see `Case`, as all lists.
        engines: one engine's name each.
        precisions: one precision each.
        batches: one batch size each.
        threads: one number of threads each; None for all.
        scopes: one scope each.
        device: the device of all cases.
        exclude: fields of cases and their values; a case that has all of one entry's is left out.
        image: the photograph of the scope `pipeline`; None for one that HGDeploy has with it.
        settings: how each case is measured.
    """

    name: str = "command line"
    models: tuple[str, ...] = ()
    engines: tuple[str, ...] = ("paddle",)
    precisions: tuple[str, ...] = ("fp32",)
    batches: tuple[int, ...] = (1,)
    threads: tuple[int | None, ...] = (None,)
    scopes: tuple[str, ...] = ("engine",)
    device: str = "cpu"
    exclude: tuple[Mapping[str, Any], ...] = ()
    image: Path | None = None
    settings: Settings = field(default_factory=Settings)

    def cases(self) -> tuple[Case, ...]:
        """Return the cases in order: the models change slowest, the scopes fastest.

        Raises:
            ConfigError: a value is not possible, a case comes twice, or none is left.
        """
        product = itertools.product(*(getattr(self, name) for name in _LISTS))
        made = [
            Case(**dict(zip(_LISTS.values(), values, strict=True)), device=self.device)
            for values in product
        ]
        kept = tuple(case for case in made if not self._excluded(case))
        if len(set(kept)) < len(kept):
            twice = next(case for case in kept if kept.count(case) > 1)
            raise ConfigError(f"the suite {self.name} has a case twice: {twice.label()}")
        if not kept:
            raise ConfigError(f"the suite {self.name} has no cases left; name at least one model")
        return kept

    def _excluded(self, case: Case) -> bool:
        return any(
            all(getattr(case, key) == value for key, value in entry.items())
            for entry in self.exclude
        )


def load_suite(path: Path) -> Suite:
    """Read a suite from YAML. Its `image` counts from its folder, models from the current one.

    Raises:
        ConfigError: the file, a key or a value is wrong.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"suite {path} does not exist") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"suite {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"suite {path} has no keys, expected models, engines and others")
    try:
        suite = parse_suite(raw, path.stem)
        suite.cases()
    except ConfigError as error:
        raise ConfigError(f"suite {path}: {error}") from None
    if suite.image is not None:
        suite = dataclasses.replace(suite, image=path.parent / suite.image)
    return suite


def parse_suite(raw: Mapping[str, Any], name: str) -> Suite:
    """Turn a suite's keys into a `Suite`.

    Args:
        raw: the keys of the YAML file.
        name: what the suite is called where it has no `name` of its own.

    Raises:
        ConfigError: a key is unknown or a value is wrong.
    """
    measuring = [f.name for f in dataclasses.fields(Settings)]
    known = (*_LISTS, *_PLAIN, *measuring)
    for key in raw:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}, {nearest(str(key), known)}")
    values: dict[str, Any] = {"name": name}
    values |= {key: str(raw[key]) for key in ("name", "device") if key in raw}
    values |= {key: _list(key, raw[key]) for key in _LISTS if key in raw}
    if "image" in raw:
        values["image"] = Path(str(raw["image"]))
    settings = Settings(**{key: raw[key] for key in measuring if key in raw})
    suite = Suite(**values, settings=settings)
    return dataclasses.replace(suite, exclude=_exclusions(raw.get("exclude", []), suite))


def _list(key: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{key} is {value!r}, expected a list with at least one value")
    return tuple(threads_of(item) if key == "threads" else item for item in value)


def threads_of(value: object) -> Any:
    """Return None for `all` (or null), a number for its text, and anything else unchanged."""
    if value in (None, "all"):
        return None
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _exclusions(raw: object, suite: Suite) -> tuple[dict[str, Any], ...]:
    """Check `exclude`; a value that is in none of the suite's lists is a slip of the pen."""
    if not isinstance(raw, list) or not all(isinstance(entry, dict) and entry for entry in raw):
        raise ConfigError("exclude is no list of mappings such as {engine: paddle, batch: 8}")
    lists = {case_key: getattr(suite, name) for name, case_key in _LISTS.items()}
    entries = []
    for entry in raw:
        for key, value in entry.items():
            if key not in lists:
                raise ConfigError(f"unknown key {key!r} in exclude, {nearest(str(key), lists)}")
            if (threads_of(value) if key == "threads" else value) not in lists[key]:
                raise ConfigError(f"exclude has {key} {value!r}, which the suite does not have")
        entries.append({k: threads_of(v) if k == "threads" else v for k, v in entry.items()})
    return tuple(entries)
