# SPDX-License-Identifier: Apache-2.0
"""Measure every way that gives the right answers, within a time budget, and name the best."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hgdeploy.benchmark.case import Settings, Suite
from hgdeploy.benchmark.case_result import CaseResult
from hgdeploy.benchmark.recommend.agreeing import agreeing_runs
from hgdeploy.benchmark.recommend.ways import (
    UNMEASURED,
    Evidence,
    Recommendation,
    RecommendOptions,
    Way,
)
from hgdeploy.benchmark.record import Record
from hgdeploy.benchmark.suite import Runner, Worker, run_suite
from hgdeploy.benchmark.worker.process import CaseProcess
from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.engines.run import Run
from hgdeploy.errors import ValidationError
from hgdeploy.system.progress import OnLine, nothing

_LEAST_SECONDS = 0.3
_WARMUP_SECONDS = 0.2
# What a case takes besides measuring: starting a process, loading library and model, a first run.
_OVERHEAD_SECONDS = 2.5


def recommend(
    bundle: ModelBundle,
    options: RecommendOptions,
    record: Record,
    on_progress: OnLine,
    clock: Callable[[], float] = time.monotonic,
    start: Callable[[float], Worker] = CaseProcess,
) -> Recommendation:
    """Measure what the bundle has and return the best way that keeps the wanted agreement.

    Args:
        bundle: the bundle.
        options: what is wanted.
        record: where the measurements are added; what it has already is not measured again.
        on_progress: called with one line at a time.
        clock: returns seconds, monotonic.
        start: starts what measures a case, see `Runner`.

    Raises:
        ConfigError: no engine can run the bundle in fp32 on this machine.
        ValidationError: nothing qualifies; the message gives the closest run.
    """
    end = clock() + options.budget_seconds
    kept, reference, images, left_out = agreeing_runs(bundle, options, on_progress)
    meter = _Meter(record, on_progress, clock, start, end)
    found = _measured(bundle, kept, options, meter)
    left_out += [one for one in found if one.result is None]
    measured = [one for one in found if one.result is not None]
    evidence = sorted(measured, key=_rank)
    if not evidence or evidence[0].reason:
        closest = f"; the closest was {' '.join(evidence[0].cells())}" if evidence else ""
        raise ValidationError(f"nothing qualifies on this machine{closest}")
    return Recommendation(evidence[0], (*evidence, *left_out), reference, images)


@dataclass(frozen=True)
class _Meter:
    """What measures, and until when."""

    record: Record
    on_progress: OnLine
    clock: Callable[[], float]
    start: Callable[[float], Worker]
    end: float


def _measured(
    bundle: ModelBundle,
    kept: Sequence[tuple[Run, float | None]],
    options: RecommendOptions,
    meter: _Meter,
) -> list[Evidence]:
    """Measure each run in each way, the most promising ways of all runs first.

    Each measurement has an equal share of the time that is left.
    """
    ways = list(itertools.product(options.batches, options.ways))
    plan = [
        (run, agreement, _suite(bundle, run, *way))
        for way in ways
        for run, agreement in kept
        if run.device == "cpu" or way[1] == ways[0][1]  # a GPU has no threads
    ]
    found: list[Evidence] = []
    for place, (run, agreement, suite) in enumerate(plan):
        (case,) = suite.cases()
        if not meter.record.done(case):
            left = meter.end - meter.clock()
            if options.strict and left <= 0 and found:
                found.append(Evidence(run, agreement, None, UNMEASURED))
                continue
            seconds = left / (len(plan) - place) - _OVERHEAD_SECONDS - _WARMUP_SECONDS
            settings = Settings(_WARMUP_SECONDS, 3, max(_LEAST_SECONDS, seconds), 10)
            runner = Runner(
                meter.record,
                bundle.root.parent,
                meter.on_progress,
                meter.start,
                part=(place, len(plan)),
                on_warning=nothing,  # of the best alone, in the end
            )
            run_suite(dataclasses.replace(suite, settings=settings), runner)
        result = next(result for result in meter.record.results if result.case == case)
        found.append(Evidence(run, agreement, result, _miss(result, options)))
    return found


def _suite(bundle: ModelBundle, run: Run, batch: int, way: Way) -> Suite:
    """Return what measures a run in one way."""
    threads, streams = way if run.device == "cpu" else (None, 1)
    return Suite(
        name="recommend",
        models=(str(Path(bundle.root).absolute()),),
        engines=(run.engine,),
        precisions=(run.precision,),
        batches=(batch,),
        threads=(threads,),
        streams=(streams,),
        device=run.device,
    )


def _miss(result: CaseResult, options: RecommendOptions) -> str:
    """Return why a result does not qualify; empty if it does."""
    if result.stats is None:
        return result.reason or result.status
    if options.latency_ms is not None and result.stats.p99 > options.latency_ms:
        return f"slower than {options.latency_ms:g} ms"
    return ""


def _rank(evidence: Evidence) -> tuple[bool, float]:
    """Return a key that sorts what qualifies first, then by images per second."""
    stats = evidence.result.stats if evidence.result is not None else None
    return bool(evidence.reason), -(stats.throughput if stats is not None else 0.0)
