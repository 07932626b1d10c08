# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy recommend`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TextIO

from hgdeploy.cli.measure.tune import write_evidence, write_saved
from hgdeploy.cli.terminal import Verbs, opened_bundle, refuse_without_effect, say, warn
from hgdeploy.errors import EXIT_OK

_MIN_AGREEMENT = 0.99


def add_recommend(verbs: Verbs) -> None:
    """Add `hgdeploy recommend`."""
    parser = verbs.add_parser("recommend", help="find the fastest way to run a bundle here")
    parser.add_argument("bundle", type=Path, help="the model's folder")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument(
        "--latency-ms", type=float, help="the time that 99 of 100 inferences must keep to"
    )
    wanted.add_argument(
        "--throughput", action="store_true", help="as many images per second as possible"
    )
    parser.add_argument("--images", help="real images; without them only fp32 is considered")
    parser.add_argument(
        "--min-agreement",
        type=float,
        help="share of images with fp32's best class (0.99)",
    )
    parser.add_argument("--budget-seconds", type=float, default=60.0, help="time to take (60)")
    parser.add_argument("--output", type=Path, help="save the measurements, as benchmark does")
    parser.add_argument(
        "--save", action="store_true", help="save the best into the bundle, for --engine auto"
    )
    parser.set_defaults(run=_recommend)


def _recommend(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.benchmark.machine import describe_environment
    from hgdeploy.benchmark.recommend import RecommendOptions, choice_of, recommend
    from hgdeploy.benchmark.record import Record, claiming_record
    from hgdeploy.benchmark.result_file import Head
    from hgdeploy.bundle.names import RECOMMENDED
    from hgdeploy.engines.auto.saved import save_choice
    from hgdeploy.images.find import find_images
    from hgdeploy.system.files import check_replaceable

    if arguments.images is None:
        refuse_without_effect(arguments, ["min_agreement"], "without --images")
    agreement = _MIN_AGREEMENT if arguments.min_agreement is None else arguments.min_agreement
    options = RecommendOptions(
        latency_ms=arguments.latency_ms,
        images=tuple(find_images(arguments.images, warn)) if arguments.images else (),
        min_agreement=agreement,
        batches=(1,) if arguments.latency_ms is not None else (1, 8),
        budget_seconds=arguments.budget_seconds,
    )
    head = Head(
        suite="recommend",
        command=("hgdeploy", "recommend", str(arguments.bundle)),
        settings={"budget_seconds": options.budget_seconds},
        environment=describe_environment(),
    )
    bundle = opened_bundle(arguments.bundle)
    if arguments.save:
        check_replaceable(bundle.root / RECOMMENDED)
    with claiming_record(arguments.output):
        found = recommend(bundle, options, Record(arguments.output, head), say)
    write_evidence(found, agreement, out)
    if arguments.save:
        write_saved(save_choice(bundle, choice_of(bundle, found)), out)
    return EXIT_OK
