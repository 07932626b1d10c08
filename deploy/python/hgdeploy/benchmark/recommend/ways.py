# SPDX-License-Identifier: Apache-2.0
"""What is wanted of a recommendation, and what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from hgdeploy.benchmark.case_result import CaseResult
from hgdeploy.engines.run import Run
from hgdeploy.images.find import ImageFile
from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import BATCH_SIZE, THREADS, WEEK_SECONDS, list_of, number, optional
from hgdeploy.system.machine import available_cpus
from hgdeploy.validation.accuracy import share_interval

NO_IMAGES = "no images to compare it with fp32"
UNMEASURED = "not measured: the time was used up"
# The threads of one inference, None for all, and how many inferences there are at once.
Way: TypeAlias = tuple[int | None, int]


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
        threads: CPU threads to try; None for all. As many inferences run at once as that leaves
            CPUs for.
        budget_seconds: about how long the measurements may take in all.
        strict: begin no measurement once the budget is used up.
    """

    latency_ms: float | None = None
    images: tuple[ImageFile, ...] = ()
    min_agreement: float = 0.99
    batches: tuple[int, ...] = (1, 8)
    threads: tuple[int | None, ...] = (1, None)
    budget_seconds: float = 60.0
    strict: bool = False

    def __post_init__(self) -> None:
        check_fields(
            self,
            latency_ms=optional(number(above=0)),
            min_agreement=number(0, 1),
            batches=list_of(BATCH_SIZE),
            threads=list_of(optional(THREADS)),
            budget_seconds=number(above=0, most=WEEK_SECONDS),
        )

    @property
    def ways(self) -> tuple[Way, ...]:
        """The threads of one inference with the inferences at once, on this machine's CPU."""
        cpus = available_cpus()
        found = ((t, 1 if t is None else max(1, cpus // t)) for t in self.threads)
        # Of a single CPU, one thread is all.
        return tuple(dict.fromkeys((1, 1) if cpus == 1 else way for way in found))


@dataclass(frozen=True)
class Evidence:
    """One way to run the bundle, and what is known about it.

    Attributes:
        run: engine, precision and device.
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
            return (self.run.name, "-", "-", "-", agreement, "-", "-", "-", self.reason)
        case, stats = self.result.case, self.result.stats
        threads = "all" if case.threads is None else str(case.threads)
        figures = ("-", "-", "-")
        if stats is not None:
            figures = (
                f"{stats.median:.3f}",
                f"{stats.p99:.3f}",
                f"{stats.throughput:.1f}",
            )
        how = (str(case.batch), threads, str(case.streams))
        return (self.run.name, *how, agreement, *figures, self.reason)


# The columns of `Evidence.cells`.
HEAD = ("run", "batch", "threads", "streams", "agreement", "median ms", "p99 ms", "images/s", "")


@dataclass(frozen=True)
class Recommendation:
    """The best way, and all the evidence, best first.

    Attributes:
        best: the best way that qualifies.
        evidence: all ways, those that were measured first.
        reference: what the others were compared with.
        images: how many images they were compared on.
    """

    best: Evidence
    evidence: tuple[Evidence, ...]
    reference: Run
    images: int

    @property
    def complete(self) -> bool:
        """Whether the time was enough for all that was to be measured."""
        return all(evidence.reason != UNMEASURED for evidence in self.evidence)

    def undecided(self, least: float) -> str | None:
        """Return what the images leave open about the best; None if nothing.

        Args:
            least: the agreement that was wanted.
        """
        share = self.best.agreement
        if share is None or self.best.run.precision == "fp32":
            return None
        low = share_interval(share, self.images)[0]
        if low >= least:
            return None
        return (
            f"{self.best.run.name} agrees with {self.reference.name} on {share:.1%} of "
            f"{self.images} images, which shows with 95 % confidence only that it does on "
            f"{low:.1%} of all; compare it on more with --images"
        )
