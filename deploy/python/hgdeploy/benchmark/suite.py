# SPDX-License-Identifier: Apache-2.0
"""Run a suite: one process per case, one after the other or in turns, and a result for each."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hgdeploy.benchmark.advice import Circumstances, advise
from hgdeploy.benchmark.case import Case, Settings, Suite
from hgdeploy.benchmark.case_result import FAILED, CaseResult
from hgdeploy.benchmark.record import Record
from hgdeploy.benchmark.stats import summarize
from hgdeploy.benchmark.worker.prepare import (
    ModelFacts,
    bundle_folder,
    is_missing,
    model_facts,
    photograph,
)
from hgdeploy.benchmark.worker.process import CaseError, CaseProcess
from hgdeploy.convert.engine_files import is_built
from hgdeploy.engines import RuntimeInfo
from hgdeploy.errors import HGDeployError
from hgdeploy.system.progress import OnLine, nothing

# Enough for an export and a conversion with their checks; the largest model takes minutes.
_MAKE_LIMIT_S = 1800.0


class Worker(Protocol):
    """Answers requests about one case. `CaseProcess` is the real one; tests have others."""

    def ask(self, request: dict[str, Any], on_line: OnLine = nothing) -> dict[str, Any]:
        """Return the answer, after lines on how far it is, or raise CaseError."""

    def close(self) -> None:
        """End the worker."""


@dataclass(frozen=True)
class Runner:
    """What `run_suite` works with.

    Attributes:
        record: where the results are added.
        bundles: the folder of the zoo's bundles; missing ones are made there.
        on_progress: called with one line about what is going on.
        start: starts a worker with a time limit in seconds.
        part: how many cases came before these, and of how many in all; None for the suite alone.
        on_warning: called with what looks wrong with samples; None for `on_progress`.
    """

    record: Record
    bundles: Path
    on_progress: OnLine
    start: Callable[[float], Worker] = CaseProcess
    part: tuple[int, int] | None = None
    on_warning: OnLine | None = None


def run_suite(suite: Suite, runner: Runner) -> list[CaseResult]:
    """Measure the cases of a suite that are not in the record yet.

    A case that cannot be prepared or measured becomes a result with its reason.

    Args:
        suite: what to measure.
        runner: the record, the bundles and the worker to use.

    Returns:
        The results of this run; they are also in the record.

    Raises:
        ConfigError: a model that the suite names, or the photograph that it needs, does not exist.
        OutputError: the results cannot be written.
    """
    wanted = suite.cases()
    folders = {case: bundle_folder(case, runner.bundles) for case in wanted}
    image = photograph(suite.image) if any(c.scope == "pipeline" for c in wanted) else None
    cases = [case for case in wanted if not runner.record.done(case)]
    if len(cases) < len(wanted):
        runner.on_progress(
            f"{len(wanted) - len(cases)} of {len(wanted)} cases are measured already"
        )
    run = _SuiteRun(suite.settings, runner, image, len(cases))
    ready = [run.prepare(case, folders[case]) for case in cases]
    with contextlib.ExitStack() as stack:
        run.measure([running for running in ready if running is not None], stack)
    return run.results


@dataclass
class _RunningCase:
    """A case that is being measured, and what is known of its result so far."""

    case: Case
    folder: Path
    file: Path | None
    result: CaseResult
    worker: Worker | None = None
    samples_ms: list[float] = field(default_factory=list)
    timings_ms: dict[str, list[float]] = field(default_factory=dict)
    rounds: list[int] = field(default_factory=list)
    peak_rss_mb: float | None = None
    mhz: list[float] = field(default_factory=list)
    seconds: float | None = None
    gpu: list[dict[str, Any] | None] = field(default_factory=list)
    settled: bool = True


class _SuiteRun:
    """One run of a suite."""

    def __init__(self, settings: Settings, runner: Runner, image: Path | None, count: int) -> None:
        self.results: list[CaseResult] = []
        self._settings = settings
        self._runner = runner
        self._image = image
        self._count = count
        self._facts: dict[tuple[Path, str, str, int], ModelFacts | str] = {}

    def prepare(self, case: Case, folder: Path) -> _RunningCase | None:
        """Make what is missing for the case; return None, and add a result, if that fails.

        Cases that differ only in batch, threads or scope share the facts found here: hashing a
        model of gigabytes takes seconds.
        """
        built_for = case.batch if is_built(case.engine, case.precision) else 0
        key = folder, case.engine, case.precision, built_for
        if key not in self._facts:
            try:
                self._facts[key] = model_facts(case, folder, self._make(case, folder))
            except (CaseError, HGDeployError) as error:
                self._facts[key] = str(error)
        facts = self._facts[key]
        if isinstance(facts, str):
            self._finish(CaseResult(case, FAILED, facts))
            return None
        result = CaseResult(
            case, weights=facts.weights, artifact=facts.artifact, model_sha256=facts.sha256
        )
        return _RunningCase(case, folder, facts.file, result)

    def measure(self, running_cases: Sequence[_RunningCase], stack: contextlib.ExitStack) -> None:
        """Measure the cases one by one or in turns; `stack` ends all workers, after errors too."""
        if not self._settings.interleave:
            for running in running_cases:
                with contextlib.ExitStack() as own:
                    if self._load(running, own) and self._sample(running, None):
                        self._complete(running)
            return
        alive = [running for running in running_cases if self._load(running, stack)]
        for number in range(self._settings.rounds):
            alive = [running for running in alive if self._sample(running, number)]
            self._runner.on_progress(f"round {number + 1} of {self._settings.rounds} is measured")
        for running in alive:
            self._complete(running)

    def _make(self, case: Case, folder: Path) -> Path | None:
        """Make what is missing; return the file to measure, where it is not the bundle's own."""
        if not is_missing(case, folder):
            return None
        if not is_built(case.engine, case.precision):
            self._runner.on_progress(
                f"{folder} lacks the model file for {case.engine} {case.precision}: making it"
            )
        worker = self._runner.start(_MAKE_LIMIT_S)
        try:
            request = {"do": "make", "case": dataclasses.asdict(case), "bundle": str(folder)}
            file = worker.ask(request, self._runner.on_progress)["file"]
            return None if file is None else Path(file)
        finally:
            worker.close()

    def _load(self, running: _RunningCase, stack: contextlib.ExitStack) -> bool:
        """Start a worker and load the case in it; return whether that succeeded."""
        running.worker = self._runner.start(self._settings.time_limit_seconds)
        stack.callback(running.worker.close)
        answer = self._ask(
            running,
            {
                "do": "load",
                "case": dataclasses.asdict(running.case),
                "bundle": str(running.folder),
                "file": None if running.file is None else str(running.file),
                "image": None if self._image is None else str(self._image),
            },
        )
        if answer is None:
            return False
        runtime = answer["runtime"]
        running.result = dataclasses.replace(
            running.result,
            runtime=RuntimeInfo(**{**runtime, "providers": tuple(runtime["providers"])}),
            warnings=tuple(answer["warnings"]),
            gpu=answer["gpu"],
            load_ms=answer["load_ms"],
            first_ms=answer["first_ms"],
            overhead_us=answer["overhead_us"],
        )
        return True

    def _sample(self, running: _RunningCase, number: int | None) -> bool:
        """Take the samples of round `number`, or all for None; return whether that succeeded."""
        settings = self._settings
        rounds = 1 if number is None else settings.rounds
        answer = self._ask(
            running,
            {
                "do": "measure",
                # Each round warms up: what ran before it has emptied the caches.
                "warmup": (settings.warmup_seconds / rounds, settings.warmup_iterations),
                "measure": (settings.min_seconds / rounds, -(-settings.min_iterations // rounds)),
                "settle": number is not None,
            },
        )
        if answer is None:
            return False
        samples = answer["samples_ms"]
        running.samples_ms += samples
        running.peak_rss_mb = answer["peak_rss_mb"]
        for name, values in (answer["timings_ms"] or {}).items():
            running.timings_ms.setdefault(name, []).extend(values)
        if number is not None:
            running.rounds += [number] * len(samples)
        running.mhz += answer["mhz"] or []
        running.gpu += answer["gpu"]
        if answer["seconds"] is not None:
            running.seconds = (running.seconds or 0.0) + answer["seconds"]
        running.settled = running.settled and answer["settled"]
        return True

    def _ask(self, running: _RunningCase, request: dict[str, Any]) -> dict[str, Any] | None:
        """Return the worker's answer; None, after adding the case's result, if it failed."""
        if running.worker is None:
            return None
        try:
            return running.worker.ask(request)
        except CaseError as error:
            running.worker.close()
            self._finish(
                dataclasses.replace(running.result, status=error.status, reason=error.reason)
            )
            return None

    def _complete(self, running: _RunningCase) -> None:
        """Add the result of a case that has all its samples."""
        known = Circumstances(
            first_ms=running.result.first_ms or 0.0,
            overhead_us=running.result.overhead_us or 0.0,
            mhz=(running.mhz[0], running.mhz[-1]) if running.mhz else None,
            settled=running.settled,
            gpu=tuple(state for state in running.gpu if state is not None),
            enqueue_ms=tuple(running.timings_ms.get("enqueue", ())),
            on_gpu=running.case.scope == "gpu",
        )
        result = dataclasses.replace(
            running.result,
            peak_rss_mb=running.peak_rss_mb,
            samples_ms=tuple(running.samples_ms),
            rounds=tuple(running.rounds) or None,
            timings_ms={name: tuple(values) for name, values in running.timings_ms.items()},
            stats=summarize(running.samples_ms, running.case.batch, running.seconds),
            gpu=_with_states(running.result.gpu, known.gpu),
            warnings=(*running.result.warnings, *advise(running.samples_ms, known)),
        )
        self._finish(result)

    def _finish(self, result: CaseResult) -> None:
        self._runner.record.add(result)
        self.results.append(result)
        runner = self._runner
        before, count = runner.part or (0, self._count)
        place = before + len(self.results)
        runner.on_progress(f"[{place}/{count}] {result.case.label()}: {_outcome(result)}")
        for warning in result.warnings:
            (runner.on_warning or runner.on_progress)(f"  warning: {warning}")


def _with_states(
    gpu: Mapping[str, Any] | None, states: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    return gpu if gpu is None or not states else {**gpu, "before": states[0], "after": states[-1]}


def _outcome(result: CaseResult) -> str:
    """Return the figures of a case, or why it has none, in a few words."""
    stats = result.stats
    if stats is None:
        return result.failure()
    low, high = stats.median_ci
    return (
        f"median {stats.median:.3f} ms ({low:.3f} to {high:.3f}), "
        f"p99 {stats.p99:.3f} ms, {stats.throughput:.1f} images/s"
    )
