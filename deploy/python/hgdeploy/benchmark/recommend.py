# SPDX-License-Identifier: Apache-2.0
"""Find the fastest way to run a bundle on this machine that still gives the right answers.

Every engine and precision for which the bundle has an artifact is compared with fp32 on the user's
images and then measured, with different threads and batches, within a time budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hgdeploy.benchmark.case import Settings, Suite
from hgdeploy.benchmark.case_result import CaseResult
from hgdeploy.benchmark.record import Record
from hgdeploy.benchmark.suite import Runner, run_suite
from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.engines import ENGINES
from hgdeploy.engines.options import CPU_PRECISIONS
from hgdeploy.engines.run import Run, open_run
from hgdeploy.errors import ConfigError, HGDeployError, ValidationError
from hgdeploy.images.find import ImageFile
from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import BATCH_SIZE, THREADS, WEEK_SECONDS, list_of, number, optional
from hgdeploy.system.progress import OnLine
from hgdeploy.validation.accuracy import share_interval
from hgdeploy.validation.validate import ValidateOptions, validate

_LEAST_SECONDS = 0.3
_WARMUP_SECONDS = 0.2
# What a case takes besides measuring: starting a process, loading library and model, a first run.
_OVERHEAD_SECONDS = 2.5


@dataclass(frozen=True)
class RecommendOptions:
    """What is wanted, and what to try.

    Attributes:
        latency_ms: the longest that 99 of 100 inferences may take; None if only images per second
            count.
        images: real images to compare precisions on; without any, only fp32 is considered.
        min_agreement: share of the images that must agree with fp32; what they show to be less,
            with 95 % confidence, is left out.
        batches: batch sizes to try.
        threads: CPU threads to try; None for all.
        budget_seconds: about how long the measurements may take in all.
    """

    latency_ms: float | None = None
    images: tuple[ImageFile, ...] = ()
    min_agreement: float = 0.99
    batches: tuple[int, ...] = (1, 8)
    threads: tuple[int | None, ...] = (1, None)
    budget_seconds: float = 60.0

    def __post_init__(self) -> None:
        check_fields(
            self,
            latency_ms=optional(number(above=0)),
            min_agreement=number(0, 1),
            batches=list_of(BATCH_SIZE),
            threads=list_of(optional(THREADS)),
            budget_seconds=number(above=0, most=WEEK_SECONDS),
        )


@dataclass(frozen=True)
class Evidence:
    """One way to run the bundle, and what is known about it.

    Attributes:
        run: engine and precision.
        agreement: share of images that agree with fp32, as `Comparison.top1_agreement`; None
            without images.
        result: the measurement; None if the run was left out before it was measured.
        reason: why it was left out or does not qualify; empty if it does.
    """

    run: Run
    agreement: float | None
    result: CaseResult | None
    reason: str

    def cells(self) -> tuple[str, ...]:
        """Return the evidence as cells of a table."""
        agreement = "-" if self.agreement is None else f"{self.agreement:.4f}"
        if self.result is None:
            return (self.run.name, "-", "-", agreement, "-", "-", "-", self.reason)
        case, stats = self.result.case, self.result.stats
        threads = "all" if case.threads is None else str(case.threads)
        figures = ("-", "-", "-")
        if stats is not None:
            figures = (
                f"{stats.median:.3f}",
                f"{stats.p99:.3f}",
                f"{stats.throughput:.1f}",
            )
        return (self.run.name, str(case.batch), threads, agreement, *figures, self.reason)


# The columns of `Evidence.cells`.
HEAD = ("run", "batch", "threads", "agreement", "median ms", "p99 ms", "images/s", "")


@dataclass(frozen=True)
class Recommendation:
    """The best way, and all the evidence, best first."""

    best: Evidence
    evidence: tuple[Evidence, ...]


def recommend(
    bundle: ModelBundle, options: RecommendOptions, record: Record, on_progress: OnLine
) -> Recommendation:
    """Measure what the bundle has and return the best way that keeps the wanted agreement.

    Args:
        bundle: the bundle.
        options: what is wanted.
        record: where the measurements are added.
        on_progress: called with one line at a time.

    Raises:
        ConfigError: no engine can run the bundle in fp32 on this machine.
        ValidationError: nothing qualifies; the message gives the closest run.
    """
    runs, left_out = _available(bundle, options)
    agreements, rows = _agreements(bundle, runs, options, on_progress)
    kept = []
    for run in runs:
        agreement = agreements.get(run.name)
        most = 1.0 if agreement is None else share_interval(agreement, rows)[1]
        if most < options.min_agreement:
            reason = f"agreement below {options.min_agreement:g}"
            left_out.append(Evidence(run, agreement, None, reason))
        else:
            kept.append(run)
    runner = Runner(record, bundle.root.parent, on_progress)
    measured = [
        Evidence(run, agreements.get(run.name), result, _miss(result, options))
        for run in kept
        for result in run_suite(_suite(bundle, run, options, len(kept)), runner)
    ]
    evidence = sorted(measured, key=_rank)
    if not evidence or evidence[0].reason:
        closest = f"; the closest was {' '.join(evidence[0].cells())}" if evidence else ""
        raise ValidationError(f"nothing qualifies on this machine{closest}")
    return Recommendation(evidence[0], (*evidence, *left_out))


def _available(bundle: ModelBundle, options: RecommendOptions) -> tuple[list[Run], list[Evidence]]:
    """Load every engine and precision; return those that load, and why the others do not."""
    runs, left_out = [], []
    for engine in ENGINES:
        for precision in CPU_PRECISIONS:
            run = Run(engine, precision)
            if precision != "fp32" and not options.images:
                left_out.append(Evidence(run, None, None, "no images to compare it with fp32"))
                continue
            try:
                open_run(bundle, run).engine.close()
                runs.append(run)
            except HGDeployError as error:
                left_out.append(Evidence(run, None, None, str(error)))
    if not any(run.precision == "fp32" for run in runs):
        first = next(one for one in left_out if one.run.precision == "fp32")
        raise ConfigError(f"{bundle.root} does not run in fp32 on this machine: {first.reason}")
    return runs, left_out


def _agreements(
    bundle: ModelBundle, runs: Sequence[Run], options: RecommendOptions, on_progress: OnLine
) -> tuple[dict[str, float], int]:
    """Return each run's agreement with the first fp32 run, and on how many images it was found."""
    if not options.images:
        return {}, 0
    on_progress(f"comparing {len(runs)} runs on {len(options.images)} images")
    ordered = tuple(sorted(runs, key=lambda run: run.precision != "fp32"))
    report = validate(bundle, ValidateOptions(ordered, options.images, random_rows=0))
    found = {
        pair.candidate: pair.comparison.top1_agreement
        for pair in report.pairs
        if pair.reference == ordered[0].name
    }
    return {ordered[0].name: 1.0, **found}, report.images


def _suite(bundle: ModelBundle, run: Run, options: RecommendOptions, runs: int) -> Suite:
    """Return the suite of one run; all cases get an equal share of the budget."""
    cases = runs * len(options.batches) * len(options.threads)
    each = options.budget_seconds / cases - _OVERHEAD_SECONDS - _WARMUP_SECONDS
    return Suite(
        name="recommend",
        models=(str(Path(bundle.root).absolute()),),
        engines=(run.engine,),
        precisions=(run.precision,),
        batches=options.batches,
        threads=options.threads,
        settings=Settings(_WARMUP_SECONDS, 3, max(_LEAST_SECONDS, each), 10),
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
