# SPDX-License-Identifier: Apache-2.0
"""What is measured: cases, the settings of a measurement, and suites.

A suite is the product of its lists, without what is excluded; `suite_file` reads it from YAML.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgdeploy.engines import ENGINES
from hgdeploy.engines.options import PRECISIONS, EngineOptions
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.engines.run import Run
from hgdeploy.errors import ConfigError
from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import (
    BATCH_SIZE,
    MANY,
    THREADS,
    WEEK_SECONDS,
    flag,
    number,
    one_of,
    optional,
    text,
    whole,
)

SCOPES = ("engine", "pipeline", "gpu")
# They run nowhere else, so that is where they run unless another device is asked for.
_ON_A_GPU = ("tensorrt",)

# Each list of a suite, and the field of a case that takes its values. The first changes slowest.
_MOST_CASES = 10_000
LISTS = {
    "models": "model",
    "engines": "engine",
    "precisions": "precision",
    "batches": "batch",
    "threads": "threads",
    "streams": "streams",
    "scopes": "scope",
}
_USUAL: Mapping[str, tuple[str, ...]] = {"engines": ("paddle",), "precisions": ("fp32",)}


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        model: a model of the zoo, a bundle's folder (`./NAME` if the zoo has that name too), or a
            model file alone: `.onnx`, `.engine` or `.plan`.
        engine: the engine's name.
        precision: `fp32`, `tf32`, `fp16`, `bf16` or `int8`.
        batch: images per inference.
        threads: CPU threads of one inference; None for all that this process may use.
        device: `cpu` or `gpu:N`.
        scope: `engine` (infer() on a ready tensor), `pipeline` (from a photograph's JPEG bytes to
            its best classes) or `gpu` (the GPU's own time for the network, as trtexec gives it).
        streams: runs at once: in the scope `gpu` each with a context and a stream of its own, in
            the scope `engine` on a CPU each with `threads`; the others have one.
        tensorrt: the paddle engine hands parts of its program to TensorRT.
    """

    model: str
    engine: str = "paddle"
    precision: str = "fp32"
    batch: int = 1
    threads: int | None = None
    device: str = "cpu"
    scope: str = "engine"
    streams: int = 1
    tensorrt: bool = False

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
            streams=THREADS,
            tensorrt=flag,
        )
        on_cpu = self.scope == "engine" and self.device == "cpu"
        if self.streams > 1 and self.scope != "gpu" and not on_cpu:
            raise ConfigError(
                f"{self.streams} streams are measured in the scope gpu, or engine on the cpu, not "
                f"in {self.scope} on {self.device}; add --scope gpu, or leave them out"
            )
        if self.tensorrt and self.engine != "paddle":
            raise ConfigError(f"tensorrt: true is for the engine paddle, and not for {self.engine}")

    @property
    def options(self) -> EngineOptions:
        """What the engine is loaded with."""
        return EngineOptions(
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            streams=self.streams,
            max_batch=self.batch,
            own=(PaddleOptions(tensorrt=True),) if self.tensorrt else (),
        )

    @property
    def engine_name(self) -> str:
        """The engine, with what it hands parts to: `paddle+tensorrt`."""
        return engine_name(self.engine, self.tensorrt)

    @property
    def run(self) -> Run:
        """The case's engine, precision and device."""
        return Run(self.engine, self.precision, self.device)

    def label(self) -> str:
        """Return a short name of the case, such as `PPHGNet_tiny paddle fp32 batch 1 threads 2`."""
        words = [self.model, self.engine_name, self.precision, f"batch {self.batch}"]
        words.append(f"threads {self.threads or 'all'}" if self.device == "cpu" else self.device)
        words += [f"{self.streams} streams"] if self.streams > 1 else []
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
        streams: numbers of runs at once.
        scopes: scopes.
        device: the device of all cases; None for the CPU, and for gpu:0 where the engine runs
            nowhere else.
        tensorrt: the paddle engine hands parts of its program to TensorRT.
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
    streams: tuple[int, ...] = (1,)
    scopes: tuple[str, ...] = ("engine",)
    device: str | None = None
    tensorrt: bool = False
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
        lists = [self.values(name) for name in LISTS]
        number = math.prod(map(len, lists))
        if number > _MOST_CASES:
            raise ConfigError(f"the suite {self.name} has {number} cases, more than {_MOST_CASES}")
        product = itertools.product(*lists)
        wanted = [dict(zip(LISTS.values(), values, strict=True)) for values in product]
        kept = tuple(self._case(values) for values in wanted if not self._excluded(values))
        if self.tensorrt and kept and not any(case.tensorrt for case in kept):
            raise ConfigError(f"tensorrt: true in {self.name} is for the engine paddle alone")
        if len(set(kept)) < len(kept):
            twice = next(case for case in kept if kept.count(case) > 1)
            raise ConfigError(f"the suite {self.name} has the same case twice: {twice.label()}")
        if not kept:
            raise ConfigError(f"the suite {self.name} has no cases left; name at least one model")
        return kept

    def _case(self, values: Mapping[str, Any]) -> Case:
        tensorrt = self.tensorrt and values["engine"] == "paddle"
        usual = "gpu:0" if tensorrt else usual_device(values["engine"])
        device = usual if self.device is None else self.device
        return Case(**values, device=device, tensorrt=tensorrt)

    def _excluded(self, values: Mapping[str, Any]) -> bool:
        return any(
            all(values[key] == value for key, value in entry.items()) for entry in self.exclude
        )


def usual_device(engine: str) -> str:
    """Return where an engine is measured unless a device is asked for."""
    return "gpu:0" if engine in _ON_A_GPU else "cpu"


def engine_name(engine: str, tensorrt: bool) -> str:
    """Return an engine's name, with what it hands parts of its program to."""
    return f"{engine}+tensorrt" if tensorrt else engine
