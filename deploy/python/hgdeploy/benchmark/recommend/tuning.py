# SPDX-License-Identifier: Apache-2.0
"""Make what a bundle lacks, measure all of it, and save what is fastest, for the engine `auto`."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgdeploy.benchmark.case_result import OK, CaseResult
from hgdeploy.benchmark.machine import describe_environment
from hgdeploy.benchmark.recommend.agreeing import check_has_model
from hgdeploy.benchmark.recommend.measuring import recommend
from hgdeploy.benchmark.recommend.ways import Evidence, Recommendation, RecommendOptions
from hgdeploy.benchmark.record import Record, claiming_record
from hgdeploy.benchmark.result_file import Head
from hgdeploy.benchmark.suite import Worker
from hgdeploy.benchmark.worker.process import CaseProcess
from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.model_files import model_digest
from hgdeploy.bundle.names import RECOMMENDED, onnx_name, runtime_of
from hgdeploy.convert.engine_files import CACHE
from hgdeploy.convert.missing import MissingOptions, Variant, make_missing
from hgdeploy.engines.auto.machine import library_version, machine_here
from hgdeploy.engines.auto.saved import Saved, save_choice
from hgdeploy.engines.run import Run, artifact_of
from hgdeploy.errors import ConfigError, HGDeployError, ValidationError
from hgdeploy.images.find import ImageFile
from hgdeploy.system.files import check_replaceable, writing
from hgdeploy.system.progress import OnLine

# What was measured so far, in the bundle's cache: an interrupted run goes on from there.
_SO_FAR = "tune.json"
# The images on which precisions are compared; as many as quantize takes.
_MOST_IMAGES = 256


@dataclass(frozen=True)
class TuneOptions:
    """What is wanted, and what may be made.

    Attributes:
        wanted: what to choose by. Its budget is for all: conversions begin in its first half. Where
            it has no images, those of `calibration` are compared on.
        calibration: real images, from which int8 is made; none for no int8.
    """

    wanted: RecommendOptions
    calibration: tuple[ImageFile, ...] = ()


@dataclass(frozen=True)
class Tuned:
    """What was done.

    Attributes:
        variants: what became of each file that an engine could read.
        found: what was measured, and the best.
        path: the saved choice.
    """

    variants: tuple[Variant, ...]
    found: Recommendation
    path: Path


def tune(
    bundle: ModelBundle,
    options: TuneOptions,
    on_progress: OnLine,
    on_warning: OnLine,
    clock: Callable[[], float] = time.monotonic,
    start: Callable[[float], Worker] = CaseProcess,
) -> Tuned:
    """Make what is missing, measure within the budget, and save the best way into the bundle.

    What was made and measured stays when this is interrupted, and the next call goes on from it.

    Args:
        bundle: the bundle.
        options: what is wanted.
        on_progress: called with one line at a time.
        on_warning: called with each thing the user should know about a conversion.
        clock: returns seconds, monotonic.
        start: starts what measures a case, see `Runner`.

    Raises:
        BundleError: there is no model in the folder, which stays as it is.
        ConfigError: no engine can run the bundle in fp32 on this machine.
        ValidationError: nothing qualifies.
        OutputError: the bundle cannot be written, or another process tunes it.
    """
    began, budget = clock(), options.wanted.budget_seconds
    check_has_model(bundle)
    check_replaceable(bundle.root / RECOMMENDED)
    step = max(1, -(-len(options.calibration) // _MOST_IMAGES))
    images = options.wanted.images or options.calibration[::step]
    so_far = bundle.root / CACHE / _SO_FAR
    with writing(so_far):
        so_far.parent.mkdir(exist_ok=True)
    with claiming_record(so_far):
        missing = MissingOptions(
            options.calibration,
            reduced=bool(images),
            max_batch=max(options.wanted.batches),
            may_begin=lambda: clock() - began < budget / 2,
        )
        variants = make_missing(bundle, missing, on_progress, on_warning)
        wanted = dataclasses.replace(
            options.wanted,
            images=images,
            budget_seconds=max(1.0, began + budget - clock()),
            strict=True,
        )
        record = _record(bundle, so_far, on_progress)
        done = False
        try:
            found = recommend(bundle, wanted, record, on_progress, clock, start)
            path = save_choice(bundle, choice_of(bundle, found))
            done = found.complete
        finally:
            if done or not record.results:
                with writing(so_far):
                    so_far.unlink()
    return Tuned(tuple(variants), found, path)


def choice_of(bundle: ModelBundle, found: Recommendation) -> Saved:
    """Return the best of what was found, as it is saved in its bundle.

    Raises:
        ValidationError: it was not measured.
    """
    best = found.best
    if best.result is None or best.result.stats is None:
        raise ValidationError(f"{best.run.name} was not measured: {best.reason}")
    case, stats = best.result.case, best.result.stats
    return Saved(
        run=best.run,
        threads=case.threads,
        streams=case.streams,
        batch=case.batch,
        images_per_second=stats.throughput,
        latency_ms=stats.p99,
        models=_digests(bundle, best.run) | _digests(bundle, found.reference),
        machine=machine_here(best.run.device),
        library=library_version(best.run.engine) or "unknown",
        measured=datetime.date.today().isoformat(),
        evidence=[_row(evidence) for evidence in found.evidence],
    )


def _digests(bundle: ModelBundle, run: Run) -> dict[str, str]:
    """Return the digest of the model that a run loads; of an engine file, of what it is made from.

    Engine files are built again where another is needed.
    """
    model = artifact_of(bundle, run)
    if runtime_of(model.name) is not None:
        model = bundle.path(onnx_name(run.precision))
    return {model.name: model_digest(model)} if model.is_file() else {}


def _row(evidence: Evidence) -> Mapping[str, Any]:
    row: dict[str, Any] = {"run": evidence.run.name, "agreement": evidence.agreement}
    if evidence.result is not None:
        case, stats = evidence.result.case, evidence.result.stats
        row |= {"batch": case.batch, "threads": case.threads, "streams": case.streams}
        if stats is not None:
            row |= {"median_ms": stats.median, "p99_ms": stats.p99, "n": stats.n}
            row |= {"images_per_second": stats.throughput}
    return {**row, "left_out": evidence.reason} if evidence.reason else row


def _record(bundle: ModelBundle, path: Path, on_progress: OnLine) -> Record:
    """Return the record to go on with: what holds of an interrupted run's, or an empty one."""
    command = ("hgdeploy", "tune", str(bundle.root))
    head = Head("tune", command, {}, describe_environment())

    def holds(result: CaseResult) -> bool:
        try:
            model = artifact_of(bundle, result.case.run)
            return result.status == OK and model_digest(model) == result.model_sha256
        except HGDeployError:
            return False

    try:
        record = Record(path, head, resume=True, keep=holds)
    except ConfigError as error:
        on_progress(f"what an interrupted run has measured is not used: {error}")
        with writing(path):
            path.unlink()
        record = Record(path, head)
    if record.results:
        on_progress(f"{len(record.results)} measurements of an interrupted run are taken over")
    return record
