# SPDX-License-Identifier: Apache-2.0
"""Run a suite: one process a case, one after the other or in turns, a row for each."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hgdeploy.benchmark.case import Case, Settings, Suite
from hgdeploy.benchmark.record import Record
from hgdeploy.benchmark.row import FAILED, Row
from hgdeploy.benchmark.stats import Circumstances, advise, summarize
from hgdeploy.benchmark.worker.prepare import (
    ModelFacts,
    bundle_folder,
    is_missing,
    model_facts,
    photograph,
)
from hgdeploy.benchmark.worker.process import CaseError, CaseProcess
from hgdeploy.engines import RuntimeInfo
from hgdeploy.errors import HGDeployError
from hgdeploy.system.progress import OnLine

# An export and a conversion with their checks; the largest model takes minutes.
_MAKE_LIMIT_S = 1800.0


class Worker(Protocol):
    """Answers requests about one case; `CaseProcess` is the real one."""

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer, or raise CaseError."""

    def close(self) -> None:
        """End it."""


@dataclass(frozen=True)
class Runner:
    """Where a suite's parts are, and who does the work.

    Attributes:
        record: takes the rows.
        bundles: the folder of the zoo's bundles; missing ones are made there.
        on_progress: takes a line about what is going on.
        start: starts a worker that may take so many seconds.
    """

    record: Record
    bundles: Path
    on_progress: OnLine
    start: Callable[[float], Worker] = CaseProcess


def run_suite(suite: Suite, runner: Runner) -> list[Row]:
    """Measure the cases of a suite that the record does not have yet.

    A case that cannot be prepared or measured is a row with its reason.

    Args:
        suite: what to measure.
        runner: see there.

    Returns:
        The rows of this run, which are in the record as well.

    Raises:
        ConfigError: the suite names a model, or needs a photograph, that is not there.
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
    run = _Run(suite.settings, runner, image, len(cases))
    ready = [run.prepared(case, folders[case]) for case in cases]
    with contextlib.ExitStack() as stack:
        run.measure([job for job in ready if job is not None], stack)
    return run.rows


@dataclass
class _Job:
    """A case on its way to a row."""

    case: Case
    folder: Path
    row: Row
    worker: Worker | None = None
    samples_ms: list[float] = field(default_factory=list)
    timings_ms: dict[str, list[float]] = field(default_factory=dict)
    rounds: list[int] = field(default_factory=list)
    peak_rss_mb: float | None = None
    mhz: list[float] = field(default_factory=list)
    settled: bool = True


class _Run:
    """One run of a suite."""

    def __init__(self, settings: Settings, runner: Runner, image: Path | None, count: int) -> None:
        self.rows: list[Row] = []
        self._settings = settings
        self._runner = runner
        self._image = image
        self._count = count
        self._facts: dict[tuple[Path, str, str], ModelFacts | str] = {}

    def prepared(self, case: Case, folder: Path) -> _Job | None:
        """Make what the case lacks; None where that fails, which is its row then.

        Cases that differ only in batch, threads or scope share what is found here: hashing a
        model of gigabytes takes seconds.
        """
        key = folder, case.engine, case.precision
        if key not in self._facts:
            try:
                self._make(case, folder)
                self._facts[key] = model_facts(case, folder)
            except (CaseError, HGDeployError) as error:
                self._facts[key] = str(error)
        facts = self._facts[key]
        if isinstance(facts, str):
            self._finish(Row(case, FAILED, facts))
            return None
        row = Row(case, weights=facts.weights, artifact=facts.artifact, model_sha256=facts.sha256)
        return _Job(case, folder, row)

    def measure(self, jobs: Sequence[_Job], stack: contextlib.ExitStack) -> None:
        """Measure each job by itself, or all in turns; `stack` ends the workers in any case."""
        settings = self._settings
        if not settings.interleave:
            for job in jobs:
                with contextlib.ExitStack() as own:
                    if self._load(job, own) and self._sample(job, None):
                        self._complete(job)
            return
        alive = [job for job in jobs if self._load(job, stack)]
        for number in range(settings.rounds):
            alive = [job for job in alive if self._sample(job, number)]
            self._runner.on_progress(f"round {number + 1} of {settings.rounds} is measured")
        for job in alive:
            self._complete(job)

    def _make(self, case: Case, folder: Path) -> None:
        if not is_missing(case, folder):
            return
        self._runner.on_progress(
            f"{folder} lacks what {case.engine} {case.precision} needs: making it"
        )
        worker = self._runner.start(_MAKE_LIMIT_S)
        try:
            request = {"do": "make", "case": dataclasses.asdict(case), "bundle": str(folder)}
            for line in worker.ask(request)["made"]:
                self._runner.on_progress(line)
        finally:
            worker.close()

    def _load(self, job: _Job, stack: contextlib.ExitStack) -> bool:
        """Start the job's worker and load the case; tell whether that went well."""
        job.worker = self._runner.start(self._settings.time_limit_seconds)
        stack.callback(job.worker.close)
        answer = self._ask(
            job,
            {
                "do": "load",
                "case": dataclasses.asdict(job.case),
                "bundle": str(job.folder),
                "image": None if self._image is None else str(self._image),
            },
        )
        if answer is None:
            return False
        runtime = answer["runtime"]
        job.row = dataclasses.replace(
            job.row,
            runtime=RuntimeInfo(**{**runtime, "providers": tuple(runtime["providers"])}),
            load_ms=answer["load_ms"],
            first_ms=answer["first_ms"],
            overhead_us=answer["overhead_us"],
        )
        return True

    def _sample(self, job: _Job, number: int | None) -> bool:
        """Take the samples of round `number`, or all of them; tell whether that went well."""
        settings = self._settings
        parts = 1 if number is None else settings.rounds
        answer = self._ask(
            job,
            {
                "do": "measure",
                # Each round warms up: what ran before it has emptied the caches.
                "warmup": (settings.warmup_seconds / parts, settings.warmup_iterations),
                "measure": (settings.min_seconds / parts, -(-settings.min_iterations // parts)),
                "settle": number is not None,
            },
        )
        if answer is None:
            return False
        samples = answer["samples_ms"]
        job.samples_ms += samples
        job.peak_rss_mb = answer["peak_rss_mb"]
        for name, values in (answer["timings_ms"] or {}).items():
            job.timings_ms.setdefault(name, []).extend(values)
        if number is not None:
            job.rounds += [number] * len(samples)
        job.mhz += answer["mhz"] or []
        job.settled = job.settled and answer["settled"]
        return True

    def _ask(self, job: _Job, request: dict[str, Any]) -> dict[str, Any] | None:
        """Return the worker's answer; None where it has none, and the job is over."""
        if job.worker is None:
            return None
        try:
            return job.worker.ask(request)
        except CaseError as error:
            job.worker.close()
            self._finish(dataclasses.replace(job.row, status=error.status, reason=error.reason))
            return None

    def _complete(self, job: _Job) -> None:
        """Turn the job's samples into its row."""
        known = Circumstances(
            first_ms=job.row.first_ms or 0.0,
            overhead_us=job.row.overhead_us or 0.0,
            mhz=(job.mhz[0], job.mhz[-1]) if job.mhz else None,
            settled=job.settled,
        )
        row = dataclasses.replace(
            job.row,
            peak_rss_mb=job.peak_rss_mb,
            samples_ms=tuple(job.samples_ms),
            rounds=tuple(job.rounds) or None,
            timings_ms={name: tuple(values) for name, values in job.timings_ms.items()},
            stats=summarize(job.samples_ms, job.case.batch),
            warnings=tuple(advise(job.samples_ms, known)),
        )
        self._finish(row)

    def _finish(self, row: Row) -> None:
        self._runner.record.add(row)
        self.rows.append(row)
        self._runner.on_progress(
            f"[{len(self.rows)}/{self._count}] {row.case.label()}: {outcome(row)}"
        )
        for warning in row.warnings:
            self._runner.on_progress(f"  warning: {warning}")


def outcome(row: Row) -> str:
    """Return what came of a case in a few words."""
    stats = row.stats
    if stats is None:
        return row.failure()
    low, high = stats.median_ci
    return (
        f"median {stats.median:.3f} ms ({low:.3f} to {high:.3f}), "
        f"p99 {stats.p99:.3f} ms, {stats.throughput:.1f} images/s"
    )
