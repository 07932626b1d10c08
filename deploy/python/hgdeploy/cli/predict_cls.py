# SPDX-License-Identifier: Apache-2.0
"""`predict_cls.py`, with PaddleClas's arguments."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hgdeploy.cli.predict import run_job
from hgdeploy.cli.predict_job import PredictJob
from hgdeploy.cli.terminal import Command, Parser, say, warn
from hgdeploy.system.files import writing

if TYPE_CHECKING:
    from hgdeploy.classify.classifier import Classifier


def predict_cls_command(argv: Sequence[str] | None) -> Command:
    """Parse the command line of `predict_cls.py`, which is PaddleClas's own."""
    parser = Parser(
        prog="predict_cls.py", description="Classify images, with PaddleClas's arguments."
    )
    parser.add_argument("-c", "--config", type=Path, help="PaddleClas YAML; see deploy/configs/")
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="Section.key=value"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="print what will be done")
    return functools.partial(_predict_cls, parser.parse_args(argv))


def _predict_cls(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.classify.settings import ClassifierSettings
    from hgdeploy.paddleclas.config import load_config

    config = load_config(arguments.config, arguments.override)
    for warning in config.warnings:
        warn(warning)
    if arguments.verbose:
        say(str(config))
    settings = ClassifierSettings(
        config.engine, config.batch_size, config.options, config.preprocess, config.postprocess
    )

    def report_times(classifier: Classifier) -> None:
        if config.benchmark:
            _report_times(classifier, config.benchmark_log)

    log = config.benchmark_log if config.benchmark else None
    job = PredictJob(
        config.bundle,
        config.inputs,
        settings,
        copies=config.copies,
        config=arguments.config,
        log=log,
        finish=report_times,
    )
    return run_job(job, out)


def _report_times(classifier: Classifier, log: Path | None) -> None:
    """Report the mean time of each stage, and what really ran."""
    from hgdeploy.classify.settings import STAGES

    times, runtime = classifier.times, classifier.engine.runtime
    stages = {name: 1000 * getattr(times, name) / max(times.images, 1) for name in STAGES}
    means = ", ".join(f"{name} {value:.2f} ms" for name, value in stages.items())
    ran = f"{runtime.engine} {runtime.version} {runtime.precision} on {runtime.device}"
    line = (
        f"benchmark: {times.images} images, mean per image: {means}; "
        f"{ran} ({', '.join(runtime.providers)})"
    )
    say(line)
    if log is not None:
        with writing(log), log.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
