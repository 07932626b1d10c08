# SPDX-License-Identifier: Apache-2.0
"""Classify images: `hgdeploy predict`, and PaddleClas's `predict_cls.py`."""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hgdeploy.commands.common import Command, Parser, Verbs, say, warn
from hgdeploy.errors import EXIT_INTERRUPTED, OutputError

if TYPE_CHECKING:
    from hgdeploy.classifier import Classifier
    from hgdeploy.folder import Summary
    from hgdeploy.results import Writer


def add_predict(verbs: Verbs) -> None:
    """Add `hgdeploy predict`."""
    parser = verbs.add_parser("predict", help="classify images with a bundle")
    parser.add_argument("bundle", type=Path, help="the model's folder")
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="file, folder, glob or text list"
    )
    parser.add_argument(
        "--engine", default="paddle", help="paddle (default), onnxruntime or openvino"
    )
    parser.add_argument("--precision", default="fp32", help="fp32 (default), fp16, bf16 or int8")
    parser.add_argument("--device", default="cpu", help="cpu (default) or gpu:N")
    parser.add_argument("--batch-size", type=int, default=1, help="images an inference takes (1)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all this process has)")
    parser.add_argument("--topk", type=int, help="classes to give (default: what the bundle says)")
    parser.add_argument(
        "--output", type=Path, help="write a .jsonl, .csv or .parquet file instead of lines"
    )
    parser.set_defaults(run=_predict)


def _predict(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.classifier import Classifier, ClassifierSettings
    from hgdeploy.config import EngineOptions
    from hgdeploy.results import LineWriter, open_writer

    settings = ClassifierSettings(
        engine=arguments.engine,
        batch_size=arguments.batch_size,
        options=EngineOptions(
            device=arguments.device,
            precision=arguments.precision,
            threads=arguments.threads,
            max_batch=arguments.batch_size,
        ),
        topk=arguments.topk,
    )

    def open_results() -> Writer:
        return LineWriter(out) if arguments.output is None else open_writer(arguments.output)

    def load() -> Classifier:
        return Classifier.from_settings(arguments.bundle, settings)

    return _classify(arguments.inputs, open_results, load, lambda _: None)


def predict_cls_command(argv: Sequence[str] | None) -> Command:
    """Parse the command line of `predict_cls.py`, which is PaddleClas's."""
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
    from hgdeploy.classifier import Classifier, ClassifierSettings
    from hgdeploy.config import load_config
    from hgdeploy.results import LineWriter

    config = load_config(arguments.config, arguments.override)
    for warning in config.warnings:
        warn(warning)
    if arguments.verbose:
        say(str(config))
    settings = ClassifierSettings(
        config.engine, config.batch_size, config.options, config.preprocess, config.postprocess
    )

    def timing(classifier: Classifier) -> None:
        if config.benchmark:
            _report_times(classifier, config.benchmark_log)

    return _classify(
        config.inputs,
        lambda: LineWriter(out),
        lambda: Classifier.from_settings(config.bundle, settings),
        timing,
    )


def _classify(
    inputs: Sequence[str],
    open_results: Callable[[], Writer],
    load: Callable[[], Classifier],
    finish: Callable[[Classifier], None],
) -> int:
    """Find, open the output, load, classify, account: in the order in which mistakes are cheap."""
    from hgdeploy.folder import Summary, classify_files
    from hgdeploy.images import find_images

    files = find_images(inputs)
    summary = Summary(found=len(files))
    with contextlib.closing(open_results()) as writer, load() as classifier:
        for warning in classifier.warnings:
            warn(warning)
        try:
            classify_files(classifier, files, [writer], warn, summary)
            finish(classifier)
        except KeyboardInterrupt:
            say(f"interrupted: {_so_far(summary)}")
            return EXIT_INTERRUPTED
    say(summary.text())
    return summary.exit_code


def _so_far(summary: Summary) -> str:
    done = summary.classified + summary.failed
    return f"{done} of {summary.found} images are done and their results are written"


def _report_times(classifier: Classifier, log: Path | None) -> None:
    """Tell the mean time of each stage, and what really ran."""
    times, runtime = classifier.times, classifier.engine.runtime
    stages = {
        name: 1000 * getattr(times, name) / max(times.images, 1)
        for name in ("decode", "preprocess", "infer", "postprocess")
    }
    told = ", ".join(f"{name} {value:.2f} ms" for name, value in stages.items())
    ran = f"{runtime.engine} {runtime.version} {runtime.precision} on {runtime.device}"
    line = (
        f"benchmark: {times.images} images, mean per image: {told}; "
        f"{ran} ({', '.join(runtime.providers)})"
    )
    say(line)
    if log is not None:
        try:
            with log.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError as error:
            raise OutputError(f"Global.save_log_path {log}: {error.strerror}") from None
