# SPDX-License-Identifier: Apache-2.0
"""The result of one case of a benchmark."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hgdeploy.benchmark.case import Case, engine_name
from hgdeploy.benchmark.stats import Stats
from hgdeploy.engines import RuntimeInfo

OK, FAILED, TIMEOUT = "ok", "failed", "timeout"
STATUSES = (OK, FAILED, TIMEOUT)


def now() -> str:
    """Return the current time in ISO 8601, to the second, with its time zone."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Configuration:
    """Everything that describes a case except its model; `Case` explains the fields."""

    engine: str
    precision: str
    batch: int
    threads: int | None
    device: str
    scope: str
    streams: int = 1
    tensorrt: bool = False

    def text(self) -> str:
        """Return it in words, such as `onnxruntime fp32, 2 threads, batch 1, cpu`."""
        words = [f"{engine_name(self.engine, self.tensorrt)} {self.precision}"]
        if self.threads is not None:
            words.append("1 thread" if self.threads == 1 else f"{self.threads} threads")
        elif self.device == "cpu":
            words.append("all threads")
        words += [f"batch {self.batch}", self.device]
        words += [f"{self.streams} streams"] if self.streams > 1 else []
        return ", ".join(words if self.scope == "engine" else [*words, f"{self.scope} scope"])


@dataclass(frozen=True)
class CaseResult:
    """The result of one case. The results file has these names as keys, in this order.

    Attributes:
        case: the case.
        status: `ok`, `failed` or `timeout`.
        reason: why it is not ok, in one line.
        weights: where the model's weights come from (`random`, `file`); None if unknown.
        artifact: the file that the engine loaded.
        model_sha256: hash of the artifact and of the weights beside it.
        runtime: what actually ran.
        gpu: the GPU with its driver, and its clocks, power, temperature and what held it back,
            before and after; None where none ran. See `gpu.nvml`.
        load_ms: how long loading the model took, including the import of the library.
        first_ms: how long the first inference took.
        peak_rss_mb: the largest amount of memory that the case's process used.
        overhead_us: what the harness itself adds to each sample.
        samples_ms: every sample after the warm-up.
        rounds: the round of each sample, from 0; None if the suite was not interleaved.
        timings_ms: the stages of runs by name, if the engine measures them on its device.
        stats: a summary of the samples; None if the case is not ok.
        warnings: how the model runs where that is not as usual; what looks wrong with the samples,
            and what to do about it.
        started: when the case was started, in ISO 8601.
    """

    case: Case
    status: str = OK
    reason: str | None = None
    weights: str | None = None
    artifact: str | None = None
    model_sha256: str | None = None
    runtime: RuntimeInfo | None = None
    gpu: Mapping[str, Any] | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    peak_rss_mb: float | None = None
    overhead_us: float | None = None
    samples_ms: tuple[float, ...] = ()
    rounds: tuple[int, ...] | None = None
    timings_ms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    stats: Stats | None = None
    warnings: tuple[str, ...] = ()
    started: str = field(default_factory=now)

    @property
    def model(self) -> str:
        """The model that was measured."""
        return self.case.model

    @property
    def configuration(self) -> Configuration:
        """What was measured, except for the model."""
        case = self.case
        facts = dataclasses.asdict(case)
        del facts["model"]
        return Configuration(**facts)

    def name(self) -> str:
        """Return the model and the configuration in words."""
        return f"{self.model}, {self.configuration.text()}"

    def failure(self) -> str:
        """Return why the case has no figures, such as `failed: REASON`."""
        return f"{self.status}: {self.reason}"
