# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy tune`: what a bundle lacks, what is fastest here, and where that is saved."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hgdeploy.cli.terminal import (
    Verbs,
    aligned,
    interrupted_exit_code,
    opened_bundle,
    refuse_without_effect,
    say,
    warn,
)
from hgdeploy.errors import EXIT_OK

if TYPE_CHECKING:
    from hgdeploy.benchmark.recommend import Recommendation

_BUDGET_SECONDS = 300.0
_MIN_AGREEMENT = 0.99


def add_tune(verbs: Verbs) -> None:
    """Add `hgdeploy tune`."""
    parser = verbs.add_parser(
        "tune", help="convert what is missing, measure, and save the fastest way for --engine auto"
    )
    parser.add_argument("bundle", type=Path, help="the model's folder")
    parser.add_argument(
        "--latency-ms",
        type=float,
        help="the time that 99 of 100 inferences must keep to (default: any; images per second)",
    )
    parser.add_argument(
        "--calibration", help="real images, from which int8 is made: folder, glob or list"
    )
    parser.add_argument(
        "--images", help="real images to compare precisions on (default: those of --calibration)"
    )
    parser.add_argument(
        "--min-agreement", type=float, help="share of images with fp32's best class (0.99)"
    )
    parser.add_argument(
        "--budget-seconds",
        type=float,
        default=_BUDGET_SECONDS,
        help="about how long it may take; the same command goes on where it ended (300)",
    )
    parser.set_defaults(run=_tune)


def _tune(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.benchmark.recommend import RecommendOptions, TuneOptions, tune
    from hgdeploy.images.find import find_images

    if arguments.images is None and arguments.calibration is None:
        where = "without --images or --calibration"
        refuse_without_effect(arguments, ["min_agreement"], where)
    agreement = arguments.min_agreement
    wanted = RecommendOptions(
        latency_ms=arguments.latency_ms,
        images=tuple(find_images(arguments.images, warn)) if arguments.images else (),
        min_agreement=_MIN_AGREEMENT if agreement is None else agreement,
        batches=(1,) if arguments.latency_ms is not None else (1, 8),
        budget_seconds=arguments.budget_seconds,
    )
    calibration = find_images(arguments.calibration, warn) if arguments.calibration else ()
    bundle = opened_bundle(arguments.bundle)
    try:
        tuned = tune(bundle, TuneOptions(wanted, tuple(calibration)), say, warn)
    except KeyboardInterrupt as interruption:
        say("interrupted; what was made and measured is kept: the same command goes on from there")
        return interrupted_exit_code(interruption)
    for variant in tuned.variants:
        out.write(f"{variant}\n")
    write_evidence(tuned.found, wanted.min_agreement, out)
    if not tuned.found.complete:
        say("not all was measured in that time; the same command goes on with the rest")
    write_saved(tuned.path, out)
    return EXIT_OK


def write_evidence(found: Recommendation, min_agreement: float, out: TextIO) -> None:
    """Write a table of what was tried, and the best of it; warn of what makes that uncertain."""
    from hgdeploy.benchmark.recommend import HEAD, NO_IMAGES

    measured = [evidence for evidence in found.evidence if evidence.result is not None]
    out.write(aligned([HEAD, *(evidence.cells() for evidence in measured)]))
    left_out: dict[str, list[str]] = {}
    for evidence in found.evidence:
        if evidence.result is None:
            left_out.setdefault(evidence.reason, []).append(evidence.run.name)
    for reason, names in left_out.items():
        listed = ", ".join(dict.fromkeys(names))
        out.write(f"left out: {'all but fp32' if reason == NO_IMAGES else listed}: {reason}\n")
    run, batch, threads, streams, *_, rate, _ = found.best.cells()
    out.write(
        f"best: {run}, batch {batch}, threads {threads}, streams {streams}: {rate} images/s\n"
    )
    if (undecided := found.undecided(min_agreement)) is not None:
        warn(undecided)
    for warning in found.best.result.warnings if found.best.result is not None else ():
        warn(f"{run}: {warning}")


def write_saved(path: Path, out: TextIO) -> None:
    """Write where the best was saved, and the command that runs it."""
    out.write(f"saved: {path}\n")
    command = shlex.join(("hgdeploy", "predict", str(path.parent)))
    out.write(f"run it with: {command} IMAGES --engine auto\n")
